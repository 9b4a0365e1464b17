"""`WSGIMiddleware`, for mounting a WSGI application inside an ASGI one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obsserve.asgi.interfaces import wsgi_as_asgi3

if TYPE_CHECKING:
    from obsserve.asgi.interfaces import Receive, Scope, Send


class WSGIMiddleware:
    """Serves a WSGI application as an ASGI 3 application, through a2wsgi.

    Args:
        app: the WSGI application.
        workers: how many requests it serves at a time, each in a thread.

    Raises:
        StartupError: a2wsgi is not installed.
    """

    def __init__(self, app: Any, workers: int = 10) -> None:
        self.app = app
        self._served = wsgi_as_asgi3(app, threads=workers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._served(scope, receive, send)
