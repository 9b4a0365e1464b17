"""A WebSocket session that tells of each message: for observers of messages, who are there only when asked for.

Owns what is known of the messages that wait for the application. Rules: what the application does from one message to
its next `receive()` is taken for handling that message; the end of the session ends it, and so does the end
of the application. Contents are told to nobody.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from obsserve.websocket.session import ClientDisconnected, Session

if TYPE_CHECKING:
    from obsserve.http.exchange import Exchange
    from obsserve.websocket.connection import WebSocketConnection


class Message:
    """A `MessageView` in the making; read there what the attributes mean.

    Args:
        session: where it was received or sent.
        received: whether the client sent it.
        is_text: whether it is text.
        size: of its payload, bytes.
        began: when it was there, or began to be sent; `time.perf_counter` seconds.
    """

    __slots__ = (
        "began",
        "ended",
        "exception",
        "handed",
        "is_text",
        "previous",
        "received",
        "session",
        "size",
        "trace",
    )

    def __init__(self, session: Session, *, received: bool, is_text: bool, size: int, began: float) -> None:
        self.session = session
        self.received = received
        self.is_text = is_text
        self.size = size
        self.began = began
        self.handed = self.ended = 0.0
        self.exception: BaseException | None = None
        self.trace: Any = None
        self.previous: Any = None


class ToldSession(Session):
    """A session whose messages are observed; takes the same arguments."""

    def __init__(self, exchange: Exchange, connection: WebSocketConnection, max_queue: int) -> None:
        super().__init__(exchange, connection, max_queue)
        self.handling: Message | None = None
        self._hooks = exchange.connection.server.hooks
        self._arrived: deque[tuple[float, int]] = deque()  # as many as there are messages in the queue

    async def run(self) -> None:
        """Run the application for this WebSocket; the body of the request's task."""
        await super().run()
        self._handled()

    def _app_raised(self, exception: BaseException) -> None:
        message = self.handling
        if message is not None and not isinstance(exception, ClientDisconnected | CancelledError):
            message.exception = exception
        super()._app_raised(exception)

    async def receive(self) -> dict[str, Any]:
        """ASGI: return the next event of the WebSocket."""
        self._handled()
        event = await super().receive()
        if event["type"] == "websocket.receive":
            began, size = self._arrived.popleft()
            message = Message(self, received=True, is_text="text" in event, size=size, began=began)
            message.handed = perf_counter()
            hook = self._hooks.message_received
            if hook is not None:
                self.handling = message
                hook(message)
        return event

    def _handled(self) -> None:
        message = self.handling
        if message is None:
            return
        self.handling = None
        message.ended = perf_counter()
        hook = self._hooks.message_handled
        if hook is not None:
            hook(message)

    def _send_data(self, event: dict[str, Any]) -> None:
        began, before = perf_counter(), self.bytes_sent
        super()._send_data(event)
        hook = self._hooks.message_sent
        if hook is not None:
            is_text = event.get("text") is not None
            message = Message(
                self, received=False, is_text=is_text, size=self.bytes_sent - before, began=began
            )
            message.ended = perf_counter()
            hook(message)

    def on_message(self, data: str | bytes, size: int) -> None:
        """Take a message of the peer; `size` is its payload in bytes."""
        if self.is_open:  # else it is not taken
            self._arrived.append((perf_counter(), size))
        super().on_message(data, size)
