"""`--ws module:Class`: WebSockets served by a protocol class that somebody wrote for uvicorn.

Such a class is made with `(config, server_state, app_state)`, gets the transport and the bytes of the handshake,
and does everything from there. The handshake is an exchange like any other, whose status is read off what the class
writes; of the session the server knows only its bytes, so it leaves no line, no metrics and no span of its own.

    waiting for its turn ──▶ served, unanswered ──101──▶ open
                                    └──another status, until the class closes──▶ denied
"""

from __future__ import annotations

import copy
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from obsserve.http.connection import Successor
from obsserve.server.customprotocol import SharedState

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from obsserve.config import Config
    from obsserve.http.connection import Connection
    from obsserve.http.exchange import Exchange
    from obsserve.http.state import ServerState

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
SWITCHED: Final = 101


class CustomWebSockets:
    """Makes the class serve the WebSockets that are asked for; its `take` is a `websocket_taker`.

    Args:
        protocol: the class.
        config: passed on to it.
        shared: passed on to it as the server's state.
    """

    def __init__(self, protocol: Callable[..., Any], config: Config, shared: SharedState) -> None:
        self._protocol = protocol
        self._config = config
        self._shared = shared

    def take(self, http: Connection, exchange: Exchange, rest: bytes) -> None:
        """Take a connection over from HTTP.

        Args:
            http: the connection.
            exchange: the request that asks for a WebSocket.
            rest: what was read behind its head.
        """
        exchange.websocket = True
        exchange.ordinary = False
        protocol = self._protocol(
            config=self._config, server_state=self._shared, app_state=http.server.app_state
        )
        CustomWebSocket(protocol, http, exchange, rest)


def taker(
    protocol: type[Any], config: Config, state: ServerState, log: Any
) -> Callable[[Connection, Exchange, bytes], None]:
    """Return what takes a connection over for the class, and warn of what it costs.

    Args:
        protocol: the class.
        config: passed on to it.
        state: what the server's connections share.
        log: the server's logger.
    """
    log.warning(
        "protocol.custom",
        message=f"{protocol.__name__} serves WebSockets: their handshakes are observed, their sessions leave no line, "
        "no metrics and no spans",
    )
    given = config
    if config.settings.proxy_headers and config.custom_protocol_class() is None:
        from obsserve.middleware.proxy_headers import ProxyHeadersMiddleware  # noqa: PLC0415

        given = copy.copy(config)  # the server's own connections read forwarding headers themselves
        served: Any = config.loaded_app
        given.loaded_app = ProxyHeadersMiddleware(served, config.settings.forwarded_allow_ips)
    return CustomWebSockets(protocol, given, SharedState(state)).take


class CustomWebSocket(Successor):
    """One connection that the class serves.

    Args:
        protocol: of the class.
        http: the connection that it takes over.
        exchange: the handshake.
        rest: what was read behind its head.
    """

    def __init__(self, protocol: Any, http: Connection, exchange: Exchange, rest: bytes) -> None:
        self._protocol = protocol
        self._http = http
        self._exchange = exchange
        self._early = rest
        self._has_begun = self._is_open = False
        exchange.upgrade_to(self._run)
        http.hand_over(self, exchange)

    async def _run(self) -> None:
        """Let the class begin, when the requests before this one are answered; the body of the request's task."""
        exchange = self._exchange
        server = exchange.connection.server
        exchange.app_started = perf_counter()
        self._has_begun = True
        try:
            self._protocol.connection_made(_Transport(self._http, self))
            self._protocol.data_received(_head_of(exchange) + self._early)
        except Exception as exception:  # noqa: BLE001 - whatever it is ends this connection, not the server
            exchange.app_raised(exception)
        finally:
            self._early = b""
            server.tasks.discard(exchange.task)
            exchange.task = None

    # --- what the class writes -------------------------------------------------------------

    def answered(self, head: bytes) -> None:
        """Take what the class has written up to now, once the handshake's answer is complete."""
        exchange = self._exchange
        if exchange.ending is not None:
            return
        found = _STATUS.match(head)
        end = head.find(b"\r\n\r\n") + 4
        exchange.response_started = perf_counter()
        exchange.response_body_size = len(head) - end if end >= 4 else 0
        status = int(found[1]) if found is not None else 500
        if status == SWITCHED:
            exchange.response_body_size = 0
            self._is_open = True
            exchange.connection.server.active += 1  # a session is in progress as long as a request would be
        exchange.switch_protocols(head, status)

    def closed(self) -> None:
        """Note that the class has closed the connection."""
        self._http.close_reason = self._http.close_reason or "negotiated"

    # --- asyncio.Protocol --------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._http.received_bytes += len(data)
        if self._has_begun:
            self._protocol.data_received(data)
        else:
            self._early += data

    def eof_received(self) -> bool:
        keeps_open = self._has_begun and self._protocol.eof_received()
        return bool(keeps_open) or self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_open:
            self._is_open = False
            self._exchange.connection.server.release()
        if self._has_begun:
            self._protocol.connection_lost(exc)
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._http.pause_writing()
        if self._has_begun:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()
        if self._has_begun:
            self._protocol.resume_writing()

    def drain(self) -> None:
        if self._has_begun:
            self._protocol.shutdown()


class _Transport:
    """The transport as the class sees it: what it writes is counted, and the handshake's answer is read from it.

    The answer that is not 101 is held until it is whole, so that its record says how long it was.
    """

    def __init__(self, http: Connection, websocket: CustomWebSocket) -> None:
        self._transport: asyncio.Transport = http.transport
        self._http = http
        self._websocket = websocket
        self._answer: bytes | None = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._answer is None:
            self._http.count_sent(len(data))
            self._transport.write(data)
            return
        self._answer += data
        found = _STATUS.match(self._answer)
        if found is not None and int(found[1]) == SWITCHED and b"\r\n\r\n" in self._answer:
            self._tell()

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        if self._answer:
            self._tell()
        self._websocket.closed()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Do nothing: what is read comes by way of the connection, which counts it."""

    def _tell(self) -> None:
        answer, self._answer = self._answer, None
        if answer:
            self._websocket.answered(answer)


def _head_of(exchange: Exchange) -> bytes:
    """Return the head of the request as the class expects it, which parses it again."""
    query = b"?" + exchange.query_string if exchange.query_string else b""
    lines = [b"%b %b%b HTTP/1.1\r\n" % (exchange.method.encode(), exchange.raw_path, query)]
    lines += [b"%b: %b\r\n" % pair for pair in exchange.request_headers]
    return b"".join([*lines, b"\r\n"])
