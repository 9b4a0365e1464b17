"""The one source of telemetry names: how an exchange can end, each metric, each log field.

Owns the closed lists of the telemetry contract. Code, exposition, log rendering and the generated
documentation read these tables; nothing else spells a metric name or an outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Outcome = Literal[
    "ok",
    "client_error",
    "server_error",
    "rejected",
    "protocol_error",
    "timeout",
    "client_disconnected",
    "app_error",
    "shutdown",
]
DisconnectPhase = Literal["request_body", "waiting", "response", "stream"]
ResponseOrigin = Literal["app", "server", "none"]


# --- How an exchange ends ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """One way in which an exchange ends, with everything that each signal says about it.

    Args:
        detail: stable snake_case word, the log's `termination_detail`.
        outcome: the log's `outcome`; None when it follows from the response's status.
        status: the status that the server sends by itself, None when it sends none of its own.
        error_type: the `error_type` of all signals; None when it follows from the response's
            status or from the exception that the application raised.
        flag: the log's two-letter flag.
        rejection: `reason` in `obsserve_http_rejected_requests_total`.
        protocol_error: `reason` in `obsserve_http_protocol_errors_total`.
        app_protocol_error: `reason` in `obsserve_http_app_protocol_errors_total`.
        close_reason: `reason` in `obsserve_connections_closed_total` when the connection ends with it.
    """

    detail: str
    outcome: Outcome | None = None
    status: int | None = None
    error_type: str | None = None
    flag: str | None = None
    rejection: str | None = None
    protocol_error: str | None = None
    app_protocol_error: str | None = None
    close_reason: str = "negotiated"


def _malformed(reason: str, status: int = 400, error_type: str | None = None) -> Ending:
    return Ending(
        reason,
        "protocol_error",
        status,
        error_type,
        "DPE",
        protocol_error=reason,
        close_reason="protocol_error",
    )


def _rejected(reason: str, flag: str, error_type: str) -> Ending:
    return Ending(reason, "rejected", 503, error_type, flag, rejection=reason, close_reason="limit")


COMPLETE: Final = Ending("complete")
STREAM_CLOSED_BY_CLIENT: Final = Ending(
    "stream_closed_by_client", "ok", flag="SC", close_reason="client_closed"
)
CLIENT_DISCONNECTED: Final = Ending(
    "client_disconnected",
    "client_disconnected",
    error_type="client_disconnected",
    flag="DC",
    close_reason="client_closed",
)

BAD_REQUEST_LINE: Final = _malformed("bad_request_line")
BAD_HEADER: Final = _malformed("bad_header")
BAD_HOST: Final = _malformed("bad_host")
BAD_CHUNK: Final = _malformed("bad_chunk")
LENGTH_CONFLICT: Final = _malformed("length_conflict")
TE_CL_CONFLICT: Final = _malformed("te_cl_conflict")
BODY_TOO_LARGE: Final = _malformed("body_too_large", 413)
URI_TOO_LONG: Final = _malformed("uri_too_long", 414)
HEADER_TOO_LARGE: Final = _malformed("header_too_large", 431)
UNKNOWN_METHOD: Final = _malformed("unknown_method", 501, "501")
UNKNOWN_TRANSFER_CODING: Final = _malformed("unknown_transfer_coding", 501, "501")
UNSUPPORTED_VERSION: Final = _malformed("unsupported_version", 505, "505")
BAD_UPGRADE: Final = _malformed("bad_upgrade")
UPGRADE_REQUIRED: Final = replace(_malformed("bad_upgrade", 426), detail="upgrade_required")

HEADER_TIMEOUT: Final = Ending(
    "header_timeout",
    "timeout",
    408,
    "request_timeout",
    "HT",
    protocol_error="header_timeout",
    close_reason="header_timeout",
)
BODY_TIMEOUT: Final = Ending(
    "body_timeout",
    "timeout",
    408,
    "request_timeout",
    "BT",
    protocol_error="body_timeout",
    close_reason="body_timeout",
)
WRITE_TIMEOUT: Final = Ending(
    "write_timeout", "timeout", error_type="write_timeout", flag="WT", close_reason="write_timeout"
)
RESPONSE_TIMEOUT: Final = Ending(
    "response_timeout", "timeout", 504, "response_timeout", "DT", close_reason="app_error"
)

CONCURRENCY_LIMIT: Final = _rejected("concurrency_limit", "CL", "concurrency_limit")
CONNECTION_LIMIT: Final = _rejected("connection_limit", "CL", "concurrency_limit")
DRAINING: Final = _rejected("draining", "DR", "draining")

APP_EXCEPTION: Final = Ending("app_exception", "app_error", 500, flag="AX", close_reason="app_error")
APP_EXCEPTION_AFTER_START: Final = Ending(
    "app_exception_after_start", "app_error", flag="AP", close_reason="app_error"
)
APP_NO_RESPONSE: Final = Ending(
    "app_no_response",
    "app_error",
    500,
    "app_no_response",
    "AN",
    app_protocol_error="no_response",
    close_reason="app_error",
)
APP_INCOMPLETE_RESPONSE: Final = Ending(
    "app_incomplete_response",
    "app_error",
    error_type="app_incomplete_response",
    flag="AI",
    app_protocol_error="incomplete_response",
    close_reason="app_error",
)
APP_BODY_TOO_LONG: Final = Ending(
    "app_body_too_long",
    "app_error",
    error_type="app_content_length_mismatch",
    flag="AL",
    app_protocol_error="body_too_long",
    close_reason="app_error",
)
APP_BODY_TOO_SHORT: Final = Ending(
    "app_body_too_short",
    "app_error",
    error_type="app_content_length_mismatch",
    flag="AL",
    app_protocol_error="body_too_short",
    close_reason="app_error",
)
WORKER_SHUTDOWN: Final = Ending(
    "worker_shutdown", "shutdown", 503, "worker_shutdown", "KS", close_reason="shutdown"
)

ENDINGS: Final[dict[str, Ending]] = {
    ending.detail: ending for ending in tuple(globals().values()) if isinstance(ending, Ending)
}


# The close codes (RFC 6455 7.4.1) that tell of a failure; the session's span is then an error.
WEBSOCKET_ERROR_CODES: Final = frozenset((1002, 1006, 1007, 1008, 1009, 1011))


def outcome_of(ending: Ending, status: int | None) -> Outcome:
    """Return the outcome that log and span report for an exchange that ended so with this status."""
    if ending.outcome is not None:
        return ending.outcome
    if status is None or status < 400:
        return "ok"
    return "client_error" if status < 500 else "server_error"


def error_type_of(ending: Ending, status: int | None, exception: BaseException | None) -> str | None:
    """Return the `error_type` that metric, log and span share; None when there is no error."""
    if ending.error_type is not None:
        return ending.error_type
    if exception is not None:
        kind = type(exception)
        module = kind.__module__
        return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    if status is not None and status >= 500:
        return str(status)
    return None


# --- Metrics ----------------------------------------------------------------------------------

MetricType = Literal["counter", "gauge", "histogram"]

# fmt: off
# How far the values of one label can spread; each further one is folded into `_OTHER`.
OTHER: Final = "_OTHER"
KNOWN_METHODS: Final = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
ROUTE_LIMIT: Final = 300
WEBSOCKET_ROUTE_LIMIT: Final = 30
EXCEPTION_TYPE_LIMIT: Final = 50
SERIES_LIMIT: Final = 2000

DISCONNECT_PHASES: Final = ("request_body", "waiting", "response", "stream")
CONNECTION_STATES: Final = ("idle", "active", "websocket", "closing")
CLOSE_REASONS: Final = (
    "client_closed", "client_reset", "keepalive_timeout", "header_timeout", "body_timeout", "write_timeout",
    "max_requests", "negotiated", "protocol_error", "tls_error", "app_error", "limit", "drain", "shutdown",
)
EXCEPTION_PHASES: Final = ("before_response", "after_response_start", "websocket", "lifespan")
APP_PROTOCOL_ERRORS: Final = (
    "no_response", "incomplete_response", "body_too_long", "body_too_short",
    "duplicate_start", "bad_message", "send_after_close",
)
ACCEPT_ERRORS: Final = ("emfile", "enfile", "enobufs", "other")
HANDSHAKE_RESULTS: Final = ("accepted", "denied", "bad_request", "timeout", "limit", "app_error")
DIRECTIONS: Final = ("received", "sent")
MESSAGE_TYPES: Final = ("text", "binary")
CLOSE_INITIATORS: Final = ("client", "server", "app", "none")
# Registered by RFC 6455 7.4.1 and IANA; 1004 is reserved.
CLOSE_CODES: Final = (1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015)
LIMITS: Final = ("concurrency", "connections", "queue", "backlog", "fds", "header_bytes", "body_bytes")
LOG_STREAMS: Final = ("access", "server", "app")
LOG_RESULTS: Final = ("written", "sampled_out", "filtered", "dropped", "failed")
GC_GENERATIONS: Final = ("0", "1", "2")
SPAN_DROPS: Final = ("queue_full", "already_shutdown")
TRACE_CONTEXT_FAULTS: Final = (
    "malformed_traceparent", "unsupported_version", "zero_id", "malformed_tracestate", "tracestate_too_long",
)

LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
QUEUE_BUCKETS: Final = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
SIZE_BUCKETS: Final = tuple(float(256 * 4**power) for power in range(10))
REUSE_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
AGE_BUCKETS: Final = (0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
SESSION_BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
PING_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
GC_PAUSE_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5)
# fmt: on

OVERFLOW_LABEL: Final = "otel_metric_overflow"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    Args:
        name: as exposed; a counter's ends in `_total`.
        type: counter, gauge or histogram.
        help: one line for whoever meets it in a query editor.
        labels: label names, in the order in which values are given everywhere.
        buckets: a histogram's upper bounds, ascending, without infinity.
        unit: base unit, empty for a plain number.
        bound: how many label sets one serving process can bring forth.

    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    unit: str = ""
    bound: int = 1


def _unit(name: str) -> str:
    word = name.removesuffix("_total").rpartition("_")[2]
    return word if word in ("seconds", "bytes") else ""


def _counter(name: str, text: str, *labels: str, bound: int = 1) -> Metric:
    return Metric(name, "counter", text, labels, unit=_unit(name), bound=bound)


def _gauge(name: str, text: str, *labels: str, bound: int = 1) -> Metric:
    return Metric(name, "gauge", text, labels, unit=_unit(name), bound=bound)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str, bound: int = 1) -> Metric:
    return Metric(name, "histogram", text, labels, buckets, _unit(name), bound)


def _reasons(attribute: str) -> frozenset[str]:
    return frozenset(reason for ending in ENDINGS.values() if (reason := getattr(ending, attribute)))


EXCHANGE_LABELS: Final = (
    "http_request_method",
    "url_scheme",
    "http_response_status_code",
    "http_route",
    "error_type",
    "network_protocol_version",
)
_METHODS: Final = len(KNOWN_METHODS) + 1
_LISTENERS: Final = 16
_ERRNO_NAMES: Final = 32
_EXPORT_FAILURES: Final = 32  # gRPC codes, or HTTP statuses and exception classes

# fmt: off
# One metric, one line.
# HTTP exchanges
REQUEST_DURATION: Final = _histogram("http_server_request_duration_seconds", "Time from the first byte of a request to the last byte of its response.", LATENCY_BUCKETS, *EXCHANGE_LABELS, bound=SERIES_LIMIT + 1)
ACTIVE_REQUESTS: Final = _gauge("http_server_active_requests", "Requests that have begun and not ended.", "http_request_method", "url_scheme", bound=_METHODS * 2)
REQUEST_BODY_SIZE: Final = _histogram("http_server_request_body_size_bytes", "Size of request bodies (opt-in).", SIZE_BUCKETS, *EXCHANGE_LABELS, bound=SERIES_LIMIT + 1)
RESPONSE_BODY_SIZE: Final = _histogram("http_server_response_body_size_bytes", "Size of response bodies (opt-in).", SIZE_BUCKETS, *EXCHANGE_LABELS, bound=SERIES_LIMIT + 1)
TIME_TO_FIRST_BYTE: Final = _histogram("obsserve_http_time_to_first_byte_seconds", "Time from complete request headers to the first byte of the response.", LATENCY_BUCKETS, "http_request_method", "http_route", bound=_METHODS * (ROUTE_LIMIT + 2) + 1)
QUEUE: Final = _histogram("obsserve_http_queue_seconds", "Time from complete request headers to the start of the application.", QUEUE_BUCKETS)
REQUEST_BODY_BYTES: Final = _counter("obsserve_http_request_body_bytes_total", "Bytes of request bodies received.")
RESPONSE_BODY_BYTES: Final = _counter("obsserve_http_response_body_bytes_total", "Bytes of response bodies sent.")
REJECTED_REQUESTS: Final = _counter("obsserve_http_rejected_requests_total", "Requests that the server itself answered with 503, by reason.", "reason", bound=len(_reasons("rejection")))
PROTOCOL_ERRORS: Final = _counter("obsserve_http_protocol_errors_total", "Requests that broke the protocol or a limit, by reason and the status that goes with it.", "reason", "http_response_status_code", bound=len({(ending.protocol_error, ending.status) for ending in ENDINGS.values() if ending.protocol_error}))
CLIENT_DISCONNECTS: Final = _counter("obsserve_http_client_disconnects_total", "Exchanges that the client left before their end, by what the server was doing.", "phase", bound=len(DISCONNECT_PHASES))
APP_EXCEPTIONS: Final = _counter("obsserve_http_app_exceptions_total", "Exceptions that the application did not handle.", "exception_type", "phase", bound=(EXCEPTION_TYPE_LIMIT + 1) * len(EXCEPTION_PHASES))
APP_PROTOCOL_FAULTS: Final = _counter("obsserve_http_app_protocol_errors_total", "What the application did against ASGI, by reason.", "reason", bound=len(APP_PROTOCOL_ERRORS))
WRITE_BLOCKED: Final = _counter("obsserve_http_write_blocked_seconds_total", "Time for which responses waited on slow readers.")
PIPELINED_REQUESTS: Final = _counter("obsserve_http_pipelined_requests_total", "Requests that arrived before the response to the one ahead of them was complete.")
DRAIN_INTERRUPTED: Final = _counter("obsserve_drain_interrupted_requests_total", "Requests that were cut off when the time to drain was over.")
# Connections
CONNECTIONS_OPEN: Final = _gauge("obsserve_connections_open", "Open client connections by state.", "state", bound=len(CONNECTION_STATES))
CONNECTIONS_ACCEPTED: Final = _counter("obsserve_connections_accepted_total", "Client connections accepted.", "listener", bound=_LISTENERS)
CONNECTIONS_CLOSED: Final = _counter("obsserve_connections_closed_total", "Client connections closed, by reason.", "reason", bound=len(CLOSE_REASONS))
CLOSED_WHILE_ACTIVE: Final = _counter("obsserve_connections_closed_with_active_request_total", "Connections that ended while a request was open, by the side that ended them.", "side", bound=2)
CONNECTION_REQUESTS: Final = _histogram("obsserve_connection_requests", "Requests served on a connection, counted when it closes.", REUSE_BUCKETS)
CONNECTIONS_REUSED: Final = _counter("obsserve_connections_reused_total", "Connections on which a second request arrived.")
CONNECTION_DURATION: Final = _histogram("obsserve_connection_duration_seconds", "Age of connections when they close.", AGE_BUCKETS)
RECEIVED_BYTES: Final = _counter("obsserve_connection_received_bytes_total", "Bytes received from clients, heads and framing included.", "listener", bound=_LISTENERS)
SENT_BYTES: Final = _counter("obsserve_connection_sent_bytes_total", "Bytes sent to clients, heads and framing included.", "listener", bound=_LISTENERS)
BUFFERED_BYTES: Final = _gauge("obsserve_connection_buffered_bytes", "Response bytes that wait in memory for their clients.")
WRITE_PAUSED: Final = _gauge("obsserve_connections_write_paused", "Connections whose client reads too slowly to be written to.")
ACCEPT_FAILURES: Final = _counter("obsserve_accept_errors_total", "Connections that could not be accepted, by error.", "error", bound=len(ACCEPT_ERRORS))
LISTENER_BACKLOG: Final = _gauge("obsserve_listener_backlog_connections", "Connections that the kernel holds until they are accepted.", "listener", bound=_LISTENERS)
LIMIT: Final = _gauge("obsserve_limit", "The configured limits; usage divided by limit is saturation.", "limit", bound=len(LIMITS))
# Runtime
WEBSOCKET_HANDSHAKES: Final = _counter("obsserve_websocket_handshakes_total", "WebSocket handshakes by result.", "result", "http_route", bound=len(HANDSHAKE_RESULTS) * (WEBSOCKET_ROUTE_LIMIT + 2))
WEBSOCKET_OPEN: Final = _gauge("obsserve_websocket_connections_open", "Open WebSockets.", "http_route", bound=WEBSOCKET_ROUTE_LIMIT + 2)
WEBSOCKET_DURATION: Final = _histogram("obsserve_websocket_connection_duration_seconds", "How long WebSockets were open, counted when they close.", SESSION_BUCKETS, "http_route", bound=WEBSOCKET_ROUTE_LIMIT + 2)
WEBSOCKET_MESSAGES: Final = _counter("obsserve_websocket_messages_total", "WebSocket messages.", "direction", "type", bound=4)
WEBSOCKET_MESSAGE_BYTES: Final = _counter("obsserve_websocket_message_bytes_total", "Payload bytes of WebSocket messages, before compression.", "direction", "type", bound=4)
WEBSOCKET_CLOSES: Final = _counter("obsserve_websocket_closes_total", "WebSockets closed, by code and by who began to close.", "code", "initiator", bound=(len(CLOSE_CODES) + 3) * len(CLOSE_INITIATORS))
WEBSOCKET_PING_RTT: Final = _histogram("obsserve_websocket_ping_rtt_seconds", "Round-trip time of WebSocket pings.", PING_BUCKETS)
WEBSOCKET_PING_TIMEOUTS: Final = _counter("obsserve_websocket_ping_timeouts_total", "WebSockets closed because a ping was not answered.")
WEBSOCKET_QUEUED: Final = _gauge("obsserve_websocket_receive_queue_messages", "Messages that applications have not received yet.")

LOOP_LAG: Final = _histogram("obsserve_event_loop_lag_seconds", "How late the event loop ran a timer that was due.", LAG_BUCKETS, "worker")
LOOP_LAG_MAX: Final = _gauge("obsserve_event_loop_lag_max_seconds", "The worst event loop lag of the last 30 seconds.", "worker")
LOOP_STALLS: Final = _counter("obsserve_event_loop_stalls_total", "Times the event loop was blocked for more than a second.", "worker")
LOOP_TASKS: Final = _gauge("obsserve_event_loop_tasks", "Tasks on the event loop.", "worker")
GC_COLLECTIONS: Final = _counter("python_gc_collections_total", "Number of times this generation was collected.", "generation", "worker", bound=len(GC_GENERATIONS))
GC_COLLECTED: Final = _counter("python_gc_objects_collected_total", "Objects collected during gc.", "generation", "worker", bound=len(GC_GENERATIONS))
GC_UNCOLLECTABLE: Final = _counter("python_gc_objects_uncollectable_total", "Uncollectable objects found during gc.", "generation", "worker", bound=len(GC_GENERATIONS))
GC_PAUSE: Final = _histogram("obsserve_gc_pause_seconds", "How long a garbage collection held everything up.", GC_PAUSE_BUCKETS, "generation", bound=len(GC_GENERATIONS))
PYTHON_INFO: Final = _gauge("python_info", "Python platform information.", "implementation", "major", "minor", "patchlevel", "version")
PROCESS_CPU: Final = _counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "worker")
PROCESS_RESIDENT: Final = _gauge("process_resident_memory_bytes", "Resident memory size in bytes.", "worker")
PROCESS_VIRTUAL: Final = _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", "worker")
PROCESS_OPEN_FDS: Final = _gauge("process_open_fds", "Number of open file descriptors.", "worker")
PROCESS_MAX_FDS: Final = _gauge("process_max_fds", "Maximum number of open file descriptors.", "worker")
PROCESS_START: Final = _gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "worker")
# Lifecycle and health
LIFESPAN_DURATION: Final = _gauge("obsserve_lifespan_duration_seconds", "How long the application's lifespan phase took.", "worker", "phase", bound=2)
LIFESPAN_FAILURES: Final = _counter("obsserve_lifespan_failures_total", "Lifespan phases in which the application failed.", "phase", bound=2)
READY: Final = _gauge("obsserve_ready", "1 while the server is ready for requests, else 0.")
BUILD_INFO: Final = _gauge("obsserve_build_info", "What is running: always 1.", "version", "python_version", "python_implementation", "event_loop", "http_parser")
# Telemetry about telemetry
LOG_RECORDS: Final = _counter("obsserve_log_records_total", "Log records by stream and by what became of them.", "stream", "result", bound=len(LOG_STREAMS) * len(LOG_RESULTS))
LOG_TRUNCATED: Final = _counter("obsserve_log_truncated_total", "Log records that were cut to the longest line allowed.", "stream", bound=len(LOG_STREAMS))
LOG_QUEUE: Final = _gauge("obsserve_log_queue_records", "Log records that wait to be written.", "worker")
LOG_QUEUE_CAPACITY: Final = _gauge("obsserve_log_queue_capacity_records", "How many log records can wait before some are dropped.", "worker")
LOG_WRITE_ERRORS: Final = _counter("obsserve_log_write_errors_total", "Writes of log records that failed, by error.", "error", bound=_ERRNO_NAMES)
LOG_WRITE_SECONDS: Final = _counter("obsserve_log_write_seconds_total", "Time spent in writing log records.")
SCRAPES: Final = _counter("obsserve_metrics_scrapes_total", "Scrapes served, by format.", "format", bound=2)
SCRAPE_DURATION: Final = _gauge("obsserve_metrics_scrape_duration_seconds", "How long the scrape before this one took.")
SCRAPE_ERRORS: Final = _counter("obsserve_metrics_scrape_errors_total", "Collectors and families of metrics that failed during a scrape.")
SERIES: Final = _gauge("obsserve_metrics_series", "Series in this exposition.")
OVERFLOW: Final = _counter("obsserve_metrics_overflow_total", "Observations that a metric put into its overflow set because it has too many label sets.", "metric", bound=16)
SPANS_STARTED: Final = _counter("otel_sdk_span_started_total", "Spans of the server that have begun, by where their parent is and whether they are kept.", "otel_span_parent_origin", "otel_span_sampling_result", bound=9)
SPANS_LIVE: Final = _gauge("otel_sdk_span_live", "Spans of the server that are kept and have not ended.")
SPAN_QUEUE: Final = _gauge("otel_sdk_processor_span_queue_size", "Spans that wait to be exported.")
SPAN_QUEUE_CAPACITY: Final = _gauge("otel_sdk_processor_span_queue_capacity", "How many spans can wait before some are dropped.")
SPANS_PROCESSED: Final = _counter("otel_sdk_processor_span_processed_total", "Spans given to the exporter; with an error_type: spans dropped before that.", "error_type", bound=len(SPAN_DROPS) + 1)
SPANS_INFLIGHT: Final = _gauge("otel_sdk_exporter_span_inflight", "Spans in the export that is under way.")
SPANS_EXPORTED: Final = _counter("otel_sdk_exporter_span_exported_total", "Spans exported; with an error_type: spans lost in an export that failed.", "error_type", bound=_EXPORT_FAILURES)
EXPORT_DURATION: Final = _histogram("otel_sdk_exporter_operation_duration_seconds", "How long an export took, its retries included.", LATENCY_BUCKETS, "error_type", bound=_EXPORT_FAILURES)
TRACE_CONTEXT_INVALID: Final = _counter("obsserve_trace_context_invalid_total", "Incoming trace contexts that were ignored because they are malformed, by reason.", "reason", bound=len(TRACE_CONTEXT_FAULTS))
TRACE_CONTEXT_UNTRUSTED: Final = _counter("obsserve_trace_context_untrusted_total", "Incoming trace contexts whose sampled flag was not believed because of who sent them.")
# fmt: on


METRICS: Final[dict[str, Metric]] = {
    metric.name: metric for metric in tuple(globals().values()) if isinstance(metric, Metric)
}


# --- Log fields -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogField:
    """One key of the access line.

    Args:
        name: the key, in the Prometheus spelling of its semantic convention.
        type: what its JSON value is.
        help: what it says.
        present: when it is there.
    """

    name: str
    type: Literal["string", "int", "float", "bool", "array"]
    help: str
    present: str = "always"


_UTC: Final = "RFC 3339, UTC, microseconds"

# In the order of the line's keys.
LOG_FIELDS: Final = (
    LogField("timestamp", "string", f"end of the exchange; {_UTC}"),
    LogField("start_time", "string", f"first byte of the request seen; {_UTC}"),
    LogField("level", "string", "info, warning or error; follows from how the exchange ended"),
    LogField("event", "string", "http.request, websocket.handshake or websocket.session"),
    LogField("schema", "int", "version of this list of fields: 1"),
    LogField("logger", "string", "obsserve.access"),
    LogField("service_name", "string", "resource attribute service.name"),
    LogField("service_instance_id", "string", "resource attribute service.instance.id: one for each server"),
    LogField("worker", "int", "slot of the worker that served the request"),
    LogField("process_pid", "int", "process that served the request"),
    LogField("request_id", "string", "the request's id, also in its scope and response"),
    LogField("trace_id", "string", "the trace's id, 32 hex digits", "tracing on"),
    LogField("span_id", "string", "the server span's id, 16 hex digits", "tracing on"),
    LogField("trace_flags", "string", "01 when the trace is sampled, else 00", "tracing on"),
    LogField("http_request_method", "string", "known method, else _OTHER", "request line parsed"),
    LogField("http_request_method_original", "string", "method as sent", "it is not a known one"),
    LogField(
        "url_scheme", "string", "http or https, after trusted forwarding headers", "request line parsed"
    ),
    LogField("url_path", "string", "raw percent-encoded path, never decoded", "request line parsed"),
    LogField("url_query", "string", "query after the redaction policy", "query sent, policy not drop"),
    LogField("http_route", "string", "template of the route that answered; null when none is known"),
    LogField("http_response_status_code", "int", "status on the wire; null when none was sent"),
    LogField("network_protocol_version", "string", "1.0 or 1.1", "request line parsed"),
    LogField("server_address", "string", "name or address in the Host header", "Host parsed"),
    LogField("server_port", "int", "port in the Host header", "Host names one"),
    LogField("client_address", "string", "client, by way of trusted proxies only", "client known"),
    LogField("network_peer_address", "string", "other end of the connection", "connection has an address"),
    LogField("network_peer_port", "int", "port of the other end", "connection has a port"),
    LogField(
        "forwarded_trusted",
        "bool",
        "forwarding headers came from a trusted peer",
        "a forwarding header was seen",
    ),
    LogField("user_agent_original", "string", "User-Agent header", "sent"),
    LogField("http_request_body_size", "int", "bytes of request body received"),
    LogField("http_response_body_size", "int", "bytes of response body sent"),
    LogField("http_request_size", "int", "bytes of the request on the wire, head included"),
    LogField("http_response_size", "int", "bytes of the response on the wire, head included"),
    LogField("duration_seconds", "float", "first byte seen to last byte sent"),
    LogField("ttfb_seconds", "float", "request head complete to first response byte", "response started"),
    LogField("queue_seconds", "float", "request head complete to application started", "application started"),
    LogField("receive_seconds", "float", "request head complete to request body complete", "body complete"),
    LogField("app_seconds", "float", "application started to its response start", "application sent it"),
    LogField("send_seconds", "float", "first to last response byte", "response started"),
    LogField("write_blocked_seconds", "float", "time waited for a slow reader", "response started"),
    LogField("loop_lag_max_seconds", "float", "worst event-loop lag while the request was open"),
    LogField("connection_id", "string", "the connection's id"),
    LogField("connection_request", "int", "1 for the first request on its connection"),
    LogField("listener", "string", "configured endpoint that accepted the connection"),
    LogField("tls_protocol_version", "string", "for example TLSv1.3", "TLS"),
    LogField("tls_cipher", "string", "cipher suite", "TLS"),
    LogField("tls_resumed", "bool", "the TLS session was resumed", "TLS"),
    LogField("outcome", "string", "one of the outcomes above"),
    LogField("response_origin", "string", "app, server or none"),
    LogField("flags", "array", "codes, see the flags", "not empty"),
    LogField("termination_detail", "string", "how the exchange ended, see the endings", "outcome is not ok"),
    LogField("error_type", "string", "as in the metrics", "there is an error"),
    LogField(
        "disconnect_phase", "string", "request_body, waiting, response or stream", "client disconnected"
    ),
    LogField(
        "websocket_close_code", "int", "as sent or received; 1005 without one, 1006 when lost", "session"
    ),
    LogField("websocket_close_initiator", "string", "client, server, app or none", "session"),
    LogField("websocket_messages_received", "int", "messages received", "session"),
    LogField("websocket_messages_sent", "int", "messages sent", "session"),
    LogField("websocket_bytes_received", "int", "payload bytes received", "session"),
    LogField("websocket_bytes_sent", "int", "payload bytes sent", "session"),
    LogField("truncated", "array", "names of the fields that were cut", "a field was cut"),
)

# Envoy's code where the meaning is the same (DC, DPE, SI, DT, OM).
FLAGS: Final[dict[str, str]] = {
    "DC": "client closed the connection early",
    "DPE": "malformed request",
    "SI": "idle timeout",
    "DT": "request deadline exceeded",
    "OM": "shed because of overload",
    "CL": "concurrency limit",
    "QF": "queue full",
    "DR": "draining",
    "NR": "not ready",
    "HT": "request head took too long",
    "BT": "request body stood still for too long",
    "WT": "client stopped reading the response",
    "RS": "client reset the connection",
    "AX": "application raised before its response",
    "AP": "application raised after its response started: the reply is truncated",
    "AN": "application sent nothing",
    "AI": "application left its response unfinished",
    "AL": "application's body does not match its Content-Length",
    "KS": "killed at the end of the grace period",
    "SC": "client closed a stream, which is its normal end",
    "UP": "connection was upgraded",
    "LG": "event loop lagged more than 100 ms meanwhile",
}

# Lag above which the flag LG is set.
LAG_FLAG_SECONDS: Final = 0.1


# --- Spans ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpanAttribute:
    """One attribute of a span. Where the access line has the field, the names differ by dots alone.

    Args:
        name: as in the semantic conventions, else `obsserve.…`.
        type: what its value is.
        help: what it says.
        present: when it is there.
    """

    name: str
    type: Literal["string", "int", "float", "array"]
    help: str
    present: str = "always"


SPAN_ATTRIBUTES: Final = (
    SpanAttribute("http.request.method", "string", "known method, else _OTHER", "request line parsed"),
    SpanAttribute("http.request.method_original", "string", "method as sent", "it is not a known one"),
    SpanAttribute(
        "url.scheme", "string", "http or https, after trusted forwarding headers", "request line parsed"
    ),
    SpanAttribute("http.route", "string", "template of the route that answered", "known"),
    SpanAttribute("http.response.status_code", "int", "status on the wire", "one was sent"),
    SpanAttribute("network.protocol.version", "string", "1.0 or 1.1", "request line parsed"),
    SpanAttribute("server.address", "string", "name or address in the Host header", "Host parsed"),
    SpanAttribute("server.port", "int", "port in the Host header", "Host names one"),
    SpanAttribute("url.path", "string", "raw percent-encoded path, never decoded", "request line parsed"),
    SpanAttribute("url.query", "string", "query after the redaction policy", "query sent, policy not drop"),
    SpanAttribute("client.address", "string", "client, by way of trusted proxies only", "client known"),
    SpanAttribute(
        "network.peer.address", "string", "other end of the connection", "connection has an address"
    ),
    SpanAttribute("network.peer.port", "int", "port of the other end", "connection has a port"),
    SpanAttribute("obsserve.connection.id", "string", "the connection's id"),
    SpanAttribute("user_agent.original", "string", "User-Agent header", "sent"),
    SpanAttribute("user_agent.synthetic.type", "string", "test", "the User-Agent names Locust"),
    SpanAttribute("http.request.body.size", "int", "bytes of request body received"),
    SpanAttribute("http.response.body.size", "int", "bytes of response body sent"),
    SpanAttribute("obsserve.connection.request", "int", "1 for the first request on its connection"),
    SpanAttribute("obsserve.request_id", "string", "the request's id, also in its scope and response"),
    SpanAttribute(
        "obsserve.ttfb",
        "float",
        "seconds from request head complete to first response byte",
        "response started",
    ),
    SpanAttribute(
        "obsserve.queue",
        "float",
        "seconds from request head complete to application started",
        "application started",
    ),
    SpanAttribute("obsserve.write_blocked", "float", "seconds waited for a slow reader", "response started"),
    SpanAttribute(
        "obsserve.loop_lag_max", "float", "worst event-loop lag while the request was open, seconds"
    ),
    SpanAttribute("obsserve.response_origin", "string", "app, server or none"),
    SpanAttribute("obsserve.flags", "array", "codes, see the flags", "not empty"),
    SpanAttribute("error.type", "string", "as in the metrics", "there is an error"),
)

# Of a WebSocket's session, besides http.route, error.type, obsserve.connection.id and obsserve.request_id.
SESSION_ATTRIBUTES: Final = (
    SpanAttribute("obsserve.websocket.messages_received", "int", "messages received"),
    SpanAttribute("obsserve.websocket.messages_sent", "int", "messages sent"),
    SpanAttribute(
        "obsserve.websocket.bytes_received", "int", "bytes of messages received, after decompression"
    ),
    SpanAttribute("obsserve.websocket.bytes_sent", "int", "bytes of messages sent, before compression"),
    SpanAttribute(
        "obsserve.websocket.close_code", "int", "close code; 1005 for none, 1006 for a lost connection"
    ),
    SpanAttribute("obsserve.websocket.close_initiator", "string", "client, server, app or none"),
)
