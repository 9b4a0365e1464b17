"""What an observer can see; `hooks.py` compiles observers into calls.

The exchange itself is the record: observers get it as a read-only `ExchangeView`. Immutability is a
type here, not a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from obsserve.telemetry.catalogue import DisconnectPhase, Ending, Outcome, ResponseOrigin

Address = tuple[str, int | None]
Headers = Sequence[tuple[bytes, bytes]]


class TargetView(Protocol):
    """A request target, split. Equal only to itself, so that it can stand for its text in a key."""

    @property
    def raw_path(self) -> bytes: ...
    @property
    def query_string(self) -> bytes: ...


class TraceView(Protocol):
    """The trace that an exchange belongs to."""

    @property
    def trace_id_hex(self) -> str: ...
    @property
    def span_id_hex(self) -> str: ...
    @property
    def flags_hex(self) -> str: ...
    @property
    def sampled(self) -> bool: ...
    @property
    def log_fragment(self) -> str:
        """The trace's fields of the access line, from the quote that ends the field before them."""
        ...


class ConnectionView(Protocol):
    """One client connection as the transport saw it. Times are `time.perf_counter` seconds."""

    @property
    def id(self) -> str: ...
    @property
    def serial(self) -> int:
        """Its number among the connections of this process."""
        ...

    @property
    def listener(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def peer(self) -> Address | None: ...
    @property
    def local(self) -> Address | None: ...
    @property
    def tls_protocol(self) -> str | None: ...
    @property
    def tls_cipher(self) -> str | None: ...
    @property
    def tls_resumed(self) -> bool: ...
    @property
    def tls(self) -> dict[str, Any] | None:
        """The ASGI `tls` extension; None without TLS."""
        ...

    @property
    def opened_at(self) -> float: ...
    @property
    def closed_at(self) -> float: ...
    @property
    def requests(self) -> int:
        """Exchanges that began on this connection."""
        ...

    @property
    def received_bytes(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def close_reason(self) -> str: ...
    @property
    def closed_while_active(self) -> str | None:
        """Which side ended the connection while an exchange was open: local, remote or None."""
        ...


class ExchangeView(Protocol):
    """One request and its response, from the first byte seen to its end.

    Times are `time.perf_counter` seconds; 0.0 stands for a stage that was not reached. They are the
    clock points t0 to t6 of the telemetry contract.
    """

    @property
    def connection(self) -> ConnectionView: ...
    @property
    def connection_request(self) -> int:
        """1 for the first exchange on its connection."""
        ...

    @property
    def present_route(self) -> str:
        """The route's template while the application still runs; empty as long as none is known."""
        ...

    @property
    def request_id(self) -> str: ...
    @property
    def method(self) -> str:
        """As sent; empty when the request line could not be read."""
        ...

    @property
    def trace(self) -> TraceView | None:
        """None when tracing is off."""
        ...

    @property
    def parts(self) -> TargetView | None:
        """The request target; None when it could not be read."""
        ...

    @property
    def raw_path(self) -> bytes:
        """Percent-encoded, without user-info, authority and query; empty when not parsed."""
        ...

    @property
    def query_string(self) -> bytes: ...
    @property
    def http_version(self) -> str:
        """1.0 or 1.1; empty when not parsed."""
        ...

    @property
    def scheme(self) -> str:
        """The URL scheme, http or https, after trusted forwarding headers."""
        ...

    @property
    def forwarded_scheme(self) -> str | None:
        """What a trusted forwarding header says of the scheme."""
        ...

    @property
    def forwarded_client(self) -> Address | None:
        """What a trusted forwarding header says of the client."""
        ...

    @property
    def client(self) -> Address | None:
        """After trusted forwarding headers, else the peer."""
        ...

    @property
    def forwarded_trusted(self) -> bool | None:
        """None when no forwarding header was seen."""
        ...

    @property
    def request_headers(self) -> Headers: ...
    @property
    def fields(self) -> dict[bytes, bytes]:
        """Request header fields by lower-case name, the last of each name."""
        ...

    @property
    def response_headers(self) -> Headers: ...
    @property
    def bound(self) -> dict[str, Any] | None:
        """Fields that the application has bound to it, for its line; None when there are none."""
        ...

    @property
    def scope(self) -> dict[str, Any] | None:
        """The ASGI scope; None for a request that no application saw."""
        ...

    @property
    def route(self) -> str:
        """The template of the route that answered; empty when none is known."""
        ...

    @property
    def status(self) -> int | None:
        """The status on the wire; None when no response was sent."""
        ...

    @property
    def ending(self) -> Ending: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def error_type(self) -> str | None: ...
    @property
    def exception(self) -> BaseException | None: ...
    @property
    def ordinary(self) -> bool:
        """Whether nothing was out of the way, for observers that have a shorter way then.

        HTTP/1.1, answered by the application below 500, not pipelined, not upgraded, never waited for a
        reader, no fault.
        """
        ...

    @property
    def app_protocol_error(self) -> str | None:
        """What the application did against ASGI, if anything (the metric's `reason`)."""
        ...

    @property
    def response_origin(self) -> ResponseOrigin: ...
    @property
    def disconnect_phase(self) -> DisconnectPhase | None: ...
    @property
    def flags(self) -> list[str]: ...
    @property
    def websocket(self) -> bool:
        """Whether the request asks for a WebSocket, and this exchange is its handshake."""
        ...

    @property
    def pipelined(self) -> bool: ...
    @property
    def request_body_size(self) -> int: ...
    @property
    def response_body_size(self) -> int: ...
    @property
    def request_size(self) -> int:
        """Bytes of the request on the wire, head included."""
        ...

    @property
    def response_size(self) -> int: ...
    @property
    def began(self) -> float:
        """t0, first byte seen."""
        ...

    @property
    def head_done(self) -> float:
        """t1, headers complete."""
        ...

    @property
    def app_started(self) -> float:
        """t2, the application's task runs."""
        ...

    @property
    def body_done(self) -> float:
        """t3, request body complete."""
        ...

    @property
    def response_started(self) -> float:
        """t4, the application sent its response start."""
        ...

    @property
    def first_byte(self) -> float:
        """t5, first response byte handed to the transport."""
        ...

    @property
    def ended(self) -> float:
        """t6, last byte handed over, or the moment of any other end."""
        ...

    @property
    def write_blocked(self) -> float:
        """Seconds for which the response waited on a slow reader."""
        ...


class SessionView(Protocol):
    """One open WebSocket, from the 101 of its handshake to its close. Times are `time.perf_counter` seconds."""

    @property
    def exchange(self) -> ExchangeView:
        """The handshake."""
        ...

    @property
    def route(self) -> str: ...
    @property
    def opened_at(self) -> float: ...
    @property
    def closed_at(self) -> float: ...
    @property
    def close_code(self) -> int:
        """As sent or received; 1005 for a close without a code, 1006 for a connection that was lost."""
        ...

    @property
    def close_initiator(self) -> str:
        """Who began to close: client, server, app, or none when the connection was lost."""
        ...

    @property
    def error_type(self) -> str | None: ...
    @property
    def exception(self) -> BaseException | None: ...
    @property
    def messages_received(self) -> int: ...
    @property
    def messages_sent(self) -> int: ...
    @property
    def bytes_received(self) -> int:
        """Payload bytes, after decompression."""
        ...

    @property
    def bytes_sent(self) -> int: ...
    @property
    def text_received(self) -> int:
        """Messages received that were text; the others were binary."""
        ...

    @property
    def text_sent(self) -> int: ...
    @property
    def text_bytes_received(self) -> int: ...
    @property
    def text_bytes_sent(self) -> int: ...
    @property
    def queued_messages(self) -> int:
        """Messages that the application has not received yet."""
        ...

    @property
    def ping_timed_out(self) -> bool: ...
    @property
    def handling(self) -> MessageView | None:
        """The message that the application handles; None unless messages are observed."""
        ...


class MessageView(Protocol):
    """One message of a WebSocket, without its content. Times are `time.perf_counter` seconds."""

    trace: Any  # for who makes a span of it: that span, and the one that was current before
    previous: Any

    @property
    def session(self) -> SessionView: ...
    @property
    def received(self) -> bool:
        """Whether the client sent it."""
        ...

    @property
    def is_text(self) -> bool: ...
    @property
    def size(self) -> int:
        """Of its payload, bytes; without compression."""
        ...

    @property
    def began(self) -> float:
        """When a received one was complete; when the application sent another one."""
        ...

    @property
    def handed(self) -> float:
        """When the application got a received one."""
        ...

    @property
    def ended(self) -> float:
        """When the application asked for the next one, or this one was handed to the transport; 0.0 before."""
        ...

    @property
    def exception(self) -> BaseException | None:
        """What the application raised while it handled this one."""
        ...


class WallClock(Protocol):
    """Turns `time.perf_counter` seconds into wall-clock time: epoch seconds = offset + t."""

    @property
    def offset(self) -> float: ...


class LoopLag(Protocol):
    def max_between(self, t0: float, t1: float) -> float:
        """Return the worst lag of the event loop, in seconds, between two `perf_counter` times."""
        ...


class Observer(Protocol):
    """Something that wants to know. Each hook is optional: leave out what is not needed.

    connection_opened(connection), connection_closed(connection): once each for every connection.
    exchange_started(exchange): before the application runs, also for a refused request.
    exchange_running(exchange): in the request's own task and context, just before the application.
    exchange_ended(exchange): exactly once for each exchange, after `exchange_started`.
    session_started(session), session_ended(session): once each for every WebSocket that was accepted.
    ping_answered(seconds): the round-trip time of a WebSocket ping.
    message_received(message), message_handled(message), message_sent(message): with `--trace-websocket-messages`, in
        the application's own context: it gets a message, asks for the next one, has sent one.
    """
