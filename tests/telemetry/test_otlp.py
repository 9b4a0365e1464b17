"""Spans over the wire: the official exporters, a real collector, and collectors that are not there."""

import contextvars
import logging
import socket
import threading
from time import monotonic

import pytest
from opentelemetry.sdk.resources import Resource

from obsserve.telemetry import catalogue, otlp
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.otlp import (
    ExporterNoise,
    GrpcCarrier,
    HttpCarrier,
    PlainCarrier,
    carrier_over,
    make_carrier,
    make_exporter,
    readable_spans,
)
from obsserve.telemetry.otlp_encode import RequestFrame, SpanEvent, SpanLink, SpanRecord, encode_span
from obsserve.telemetry.spanfigures import Delivery, TraceFigures
from obsserve.telemetry.spanqueue import EXPORT_FAILED, EXPORT_RECOVERED, SENDER, SpanQueue
from obsserve.telemetry.traceconfig import TracingConfiguration
from obsserve.testing_otlp import Answer, OTLPSink
from tracedoubles import Figures, put

PROTOCOLS = ("grpc", "http/protobuf")
RESOURCE = {"service.name": "shop", "process.pid": 7}
FRAME = RequestFrame(RESOURCE, "obsserve", "1")
UNAVAILABLE = {"grpc": Answer("UNAVAILABLE"), "http/protobuf": Answer(503, retry_after=1)}
INVALID = {"grpc": Answer("INVALID_ARGUMENT"), "http/protobuf": Answer(400)}


def encoded(count=1, first=1):
    return [
        encode_span(
            SpanRecord(
                trace_id=n,
                span_id=n,
                name=f"span {n}",
                kind=2,
                start=n,
                end=n + 1,
                parent_id=9,
                parent_is_remote=True,
                trace_state="a=1",
                status=2,
                description="no",
                attributes={"text": "ü", "list": ["a", "b"], "flag": True, "n": -1, "x": 0.5},
                events=[SpanEvent("e", 5, {"k": "v"})],
                links=[SpanLink(7, 8, False)],
            )  # fmt: skip
        )
        for n in range(first, first + count)
    ]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(params=PROTOCOLS)
def sink(request):
    with OTLPSink(request.param) as sink:
        yield sink


def configuration(sink, **facts):
    path = "" if sink.protocol == "grpc" else "/v1/traces"
    return TracingConfiguration(
        endpoint=sink.endpoint + path, destination=sink.endpoint + path, protocol=sink.protocol, **facts
    )


@pytest.fixture
def carry():
    made = []

    def make(sink, noise=None, **facts):
        # In a context of its own: instrumentation is suppressed in what stands for the sender's thread.
        context, noise = contextvars.copy_context(), noise or ExporterNoise(print, SENDER)
        made.append(context.run(make_carrier, configuration(sink, **facts), FRAME, RESOURCE, noise))
        return made[-1]

    yield make
    for carrier in made:
        carrier.shutdown()


class TestCarrying:
    def test_what_arrives(self, sink, carry):
        assert carry(sink).deliver(encoded(3)) == Delivery()
        (request,) = sink.requests
        assert request.SerializeToString(deterministic=True) == type(request).FromString(
            FRAME.request(encoded(3))
        ).SerializeToString(deterministic=True)
        assert [span.name for span in sink.wait_for(3)] == ["span 1", "span 2", "span 3"]

    def test_it_takes_the_short_way(self, sink, carry):
        assert isinstance(carry(sink), GrpcCarrier if sink.protocol == "grpc" else HttpCarrier)

    def test_compressed(self, sink, carry, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        assert carry(sink).deliver(encoded(50)) == Delivery()
        assert len(sink.spans) == 50
        if sink.protocol == "http/protobuf":
            assert sink.headers[0]["content-encoding"] == "gzip"

    def test_headers_of_the_exporters_variable(self, sink, carry, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
        assert carry(sink).deliver(encoded()) == Delivery()
        assert sink.headers[0]["x-tenant"] == "shop"

    def test_the_exporters_own_endpoint_variable(self, sink, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        exporter = make_exporter(TracingConfiguration(protocol=sink.protocol))
        carrier = carrier_over(exporter, sink.endpoint, FRAME, RESOURCE, ExporterNoise(print, SENDER))
        assert carrier.deliver(encoded()) == Delivery()
        carrier.shutdown()

    def test_rejected_spans(self, carry):
        with OTLPSink("grpc") as sink:
            sink.answer = Answer(rejected=2)
            assert carry(sink).deliver(encoded(5)) == Delivery(rejected=2)


class TestRefusals:
    def test_a_wrong_request_is_not_repeated(self, sink, carry):
        sink.answer = INVALID[sink.protocol]
        found = carry(sink).deliver(encoded())
        assert found.error_type == str(sink.answer.code)
        assert sink.endpoint in found.message
        assert sink.attempts == 1

    def test_a_moment_of_weakness_is_survived(self, sink, carry):
        sink.answers.append(UNAVAILABLE[sink.protocol])
        assert carry(sink).deliver(encoded(2)) == Delivery()
        assert sink.attempts == 2
        assert len(sink.spans) == 2

    def test_a_collector_that_stays_away(self, sink, carry, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        sink.answer = UNAVAILABLE[sink.protocol]
        # The last try over gRPC may end with the time for all of them.
        assert carry(sink).deliver(encoded()).error_type in (str(sink.answer.code), "DEADLINE_EXCEEDED")

    def test_a_port_that_refuses(self, carry, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        for protocol in PROTOCOLS:
            with OTLPSink(protocol) as gone:
                pass
            found = carry(gone).deliver(encoded())
            if protocol == "grpc":
                assert found.error_type in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
            else:
                assert found.error_type in (
                    "requests.exceptions.ConnectionError",
                    "urllib3.exceptions.MaxRetryError",
                )

    def test_a_collector_that_hangs(self, sink, carry, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        sink.answer = Answer(hang=True)
        found = carry(sink).deliver(encoded())
        if sink.protocol == "grpc":
            assert found.error_type == "DEADLINE_EXCEEDED"
        else:
            assert found.error_type in (
                "requests.exceptions.ReadTimeout",
                "urllib3.exceptions.ReadTimeoutError",
            )

    def test_a_shutdown_ends_the_waiting(self, sink, carry):
        sink.answer = UNAVAILABLE[sink.protocol] if sink.protocol == "grpc" else Answer(503, retry_after=5)
        carrier = carry(sink)
        thread = threading.Thread(target=carrier.deliver, args=(encoded(),))
        thread.start()
        sink.wait_for_attempts(1)
        began = monotonic()
        carrier.shutdown()
        thread.join(10.0)
        assert monotonic() - began < 4.0


class TestWithoutTheHooks:
    @pytest.fixture
    def plain(self, sink):
        exporter = make_exporter(configuration(sink))
        hidden = "_stub" if sink.protocol == "grpc" else "_client"

        class Other:
            """The exporter, as a version without the hook would be."""

            def __getattr__(self, name):
                if name == hidden:
                    raise AttributeError(name)
                return getattr(exporter, name)

        noise = ExporterNoise(print, threading.current_thread().name)
        noise.install()
        carrier = carrier_over(Other(), sink.endpoint, FRAME, RESOURCE, noise)
        assert isinstance(carrier, PlainCarrier)
        yield carrier
        carrier.shutdown()
        noise.remove()

    def test_the_same_arrives(self, sink, plain):
        assert plain.deliver(encoded(2)) == Delivery()
        expected = type(sink.requests[0]).FromString(FRAME.request(encoded(2)))
        assert sink.requests == [expected]

    def test_failures_are_told(self, sink, plain):
        sink.answer = INVALID[sink.protocol]
        found = plain.deliver(encoded())
        assert found.error_type == "_OTHER"
        assert "Failed to export" in found.message

    def test_every_kind_of_value(self):
        attributes = {"map": {"a": 1}, "nothing": None, "bytes": b"\x00", "deep": [["a"]]}
        record = SpanRecord(trace_id=1, span_id=2, name="n", kind=1, start=1, end=2, attributes=attributes)
        (span,) = readable_spans(FRAME.scope_spans([encode_span(record)]), Resource({}))
        assert dict(span.attributes) == attributes
        assert (span.parent, span.kind.name, span.status.status_code.name) == (None, "INTERNAL", "UNSET")


class TestNoise:
    def record(self, noise, level, message, *args, thread=None):
        log = logging.LogRecord("opentelemetry.sdk._shared_internal", level, "", 1, message, args, None)
        found = []
        ask = threading.Thread(target=lambda: found.append(noise.filter(log)), name=thread)
        ask.start()
        ask.join()
        return found[0]

    def test_of_our_sender_is_kept_for_its_report(self):
        noise = ExporterNoise(print, SENDER)
        assert not self.record(noise, logging.WARNING, "Transient error", thread=SENDER)
        assert noise.last == ""
        assert not self.record(noise, logging.ERROR, "Failed: %s", "why", thread=SENDER)
        assert noise.last == "Failed: why"

    def test_of_the_applications_spans_becomes_one_event(self, monkeypatch):
        reports = []
        noise = ExporterNoise(lambda *report: reports.append(report), SENDER)
        for _ in range(3):
            assert not self.record(noise, logging.ERROR, "Failed", thread="OtelBatchSpanRecordProcessor")
        assert not self.record(noise, logging.WARNING, "Transient", thread="OtelBatchSpanRecordProcessor")
        assert not self.record(noise, logging.WARNING, "Queue full, dropping %s.", "Span")
        assert reports == [(EXPORT_FAILED, "spans of the application: Failed")]
        monkeypatch.setattr(otlp, "_REPORT_INTERVAL", 0.0)
        self.record(noise, logging.ERROR, "Failed", thread="OtelBatchSpanRecordProcessor")
        assert reports[-1] == (EXPORT_FAILED, "spans of the application: Failed (and 3 more like it)")

    def test_of_the_applications_own_exporters_is_left_alone(self):
        noise = ExporterNoise(print, SENDER)
        assert self.record(noise, logging.ERROR, "Failed", thread="OtelBatchLogRecordProcessor")
        assert self.record(noise, logging.WARNING, "Queue full, dropping %s.", "Log")

    def test_it_comes_and_goes(self):
        noise = ExporterNoise(print, SENDER)
        logger = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
        noise.install()
        assert noise in logger.filters
        noise.remove()
        assert noise not in logger.filters


class TestFromQueueToCollector:
    """The queue over real exporters."""

    @pytest.fixture
    def start(self, sink):
        queues = []

        def make(**options):
            region = Cells.create(200)
            self.reports = []
            noise = ExporterNoise(lambda *report: self.reports.append(report), SENDER)
            noise.install()
            queue = SpanQueue(
                lambda: make_carrier(configuration(sink), FRAME, RESOURCE, noise),
                TraceFigures(region),
                lambda *report: self.reports.append(report),
                **{"capacity": 60, "batch_size": 20, "schedule_delay": 3600.0} | options,
            )
            queue.start()
            queues.append((queue, noise))
            return queue, Figures(region)

        yield make
        for queue, noise in queues:
            queue.shutdown(5.0)
            noise.remove()

    def put(self, queue, spans):
        for span in spans:
            put(queue, span)

    def test_all_spans_arrive_once(self, sink, start):
        queue, figures = start()
        self.put(queue, encoded(50))
        queue.shutdown(10.0)
        assert sorted(span.name for span in sink.spans) == sorted(f"span {n}" for n in range(1, 51))
        assert figures(catalogue.SPANS_EXPORTED, "") == 50
        assert self.reports == []

    def test_a_flapping_collector(self, sink, start):
        queue, figures = start()
        sink.answers.extend([INVALID[sink.protocol], Answer(), INVALID[sink.protocol], Answer()])
        for first in (1, 21, 41, 61):
            self.put(queue, encoded(20, first))
            assert queue.flush(10.0)
        assert len(sink.spans) == 40
        lost = figures(catalogue.SPANS_EXPORTED, str(INVALID[sink.protocol].code))
        assert (lost, figures(catalogue.SPANS_EXPORTED, "")) == (40, 40)
        assert [event for event, _ in self.reports] == [EXPORT_FAILED, EXPORT_RECOVERED], (
            "the second within a minute is not told"
        )

    def test_a_hanging_collector_bounds_memory_and_exit(self, sink, start):
        sink.answer = Answer(hang=True)
        queue, figures = start()
        self.put(queue, encoded(20))
        sink.wait_for_attempts(1)
        self.put(queue, encoded(500))
        assert len(queue.spans) == 60
        assert figures(catalogue.SPANS_PROCESSED, "queue_full") == 440
        began = monotonic()
        queue.shutdown(0.2)
        assert monotonic() - began < 3.0
        assert figures(catalogue.SPANS_EXPORTED, "shutdown") == 20
        assert figures(catalogue.SPANS_PROCESSED, "already_shutdown") == 60

    def test_an_absent_collector_bounds_the_exit(self, sink, start):
        sink.close()
        sink.close = lambda: None
        queue, figures = start()
        self.put(queue, encoded(5))
        began = monotonic()
        queue.shutdown(0.5)
        assert monotonic() - began < 4.0
        lost = figures(catalogue.SPANS_EXPORTED, "shutdown") + figures(
            catalogue.SPANS_PROCESSED, "already_shutdown"
        )
        assert lost == 5


def test_a_free_port_is_the_sinks():
    with OTLPSink("grpc") as sink, socket.create_connection(("127.0.0.1", sink.port), timeout=5):
        assert sink.endpoint == f"http://127.0.0.1:{sink.port}"
