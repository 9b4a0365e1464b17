"""Encoded spans, log records and metrics, carried to a collector by the official exporters.

Connection, TLS, headers, compression, time-outs and retries are theirs, and their variables hold. Our
bytes reach them through hooks that are private: the gRPC exporter's stub and `_translate_data`, the HTTP
exporter's `_client.export`. Where a hook is not there, or stops to work as it did, spans are rebuilt as
ReadableSpans for the public `export()`: slower, and the same for the collector. Log records and metrics have
no such way: the SDK's own form of the ones is private, and of the others nothing could be gained.

The hooks were found in the gRPC exporters 1.33 to 1.45 and in the HTTP exporter 1.45; spans of 1.27 to 1.44
took the public way. `tests/telemetry/test_otlp.py` goes both.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context

from obsserve.telemetry.catalogue import COMPLETE, OTHER, error_type_of
from obsserve.telemetry.spanfigures import Delivery
from obsserve.telemetry.spanqueue import EXPORT_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from obsserve.telemetry.metricexport import MetricExportConfiguration
    from obsserve.telemetry.otlp_encode import RequestFrame
    from obsserve.telemetry.otlpdestination import Protocols
    from obsserve.telemetry.spanqueue import Carrier
    from obsserve.telemetry.traceconfig import TracingConfiguration

SCOPE: Final = "obsserve"
EXPORT_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
EXPORT_LOGS_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
EXPORT_METRICS_METHOD: Final = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

_GRPC_HOOKS: Final = ("_channel", "_client", "_stub", "_translate_data")
_REPORT_INTERVAL: Final = 60.0
_NOISY: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
)


def make_exporter(configuration: TracingConfiguration) -> SpanExporter:
    """Return an official exporter for this configuration; importing it takes 0.1 to 0.3 s."""
    if configuration.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_exporter  # noqa: PLC0415

        return grpc_exporter.OTLPSpanExporter(endpoint=configuration.endpoint)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_exporter  # noqa: PLC0415

    return http_exporter.OTLPSpanExporter(endpoint=configuration.endpoint)


def make_carrier(
    configuration: TracingConfiguration,
    frame: RequestFrame,
    resource: Mapping[str, Any],
    noise: ExporterNoise,
) -> Carrier:
    """Return what carries spans for this configuration; to be called in the thread that will deliver.

    Args:
        configuration: where to and how.
        frame: what stands around the spans of a request.
        resource: the resource's attributes.
        noise: knows what the exporter has logged last.
    """
    suppress_instrumentation()
    exporter = make_exporter(configuration)
    return carrier_over(exporter, configuration.destination, frame, resource, noise)


def make_log_carrier(
    protocol: Protocols, endpoint: str | None, destination: str, frame: RequestFrame
) -> GrpcCarrier | HttpCarrier:
    """Return what carries encoded log records; to be called in the thread that will deliver.

    Args:
        protocol: how OTLP is spoken.
        endpoint: for the exporter; None lets it read its own variables.
        destination: the same for people.
        frame: what stands around the records of a request.

    Raises:
        LookupError: this version of the exporter has not the hooks for it.
    """
    suppress_instrumentation()
    exporter: Any
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_exporter  # noqa: PLC0415

        exporter = grpc_exporter.OTLPLogExporter(endpoint=endpoint)
    else:
        from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_exporter  # noqa: PLC0415

        exporter = http_exporter.OTLPLogExporter(endpoint=endpoint)
    return _bytes_carrier(exporter, protocol, destination, frame, EXPORT_LOGS_METHOD)


def make_metric_carrier(
    configuration: MetricExportConfiguration, frame: RequestFrame
) -> GrpcCarrier | HttpCarrier:
    """Return what carries encoded metrics; to be called in the thread that will deliver.

    Args:
        configuration: where to and how.
        frame: what stands around the metrics of a request.

    Raises:
        LookupError: this version of the exporter has not the hooks for it.
    """
    suppress_instrumentation()
    endpoint, timeout = configuration.endpoint, configuration.request_timeout
    exporter: Any
    if configuration.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_exporter  # noqa: PLC0415

        exporter = grpc_exporter.OTLPMetricExporter(endpoint=endpoint, timeout=timeout)
    else:
        from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_exporter  # noqa: PLC0415

        exporter = http_exporter.OTLPMetricExporter(endpoint=endpoint, timeout=timeout)
    return _bytes_carrier(
        exporter, configuration.protocol, configuration.destination, frame, EXPORT_METRICS_METHOD
    )


def _bytes_carrier(
    exporter: Any, protocol: Protocols, destination: str, frame: RequestFrame, method: str
) -> GrpcCarrier | HttpCarrier:
    if protocol == "grpc" and _has_grpc_hooks(exporter):
        return GrpcCarrier(exporter, destination, frame, method)
    if protocol != "grpc" and _has_http_hook(exporter):
        return HttpCarrier(exporter, destination, frame)
    signal = method.partition("collector.")[2].partition(".")[0]
    raise LookupError(f"this opentelemetry-exporter-otlp ({protocol}) cannot be used for {signal}")


def _has_grpc_hooks(exporter: Any) -> bool:
    return all(hasattr(exporter, hook) for hook in _GRPC_HOOKS) and hasattr(exporter._channel, "unary_unary")  # noqa: SLF001


def _has_http_hook(exporter: Any) -> bool:
    return callable(getattr(getattr(exporter, "_client", None), "export", None))


def carrier_over(
    exporter: Any, destination: str, frame: RequestFrame, resource: Mapping[str, Any], noise: ExporterNoise
) -> Carrier:
    """Return the fastest carrier that this exporter has the hooks for."""
    if _has_grpc_hooks(exporter):
        return GrpcCarrier(exporter, destination, frame)
    if _has_http_hook(exporter):
        return HttpCarrier(exporter, destination, frame)
    return PlainCarrier(exporter, destination, frame, resource, noise)


def suppress_instrumentation() -> None:
    """Keep instrumentation of HTTP and gRPC clients from tracing the exports of the calling thread."""
    key = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if key is not None:
        otel_context.attach(otel_context.set_value(key, True))


class _Silence(logging.Filter):
    """Keeps what exporters log on some threads out of all logs: the senders tell of failures themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName not in self.threads


_silence: Final = _Silence()


def silence_exporters(thread: str) -> None:
    """Keep what exporters log on the threads of this name out of all logs."""
    _silence.threads.add(thread)
    for name in _NOISY:
        logging.getLogger(name).addFilter(_silence)


class GrpcCarrier:
    """Sends bytes through the channel, headers and retries of the gRPC exporter."""

    def __init__(
        self, exporter: Any, destination: str, frame: RequestFrame, method: str = EXPORT_METHOD
    ) -> None:
        self._exporter = exporter
        self._destination = destination
        self._frame = frame
        self._code = OTHER
        self._details = ""
        self._response = b""
        self._size = 0
        # The exporter makes its stub anew when it connects again.
        exporter._stub = partial(_RawStub, self, method)  # noqa: SLF001
        exporter._client = _RawStub(self, method, exporter._channel)  # noqa: SLF001
        exporter._translate_data = lambda request: request  # noqa: SLF001
        exporter._count_data = lambda _request: self._size  # noqa: SLF001

    def deliver(self, spans: Sequence[bytes], size: int | None = None) -> Delivery:
        self._size = len(spans) if size is None else size  # a metric is several points
        self._code, self._details, self._response = OTHER, "", b""
        result = self._exporter.export(self._frame.request(spans))
        if result.name == "SUCCESS":
            return self._partly() if self._response else Delivery()
        return Delivery(self._code, f"{self._destination}: {self._code} {self._details}".rstrip())

    def _partly(self) -> Delivery:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415 - imported already

        # Those of the other services are the same on the wire.
        answer = trace_service_pb2.ExportTraceServiceResponse.FromString(self._response)
        rejected = min(answer.partial_success.rejected_spans, self._size)
        return Delivery(rejected=rejected)

    def take_failure(self, code: str, details: str) -> None:
        self._code, self._details = code, details

    def take_response(self, response: bytes) -> None:
        self._response = response

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _RawStub:
    """The service's stub for requests that are bytes already."""

    def __init__(self, carrier: GrpcCarrier, method: str, channel: Any) -> None:
        self._carrier = carrier
        self._call = channel.unary_unary(method, request_serializer=None, response_deserializer=None)

    def Export(self, request: bytes, metadata: Any = None, timeout: float | None = None) -> bytes:  # noqa: N802
        try:
            response: bytes = self._call(request, timeout=timeout, metadata=metadata)
        except Exception as error:
            code = getattr(error, "code", None)
            details = getattr(error, "details", None)
            if callable(code) and callable(details):
                self._carrier.take_failure(code().name, details() or "")
            raise
        self._carrier.take_response(response)
        return response


class HttpCarrier:
    """Sends bytes through the client of the HTTP exporter."""

    def __init__(self, exporter: Any, destination: str, frame: RequestFrame) -> None:
        self._exporter = exporter
        self._destination = destination
        self._frame = frame

    def deliver(self, spans: Sequence[bytes], size: int | None = None) -> Delivery:  # noqa: ARG002 - not told what it rejects
        result = self._exporter._client.export(self._frame.request(spans))  # noqa: SLF001
        if result.success:
            return Delivery()
        if result.status_code is not None:
            name = str(result.status_code)
        else:
            name = (result.error and error_type_of(COMPLETE, None, result.error)) or OTHER
        return Delivery(name, f"{self._destination}: {result.reason or result.error or name}")

    def shutdown(self) -> None:
        self._exporter.shutdown()


class PlainCarrier:
    """Rebuilds ReadableSpans for the public `export()`."""

    def __init__(
        self,
        exporter: SpanExporter,
        destination: str,
        frame: RequestFrame,
        resource: Mapping[str, Any],
        noise: ExporterNoise,
    ) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - with the exporter

        self._exporter = exporter
        self._destination = destination
        self._frame = frame
        self._resource = Resource(resource)
        self._noise = noise

    def deliver(self, spans: Sequence[bytes]) -> Delivery:
        self._noise.last = ""
        result = self._exporter.export(readable_spans(self._frame.scope_spans(spans), self._resource))
        if result.name == "SUCCESS":
            return Delivery()
        return Delivery(OTHER, f"{self._destination}: {self._noise.last or 'the export failed'}")

    def shutdown(self) -> None:
        self._exporter.shutdown()


def readable_spans(scope_spans: bytes, resource: Any) -> list[ReadableSpan]:
    """Return encoded spans as the SDK's.

    Args:
        scope_spans: the content of a ScopeSpans.
        resource: the SDK's resource.
    """
    from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans  # noqa: PLC0415 - with the exporter
    from opentelemetry.sdk.trace import Event, ReadableSpan  # noqa: PLC0415
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import Link, Status, StatusCode  # noqa: PLC0415

    message = ScopeSpans.FromString(scope_spans)
    scope = InstrumentationScope(message.scope.name, message.scope.version)
    spans = []
    for span in message.spans:
        parent = None
        if span.parent_span_id:
            remote = bool(span.flags & 0x200)
            parent = _context(span.trace_id, span.parent_span_id, span.trace_state, remote=remote)
        events = [Event(event.name, _values(event.attributes), event.time_unix_nano) for event in span.events]
        links = [
            Link(
                _context(link.trace_id, link.span_id, "", remote=bool(link.flags & 0x200)),
                _values(link.attributes),
            )
            for link in span.links
        ]
        status = Status(StatusCode(span.status.code), span.status.message or None)
        spans.append(
            ReadableSpan(
                name=span.name,
                context=_context(span.trace_id, span.span_id, span.trace_state, remote=False),
                parent=parent,
                resource=resource,
                attributes=_values(span.attributes),
                events=events,
                links=links,
                kind=_kind(span.kind),
                status=status,
                start_time=span.start_time_unix_nano,
                end_time=span.end_time_unix_nano,
                instrumentation_scope=scope,
            )
        )
    return spans


def _kind(number: int) -> Any:
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    return SpanKind(number - 1)  # the protocol begins with "unspecified"


def _context(trace_id: bytes, span_id: bytes, state: str, *, remote: bool) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState  # noqa: PLC0415

    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        remote,
        TraceFlags(TraceFlags.SAMPLED),
        TraceState.from_header([state]),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


class ExporterNoise(logging.Filter):
    """Keeps what exporters log of our exports out of the application's logs.

    Our own batches are reported by the sender. Of the application's spans, which a standard processor
    exports, a failure becomes an event of the server, at most once a minute. What the application's own
    exporters log is left alone.

    Args:
        report: takes event and message for the server's log.
        sender: name of the thread that delivers our batches.
    """

    def __init__(self, report: Callable[[str, str], None], sender: str) -> None:
        super().__init__()
        self.last = ""
        self._report = report
        self._sender = sender
        self._reported = float("-inf")
        self._suppressed = 0

    def install(self) -> None:
        for name in _NOISY:
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        for name in _NOISY:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        thread = threading.current_thread().name
        if thread == self._sender:
            if record.levelno >= logging.ERROR:
                self.last = record.getMessage()
            return False
        of_app = thread == "OtelBatchSpanRecordProcessor" or (
            record.args == ("Span",) and record.levelno == logging.WARNING
        )
        if not of_app:
            return True
        if record.levelno >= logging.ERROR or record.args == ("Span",):
            self._tell(record.getMessage())
        return False

    def _tell(self, message: str) -> None:
        now = monotonic()
        if now - self._reported < _REPORT_INTERVAL:
            self._suppressed += 1
            return
        more = f" (and {self._suppressed} more like it)" if self._suppressed else ""
        self._reported, self._suppressed = now, 0
        self._report(EXPORT_FAILED, f"spans of the application: {message}{more}")
