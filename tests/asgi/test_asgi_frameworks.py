"""Frameworks that name no route in the scope: their routers tell it, and nothing that goes wrong is noticed."""

import asyncio
import sys
from types import SimpleNamespace

import pytest
from scopes import http_scope

from obsserve.asgi import frameworks
from obsserve.asgi.frameworks import learn_routes
from obsserve.http.record import Record
from tests.parts import package


def route_of(app, path, *, root_path="", kind="http", extensions=None):
    """The route of one request, driven without a server; with its status, or the first message of a WebSocket."""
    exchange = Record.__new__(Record)
    extensions = {"obsserve": exchange} if extensions is None else extensions
    scope = http_scope(path, root_path=root_path, extensions=extensions, state={})
    if kind == "websocket":
        del scope["method"]
        scope.update(type="websocket", scheme="ws", subprotocols=[])
        incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
    else:
        incoming = [{"type": "http.request", "body": b"", "more_body": False}]
    answers = []
    answered = asyncio.Event()

    async def receive():
        if incoming:
            return incoming.pop(0)
        await answered.wait()  # some frameworks wait for it when they have answered
        return {"type": "http.disconnect"}

    async def send(message):
        answers.append(message.get("status", message["type"]))
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    async def run():
        learn_routes()
        await asyncio.wait_for(app(scope, receive, send), 20)

    asyncio.run(run())
    exchange.scope = scope
    return answers[0], exchange.learn_route()


def quart_app():
    quart = package("quart")
    app = quart.Quart(__name__)
    part = quart.Blueprint("part", __name__, url_prefix="/part/<tenant>")

    @app.get("/items/<int:item>")
    async def item(item):
        return "x"

    @part.get("/things/<thing>")
    async def thing(tenant, thing):
        return "x"

    @app.get("/set/<item>")
    async def announced(item):
        quart.request.scope["extensions"]["obsserve"].set_route("/mine/{item}")
        return "x"

    @app.websocket("/ws/<room>")
    async def room(room):
        await quart.websocket.accept()

    app.register_blueprint(part)
    return app


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/items/7", 200, "/items/<int:item>"),
        ("/items/x", 404, None),
        ("/part/ann/things/7", 200, "/part/<tenant>/things/<thing>"),
        ("/nothing", 404, None),
    ],
)
def test_quart(root_path, path, status, route):
    assert route_of(quart_app(), path, root_path=root_path) == (status, route and root_path + route or "")


def test_quart_websocket():
    assert route_of(quart_app(), "/ws/7", kind="websocket") == ("websocket.accept", "/ws/<room>")


def test_what_the_application_announces_counts_more():
    assert route_of(quart_app(), "/set/7") == (200, "/mine/{item}")
    exchange = Record.__new__(Record)
    exchange.set_route("/mine")
    exchange.route_matched("", "/found/<here>")
    assert exchange.learn_route() == "/mine"


def test_under_another_server():
    assert route_of(quart_app(), "/items/7", extensions={}) == (200, "")
    assert route_of(quart_app(), "/items/7", extensions={"obsserve": None}) == (200, "")


def falcon_app():
    falcon_asgi = package("falcon.asgi")

    class Answer:
        async def on_get(self, request, response, **parameters):
            response.text = "x"

        async def on_websocket(self, request, socket, **parameters):
            await socket.accept()

    app = falcon_asgi.App()
    for template in ("/items/{item:int}", "/of/{who}/things/{thing}", "/ws/{room}"):
        app.add_route(template, Answer())
    return app


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/items/7", 200, "/items/{item:int}"),
        ("/of/ann/things/7", 200, "/of/{who}/things/{thing}"),
        ("/nothing", 404, ""),
    ],
)
def test_falcon(path, status, route):
    assert route_of(falcon_app(), path) == (status, route)


def test_falcon_websocket():
    assert route_of(falcon_app(), "/ws/7", kind="websocket") == ("websocket.accept", "/ws/{room}")


def blacksheep_app():
    blacksheep = package("blacksheep")
    from blacksheep.server.routing import Router

    below = Router(prefix="/below")
    app = blacksheep.Application(router=Router(sub_routers=[below]))
    child = blacksheep.Application(router=Router())

    @app.router.get("/items/{int:item}")
    async def item(item: int):
        return "x"

    @below.get("/things/{thing}")
    async def thing(thing: str):
        return "x"

    @below.get("/files/*")
    async def files():
        return "x"

    @child.router.get("/parts/{part}")
    async def part(part: str):
        return "x"

    @app.router.ws("/ws/{room}")
    async def room(websocket: blacksheep.WebSocket, room: str):
        await websocket.accept()

    app.mount("/sub/{tenant}", child)
    return app


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/items/7", 200, "/items/{int:item}"),
        ("/items/x", 404, None),
        ("/below/things/7", 200, "/below/things/{thing}"),
        ("/below/files/a/b", 200, "/below/files/*"),
        ("/nothing", 404, None),
    ],
)
def test_blacksheep(root_path, path, status, route):
    assert route_of(blacksheep_app(), path, root_path=root_path) == (
        status,
        route and root_path + route or "",
    )


def test_blacksheep_mounts_name_no_values():
    package("blacksheep")
    assert route_of(blacksheep_app(), "/sub/ann/parts/7")[1] == "/sub/{tenant}/parts/{part}"


def test_blacksheep_websocket():
    """Without a lifespan its first request starts it; only then are there routes to be found."""
    app = blacksheep_app()
    assert route_of(app, "/ws/7", kind="websocket") == ("websocket.accept", "")
    assert route_of(app, "/ws/7", kind="websocket") == ("websocket.accept", "/ws/{room}")


def test_a_framework_below_starlette():
    package("starlette")
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/of/{who}", app=quart_app())])
    assert route_of(app, "/of/ann/items/7") == (200, "/of/{who}/items/<int:item>")


class Router:
    def find(self, request):
        if request is None:
            raise LookupError("nothing")
        return request.found


def test_what_a_method_does_stays_the_same(monkeypatch):
    """It is wrapped once; its errors are its own, and what cannot be told is nobody's error."""
    module = SimpleNamespace(Router=Router)
    monkeypatch.setitem(sys.modules, "a_framework", module)

    def tell(router, request, found):
        raise RuntimeError("a release that differs")

    monkeypatch.setattr(
        frameworks,
        "_METHODS",
        (
            ("a_framework", "Router", "find", frameworks._after(tell)),
            ("a_framework", "Router", "gone", frameworks._after(tell)),
            ("a_framework", "Gone", "find", frameworks._after(tell)),
            ("not_imported", "Router", "find", frameworks._after(tell)),
        ),
    )
    monkeypatch.setattr(Router, "find", Router.find)
    original = Router.find
    learn_routes()
    wrapped = Router.find
    learn_routes()
    assert Router.find is wrapped
    assert wrapped.__wrapped__ is original
    assert Router().find(SimpleNamespace(found=7)) == 7
    with pytest.raises(LookupError, match="nothing"):
        Router().find(None)
    assert sys.modules.get("not_imported") is None
