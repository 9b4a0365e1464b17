"""Which route answered: the template, never the path.

Frameworks leave it in the scope under different keys; the first that is found wins. Where only the endpoint
is named, the application's route table is turned round once. What a mount matched is in `root_path`, with
the values in it, so its template is looked up in the outermost router.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

_endpoint_tables: WeakKeyDictionary[Any, dict[Any, list[Any]]] = WeakKeyDictionary()
# By identity, for routers compare by their routes and are not hashable: the router, how many routes it had, its mounts.
_mounts: dict[int, tuple[weakref.ref[Any], int, list[Any]]] = {}


def resolve_route(scope: dict[str, Any] | None) -> str:
    """Return the route's template, empty when the scope names none.

    Args:
        scope: the ASGI scope as the application left it.
    """
    if scope is None:
        return ""
    route = scope.get("route")
    if route is not None and not hasattr(route, "routes"):
        fastapi = scope.get("fastapi")
        if fastapi.__class__ is dict:
            route = _with_prefix(route, fastapi)
        template = getattr(route, "path_format", None) or getattr(route, "path", None)
        if isinstance(template, str):
            return below_mounts(scope, template)
    template = scope.get("path_template")
    if isinstance(template, str):
        return below_mounts(scope, template)
    if route is not None and hasattr(route, "routes"):
        # A mount: what is below it did not say which of its routes answered, or has none (static files).
        return below_mounts(scope, "/{path}") if hasattr(route, "path_format") and not route.routes else ""
    endpoint = scope.get("endpoint")
    return _route_of_endpoint(scope, endpoint) if endpoint is not None else ""


def _with_prefix(route: Any, fastapi: dict[str, Any]) -> Any:
    """Return what knows the whole path of a route of an included router: new FastAPI keeps the prefix apart."""
    effective = fastapi.get("effective_route_context")
    return effective if getattr(effective, "original_route", None) is route else route


def below_mounts(scope: dict[str, Any], template: str) -> str:
    """Return the whole template of a route, with those of the mounts that it is below.

    Args:
        scope: the ASGI scope as the route's application sees it.
        template: the route's own; the result is empty when the mounts' are not known.
    """
    root_path: str = scope.get("root_path", "")
    outside = scope.get("app_root_path")
    if outside is None or not scope.get("path_params"):  # not mounted, or no mount has a parameter
        return root_path + template
    try:
        prefix = _template_of_mount(scope.get("router"), root_path.removeprefix(outside))
    except TypeError:  # no router, or none to be referred to weakly
        prefix = None
    return "" if prefix is None else f"{outside}{prefix}{template}"


def _template_of_mount(router: Any, path: str) -> str | None:
    """Return the template of the mounts that matched this path, None when these are none."""
    prefix = ""
    while path not in ("", "/"):
        for mount in _mounts_of(router):
            match = mount.path_regex.match(f"{path}/")
            if match is not None:
                break
        else:
            return None
        rest = match.group("path").rstrip("/")
        path = f"/{rest}" if rest else ""
        prefix += mount.path_format.removesuffix("/{path}")
        router = mount
    return prefix


def _mounts_of(router: Any) -> list[Any]:
    routes = getattr(router, "routes", ())
    known = _mounts.get(id(router))
    if known is not None and known[0]() is router and known[1] == len(routes):
        return known[2]
    mounts = list(_find_mounts(routes))
    number = id(router)
    _mounts[number] = (weakref.ref(router, lambda _: _mounts.pop(number, None)), len(routes), mounts)
    return mounts


def _find_mounts(routes: Any) -> Iterator[Any]:
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is not None:  # a router that FastAPI included
            yield from _find_mounts([context.starlette_route for context in contexts()])
        elif hasattr(route, "routes"):
            if getattr(route, "path_format", "").endswith("/{path}"):
                yield route
            elif hasattr(route, "host_regex"):  # by host: no part of the path
                yield from _find_mounts(route.routes)


def _route_of_endpoint(scope: dict[str, Any], endpoint: Any) -> str:
    app = scope.get("app")
    if getattr(app, "routes", None) is None:
        return ""
    try:
        table = _endpoint_tables.get(app)
        if table is None:
            table = _endpoint_tables[app] = _endpoint_table(app)
        routes = table.get(endpoint, ())
    except TypeError:  # not hashable, or not to be referred to weakly
        return ""
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    for route in routes:
        if len(routes) == 1 or route.path_regex.match(path):
            return below_mounts(scope, route.path_format)
    return ""


def _endpoint_table(app: Any) -> dict[Any, list[Any]]:
    table: dict[Any, list[Any]] = {}
    for route in _routes(app):
        table.setdefault(route.endpoint, []).append(route)
    return table


def _routes(app: Any) -> Iterator[Any]:
    for route in app.routes:
        if hasattr(route, "endpoint") and hasattr(route, "path_format") and hasattr(route, "path_regex"):
            yield route
