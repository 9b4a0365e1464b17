"""The template of a route below mounts, included routers and hosts: never with a value of the path in it."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

import pytest
from scopes import http_scope

from obsserve.asgi import route as route_module
from obsserve.asgi.route import resolve_route
from tests.parts import package


def route_of(app, path, *, root_path="", host=b"x"):
    """The status and the route of one request, driven without a server."""
    scope = http_scope(path, root_path=root_path, host=host)
    statuses = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asyncio.run(app(scope, receive, send))
    return statuses[0], resolve_route(scope)


def starlette_app(folder):
    applications = package("starlette.applications")
    from starlette.responses import PlainTextResponse
    from starlette.routing import Host, Mount, Route
    from starlette.staticfiles import StaticFiles

    async def answer(request):
        return PlainTextResponse("x")

    inner = applications.Starlette(routes=[Route("/things/{id}", answer)])
    (folder / "style.css").write_text("a{}")
    return applications.Starlette(
        routes=[
            Host("api.example", app=applications.Starlette(routes=[Mount("/of/{who}", app=inner)])),
            Route("/items/{id}", answer),
            Mount("/plain", routes=[Route("/things/{id}", answer)]),
            Mount("/users/{id}", app=inner),
            Mount("/deep/{a}", routes=[Mount("/er/{b:int}", routes=[Route("/{c:path}", answer)])]),
            Mount("/static", app=StaticFiles(directory=folder)),
            Mount("/assets/{version}", app=StaticFiles(directory=folder)),
        ]
    )


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/items/7", 200, "/items/{id}"),
        ("/items/7/", 307, None),
        ("/plain/things/7", 200, "/plain/things/{id}"),
        ("/plain/nothing", 404, None),
        ("/users/ann/things/7", 200, "/users/{id}/things/{id}"),
        ("/users/things/things/things", 200, "/users/{id}/things/{id}"),
        ("/users/ann/nothing", 404, None),
        ("/deep/x/er/5/and/more", 200, "/deep/{a}/er/{b}/{c}"),
        ("/static/style.css", 200, "/static/{path}"),
        ("/static/nothing.css", 404, "/static/{path}"),
        ("/assets/v5/style.css", 200, "/assets/{version}/{path}"),
        ("/nothing", 404, None),
    ],
)
def test_starlette(tmp_path, root_path, path, status, route):
    found = route_of(starlette_app(tmp_path), path, root_path=root_path)
    assert found == (status, root_path + route if route else "")


def test_starlette_by_host(tmp_path):
    app = starlette_app(tmp_path)
    assert route_of(app, "/of/ann/things/7", host=b"api.example") == (200, "/of/{who}/things/{id}")


def fastapi_app():
    fastapi = package("fastapi")
    router, below, sub = fastapi.APIRouter(), fastapi.APIRouter(), fastapi.FastAPI()

    @router.get("/items/{item}")
    async def item(item: str):
        return item

    @below.get("/things/{thing}")
    async def thing(thing: str):
        return thing

    @sub.get("/parts/{part}")
    async def part(part: int):
        return part

    router.include_router(below, prefix="/below")
    app = fastapi.FastAPI()
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two/{tenant}")
    app.mount("/sub/{tenant}", sub)
    return app


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/one/items/7", 200, "/one/items/{item}"),
        ("/two/ann/items/7", 200, "/two/{tenant}/items/{item}"),
        ("/two/ann/below/things/7", 200, "/two/{tenant}/below/things/{thing}"),
        ("/sub/ann/parts/7", 200, "/sub/{tenant}/parts/{part}"),
        ("/sub/ann/parts/x", 422, "/sub/{tenant}/parts/{part}"),
        ("/sub/ann/openapi.json", 200, "/sub/{tenant}/openapi.json"),
        ("/sub/ann/nothing", 404, ""),
        ("/docs", 200, "/docs"),
        ("/nothing", 404, ""),
    ],
)
def test_fastapi(path, status, route):
    assert route_of(fastapi_app(), path) == (status, route)


def test_a_mount_in_a_router_that_fastapi_included():
    fastapi = package("fastapi")
    router, sub, app = fastapi.APIRouter(), fastapi.FastAPI(), fastapi.FastAPI()

    @sub.get("/parts/{part}")
    async def part(part: int):
        return part

    router.mount("/sub/{tenant}", sub)
    app.include_router(router, prefix="/v1")
    status, route = route_of(app, "/v1/sub/ann/parts/7")
    if status == 200:  # older releases include no mounts
        assert route == "/v1/sub/{tenant}/parts/{part}"


def test_litestar_below_starlette():
    litestar = package("litestar")
    package("starlette")
    from starlette.applications import Starlette
    from starlette.routing import Mount

    @litestar.get("/items/{item:int}")
    async def item() -> str:
        return "x"

    app = Starlette(routes=[Mount("/of/{who}", app=litestar.Litestar([item]))])
    assert route_of(app, "/of/ann/items/7") == (200, "/of/{who}/items/{item}")


def test_a_route_that_is_added_while_serving(tmp_path):
    app = starlette_app(tmp_path)
    route_of(app, "/users/ann/things/7")
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(request):
        return PlainTextResponse("x")

    app.mount("/late/{id}", package("starlette.routing").Router([Route("/{x}", answer)]))
    assert route_of(app, "/late/ann/7") == (200, "/late/{id}/{x}")


def test_applications_are_not_kept_alive(tmp_path):
    gc.collect()
    before = len(route_module._mounts)
    app = starlette_app(tmp_path)
    route_of(app, "/users/ann/things/7")
    assert len(route_module._mounts) > before
    del app
    gc.collect()
    assert len(route_module._mounts) == before


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"router": object()},
        {"router": SimpleNamespace(routes=[object()])},
        {"router": SimpleNamespace(routes=[SimpleNamespace(routes=[], path_format="/other")])},
    ],
)
def test_values_are_not_named_where_the_mount_is_unknown(scope):
    scope |= {
        "route": SimpleNamespace(path_format="/things/{thing}"),
        "root_path": "/users/ann",
        "app_root_path": "",
        "path_params": {"user": "ann", "thing": "7"},
    }
    assert resolve_route(scope) == ""
