"""The application of hello with telemetry put together from packages, as teams do under uvicorn today.

Metrics by starlette-exporter, a JSON line by structlog and orjson, one span for each request by
opentelemetry-instrumentation-asgi (its send and receive spans are off) and the SDK's batch processor over gRPC.
"""

import time
from typing import Any

import orjson
import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette_exporter import PrometheusMiddleware

from .apps import hello

provider = TracerProvider()  # its sampler, queue and endpoint come from the environment
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(serializer=orjson.dumps),
    ],
    wrapper_class=structlog.make_filtering_bound_logger(20),
    logger_factory=structlog.BytesLoggerFactory(),
    cache_logger_on_first_use=True,
)
log = structlog.get_logger()


class AccessLog:
    """Writes a line for each request, with its trace."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = None
        size = 0

        async def observed(message: Any) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, observed)
        finally:
            span = trace.get_current_span().get_span_context()
            log.info(
                "http.request",
                http_request_method=scope["method"],
                url_path=scope["path"],
                http_response_status_code=status,
                http_response_body_size=size,
                client_address=scope["client"][0],
                duration_seconds=time.perf_counter() - began,
                trace_id=f"{span.trace_id:032x}",
                span_id=f"{span.span_id:016x}",
            )


app = OpenTelemetryMiddleware(PrometheusMiddleware(AccessLog(hello)), exclude_spans=["send", "receive"])
