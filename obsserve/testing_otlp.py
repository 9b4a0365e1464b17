"""For tests, ours and those of users: a collector that records what it receives over OTLP.

Needs `grpcio` and `opentelemetry-proto`, which come with `obsserve[otlp]`.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import grpc  # type: ignore[import-untyped]  # it has no annotations
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

Request = ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest
Response = ExportTraceServiceResponse | ExportLogsServiceResponse | ExportMetricsServiceResponse

_METHOD: Final = "Export"
_SERVICES: Final[dict[str, type[Request]]] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": ExportTraceServiceRequest,
    "opentelemetry.proto.collector.logs.v1.LogsService": ExportLogsServiceRequest,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": ExportMetricsServiceRequest,
}
_PATHS: Final[dict[str, type[Request]]] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """How the sink answers one request.

    Args:
        code: a gRPC status name such as UNAVAILABLE, or an HTTP status; None accepts.
        retry_after: seconds, sent along with an HTTP refusal.
        rejected: how many spans, log records or data points to reject of a request that is accepted.
        hang: do not answer before the sink is closed.
    """

    code: str | int | None = None
    retry_after: int | None = None
    rejected: int = 0
    hang: bool = False


class OTLPSink:
    """A collector on a free port of the loopback interface.

    `answers` holds what the next requests get, first come first served; when it is empty `answer` holds.

    Args:
        protocol: how OTLP is spoken.
        port: 0 picks a free one.
    """

    def __init__(self, protocol: Literal["grpc", "http/protobuf"] = "grpc", port: int = 0) -> None:
        self.protocol = protocol
        self.answer = Answer()
        self.answers: deque[Answer] = deque()
        self.attempts = 0
        self.headers: list[dict[str, str]] = []
        self._received: list[Request] = []
        self._arrived = threading.Condition()
        self._closing = threading.Event()
        self._server: Any = self._serve_grpc(port) if protocol == "grpc" else self._serve_http(port)

    @property
    def endpoint(self) -> str:
        """The URL for `--otlp-endpoint`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[ExportTraceServiceRequest]:
        """The requests with spans that were accepted."""
        with self._arrived:
            return [request for request in self._received if isinstance(request, ExportTraceServiceRequest)]

    @property
    def log_requests(self) -> list[ExportLogsServiceRequest]:
        """The requests with log records that were accepted."""
        with self._arrived:
            return [request for request in self._received if isinstance(request, ExportLogsServiceRequest)]

    @property
    def logs(self) -> list[LogRecord]:
        """The log records of all accepted requests."""
        return [
            record
            for request in self.log_requests
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def wait_for_logs(self, count: int, timeout: float = 10.0) -> list[LogRecord]:
        """Return the log records as soon as there are so many.

        Raises:
            TimeoutError: there are not, in so many seconds.
        """
        deadline = monotonic() + timeout
        while len(found := self.logs) < count:
            if not self._wait(deadline):
                raise TimeoutError(f"{len(self.logs)} log records of {count} arrived in {timeout} s")
        return found

    @property
    def metric_requests(self) -> list[ExportMetricsServiceRequest]:
        """The requests with metrics that were accepted."""
        with self._arrived:
            return [request for request in self._received if isinstance(request, ExportMetricsServiceRequest)]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of all accepted requests; those of a later push stand behind those of one before."""
        return [
            metric
            for request in self.metric_requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    @property
    def spans(self) -> list[Span]:
        """The spans of all accepted requests."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Span]:
        """Return the spans as soon as there are so many.

        Raises:
            TimeoutError: there are not, in so many seconds.
        """
        deadline = monotonic() + timeout
        while len(found := self.spans) < count:
            if not self._wait(deadline):
                raise TimeoutError(f"{len(self.spans)} spans of {count} arrived in {timeout} s")
        return found

    def wait_for_attempts(self, count: int, timeout: float = 10.0) -> None:
        """Return as soon as so many requests have come, accepted or not.

        Raises:
            TimeoutError: they have not, in so many seconds.
        """
        deadline = monotonic() + timeout
        while self.attempts < count:
            if not self._wait(deadline):
                raise TimeoutError(f"{self.attempts} requests of {count} came in {timeout} s")

    def _wait(self, deadline: float) -> bool:
        left = deadline - monotonic()
        if left <= 0:
            return False
        with self._arrived:
            self._arrived.wait(min(left, 0.1))
        return True

    def close(self) -> None:
        self._closing.set()
        if self.protocol == "grpc":
            self._server.stop(None).wait()
        else:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- Receiving ---------------------------------------------------------------------------

    def take(self, request: Request, headers: dict[str, str]) -> Answer:
        """Record a request; return how it is answered."""
        with self._arrived:
            self.attempts += 1
            answer = self.answers.popleft() if self.answers else self.answer
            if answer.code is None and not answer.hang:
                self._received.append(request)
                self.headers.append(headers)
            self._arrived.notify_all()
        if answer.hang:
            self._closing.wait()
        return answer

    def _serve_grpc(self, port: int) -> grpc.Server:
        # Without SO_REUSEPORT a port that another test has left cannot be shared with it.
        server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
        for service, request in _SERVICES.items():
            call = grpc.unary_unary_rpc_method_handler(
                self._export,
                request_deserializer=request.FromString,
                response_serializer=lambda response: response.SerializeToString(),
            )
            handler = grpc.method_handlers_generic_handler(service, {_METHOD: call})
            server.add_generic_rpc_handlers((handler,))
        self.port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server

    def _export(self, request: Request, context: grpc.ServicerContext) -> Response:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        answer = self.take(request, headers)
        if answer.code is not None:
            context.abort(grpc.StatusCode[str(answer.code)], "as the test wants it")
        return _response(request, answer)

    def _serve_http(self, port: int) -> ThreadingHTTPServer:
        sink = self

        class Receiver(_Receiver):
            def do_POST(self) -> None:
                self.receive(sink)

        server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
        server.daemon_threads = True
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def receive(self, sink: OTLPSink) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        encoding = self.headers.get("content-encoding")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)
        kind = _PATHS.get(self.path)
        if kind is None:
            self._reply(404, b"")
            return
        request = kind.FromString(body)
        answer = sink.take(request, {name.lower(): value for name, value in self.headers.items()})
        if answer.code is None:
            self._reply(200, _response(request, answer).SerializeToString())
        else:
            self._reply(int(answer.code), b"", answer.retry_after)

    def _reply(self, status: int, body: bytes, retry_after: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        if retry_after is not None:
            self.send_header("retry-after", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def _response(request: Request, answer: Answer) -> Response:
    if isinstance(request, ExportLogsServiceRequest):
        logs = ExportLogsServiceResponse()
        if answer.rejected:
            logs.partial_success.rejected_log_records = answer.rejected
        return logs
    if isinstance(request, ExportMetricsServiceRequest):
        metrics = ExportMetricsServiceResponse()
        if answer.rejected:
            metrics.partial_success.rejected_data_points = answer.rejected
        return metrics
    response = ExportTraceServiceResponse()
    if answer.rejected:
        response.partial_success.rejected_spans = answer.rejected
    return response
