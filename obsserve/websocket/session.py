"""The ASGI side of one WebSocket: handshake, messages, one end.

Owns the queue of messages that the application has not received, and the counts of the session. The
handshake is an HTTP exchange, which ends with 101 or with the denial; the session begins where it ends with
101. Rules: reading stops while the queue is full; the session ends once, with one code and one initiator.

    CONNECTING ──accept──▶ OPEN ──close, failure, loss──▶ CLOSED
        └──── close, http.response, exception: the handshake's exchange is answered, no session ────▶
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

from obsserve.http.flow import Waiters
from obsserve.http.response import ASGIMessageError
from obsserve.telemetry import catalogue
from obsserve.websocket.codec import ABNORMAL, INTERNAL_ERROR, NO_STATUS, NORMAL
from obsserve.websocket.handshake import offered_subprotocols

if TYPE_CHECKING:
    from obsserve.http.exchange import Exchange
    from obsserve.websocket.connection import WebSocketConnection

Message = dict[str, Any]
Initiator = Literal["client", "server", "app", "none"]

CONNECTING: Final = 0
OPEN: Final = 1
CLOSED: Final = 2

_DENIAL: Final = {
    "websocket.http.response.start": "http.response.start",
    "websocket.http.response.body": "http.response.body",
}


class ClientDisconnected(OSError):  # noqa: N818 - uvicorn's name
    """The application sent to a WebSocket that is closed (ASGI 2.4)."""


class Session:
    """A `SessionView` in the making; read there what the public attributes mean.

    Args:
        exchange: the handshake.
        connection: writes and closes.
        max_queue: how many messages may wait for the application.
    """

    handling: Any = None

    def __init__(self, exchange: Exchange, connection: WebSocketConnection, max_queue: int) -> None:
        self.exchange = exchange
        self.connection = connection
        self.route = ""
        self.opened_at = self.closed_at = 0.0
        self.close_code: int = ABNORMAL
        self.close_initiator: Initiator = "none"
        self.exception: BaseException | None = None
        self.messages_received = self.messages_sent = 0
        self.bytes_received = self.bytes_sent = 0
        self.text_received = self.text_sent = 0
        self.text_bytes_received = self.text_bytes_sent = 0
        self.ping_timed_out = False
        self._state = CONNECTING
        self._greeted = False
        self._max_queue = max_queue
        self._queue: deque[Message] = deque()
        self._disconnect: Message | None = None
        self._waiters = Waiters(exchange.connection.server.loop)
        self._denying = False

    # --- the application ---------------------------------------------------------------------

    async def run(self) -> None:
        """Run the application for this WebSocket; the body of the request's task."""
        exchange = self.exchange
        server = exchange.connection.server
        scope = exchange.scope
        assert scope is not None
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = offered_subprotocols(exchange.request_headers)
        scope["extensions"] = {"websocket.http.response": {}, **scope["extensions"]}
        running = server.hooks.exchange_running
        if running is not None:
            try:
                running(exchange)
            except Exception as fault:  # noqa: BLE001 - a fault in telemetry never touches a request
                server.hooks.failed("exchange_running", fault)
        exchange.app_started = perf_counter()
        try:
            result = await server.app(scope, self.receive, self.send)
        except BaseException as exception:  # noqa: BLE001 - whatever it is ends this session, not the server
            self._app_raised(exception)
        else:
            self._app_returned(result)
        finally:
            server.tasks.discard(exchange.task)
            exchange.task = None  # its context may hold the exchange: leave no cycle to the collector

    def _app_raised(self, exception: BaseException) -> None:
        if self._state == CONNECTING:
            self.exchange.app_raised(exception)
        elif self._state == OPEN:
            self.exception = exception
            self.exchange.connection.server.reporter.app_exception(self.exchange, exception, after_end=True)
            self.close(INTERNAL_ERROR, "", "app")
        elif self.exchange.connection.server.dismissing and isinstance(exception, CancelledError):
            pass  # the server has cut it off, and said so
        elif not isinstance(exception, ClientDisconnected):
            self.exchange.connection.server.reporter.app_exception(self.exchange, exception, after_end=True)

    def _app_returned(self, result: object) -> None:
        if self._state == CONNECTING:
            self.exchange.app_returned(result)
        elif self._state == OPEN:
            self.close(NORMAL, "", "app")

    async def receive(self) -> Message:
        """ASGI: return the next event of the WebSocket."""
        if not self._greeted:
            self._greeted = True
            return {"type": "websocket.connect"}
        while True:
            if self._queue:
                message = self._queue.popleft()
                if len(self._queue) == self._max_queue - 1:
                    self.connection.resume_reading()
                return message
            if self._disconnect is not None:
                return self._disconnect
            if self._state == CONNECTING and self.exchange.ending is not None:
                return {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}
            await self._waiters.wait()

    async def send(self, message: Message) -> None:
        """ASGI: take the next event for the WebSocket."""
        kind = message["type"]
        if self._state == OPEN:
            if kind == "websocket.send":
                self._send_data(message)
                if self.connection.http.write_paused:
                    await self.connection.http.drained()
            elif kind == "websocket.close":
                self.close(message.get("code") or NORMAL, message.get("reason") or "", "app")
            else:
                raise ASGIMessageError(f"{kind!r} is no message for an open WebSocket")
        elif self._state == CLOSED:
            if self.close_initiator == "app":
                raise ASGIMessageError(f"{kind!r} was sent after the WebSocket was closed")
            raise ClientDisconnected("the WebSocket is closed")
        elif self.exchange.ending is not None and not self._denying:
            raise ClientDisconnected("the client has gone")
        else:
            await self._answer(kind, message)

    async def _answer(self, kind: str, message: Message) -> None:
        """Take the application's answer to the handshake."""
        if kind in _DENIAL:
            self._denying = True
            await self.exchange.send({**message, "type": _DENIAL[kind]})
        elif self._denying:
            raise ASGIMessageError(f"{kind!r} was sent after websocket.http.response.start")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._denying = True
            await self.exchange.send({"type": "http.response.start", "status": 403, "headers": []})
            await self.exchange.send({"type": "http.response.body"})
        else:
            raise ASGIMessageError(f"{kind!r} was sent before websocket.accept")

    def _accept(self, message: Message) -> None:
        exchange = self.exchange
        exchange.response_started = perf_counter()
        head = self.connection.accept_head(message.get("subprotocol"), message.get("headers") or ())
        self.route = exchange.learn_route()
        self._state = OPEN
        self.opened_at = perf_counter()
        server = exchange.connection.server
        exchange.switch_protocols(head)
        server.active += 1  # a session is in progress as long as a request would be
        if server.hooks.session_started is not None:
            server.hooks.session_started(self)
        self.connection.opened()

    def _send_data(self, message: Message) -> None:
        text = message.get("text")
        codec = self.connection.codec
        self.messages_sent += 1
        if text is not None:
            size = codec.send_text(text)
            self.text_sent += 1
            self.text_bytes_sent += size
        else:
            data = message["bytes"]
            size = len(data)
            codec.send_bytes(data)
        self.bytes_sent += size

    # --- the codec's events ------------------------------------------------------------------

    def on_message(self, data: str | bytes, size: int) -> None:
        """Take a message of the peer; `size` is its payload in bytes."""
        if self._state != OPEN:
            return  # it crossed our close frame
        self.messages_received += 1
        self.bytes_received += size
        if data.__class__ is str:
            self.text_received += 1
            self.text_bytes_received += size
            self._queue.append({"type": "websocket.receive", "text": data})
        else:
            self._queue.append({"type": "websocket.receive", "bytes": data})
        if len(self._queue) >= self._max_queue:
            self.connection.pause_reading()
        self._waiters.wake()

    def on_pong(self, payload: bytes) -> None:
        self.connection.ponged(payload)

    def on_close(self, code: int, reason: str) -> None:
        if self._state == OPEN:
            self.end(code, reason, "client")
        self.connection.finish()

    def on_failure(self, code: int, reason: str) -> None:
        if self._state == OPEN:
            self.end(code, reason, "server")
        self.connection.finish(unread=True)

    # --- the end -----------------------------------------------------------------------------

    def close(self, code: int, reason: str, initiator: Initiator) -> None:
        """Begin the closing handshake; the session ends here, the connection when the peer has answered."""
        if self._state != OPEN:
            return
        self.connection.codec.send_close(code, reason)
        self.end(code, reason, initiator)
        self.connection.await_close()

    def end(self, code: int, reason: str, initiator: Initiator) -> None:
        """End the session, unless it has ended: exactly one end is recorded."""
        if self._state == CLOSED:
            return
        opened = self._state == OPEN
        self._state = CLOSED
        self._disconnect = {"type": "websocket.disconnect", "code": code or NO_STATUS, "reason": reason}
        self.close_code, self.close_initiator = code, initiator
        self.closed_at = perf_counter()
        if opened:
            server = self.exchange.connection.server
            server.release()
            if server.hooks.session_ended is not None:
                server.hooks.session_ended(self)
        self._waiters.wake()

    def connection_lost(self) -> None:
        """Take the loss of the connection."""
        if self._state == OPEN:
            self.end(ABNORMAL, "", "none")
        elif self._state == CONNECTING:
            self._state = CLOSED
            self._disconnect = {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}
        self._waiters.wake()

    @property
    def is_open(self) -> bool:
        return self._state == OPEN

    @property
    def ended(self) -> bool:
        return self._state == CLOSED

    @property
    def queued_messages(self) -> int:
        return len(self._queue)

    @property
    def error_type(self) -> str | None:
        """The close code where it is an error's, the exception's class where the application raised."""
        if self.exception is not None:
            return catalogue.error_type_of(catalogue.APP_EXCEPTION, None, self.exception)
        return str(self.close_code) if self.close_code in catalogue.WEBSOCKET_ERROR_CODES else None
