"""The keys of an access line, and the codes of its flags."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class LogField(NamedTuple):
    """One key of the access line.

    Args:
        name: the key, in the Prometheus spelling of its semantic convention.
        type: what its JSON value is.
        help: what it says.
        present: when it is there.
    """

    name: str
    type: Literal["string", "int", "float", "bool", "array", "object"]
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
    LogField(
        "tls_client_subject",
        "string",
        "who the client's certificate names (RFC 4514)",
        "TLS, certificate given",
    ),
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
    LogField("http_request_header_<name>", "array", "values of a request header", "captured"),
    LogField("http_response_header_<name>", "array", "values of a response header", "captured"),
    LogField("sample_rate", "float", "the line stands for 1/sample_rate exchanges", "less than 1"),
    LogField("app", "object", "what the application has bound", "bound"),
    LogField("truncated", "array", "names of the fields that were cut", "a field was cut"),
)

# Envoy's code where the meaning is the same (DC, DPE, DT, OM).
FLAGS: Final[dict[str, str]] = {
    "DC": "client closed the connection early",
    "DPE": "malformed request",
    "DT": "request deadline exceeded",
    "OM": "shed because of overload",
    "CL": "concurrency limit",
    "QF": "no place in the queue, or waited too long in it",
    "DR": "draining",
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

# The status that nginx logs for a client that left before it was answered; for `--log-status-499`.
CLIENT_CLOSED_REQUEST: Final = 499

# The keys under `--log-keys otel`: semantic conventions, else the spelling of the span's attribute.
OTEL_LOG_KEYS: Final[dict[str, str]] = {
    name: name.replace("_", ".")
    for name in (
        "service_name", "url_scheme", "url_path", "url_query", "http_route", "network_protocol_version",
        "server_address", "server_port", "client_address", "network_peer_address", "network_peer_port",
        "http_request_method", "http_request_body_size", "http_response_body_size", "http_request_size",
        "http_response_size", "tls_protocol_version", "tls_cipher", "tls_resumed", "error_type", "process_pid",
        "service_instance_id",
    )
} | {
    "http_request_method_original": "http.request.method_original",
    "http_response_status_code": "http.response.status_code",
    "user_agent_original": "user_agent.original",
    "request_id": "obsserve.request_id",
    "connection_id": "obsserve.connection.id",
    "connection_request": "obsserve.connection.request",
    "worker": "obsserve.worker",
    "flags": "obsserve.flags",
    "response_origin": "obsserve.response_origin",
}  # fmt: skip

# The keys of the server's and the application's own lines that the semantic conventions spell in another way.
OTEL_EVENT_KEYS: Final[dict[str, str]] = {
    "exception_type": "exception.type",
    "exception_message": "exception.message",
    "exception_stacktrace": "exception.stacktrace",
}

# The events of the server's lines that they know by another name.
OTEL_EVENTS: Final[dict[str, str]] = {"app.exception": "http.server.request.exception"}

# `event` of a line that is a message and no event of the server: a word, so that it can be a label.
LOG_MESSAGE_EVENT: Final = "log"
