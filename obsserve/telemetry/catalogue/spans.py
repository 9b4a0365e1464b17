"""The attributes of spans."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class SpanAttribute(NamedTuple):
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
    SpanAttribute(
        "obsserve.sampling.reason",
        "string",
        "why it was exported although it was not to be kept: error or slow",
        "so kept",
    ),
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

# Of a WebSocket message, besides http.route, error.type, obsserve.connection.id and obsserve.request_id.
MESSAGE_ATTRIBUTES: Final = (
    SpanAttribute("obsserve.websocket.message.direction", "string", "received or sent"),
    SpanAttribute("obsserve.websocket.message.type", "string", "text or binary"),
    SpanAttribute("obsserve.websocket.message.size", "int", "bytes of its payload, without compression"),
    SpanAttribute(
        "obsserve.websocket.message.waited", "float", "seconds until the application took it", "received"
    ),
)

# Of `server.reload`, besides error.type.
RELOAD_ERRORS: Final = ("startup_failed", "shutdown")
RELOAD_ATTRIBUTES: Final = (
    SpanAttribute("obsserve.reload.reason", "string", "signal (SIGHUP) or change (of a file, with --reload)"),
    SpanAttribute("obsserve.reload.workers", "int", "workers that there were to replace"),
    SpanAttribute("obsserve.reload.replaced", "int", "workers that have a successor that serves"),
    SpanAttribute("obsserve.reload.files", "array", "files that changed, ten at most", "a file changed"),
)
