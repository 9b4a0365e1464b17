"""The transport side of one WebSocket: takes the transport over from the HTTP connection.

Owns the codec, the keep-alive pings and the deadlines of the closing handshake. The HTTP connection stays
the record of the connection and is told of every byte; nothing of the request is parsed again.
"""

from __future__ import annotations

import math
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from obsserve.http.connection import Successor
from obsserve.http.head import BadResponseError, serialise_head
from obsserve.websocket.codec import INTERNAL_ERROR, SERVICE_RESTART
from obsserve.websocket.handshake import accept_key, check_request, offered_extensions
from obsserve.websocket.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from obsserve.http.connection import Connection
    from obsserve.http.exchange import Exchange
    from obsserve.settings import Settings
    from obsserve.websocket.codec import Codec

# How long the peer may take to answer a close frame (websockets' close_timeout).
CLOSE_TIMEOUT: Final = 10.0
# A session's record comes with its end: of a long one the log tells every so many seconds that it is there.
CHECKPOINT_INTERVAL: Final = 300.0
# What may arrive before the application has accepted.
EARLY_LIMIT: Final = 65536


class WebSocketOptions:
    """What all WebSockets of a server share.

    Args:
        settings: the options.
        codec: makes a codec.
        negotiate: answers an offer of extensions.
    """

    def __init__(
        self,
        settings: Settings,
        codec: Callable[..., Codec],
        negotiate: Callable[[bytes], tuple[bytes | None, list[Any]]],
    ) -> None:
        self.codec = codec
        self.negotiate = negotiate if settings.ws_per_message_deflate else None
        self.max_size = settings.ws_max_size
        self.max_queue = settings.ws_max_queue
        self.session: type[Session] = Session
        if settings.trace_websocket_messages:
            from obsserve.websocket.messages import ToldSession  # noqa: PLC0415 - for hardly anybody

            self.session = ToldSession
        interval, timeout = settings.ws_ping_interval, settings.ws_ping_timeout
        self.ping_interval = interval or math.inf
        self.ping_timeout = timeout or math.inf

    def take(self, http: Connection, exchange: Exchange, rest: bytes) -> None:
        """Take a connection over from HTTP.

        Args:
            http: the connection.
            exchange: the request that asks for a WebSocket.
            rest: what was read behind its head.
        """
        exchange.websocket = True
        exchange.ordinary = False
        refusal = check_request(
            exchange.method, exchange.http_version, exchange.fields, exchange.request_headers
        )
        if refusal is not None:
            http.refuse(exchange, refusal)
            return
        WebSocketConnection(self, http, exchange, rest)


class WebSocketConnection(Successor):
    """One WebSocket's protocol.

    Args:
        options: shared by all.
        http: the connection that it takes over.
        exchange: the handshake.
        early: bytes that were read behind the handshake's head.
    """

    codec: Codec

    def __init__(self, options: WebSocketOptions, http: Connection, exchange: Exchange, early: bytes) -> None:
        self.options = options
        self.http = http
        self.transport = http.transport
        self.session = options.session(exchange, self, options.max_queue)
        self._exchange = exchange
        self._early = early
        self._extensions: list[Any] = []
        self._ping_due = math.inf
        self._ping_sent_at = 0.0
        self._ping_payload = b""
        self._ping_count = 0
        self._close_due = math.inf
        self._checkpoint_due = math.inf
        self._awaits_close = False
        self._paused = False
        exchange.upgrade_to(self.session.run)
        http.hand_over(self, exchange)

    # --- asyncio.Protocol --------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.http.received_bytes += len(data)
        if self.session.ended:
            if self._awaits_close:  # of what still comes only the peer's close frame matters
                self.codec.feed(data)
            return
        if not self.session.is_open:
            self._early += data
            if len(self._early) > EARLY_LIMIT:
                self.pause_reading()
            return
        self.codec.feed(data)

    def eof_received(self) -> bool:
        return self.http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.connection_lost()
        self.http.connection_lost(exc)

    def pause_writing(self) -> None:
        self.http.pause_writing()

    def resume_writing(self) -> None:
        self.http.resume_writing()

    # --- the session's wishes ----------------------------------------------------------------

    def accept_head(self, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> bytes:
        """Return the head of the 101 response.

        Raises:
            BadResponseError: the application's headers cannot be put on the wire.
        """
        server = self.http.server
        fields = [
            (b"upgrade", b"websocket"),
            (b"sec-websocket-accept", accept_key(self._exchange.fields[b"sec-websocket-key"])),
        ]
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        offer = offered_extensions(self._exchange.request_headers)
        if offer and self.options.negotiate is not None:
            answer, self._extensions = self.options.negotiate(offer)
            if answer is not None:
                fields.append((b"sec-websocket-extensions", answer))
        given = [tuple(pair) for pair in headers]
        if any(name.lower() in (b"sec-websocket-extensions", b"sec-websocket-accept") for name, _ in given):
            raise BadResponseError(
                "the server itself sends sec-websocket-accept and sec-websocket-extensions"
            )
        head = serialise_head(
            101, [*fields, *given], server.default_headers, server.date, server.request_id_header
        )
        id_line = b"" if head.identified else self._exchange.id_line
        ids = id_line + self._exchange.trace_line
        return b"%bconnection: Upgrade\r\n%b\r\n" % (head.start, ids)

    def opened(self) -> None:
        """Begin to speak WebSocket."""
        self.codec = self.options.codec(self.session, self._write, self.options.max_size, self._extensions)
        now = perf_counter()
        self._ping_due = now + self.options.ping_interval
        self._checkpoint_due = now + CHECKPOINT_INTERVAL
        early, self._early = self._early, b""
        self.resume_reading()
        if early:
            self.codec.feed(early)

    def _write(self, data: bytes) -> None:
        self.http.count_sent(len(data))
        self.transport.write(data)

    def pause_reading(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def await_close(self) -> None:
        """Wait for the peer's close frame, for a while."""
        self._awaits_close = True
        self._close_due = perf_counter() + CLOSE_TIMEOUT
        self.resume_reading()  # the close frame may stand behind messages that nobody will read

    def finish(self, *, unread: bool = False) -> None:
        """Close the connection: the closing handshake is over.

        Args:
            unread: the peer may still be sending.
        """
        self.http.close(self._close_reason(), unread=unread)

    def _close_reason(self) -> str:
        initiator = self.session.close_initiator
        if self.http.server.draining:
            return "drain"
        return {"client": "client_closed", "app": "negotiated"}.get(initiator, "protocol_error")

    # --- keep-alive --------------------------------------------------------------------------

    def ponged(self, payload: bytes) -> None:
        """Take a pong; one that answers the last ping gives its round-trip time."""
        if payload == self._ping_payload and self._ping_sent_at:
            rtt = perf_counter() - self._ping_sent_at
            self._ping_sent_at = 0.0
            hook = self.http.server.hooks.ping_answered
            if hook is not None:
                hook(rtt)

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed; the ticker calls this through the HTTP connection."""
        if now > self._close_due:
            self.http.close(self._close_reason(), abort=True)
            return
        if not self.session.is_open:
            return
        if now > self._checkpoint_due:
            self._checkpoint_due += CHECKPOINT_INTERVAL
            self.http.server.reporter.websocket_checkpoint(self.session, now - self.session.opened_at)
        if self._ping_sent_at and now - self._ping_sent_at > self.options.ping_timeout:
            self.session.ping_timed_out = True
            self.session.close(INTERNAL_ERROR, "keepalive ping timeout", "server")
            self._close_due = now + 1.0
        elif now > self._ping_due and not self._ping_sent_at:
            self._ping_count += 1
            self._ping_payload = self._ping_count.to_bytes(4, "big")
            self._ping_sent_at = now
            self._ping_due = now + self.options.ping_interval
            self.codec.send_ping(self._ping_payload)

    def drain(self) -> None:
        """Tell the peer that the server restarts; an open handshake is left to the application."""
        self.session.close(SERVICE_RESTART, "", "server")
