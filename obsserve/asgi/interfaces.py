"""How an application is called: ASGI 3, ASGI 2 or WSGI, all served as ASGI 3."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Scope = dict[str, Any]
    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGI3 = Callable[[Scope, Receive, Send], Awaitable[None]]
    ASGI2 = Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]

Kind = Literal["asgi3", "asgi2", "wsgi"]

_ASGI2_VERSION: Final = "2.0"


def accepts(function: Any, *arguments: str) -> bool:
    """Return whether it can be called with so many arguments, as far as its signature tells."""
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def kind_of(app: Any) -> Kind:
    """Return how `--interface auto` calls an application.

    As uvicorn: what is a coroutine function is ASGI 3, and so is a class whose instances can be awaited;
    anything else is ASGI 2. Beyond that, what takes three arguments and not one is ASGI 3 too, though it is no
    coroutine function: a compiled one, or one behind a plain decorator.

    Raises:
        StartupError: it takes two arguments, as WSGI applications do, and would fail with each request.
    """
    if inspect.isclass(app):
        return "asgi3" if hasattr(app, "__await__") else "asgi2"
    called = app if inspect.isfunction(app) else getattr(app, "__call__", app)  # noqa: B004  (its function is inspected)
    if inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(app):
        return "asgi3"
    if accepts(app, "scope"):
        return "asgi2"
    if accepts(app, "environ", "start_response"):
        raise StartupError(
            "Error loading ASGI app. It takes two arguments, as a WSGI application does; give --interface wsgi."
        )
    return "asgi3" if accepts(app, "scope", "receive", "send") else "asgi2"


def served_as_asgi3(app: Any, kind: Kind) -> ASGI3:
    """Return an ASGI 3 application that calls this one.

    Raises:
        StartupError: it is a WSGI application, and a2wsgi is not installed.
    """
    if kind == "wsgi":
        return wsgi_as_asgi3(app)
    return ASGI2Application(app) if kind == "asgi2" else app


class ASGI2Application:
    """Calls an ASGI 2 application, which takes the scope first and returns what takes receive and send.

    Args:
        app: the ASGI 2 application.
    """

    def __init__(self, app: ASGI2) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["asgi"] = {**scope["asgi"], "version": _ASGI2_VERSION}
        await self.app(scope)(receive, send)


def wsgi_as_asgi3(app: Any, *, threads: int = 10) -> ASGI3:
    """Return an ASGI 3 application that runs a WSGI application in threads.

    Args:
        app: the WSGI application.
        threads: how many requests it serves at a time.

    Raises:
        StartupError: a2wsgi is not installed.
    """
    try:
        from a2wsgi import WSGIMiddleware  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise StartupError(
            "WSGI applications are served through a2wsgi, which is not installed; pip install 'obsserve[wsgi]'."
        ) from error

    def with_stderr(environ: Any, start_response: Any) -> Any:
        # a2wsgi sends what the application complains of to stdout, where the access lines are.
        environ["wsgi.errors"] = sys.stderr
        return app(environ, start_response)

    served: Any = WSGIMiddleware(with_stderr, workers=threads)  # its types name each message
    return served  # type: ignore[no-any-return]
