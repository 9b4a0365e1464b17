"""The route template of frameworks that keep it to themselves: Django, Quart, Falcon and BlackSheep.

Nothing is imported for it: a framework that the application has imported is found in `sys.modules`, and the one
method of it that finds a request's route is wrapped, once in a process. What that method found is told to the
exchange by way of the scope's `obsserve` extension, where there is one. What the application itself announces
by `set_route` counts more.

Rules: a wrapped method returns and raises what the framework's own does; a fault in here never touches a
request. A release without the method is left alone, and its routes stay unknown.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from obsserve.asgi.route import below_mounts

if TYPE_CHECKING:
    from collections.abc import Callable


_WRAPPED: Final = "_obsserve_wrapped"
_WILDCARD: Final = "/*"


def learn_routes() -> None:
    """Have the frameworks that the application has imported tell their routes; may be called again."""
    for module, owner, method, wrap in _METHODS:
        found = getattr(sys.modules.get(module), owner, None)
        original = getattr(found, method, None)
        if original is None or hasattr(original, _WRAPPED):
            continue
        wrapped = wraps(original)(wrap(original))
        setattr(wrapped, _WRAPPED, True)
        setattr(found, method, wrapped)


def _tell(scope: dict[str, Any], template: str) -> None:
    """Tell the exchange of this scope which of the framework's routes matched."""
    exchange = scope["extensions"]["obsserve"]
    root_path = scope.get("root_path", "")
    outer_path, outer = exchange.matched
    if outer.endswith(_WILDCARD) and root_path != outer_path:
        # Below another application of the framework: the root path has the values of the mount's path in it.
        whole = outer.removesuffix(_WILDCARD) + template
    else:
        whole = below_mounts(scope, template)
    exchange.route_matched(root_path, whole)


def _after(tell: Callable[..., None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what wraps a method so that its result is told.

    Args:
        tell: takes the object whose method it is, the method's first argument if there is one, and the result.
    """

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
            result = original(self, *arguments, **named)
            with suppress(Exception):  # under another server, or in a release that differs: no route
                tell(self, arguments[0] if arguments else None, result)
            return result

        return wrapped

    return wrap


def _before(tell: Callable[..., None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what wraps a method so that its first arguments are told before it runs.

    Args:
        tell: takes the object whose method it is, and as many of the arguments as it wants.
    """
    count = tell.__code__.co_argcount - 1

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
            with suppress(Exception):  # as above
                tell(self, *arguments[:count])
            return original(self, *arguments, **named)

        return wrapped

    return wrap


def _django(_: Any, request: Any, match: Any) -> None:
    # path() gives a template, re_path() a regular expression.
    _tell(request.scope, f"/{match.route.removeprefix('^').removeprefix('/')}")


def _quart(context: Any, _: Any, __: Any) -> None:
    # One of them is there: Quart has had one kind of context for both since 0.23.
    connection = getattr(context, "request_websocket", None) or context._request_websocket  # noqa: SLF001
    rule = getattr(connection, "url_rule", None)
    if rule is not None:
        _tell(connection.scope, rule.rule)


def _falcon(_: Any, request: Any, found: Any) -> None:
    template = found[3]
    if template is not None:
        _tell(request.scope, template)


def _blacksheep(_: Any, request: Any, match: Any) -> None:
    if match is not None:
        _tell_pattern(request.scope, match)


def _tell_pattern(scope: dict[str, Any], match: Any) -> None:
    pattern = match.pattern.decode()
    if pattern != "*":  # which is the router's fallback
        _tell(scope, pattern)


def _blacksheep_websocket(app: Any, scope: Any) -> None:
    # Its router remembers what it found, so that asking it before costs next to nothing; but it also remembers
    # what it did not find before the application's start, which an absent lifespan leaves to the first request.
    if app.started:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        match = app.router.get_match_by_method_and_path("GET_WS", path)
        if match is not None:
            _tell_pattern(scope, match)


def _blacksheep_mount(_: Any, scope: Any, match: Any) -> None:
    _tell_pattern(scope, match)


# Module, class, the method that finds a route, what wraps it.
_METHODS: Final = (
    ("django.core.handlers.base", "BaseHandler", "resolve_request", _after(_django)),
    ("quart.ctx", "AppContext", "match_request", _after(_quart)),
    ("quart.ctx", "RequestContext", "match_request", _after(_quart)),
    ("quart.ctx", "WebsocketContext", "match_request", _after(_quart)),
    ("falcon.asgi", "App", "_get_responder", _after(_falcon)),
    ("blacksheep.server.routing", "Router", "get_match", _after(_blacksheep)),
    ("blacksheep.server.routing", "MultiRouterMixin", "get_match", _after(_blacksheep)),
    ("blacksheep.server.routing", "RouterFiltersMixin", "get_match", _after(_blacksheep)),
    ("blacksheep.server.application", "Application", "_handle_websocket", _before(_blacksheep_websocket)),
    ("blacksheep.server.application", "MountMixin", "handle_mount_path", _before(_blacksheep_mount)),
)
