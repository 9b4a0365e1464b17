"""Every metric."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from obsserve.telemetry.catalogue.endings import ENDINGS
from obsserve.telemetry.catalogue.labels import (
    ACCEPT_ERRORS,
    AGE_BUCKETS,
    APP_PROTOCOL_ERRORS,
    CLOSE_CODES,
    CLOSE_INITIATORS,
    CLOSE_REASONS,
    CONNECTION_STATES,
    DIRECTIONS,
    DISCONNECT_PHASES,
    EXCEPTION_PHASES,
    EXCEPTION_TYPE_LIMIT,
    GC_GENERATIONS,
    GC_PAUSE_BUCKETS,
    HANDSHAKE_RESULTS,
    KNOWN_METHODS,
    LAG_BUCKETS,
    LATENCY_BUCKETS,
    LIMITS,
    LOG_RESULTS,
    LOG_STREAMS,
    MESSAGE_TYPES,
    OTHER,
    PING_BUCKETS,
    PROXY_PROTOCOL_FAULTS,
    QUEUE_BUCKETS,
    RELOAD_RESULTS,
    RESTART_REASONS,
    REUSE_BUCKETS,
    ROUTE_LIMIT,
    SERIES_LIMIT,
    SESSION_BUCKETS,
    SIGNALS,
    SIZE_BUCKETS,
    SPAN_DROPS,
    TLS_FAILURE_REASONS,
    TRACE_CONTEXT_FAULTS,
    WEBSOCKET_ROUTE_LIMIT,
    WORKER_STATES,
)

MetricType = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
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
QUEUED_REQUESTS: Final = _gauge("obsserve_http_queued_requests", "Requests that wait for their turn behind the limit of requests in progress.")
REQUEST_BODY_BYTES: Final = _counter("obsserve_http_request_body_bytes_total", "Bytes of request bodies received.")
RESPONSE_BODY_BYTES: Final = _counter("obsserve_http_response_body_bytes_total", "Bytes of response bodies sent.")
REJECTED_REQUESTS: Final = _counter("obsserve_http_rejected_requests_total", "Requests that the server itself answered with 503, by reason.", "reason", bound=len(_reasons("rejection")))
PROTOCOL_ERRORS: Final = _counter("obsserve_http_protocol_errors_total", "Requests that broke the protocol or a limit, by reason and the status that goes with it.", "reason", "http_response_status_code", bound=len({(ending.protocol_error, ending.status) for ending in ENDINGS.values() if ending.protocol_error}) + 1)
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
TLS_FAILURES: Final = _counter("obsserve_tls_handshake_failures_total", "TLS handshakes that failed, by reason.", "reason", bound=len(TLS_FAILURE_REASONS))
TLS_RELOADS: Final = _counter("obsserve_tls_certificate_reloads_total", "Reloads of changed certificate files, by result; after a failure the certificate before is served on.", "result", bound=len(RELOAD_RESULTS))
TLS_EXPIRY: Final = _gauge("obsserve_tls_certificate_expiry_timestamp_seconds", "When the certificate that is served expires, in seconds since the epoch.", "worker")
ACCEPT_FAILURES: Final = _counter("obsserve_accept_errors_total", "Seconds in which connections could not be accepted, by error; libuv accepts and closes them.", "error", bound=len(ACCEPT_ERRORS))
PROXY_PROTOCOL_ERRORS: Final = _counter("obsserve_proxy_protocol_errors_total", "Connections of trusted peers that were closed because of their PROXY protocol header, by reason.", "reason", bound=len(PROXY_PROTOCOL_FAULTS))
FORWARDED_UNTRUSTED: Final = _counter("obsserve_forwarded_untrusted_total", "Requests whose forwarding headers were ignored because of who sent them.")
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
WORKERS_DESIRED: Final = _gauge("obsserve_workers_desired", "How many workers there should be.")
WORKERS: Final = _gauge("obsserve_workers", "Worker processes by state.", "state", bound=len(WORKER_STATES))
WORKER_RESTARTS: Final = _counter("obsserve_worker_restarts_total", "Workers that were replaced, by reason.", "reason", bound=len(RESTART_REASONS))
WORKER_START: Final = _gauge("obsserve_worker_start_time_seconds", "When the worker's process began, in seconds since the epoch.", "worker")
WORKER_PID: Final = _gauge("obsserve_worker_pid", "Process id of the worker.", "worker")
WORKER_HEARTBEAT: Final = _gauge("obsserve_worker_last_heartbeat_timestamp_seconds", "When the worker's event loop last turned, in seconds since the epoch.", "worker")
WORKER_REQUESTS: Final = _counter("obsserve_worker_requests_total", "Requests that ended, by worker.", "worker")
WORKER_ACTIVE_REQUESTS: Final = _gauge("obsserve_worker_active_requests", "Requests that have begun and not ended, by worker.", "worker")
WORKER_CONNECTIONS_OPEN: Final = _gauge("obsserve_worker_connections_open", "Open client connections, by worker.", "worker")
CONFIG_RELOADS: Final = _counter("obsserve_config_reloads_total", "Reloads of the configuration, by result.", "result", bound=len(RELOAD_RESULTS))
CONFIG_RELOAD_SUCCESSFUL: Final = _gauge("obsserve_config_last_reload_successful", "1 if the last reload of the configuration succeeded, else 0.")
CONFIG_RELOAD_SUCCESS_TIME: Final = _gauge("obsserve_config_last_reload_success_timestamp_seconds", "When the configuration was last loaded with success, in seconds since the epoch.")
LIFESPAN_DURATION: Final = _gauge("obsserve_lifespan_duration_seconds", "How long the application's lifespan phase took.", "worker", "phase", bound=2)
LIFESPAN_FAILURES: Final = _counter("obsserve_lifespan_failures_total", "Lifespan phases in which the application failed.", "phase", bound=2)
READY: Final = _gauge("obsserve_ready", "1 while the server is ready for requests, else 0.")
BUILD_INFO: Final = _gauge("obsserve_build_info", "What is running: always 1.", "version", "python_version", "python_implementation", "event_loop", "http_parser")
# Its labels are the resource attributes, whatever they are.
TARGET_INFO: Final = _gauge("target_info", "Resource attributes of the service: always 1.")
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
SNAPSHOT_AGE: Final = _gauge("obsserve_metrics_snapshot_age_seconds", "Age of what a worker last said of its application's own metrics.", "worker")
SNAPSHOT_ERRORS: Final = _counter("obsserve_metrics_snapshot_errors_total", "Times a worker's application metrics could not be had or read.")
SELF_SECONDS: Final = _counter("obsserve_telemetry_self_seconds_total", "Time that telemetry itself took on the event loops, estimated from a few exchanges in each tenth of a second.", "signal", bound=len(SIGNALS))
SPANS_STARTED: Final = _counter("otel_sdk_span_started_total", "Spans of the server that have begun, by where their parent is and whether they are kept.", "otel_span_parent_origin", "otel_span_sampling_result", bound=9)
SPANS_LIVE: Final = _gauge("otel_sdk_span_live", "Spans of the server that are kept and have not ended.")
SPAN_QUEUE: Final = _gauge("otel_sdk_processor_span_queue_size", "Spans that wait to be exported.")
SPAN_QUEUE_CAPACITY: Final = _gauge("otel_sdk_processor_span_queue_capacity", "How many spans can wait before some are dropped.")
SPANS_PROCESSED: Final = _counter("otel_sdk_processor_span_processed_total", "Spans given to the exporter; with an error_type: spans dropped before that.", "error_type", bound=len(SPAN_DROPS) + 1)
SPANS_INFLIGHT: Final = _gauge("otel_sdk_exporter_span_inflight", "Spans in the export that is under way.")
SPANS_EXPORTED: Final = _counter("otel_sdk_exporter_span_exported_total", "Spans exported; with an error_type: spans lost in an export that failed.", "error_type", bound=_EXPORT_FAILURES)
LOG_EXPORT_QUEUE: Final = _gauge("otel_sdk_processor_log_queue_size", "Log records that wait to be exported over OTLP.")
LOG_EXPORT_QUEUE_CAPACITY: Final = _gauge("otel_sdk_processor_log_queue_capacity", "How many log records can wait to be exported before some are dropped.")
LOG_EXPORT_PROCESSED: Final = _counter("otel_sdk_processor_log_processed_total", "Log records given to the exporter; with an error_type: those dropped before that.", "error_type", bound=len(SPAN_DROPS) + 1)
LOG_EXPORT_INFLIGHT: Final = _gauge("otel_sdk_exporter_log_inflight", "Log records in the export that is under way.")
LOG_EXPORTED: Final = _counter("otel_sdk_exporter_log_exported_total", "Log records exported; with an error_type: those lost in an export that failed.", "error_type", bound=_EXPORT_FAILURES)
POINTS_INFLIGHT: Final = _gauge("otel_sdk_exporter_metric_data_point_inflight", "Data points of metrics in the push over OTLP that is under way.")
POINTS_EXPORTED: Final = _counter("otel_sdk_exporter_metric_data_point_exported_total", "Data points of metrics pushed over OTLP; with an error_type: those of a push that failed.", "error_type", bound=_EXPORT_FAILURES)
COLLECTION_DURATION: Final = _histogram("otel_sdk_metric_reader_collection_duration_seconds", "How long it took to collect the metrics for a push over OTLP.", LATENCY_BUCKETS, "error_type", bound=_EXPORT_FAILURES)
EXPORT_DURATION: Final = _histogram("otel_sdk_exporter_operation_duration_seconds", "How long an export took, its retries included.", LATENCY_BUCKETS, "error_type", bound=_EXPORT_FAILURES)
TRACE_CONTEXT_INVALID: Final = _counter("obsserve_trace_context_invalid_total", "Incoming trace contexts that were ignored because they are malformed, by reason.", "reason", bound=len(TRACE_CONTEXT_FAULTS))
TRACE_CONTEXT_UNTRUSTED: Final = _counter("obsserve_trace_context_untrusted_total", "Incoming trace contexts whose sampled flag was not believed because of who sent them.")
# fmt: on


METRICS: Final[dict[str, Metric]] = {
    metric.name: metric for metric in tuple(globals().values()) if isinstance(metric, Metric)
}

# What went wrong in an exchange: these have exemplars, as the latency histograms have.
ERROR_COUNTERS: Final = (
    REJECTED_REQUESTS,
    PROTOCOL_ERRORS,
    CLIENT_DISCONNECTS,
    APP_EXCEPTIONS,
    APP_PROTOCOL_FAULTS,
    DRAIN_INTERRUPTED,
)


def _sorted_reasons(attribute: str) -> tuple[str, ...]:
    return tuple(sorted(_reasons(attribute)))


# Where the values of a label are a closed list.
LABEL_VALUES: Final[dict[tuple[Metric, str], tuple[str, ...]]] = {
    (REQUEST_DURATION, "url_scheme"): ("http", "https"),
    (REJECTED_REQUESTS, "reason"): _sorted_reasons("rejection"),
    (PROTOCOL_ERRORS, "reason"): (*_sorted_reasons("protocol_error"), "tls_handshake"),
    (CLIENT_DISCONNECTS, "phase"): DISCONNECT_PHASES,
    (APP_EXCEPTIONS, "phase"): EXCEPTION_PHASES,
    (APP_PROTOCOL_FAULTS, "reason"): APP_PROTOCOL_ERRORS,
    (CONNECTIONS_OPEN, "state"): CONNECTION_STATES,
    (CONNECTIONS_CLOSED, "reason"): CLOSE_REASONS,
    (CLOSED_WHILE_ACTIVE, "side"): ("local", "remote"),
    (ACCEPT_FAILURES, "error"): ACCEPT_ERRORS,
    (LIMIT, "limit"): LIMITS,
    (PROXY_PROTOCOL_ERRORS, "reason"): PROXY_PROTOCOL_FAULTS,
    (WEBSOCKET_HANDSHAKES, "result"): HANDSHAKE_RESULTS,
    (WEBSOCKET_MESSAGES, "direction"): DIRECTIONS,
    (WEBSOCKET_MESSAGES, "type"): MESSAGE_TYPES,
    (WEBSOCKET_MESSAGE_BYTES, "direction"): DIRECTIONS,
    (WEBSOCKET_MESSAGE_BYTES, "type"): MESSAGE_TYPES,
    (WEBSOCKET_CLOSES, "code"): (*map(str, CLOSE_CODES), "3xxx", "4xxx", OTHER),
    (WEBSOCKET_CLOSES, "initiator"): CLOSE_INITIATORS,
    (GC_COLLECTIONS, "generation"): GC_GENERATIONS,
    (GC_COLLECTED, "generation"): GC_GENERATIONS,
    (GC_UNCOLLECTABLE, "generation"): GC_GENERATIONS,
    (GC_PAUSE, "generation"): GC_GENERATIONS,
    (WORKERS, "state"): WORKER_STATES,
    (WORKER_RESTARTS, "reason"): RESTART_REASONS,
    (CONFIG_RELOADS, "result"): RELOAD_RESULTS,
    (TLS_FAILURES, "reason"): TLS_FAILURE_REASONS,
    (TLS_RELOADS, "result"): RELOAD_RESULTS,
    (LIFESPAN_DURATION, "phase"): ("startup", "shutdown"),
    (LIFESPAN_FAILURES, "phase"): ("startup", "shutdown"),
    (LOG_RECORDS, "stream"): LOG_STREAMS,
    (LOG_RECORDS, "result"): LOG_RESULTS,
    (LOG_TRUNCATED, "stream"): LOG_STREAMS,
    (SCRAPES, "format"): ("text", "openmetrics"),
    (SELF_SECONDS, "signal"): SIGNALS,
    (SPANS_STARTED, "otel_span_parent_origin"): ("none", "local", "remote"),
    (SPANS_STARTED, "otel_span_sampling_result"): ("DROP", "RECORD_ONLY", "RECORD_AND_SAMPLE"),
    (SPANS_PROCESSED, "error_type"): ("", *SPAN_DROPS),
    (TRACE_CONTEXT_INVALID, "reason"): TRACE_CONTEXT_FAULTS,
}

# What the values of the other labels are.
LABEL_NOTES: Final = {
    "http_request_method": f"{', '.join(KNOWN_METHODS)}, else `{OTHER}`; OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS replaces the list",
    "url_scheme": "http or https, after trusted forwarding headers",
    "http_response_status_code": "status on the wire; empty when none was sent",
    "http_route": f"template of the route that answered, never the path; empty when none is known; {ROUTE_LIMIT} of HTTP and {WEBSOCKET_ROUTE_LIMIT} of WebSockets in each process, then `{OTHER}`",
    "error_type": f"empty on success; else a word of the endings below, a status from 500 on, or the class of the exception ({EXCEPTION_TYPE_LIMIT}, then `{OTHER}`)",
    "network_protocol_version": "1.0 or 1.1; empty when the request line could not be read",
    "exception_type": f"qualified name of the class: {EXCEPTION_TYPE_LIMIT}, then `{OTHER}`",
    "listener": "configured endpoint",
    "worker": "slot of the worker, from 0, or main; never a process id",
    "metric": "name of a metric",
    "error": "errno name in lower case, or other",
}
