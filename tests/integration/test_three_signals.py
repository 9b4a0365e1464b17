"""Metrics, access lines and spans of one run tell the same story, over gRPC and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket

import httpx
import pytest
from conftest import total, wait_for
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from obsserve.telemetry import catalogue
from obsserve.testing_otlp import OTLPSink
from tests.anyvalues import attributes

DURATION = "http_server_request_duration_seconds"
SERVER = 2  # opentelemetry.proto.trace.v1.Span.SpanKind
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


def disconnect_early(url, path):
    """Send a request and leave before it is answered."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def drive(server):
    """Send one of each kind a few times; return how many exchanges that makes."""
    sent = 0
    with httpx.Client(base_url=server.url, timeout=10) as client:
        for number in range(5):
            trace = f"{number + 1:032x}"
            headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "x-request-id": f"given-{number}"}
            assert client.get("/items/7", headers=headers).headers["x-request-id"] == f"given-{number}"
            for path in ("/items/none", "/stream/5", "/raise", "/background", "/nowhere", "/log/3"):
                assert client.get(path).headers["x-request-id"]
            assert client.post("/upload", json={"a": 1}).status_code == 200
            sent += 8

    async def websocket():
        async with connect(server.url.replace("http", "ws") + "/echo") as client:
            await client.send("hello")
            assert await client.recv() == "hello"

    asyncio.run(websocket())
    disconnect_early(server.url, "/sleep/5")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nBad Header\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    return sent + 3


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_same_story_three_times(serve, protocol):
    with OTLPSink(protocol) as sink:
        server = serve(
            "apps:fastapi", "--port", "0", "--metrics-port", "0",
            "--otlp-endpoint", sink.endpoint, "--otlp-protocol", protocol,
        )  # fmt: skip
        sent = drive(server)
        wait_for(lambda: total(server.metrics(), f"{DURATION}_count") == sent, "every exchange to end")
        page = httpx.get(server.metrics_url, headers=OPENMETRICS).text
        samples = server.metrics()
        lines = [line for line in server.access_lines(sent + 1) if line["event"] != "websocket.session"]
        sessions = [line for line in server.access_lines(sent + 1) if line["event"] == "websocket.session"]
        app_lines = [event for event in server.events() if event["event"] == "log"]
        assert server.stop() == 0
        spans = sink.spans
    servers = {(s.trace_id.hex(), s.span_id.hex()): s for s in spans if s.kind == SERVER}

    assert len(lines) == sent
    assert len(servers) == sent
    assert (
        total(samples, "otel_sdk_span_started_total", otel_span_parent_origin="none") == sent - 5 + 1
    )  # the start-up
    for line in lines:
        span = servers[line["trace_id"], line["span_id"]]
        facts = attributes(span)
        assert facts.get("http.response.status_code") == line["http_response_status_code"]
        assert facts.get("http.route") == line["http_route"]
        assert facts.get("error.type") == line.get("error_type")
        assert facts["obsserve.request_id"] == line["request_id"]
        seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert seconds == pytest.approx(line["duration_seconds"], abs=20e-6)

    # The histogram: by status, route and error, the count and the sum of durations.
    def key(route, status, error):
        return route or "", str(status) if status else "", error or ""

    by_line = {}
    for line in lines:
        at = key(line["http_route"], line["http_response_status_code"], line.get("error_type"))
        count, seconds = by_line.get(at, (0, 0.0))
        by_line[at] = count + 1, seconds + line["duration_seconds"]
    for name, index in ((f"{DURATION}_count", 0), (f"{DURATION}_sum", 1)):
        found = {}
        for labels, value in samples[name]:
            at = key(labels["http_route"], labels["http_response_status_code"], labels["error_type"])
            found[at] = found.get(at, 0.0) + value
        for at, facts in by_line.items():
            assert found[at] == pytest.approx(facts[index], abs=20e-6 * sent), at

    # The caller's trace goes on, and its id of the request.
    given = [line for line in lines if line["request_id"].startswith("given-")]
    assert sorted(int(line["trace_id"], 16) for line in given) == [1, 2, 3, 4, 5]
    # The application's own spans are children, its lines carry the ids.
    for line in lines:
        if line["http_route"] == "/log/{number}":
            (child,) = [s for s in spans if s.name == "work" and s.trace_id.hex() == line["trace_id"]] or [
                print(sorted((x.name, x.kind, x.trace_id.hex()) for x in spans), line)
            ]
            told = [e for e in app_lines if e.get("request_id") == line["request_id"]]
            assert {e["message"] for e in told} == {"by logging", "by structlog"}
            assert {(e["trace_id"], e["span_id"]) for e in told} == {(line["trace_id"], line["span_id"])}
            assert {e["http_route"] for e in told} == {"/log/{number}"}
            assert child.name == "work"
    # The session is a child of its handshake.
    (session,) = sessions
    (span,) = [s for s in spans if s.name.startswith("websocket")]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (session["trace_id"], session["span_id"])
    # Exemplars name traces that the sink knows.
    exemplars = [json.loads(f'"{part}"') for part in _exemplar_traces(page)]
    assert exemplars
    assert set(exemplars) <= {trace for trace, _ in servers}


def _exemplar_traces(page):
    for line in page.splitlines():
        if " # {" in line:
            yield line.partition('trace_id="')[2].partition('"')[0]


ERRORS = {  # what each counter of errors is to show, through two workers
    catalogue.APP_EXCEPTIONS: {
        ("LookupError", "before_response"), ("LookupError", "after_response_start"), ("LookupError", "websocket"),
    },
    catalogue.APP_PROTOCOL_FAULTS: {("no_response",), ("body_too_short",), ("incomplete_response",)},
    catalogue.PROTOCOL_ERRORS: {("body_too_large", "413")},
    catalogue.CLIENT_DISCONNECTS: {("waiting",)},
    catalogue.REJECTED_REQUESTS: {("concurrency_limit",)},
}  # fmt: skip


def error_exemplars(server):
    """The trace ids beside the counters of errors, by metric and labels; only where there is one."""
    page = httpx.get(server.metrics_url, headers=OPENMETRICS, timeout=10).text
    families = {family.name: family for family in text_string_to_metric_families(page)}
    found = {}
    for metric in catalogue.ERROR_COUNTERS:
        for sample in families[metric.name.removesuffix("_total")].samples:
            if sample.exemplar is not None:
                assert set(sample.exemplar.labels) == {"trace_id", "span_id"}
                assert sample.exemplar.value == 1.0
                labels = tuple(sample.labels[label] for label in metric.labels)
                found[metric, labels] = sample.exemplar.labels["trace_id"], sample.exemplar.labels["span_id"]
    return found


class Failures:
    """A client that lets everything go wrong, with traces of its own or without."""

    def __init__(self, server, flag):
        self._server, self._flag = server, flag
        host, port = server.url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self.traces = set()

    def _trace(self):
        if self._flag is None:
            return {}
        trace = os.urandom(16).hex()
        self.traces.add(trace)
        return {"traceparent": f"00-{trace}-{'cd' * 8}-{self._flag}"}

    def _open(self, path, method="GET", **more):
        fields = {"Host": "x", **self._trace(), **more}
        client = socket.create_connection(self._address, 10)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        client.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
        return client

    def _answer(self, path, **more):
        answer = b""
        with self._open(path, Connection="close", **more) as client:
            while part := client.recv(65536):
                answer += part
        return answer

    def run(self):
        for path in ("/raise/1", "/raise-late/1", "/nothing/1", "/short/1", "/incomplete/1"):
            self._answer(path)
        assert self._answer("/upload/1", method="POST", **{"Content-Length": "999999"}).startswith(
            b"HTTP/1.1 413"
        )
        asyncio.run(self._websocket())
        with contextlib.ExitStack() as waiting:  # until there is no place left, in either worker
            for _ in range(20):
                waiting.enter_context(self._open("/slow/1"))
            wait_for(lambda: self._answer("/ok/1").startswith(b"HTTP/1.1 503"), "a refusal")

    async def _websocket(self):
        url = self._server.url.replace("http", "ws") + "/socket/1"
        with contextlib.suppress(ConnectionClosed):
            async with connect(url, additional_headers=self._trace()) as client:
                await client.send("raise")
                await client.recv()


def test_errors_name_their_traces(serve):
    wanted = {(metric, labels) for metric, sets in ERRORS.items() for labels in sets}
    with OTLPSink("http/protobuf") as sink:
        server = serve(
            "mix_apps:app", "--port", "0", "--metrics-port", "0", "--workers", "2", "--trace-sample-ratio", "0",
            "--limit-concurrency", "6", "--limit-request-body", "10000",
            "--otlp-endpoint", sink.endpoint, "--otlp-protocol", "http/protobuf",
        )  # fmt: skip
        # Nothing of this is sampled, so nothing may be pointed to.
        for flag in (None, "00"):
            Failures(server, flag).run()

        def counted():
            samples = server.metrics()
            return all(
                total(samples, metric.name, **dict(zip(metric.labels, labels, strict=True)))
                for metric, labels in wanted
            )

        wait_for(counted, "every error to be counted")
        assert error_exemplars(server) == {}

        sampled = Failures(server, "01")
        sampled.run()
        served = set()

        def both_workers():
            sampled._answer("/raise/1")
            served.update(
                line["process_pid"] for line in server.access_lines() if line["trace_flags"] == "01"
            )
            return len(served) == 2

        wait_for(both_workers, "sampled errors of both workers")
        found = wait_for(
            lambda: (seen := error_exemplars(server)).keys() >= wanted and seen, "every exemplar"
        )
        assert {trace for trace, _ in found.values()} <= sampled.traces
        assert "trace_id" not in httpx.get(server.metrics_url).text
        # They stay when the workers that noted them are gone.
        server.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: total(server.metrics(), "obsserve_worker_restarts_total", reason="reload") == 2,
            "new workers",
        )
        wait_for(
            lambda: total(server.metrics(), "obsserve_workers", state="draining") == 0, "the old ones to go"
        )
        assert error_exemplars(server).keys() >= wanted
        assert server.stop() == 0
        servers = {(s.trace_id.hex(), s.span_id.hex()) for s in sink.spans if s.kind == SERVER}
    assert set(found.values()) <= servers


CONNECTIONS, PIPELINED = 40, 50


def test_ids_do_not_leak_between_pipelined_and_concurrent_requests(serve):
    """Two thousand requests that interleave: child spans and log lines carry the ids of their own request."""
    count = CONNECTIONS * PIPELINED
    with OTLPSink("http/protobuf") as sink:
        server = serve(
            "apps:fastapi", "--port", "0", "--otlp-endpoint", sink.endpoint, "--otlp-protocol", "http/protobuf",
            environment={"OTEL_BSP_MAX_QUEUE_SIZE": "65536"},
        )  # fmt: skip

        def request(number):
            # Every third continues a trace of the client's own.
            trace = f"traceparent: 00-{number + 1:032x}-00f067aa0ba902b7-01\r\n" if number % 3 == 0 else ""
            return f"GET /log/{number} HTTP/1.1\r\nHost: x\r\nx-request-id: r{number}\r\n{trace}\r\n".encode()

        async def talk(connection):
            host, port = server.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            numbers = range(connection * PIPELINED, (connection + 1) * PIPELINED)
            writer.write(b"".join(map(request, numbers)))
            for number in numbers:
                head = await reader.readuntil(b"\r\n\r\n")
                assert f"x-request-id: r{number}\r\n".encode() in head
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                assert await reader.readexactly(length) == b'{"number":%d}' % number
            writer.close()

        async def talk_all():
            await asyncio.gather(*map(talk, range(CONNECTIONS)))

        asyncio.run(talk_all())
        lines = {line["request_id"]: line for line in server.access_lines(count)}
        assert sorted(lines) == sorted(f"r{number}" for number in range(count))
        told = wait_for(
            lambda: len(found := server.events("log")) == 2 * count and found, f"{2 * count} lines"
        )
        assert server.stop() == 0
        spans = sink.spans
    for event in told:
        line = lines[event["request_id"]]
        assert event["request_id"] == f"r{event['app']['number']}"
        assert (event["trace_id"], event["span_id"]) == (line["trace_id"], line["span_id"])
    servers = {line["span_id"]: line for line in lines.values()}
    assert len(servers) == len({line["trace_id"] for line in lines.values()}) == count
    for number in range(0, count, 3):
        assert lines[f"r{number}"]["trace_id"] == f"{number + 1:032x}"
    by_id = {span.span_id.hex(): span for span in spans}
    works = [span for span in spans if span.name == "work"]
    assert len(works) == count
    parents = set()
    for span in works:
        parent = span
        while parent.span_id.hex() not in servers:  # there may be a framework's span between
            parent = by_id[parent.parent_span_id.hex()]
        line = servers[parent.span_id.hex()]
        assert span.trace_id.hex() == line["trace_id"]
        parents.add(line["request_id"])
    assert len(parents) == count, "each request has a child of its own"


def test_a_collector_that_is_not_there_costs_nothing_but_spans(serve):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        server = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--otlp-endpoint", f"http://127.0.0.1:{port}"
        )
        with httpx.Client(base_url=server.url) as client:
            for _ in range(3000):
                assert client.get("/").status_code == 200
        samples = server.metrics()
        assert total(samples, f"{DURATION}_count") == 3000
        assert total(samples, "otel_sdk_span_started_total") == 3000
        lost = wait_for(
            lambda: (
                total(server.metrics(), "otel_sdk_processor_span_processed_total", error_type="queue_full")
                + sum(
                    value
                    for labels, value in server.metrics().get("otel_sdk_exporter_span_exported_total", [])
                    if labels["error_type"]
                )
            ),
            "losses to be counted",
        )
        assert lost > 0
        assert server.stop(timeout=10) == 0
