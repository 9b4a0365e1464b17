"""Log lines over OTLP: what arrives is what was written, from every process, and a dead collector costs nothing."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from conftest import total, wait_for

from obsserve.telemetry.otlp_logs import SEVERITIES
from obsserve.testing_otlp import Answer, OTLPSink
from tests.anyvalues import attributes

SECRET = "hunter2-in-a-query"


def resources(sink):
    return [attributes(part.resource) for request in sink.log_requests for part in request.resource_logs]


def named(sink, event):
    return [record for record in sink.logs if record.event_name == event]


@pytest.fixture(params=["grpc", "http/protobuf"])
def sink(request):
    with OTLPSink(request.param) as sink:
        yield sink


def test_access_lines_the_servers_and_the_applications(sink, serve):
    server = serve(
        "apps:fastapi", "--port", "0", "--metrics-port", "0", "--otlp-logs", "--otlp-endpoint", sink.endpoint,
        "--otlp-protocol", sink.protocol,
    )  # fmt: skip
    with httpx.Client(base_url=server.url) as client:
        for number in range(20):
            client.get(f"/items/{number}?password={SECRET}")
        client.get("/raise")
        client.get("/log/7")
    lines = server.access_lines(22)
    wait_for(lambda: len(named(sink, "http.request")) == 22, "the lines at the collector")
    samples = wait_for(
        lambda: (
            (s := server.metrics())
            and total(s, "otel_sdk_exporter_log_exported_total", error_type="") >= 22
            and s
        ),
        "the export counted",
    )
    assert total(samples, "otel_sdk_processor_log_queue_capacity") == 2048
    assert server.stop() == 0

    exported = {attributes(record)["obsserve.request_id"]: record for record in named(sink, "http.request")}
    for line in lines:
        record = exported.pop(line["request_id"])
        found = attributes(record)
        assert record.trace_id.hex() == line["trace_id"]
        assert record.span_id.hex() == line["span_id"]
        assert record.flags == int(line["trace_flags"], 16)
        assert record.severity_text == line["level"].upper()
        assert record.severity_number == SEVERITIES[line["level"]]
        assert found["http.route"] == line["http_route"]
        assert found["http.response.status_code"] == line["http_response_status_code"]
        assert abs(found["duration_seconds"] - line["duration_seconds"]) < 1e-9
        assert record.body.string_value.startswith("GET /")
        assert abs(record.time_unix_nano / 1e9 - time.time()) < 60
    assert not exported
    said = {record.body.string_value: record for record in sink.logs if not record.event_name}
    assert {"by logging", "by structlog"} <= said.keys()
    by_id = {line["request_id"]: line for line in lines}
    for text in ("by logging", "by structlog"):
        about = by_id[attributes(said[text])["obsserve.request_id"]]
        assert (said[text].trace_id.hex(), said[text].span_id.hex()) == (about["trace_id"], about["span_id"])
        assert attributes(said[text])["app"] == {"number": 7}
    (raised,) = named(sink, "http.server.request.exception")
    assert attributes(raised)["exception.type"] == "ValueError"
    assert raised.trace_id.hex() == by_id[attributes(raised)["obsserve.request_id"]]["trace_id"]
    assert {"server.start", "server.drain", "server.stop"} <= {record.event_name for record in sink.logs}
    assert SECRET not in str(sink.log_requests)
    spans = {span.span_id.hex() for span in sink.spans}
    assert {line["span_id"] for line in lines} <= spans
    for resource in resources(sink):
        assert resource["service.name"] == "apps:fastapi"
        assert resource["service.instance.id"] == lines[0]["service_instance_id"]


def test_two_workers_and_the_main_process(serve):
    with OTLPSink() as sink:
        server = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--workers", "2",
            environment={"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": sink.endpoint},
        )  # fmt: skip
        for _ in range(30):
            httpx.get(server.url)
        wait_for(lambda: len(named(sink, "http.request")) == 30, "the lines at the collector")
        assert sink.spans == []  # an endpoint for logs alone exports logs alone
        assert server.stop() == 0
        events = {record.event_name for record in sink.logs}
        assert {"server.start", "server.stop", "worker.ready"} <= events, events
        found = resources(sink)
    assert {resource.get("obsserve.worker") for resource in found} >= {None}
    assert len({resource["service.instance.id"] for resource in found}) == 1


@pytest.mark.parametrize("answer", [Answer("UNAVAILABLE"), Answer(hang=True)])
def test_a_collector_that_does_not_take_them(serve, answer):
    with OTLPSink() as sink:
        sink.answer = answer
        server = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--otlp-logs",
            environment={
                "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_BLRP_MAX_QUEUE_SIZE": "64",
            },
        )  # fmt: skip
        with httpx.Client(base_url=server.url) as client:
            for _ in range(300):
                assert client.get("/").status_code == 200

        def lost():
            samples = server.metrics()
            return total(samples, "otel_sdk_processor_log_processed_total", error_type="queue_full") >= 100

        wait_for(lost, "the loss counted")
        assert len(server.access_lines(300)) == 300  # where they go otherwise, all are
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        failures = server.events("telemetry.export_failed")
        assert failures
        assert "log records" in failures[0]["message"]
        assert len(failures) <= 3


def test_without_the_packages_of_the_extra(serve):
    server = serve(
        "apps:plain", "--port", "0", "--otlp-logs", wait=False,
        environment={"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"},
    )  # fmt: skip
    assert server.process.wait(20) == 3
    text = server.stderr_path.read_text()
    assert "carrier-pigeon" in text
    assert "Traceback" not in text


def test_a_terminal_format_and_a_logging_of_ones_own_change_nothing(serve, tmp_path):
    config = tmp_path / "log.json"
    config.write_text(
        json.dumps(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
                "root": {"handlers": ["out"], "level": "INFO"},
            }
        )
    )
    with OTLPSink() as sink:
        for extra in (["--log-format", "console"], ["--access-log-format", "%(h)s %(s)s"]):
            sink._received.clear()
            server = serve(
                "apps:plain", "--port", "0", "--metrics-port", "0", "--otlp-logs", "--log-format", "json",
                *extra, environment={"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": sink.endpoint}, wait=False,
            )  # fmt: skip
            address = wait_for(
                lambda: next((r for r in named(sink, "server.start")), None), "the start at the collector"
            )
            url = attributes(address)["address"]
            httpx.get(f"{url}?password={SECRET}")
            (record,) = wait_for(lambda: named(sink, "http.request"), "the line at the collector")
            assert attributes(record)["http.response.status_code"] == 200
            assert SECRET not in str(record)
            assert server.stop() == 0
