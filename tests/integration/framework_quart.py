"""Quart's scope names no route; with ANNOUNCE=yes a hook tells the server."""

import os

from quart import Quart, request, websocket

app = Quart(__name__)


@app.get("/items/<int:item>")
async def item(item):
    return f"item {item}", {"content-type": "text/plain"}


@app.get("/stream/<name>")
async def stream(name):
    async def chunks():
        for number in range(3):
            yield f"chunk {number}\n".encode()

    return chunks(), {"content-type": "text/plain"}


@app.get("/fail/<name>")
async def fail(name):
    raise ValueError("on purpose")


@app.websocket("/ws/<room>")
async def echo(room):
    while True:
        await websocket.send(f"{room}: {await websocket.receive()}")


def announce(connection):
    if connection.url_rule is not None:
        connection.scope["extensions"]["obsserve"].set_route(connection.url_rule.rule)


if os.environ.get("ANNOUNCE") == "yes":

    @app.before_request
    async def announce_request():
        announce(request)

    @app.before_websocket
    async def announce_websocket():
        announce(websocket)
