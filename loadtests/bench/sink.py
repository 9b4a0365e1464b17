"""A collector that counts: one for each server that exports spans, in the harness, beside the load generator."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .failure import BenchError

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


class SpanCounter:
    """Takes OTLP over gRPC on a free port and keeps nothing but the number of spans."""

    def __init__(self) -> None:
        try:
            import grpc  # noqa: PLC0415 - only runs with spans need it
            from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp  # noqa: PLC0415
        except ImportError as error:
            raise BenchError("an OTLP collector needs packages: pip install -e .[test]") from error
        self.spans = 0

        def export(request: Any, _: Any) -> Any:
            self.spans += sum(
                len(scope.spans) for each in request.resource_spans for scope in each.scope_spans
            )
            return otlp.ExportTraceServiceResponse()

        call = grpc.unary_unary_rpc_method_handler(
            export,
            request_deserializer=otlp.ExportTraceServiceRequest.FromString,
            response_serializer=otlp.ExportTraceServiceResponse.SerializeToString,
        )
        # One thread: the number has one writer.
        self._server = grpc.server(ThreadPoolExecutor(1), options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Export": call}),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()
