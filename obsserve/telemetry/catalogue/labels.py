"""The values that labels take, how far those from outside may spread, and the bounds of histogram buckets."""

from __future__ import annotations

from typing import Final

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
PROXY_PROTOCOL_FAULTS: Final = ("missing", "malformed", "unsupported", "incomplete", "timeout")
HANDSHAKE_RESULTS: Final = ("accepted", "denied", "bad_request", "timeout", "limit", "app_error")
DIRECTIONS: Final = ("received", "sent")
MESSAGE_TYPES: Final = ("text", "binary")
CLOSE_INITIATORS: Final = ("client", "server", "app", "none")
# Registered by RFC 6455 7.4.1 and IANA; 1004 is reserved.
CLOSE_CODES: Final = (1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015)
LIMITS: Final = ("concurrency", "connections", "queue", "backlog", "fds", "header_bytes", "body_bytes")
LOG_STREAMS: Final = ("access", "server", "app")
LOG_RESULTS: Final = ("written", "sampled_out", "filtered", "dropped", "failed")
WORKER_STATES: Final = ("starting", "ready", "draining", "unresponsive")
RESTART_REASONS: Final = (
    "crash", "exit_code", "signal", "oom_kill", "unresponsive", "max_requests", "max_rss", "max_lifetime",
    "reload", "startup_failed",
)
RELOAD_RESULTS: Final = ("success", "failure")
TLS_FAILURE_REASONS: Final = (
    "timeout", "client_closed", "not_tls", "version", "cipher", "no_client_certificate",
    "bad_client_certificate", "refused_by_client", "other",
)
SIGNALS: Final = ("metrics", "access_log", "tracing")
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
