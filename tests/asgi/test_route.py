from __future__ import annotations

from types import SimpleNamespace

import pytest
from wire import Site, request

from obsserve.asgi.route import resolve_route
from tests.parts import package


def route_of(app, target):
    site = Site("h11", app)
    try:
        client = site.client().send(request(target=target))
        status = client.responses()[0].status
        client.leave()
        return status, site.last.route
    finally:
        site.close()


def fastapi_app():
    fastapi = package("fastapi")
    app, inner, router = fastapi.FastAPI(), fastapi.FastAPI(), fastapi.APIRouter()

    @app.get("/items/{item}")
    async def item(item: int):
        return item

    @router.get("/users/{name}")
    async def user(name: str):
        return name

    @inner.get("/things/{thing}")
    async def thing(thing: str):
        return thing

    app.include_router(router, prefix="/v1")
    app.mount("/inner", inner)
    return app


@pytest.mark.parametrize(
    ("target", "status", "route"),
    [
        (b"/items/7", 200, "/items/{item}"),
        (b"/items/x", 422, "/items/{item}"),
        (b"/v1/users/ann", 200, "/v1/users/{name}"),
        (b"/inner/things/x", 200, "/inner/things/{thing}"),
        (b"/nowhere", 404, ""),
    ],
)
def test_fastapi(target, status, route):
    assert route_of(fastapi_app(), target) == (status, route)


def starlette_app():
    applications = package("starlette.applications")
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def answer(request):
        return PlainTextResponse("x")

    async def shared(request):
        return PlainTextResponse("x")

    inner = applications.Starlette(routes=[Route("/things/{thing}", answer)])
    return applications.Starlette(
        routes=[
            Route("/items/{item:int}", answer),
            Route("/a/{x}", shared),
            Route("/b/{x}", shared),
            Mount("/inner", app=inner),
        ]
    )


@pytest.mark.parametrize(
    ("target", "status", "route"),
    [
        (b"/items/7", 200, "/items/{item}"),
        (b"/a/1", 200, "/a/{x}"),
        (b"/b/1", 200, "/b/{x}"),
        (b"/inner/things/x", 200, "/inner/things/{thing}"),
        (b"/nowhere", 404, ""),
    ],
)
def test_starlette(target, status, route):
    assert route_of(starlette_app(), target) == (status, route)


@pytest.mark.parametrize(
    ("scope", "route"),
    [
        (None, ""),
        ({}, ""),
        ({"route": SimpleNamespace(path_format="/a/{b}"), "root_path": "/api"}, "/api/a/{b}"),
        ({"route": SimpleNamespace(path="/a/{b}")}, "/a/{b}"),
        ({"route": object()}, ""),
        ({"path_template": "/a/{b}"}, "/a/{b}"),
        ({"endpoint": object(), "app": object()}, ""),
        ({"endpoint": object(), "app": SimpleNamespace(routes=[])}, ""),
        ({"endpoint": {}, "app": SimpleNamespace(routes=None)}, ""),
    ],
)
def test_of_a_scope(scope, route):
    assert resolve_route(scope) == route
