"""`server.reload`: the main process's own span of a rolling replacement, and that nothing waits for it."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
from conftest import total, wait_for

from obsserve.server.reloadspans import LAST_SPANS
from obsserve.testing_otlp import Answer, OTLPSink
from tests.anyvalues import attributes

RELOADS = "obsserve_config_reloads_total"


def start(serve, endpoint, *more, protocol="grpc", app="worker_apps:pid", **options):
    return serve(
        app, "--port", "0", "--metrics-port", "0", "--workers", "2", "--otlp-endpoint", endpoint,
        "--otlp-protocol", protocol, *more, **options,
    )  # fmt: skip


def reload(server, result="success"):
    """Have the workers replaced, and wait until it is over."""
    before = total(server.metrics(), RELOADS, result=result)
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: total(server.metrics(), RELOADS, result=result) == before + 1, "the reload")


def spans(sink):
    return [span for span in sink.spans if span.name == "server.reload"]


def mapped(server):
    """Whether gRPC is in the main process's memory."""
    return "cygrpc" in Path(f"/proc/{server.process.pid}/maps").read_text()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_rolling_replacement_has_a_span(serve, protocol):
    with OTLPSink(protocol) as sink:
        server = start(serve, sink.endpoint, protocol=protocol)
        if os.path.exists("/proc/self/maps"):
            assert not mapped(server)  # tracing is on, but there was nothing for this process to trace
        before = time.time_ns()
        reload(server)
        after = time.time_ns()
        (span,) = wait_for(lambda: spans(sink), "the span")
        assert span.kind == 1
        assert not span.parent_span_id
        assert span.status.code == 0
        assert before <= span.start_time_unix_nano < span.end_time_unix_nano <= after
        assert attributes(span) == {
            "obsserve.reload.reason": "signal",
            "obsserve.reload.workers": 2,
            "obsserve.reload.replaced": 2,
        }

        # Workers go on to be started although gRPC is there now, and the next span comes the same way.
        reload(server)
        wait_for(lambda: len(spans(sink)) == 2, "the second span")
        assert httpx.get(server.url).status_code == 200
        samples = server.metrics()
        assert total(samples, RELOADS) == 2
        assert total(samples, "otel_sdk_span_started_total") == 3  # and one for the request
        assert server.stop() == 0
        resources = [
            attributes(each.resource) for request in sink.requests for each in request.resource_spans
        ]
        mains = [found for found in resources if found["process.pid"] == server.process.pid]
        assert len(mains) == 2
        assert not any("obsserve.worker" in found for found in mains)
        # It is the same instance as its workers, whose span of the request came too.
        assert len(resources) == 3
        assert len({found["service.instance.id"] for found in resources}) == 1


def test_a_replacement_that_fails_has_a_span_with_an_error(serve, tmp_path):
    flag = tmp_path / "refuse"
    with OTLPSink() as sink:
        server = start(
            serve, sink.endpoint, app="worker_apps:unless_told", environment={"REFUSE_TO_START": str(flag)}
        )
        flag.touch()
        reload(server, "failure")
        (span,) = wait_for(lambda: spans(sink), "the span")
        assert span.status.code == 2
        assert attributes(span) == {
            "obsserve.reload.reason": "signal",
            "obsserve.reload.workers": 2,
            "obsserve.reload.replaced": 0,
            "error.type": "startup_failed",
        }
        assert server.stop() == 0


def test_one_that_a_shutdown_cuts_off_is_told(serve, tmp_path):
    flag = tmp_path / "slowly"
    with OTLPSink() as sink:
        server = start(
            *(serve, sink.endpoint, "--timeout-graceful-shutdown", "2"),  # which the start is given, too
            app="worker_apps:slowly_if_told",
            environment={"START_SLOWLY": str(flag)},
        )
        flag.touch()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: total(server.metrics(), "obsserve_workers", state="starting") == 1, "a new worker")
        assert server.stop() == 0
        (span,) = wait_for(lambda: spans(sink), "the span")
        assert (span.status.code, attributes(span)["error.type"]) == (2, "shutdown")


@pytest.mark.parametrize("state", ["away", "hangs"])
def test_a_collector_that_does_not_answer_holds_nothing_up(serve, state):
    with OTLPSink() as sink, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        sink.answer = Answer(hang=True)
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        server = start(serve, away if state == "away" else sink.endpoint)
        for _ in range(3):
            reload(server)
            assert httpx.get(server.url).status_code == 200
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15 + LAST_SPANS
        told = [e for e in server.events("telemetry.export_failed") if e["process_pid"] == server.process.pid]
        assert "the shutdown could not wait for" in told[-1]["message"]


@pytest.mark.parametrize("environment", [{}, {"OTEL_TRACES_SAMPLER": "always_off"}], ids=["off", "not kept"])
def test_without_a_span_nothing_of_it_is_loaded(serve, environment):
    with OTLPSink() as sink:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint} if environment else {}
        server = serve(
            "worker_apps:pid", "--port", "0", "--metrics-port", "0", "--supervise",
            environment={**environment, **endpoint},
        )  # fmt: skip
        reload(server)
        if environment:
            wait_for(
                lambda: (
                    total(server.metrics(), "otel_sdk_span_started_total", otel_span_sampling_result="DROP")
                    == 1
                ),
                "the decision",
            )
        elif os.path.exists("/proc/self/maps"):
            assert not mapped(server)
        assert server.stop() == 0
        assert spans(sink) == []
