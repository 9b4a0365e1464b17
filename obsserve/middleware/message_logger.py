"""`--log-level trace`: every ASGI message of every request, on the logger `obsserve.asgi`."""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from obsserve.logging import TRACE_LOG_LEVEL

if TYPE_CHECKING:
    from obsserve.asgi.interfaces import ASGI3, Message, Receive, Scope, Send

# What is too long for a log, or nobody's business: its size is shown instead.
_UNSHOWN: Final = {"body": "bytes", "bytes": "bytes", "text": "chars"}

_log = logging.getLogger("obsserve.asgi")


def shortened(message: Message) -> Message:
    """Return the message, or scope, without contents and headers."""
    shown = {
        key: f"<{len(value)} {_UNSHOWN[key]}>" if key in _UNSHOWN and value is not None else value
        for key, value in message.items()
    }
    if "headers" in shown:
        shown["headers"] = "<...>"
    return shown


class MessageLoggerMiddleware:
    """Logs what the application is called with, receives and sends.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGI3) -> None:
        self.app = app
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        prefix = f"{client[0]}:{client[1]} - ASGI" if client else "ASGI"
        number = next(self._numbers)

        def trace(what: str, *values: Any) -> None:
            _log.log(TRACE_LOG_LEVEL, f"%s [%d] {what}", prefix, number, *values)

        async def traced_receive() -> Message:
            message = await receive()
            trace("Receive %s", shortened(message))
            return message

        async def traced_send(message: Message) -> None:
            trace("Send %s", shortened(message))
            await send(message)

        trace("Started scope=%s", shortened(scope))
        try:
            await self.app(scope, traced_receive, traced_send)
        except BaseException:
            trace("Raised exception")
            raise
        trace("Completed")
