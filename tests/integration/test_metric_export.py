"""Metrics over OTLP: what is pushed is what /metrics shows, whoever serves, and a dead collector costs nothing."""

from __future__ import annotations

import os
import signal
import socket
import time
from datetime import datetime

import httpx
import pytest
from conftest import ServerProcess, total, wait_for
from pushed import pushes, samples_of, series

from obsserve.testing_otlp import Answer, OTLPSink
from tests.anyvalues import attributes

EVERY = {"OTEL_METRIC_EXPORT_INTERVAL": "300"}
DURATION = "http_server_request_duration_seconds_count"
# What differs from one look to the next although nothing is served.
RESTLESS = (
    "process_",
    "python_gc_",
    "obsserve_gc_",
    "obsserve_event_loop_",
    "obsserve_worker_last_heartbeat_",
    "obsserve_metrics_scrape",
    "obsserve_metrics_snapshot_age_",
    "obsserve_metrics_series",
    "obsserve_telemetry_self_",
    "obsserve_log_write_",
    "otel_sdk_exporter_metric_data_point_",
    "otel_sdk_exporter_operation_duration_",
    "otel_sdk_metric_reader_",
)


@pytest.fixture(params=["grpc", "http/protobuf"])
def sink(request):
    with OTLPSink(request.param) as sink:
        yield sink


def newest(sink, back=0):
    """The samples of the newest push but so many."""
    found = pushes(sink)
    return samples_of(found[sorted(found)[-1 - back]]) if len(found) > back else {}


def resources(sink):
    return [
        attributes(part.resource) for request in sink.metric_requests for part in request.resource_metrics
    ]


def at_rest(samples):
    return {key: value for key, value in series(samples).items() if not key[0].startswith(RESTLESS)}


def agree(server, sink):
    """Whether a push says what the page says; the same series always, the same values where nothing moves."""
    scraped, pushed = server.metrics(), newest(sink, back=1)
    scraped.pop("target_info")
    return at_rest(scraped) == at_rest(pushed) and series(scraped).keys() == series(pushed).keys()


def difference(server, sink):
    scraped, pushed = at_rest(server.metrics()), at_rest(newest(sink))
    return {key: (scraped.get(key), pushed.get(key)) for key in scraped.keys() | pushed.keys()
            if scraped.get(key) != pushed.get(key)}  # fmt: skip


def serve_shop(serve, sink, *arguments):
    return serve(
        "app_metrics_app:shop", "--port", "0", "--metrics-port", "0", "--otlp-metrics", "--otlp-endpoint",
        sink.endpoint, "--otlp-protocol", sink.protocol, "--otlp-logs", *arguments,
        environment={**EVERY, "OTEL_RESOURCE_ATTRIBUTES": "team=a"},
    )  # fmt: skip


def order(server, times):
    for _ in range(times):
        httpx.get(f"{server.url}/order")
    httpx.request("BREW", server.url)


def check_agreement(server, sink):
    try:
        wait_for(lambda: agree(server, sink), "a push like the page")
    except BaseException:
        print("difference:", difference(server, sink))
        raise


def test_one_process_pushes_what_its_page_shows(sink, serve):
    server = serve_shop(serve, sink)
    order(server, 12)
    check_agreement(server, sink)
    pushed = newest(sink)
    assert total(pushed, "shop_orders_total", kind="book") == 12
    assert total(pushed, DURATION, http_response_status_code="200", http_request_method="GET") == 12
    assert total(pushed, "otel_sdk_exporter_metric_data_point_exported_total") > 100
    assert server.stop() == 0
    names = {metric.name for metric in sink.metrics}
    assert {"http.server.request.duration", "obsserve.connections.open", "shop_orders"} <= names
    (started,) = {
        point.start_time_unix_nano
        for metric in sink.metrics
        if metric.name == "http.server.request.duration"
        for point in metric.histogram.data_points
    }
    (serving,) = server.events("server.start")
    assert -30 < datetime.fromisoformat(serving["timestamp"]).timestamp() - started / 1e9 < 30
    line = server.access_lines(13)[0]
    spans = [attributes(part.resource) for request in sink.requests for part in request.resource_spans]
    for resource in resources(sink):
        assert resource == spans[0]  # one resource for all signals
        assert resource["service.instance.id"] == line["service_instance_id"]
        assert resource["team"] == "a"
    scopes = {scope.scope.name for request in sink.metric_requests
              for part in request.resource_metrics for scope in part.scope_metrics}  # fmt: skip
    assert scopes == {"obsserve"}


def test_exemplars_go_along(serve):
    with OTLPSink() as sink:
        server = serve_shop(serve, sink)
        order(server, 3)

        def exemplar():
            return next(
                (
                    exemplar
                    for metric in sink.metrics
                    if metric.name == "http.server.request.duration"
                    for point in metric.histogram.data_points
                    for exemplar in point.exemplars
                ),
                None,
            )

        found = wait_for(exemplar, "an exemplar")
        wait_for(lambda: found.trace_id in {span.trace_id for span in sink.spans}, "its span")


def test_two_workers_are_pushed_by_their_main_process(sink, serve):
    server = serve_shop(serve, sink, "--workers", "2")
    order(server, 30)
    check_agreement(server, sink)
    pushed = newest(sink)
    assert total(pushed, "shop_orders_total", kind="book") == 30
    assert {labels["worker"] for labels, _ in pushed["process_cpu_seconds_total"]} == {"main", "0", "1"}
    found = resources(sink)
    assert {resource["process.pid"] for resource in found} == {server.process.pid}
    assert all("obsserve.worker" not in resource for resource in found)
    spans = [attributes(part.resource) for request in sink.requests for part in request.resource_spans]
    assert {resource["service.instance.id"] for resource in (*found, *spans)} == {
        found[0]["service.instance.id"]
    }
    assert server.stop() == 0
    assert total(newest(sink), DURATION, http_request_method="GET") == 30


def test_counters_go_on_when_workers_are_replaced(serve):
    with OTLPSink() as sink:
        server = serve_shop(serve, sink, "--workers", "2")
        order(server, 10)
        for replaced in (1, 2):
            victim = next(iter(server.metrics()["obsserve_worker_pid"]))[1]
            os.kill(int(victim), signal.SIGKILL)
            wait_for(
                lambda n=replaced: total(server.metrics(), "obsserve_worker_restarts_total") >= n, "a death"
            )
            wait_for(lambda: len(server.metrics().get("obsserve_worker_pid", ())) == 2, "a successor")
            order(server, 10)
        assert server.stop() == 0
        assert total(newest(sink), DURATION, http_request_method="GET") == 30
        before, starts = {}, {}
        for moment, metrics in sorted(pushes(sink).items()):
            for metric in metrics:
                kind = metric.WhichOneof("data")
                if kind == "histogram" or (kind == "sum" and metric.sum.is_monotonic):
                    for point in getattr(metric, kind).data_points:
                        key = (metric.name, tuple(sorted(attributes(point).items())))
                        assert (
                            starts.setdefault(key, point.start_time_unix_nano) == point.start_time_unix_nano
                        )
                        assert 0 < point.start_time_unix_nano < moment
                        assert point.time_unix_nano == moment
            for key, value in series(samples_of(metrics)).items():
                if key[0].endswith(("_total", "_bucket", "_count")):
                    assert value >= before.get(key, 0.0), key
                    before[key] = value


def test_pushes_go_on_while_the_loop_is_blocked_and_the_end_of_such_a_process_is_pushed(serve):
    with OTLPSink() as sink:
        server = serve(
            "apps:fastapi", "--port", "0", "--otlp-metrics", "--timeout-graceful-shutdown", "1",
            environment={**EVERY, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint},
        )  # fmt: skip
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as client:
            client.sendall(b"GET /block/60 HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: total(newest(sink), "obsserve_event_loop_stalls_total") == 1, "the stall pushed")
            before = len(pushes(sink))
            wait_for(lambda: len(pushes(sink)) >= before + 2, "more pushes")
            assert server.stop() == 0
        last = newest(sink)
        assert total(last, "obsserve_event_loop_stalls_total") == 1
        assert total(last, DURATION, error_type="worker_shutdown") == 1


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_without_a_metrics_port_and_at_the_end(serve, arguments):
    """An interval of a minute never passes here: what arrives is the last push."""
    with OTLPSink() as sink:
        server = serve(
            "apps:plain", "--port", "0", *arguments,
            environment={"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint},
        )  # fmt: skip
        for _ in range(20):
            httpx.get(server.url)
        assert sink.metrics == []
        assert server.stop() == 0
        assert server.events("metrics.start") == []
        assert len(pushes(sink)) == 1
        assert total(newest(sink), DURATION) == 20
        assert sink.spans == [] == sink.logs  # an endpoint for metrics alone exports metrics alone


@pytest.mark.parametrize(
    ("protocol", "answer", "arguments"),
    [
        ("grpc", Answer("UNAVAILABLE"), []),
        ("grpc", Answer(hang=True), ["--workers", "2"]),
        ("http/protobuf", Answer(hang=True), []),
        ("http/protobuf", Answer(400), ["--workers", "2"]),
    ],
    ids=["refuses", "hangs for two workers", "hangs", "refuses two workers"],
)
def test_a_collector_that_does_not_take_them(serve, protocol, answer, arguments):
    with OTLPSink(protocol) as sink:
        sink.answer = answer
        server = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--otlp-metrics", *arguments,
            environment={
                **EVERY,
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint + ("" if sink.protocol == "grpc" else "/v1/metrics"),
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": sink.protocol,
                "OTEL_METRIC_EXPORT_TIMEOUT": "800",
            },
        )  # fmt: skip

        def lost():
            samples = server.metrics()
            name = "otel_sdk_exporter_metric_data_point_exported_total"
            return total(samples, name) > 0 == total(samples, name, error_type="")

        wait_for(lost, "the loss counted")
        assert httpx.get(server.url).status_code == 200
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8
        failures = server.events("telemetry.export_failed")
        assert "metric data points lost" in failures[0]["message"]
        assert sink.endpoint in failures[0]["message"]
        assert len(failures) <= 2  # the second one is about the end
        assert "Traceback" not in server.stderr_path.read_text()


def test_a_collector_that_comes_back(serve):
    with OTLPSink() as sink:
        sink.answers.extend([Answer("INVALID_ARGUMENT")] * 2)
        server = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--otlp-metrics",
            environment={**EVERY, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint},
        )  # fmt: skip
        httpx.get(server.url)
        (recovered,) = wait_for(lambda: server.events("telemetry.export_recovered"), "the recovery told")
        assert "metric data points" in recovered["message"]
        samples = wait_for(
            lambda: (s := server.metrics()) and total(s, "otel_sdk_exporter_metric_data_point_exported_total") and s,
            "a push counted",
        )  # fmt: skip
        assert (
            total(
                samples, "otel_sdk_exporter_metric_data_point_exported_total", error_type="INVALID_ARGUMENT"
            )
            > 100
        )
        # Nothing is missing: what is pushed is the whole.
        wait_for(lambda: total(newest(sink), DURATION) == 1, "the request of before")
        assert len(server.events("telemetry.export_failed")) == 1
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--otlp-endpoint", "localhost:4317"], {}, ("localhost:4317", "it is no URL")),
        ([], {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "carrier-pigeon"}, ("carrier-pigeon",)),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_cannot_be_is_one_line(serve, arguments, environment, words, workers):
    server = serve(
        "apps:plain", "--port", "0", "--otlp-metrics", "--workers", workers, *arguments, wait=False,
        environment=environment,
    )  # fmt: skip
    assert server.process.wait(30) == 3
    text = server.stderr_path.read_text()
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if words[0] in line]) == 1


def test_variables_that_are_not_understood_are_told_once(serve):
    with OTLPSink() as sink:
        server = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--workers", "2", "--otlp-metrics",
            environment={
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": "a minute",
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            },
        )  # fmt: skip
        told = [event["message"] for event in server.events("telemetry.metric_option")]
        assert len(told) == 2
        assert any("OTEL_METRIC_EXPORT_INTERVAL='a minute'" in message for message in told)
        assert any("cumulative" in message for message in told)


def test_off_is_off(serve, tmp_path):
    with OTLPSink() as sink:
        folder = tmp_path / "off"
        folder.mkdir()
        server = ServerProcess(
            folder, "apps:plain", "--port", "0", "--otlp-metrics",
            environment={"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint},
        ).started()  # fmt: skip
        httpx.get(server.url)
        assert server.stop() == 0
        assert sink.attempts == 0
