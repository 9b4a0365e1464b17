"""A WebSocket application with every kind of end."""

from __future__ import annotations

import asyncio
import json


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
        return
    assert (await receive())["type"] == "websocket.connect"
    kind, _, rest = scope["path"].lstrip("/").partition("/")
    await globals()[f"serve_{kind.replace('-', '_')}"](scope, receive, send, rest)


async def serve_echo(scope, receive, send, room):
    scope["extensions"]["obsserve"].set_route("/echo/{room}")
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        await send({**event, "type": "websocket.send"})


async def serve_close(scope, receive, send, code):
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": int(code), "reason": "as asked"})


async def serve_return(scope, receive, send, rest):
    await send({"type": "websocket.accept"})


async def serve_raise(scope, receive, send, rest):
    await send({"type": "websocket.accept"})
    raise ValueError("on purpose")


async def serve_raise_early(scope, receive, send, rest):
    raise ValueError("on purpose")


async def serve_reject(scope, receive, send, rest):
    await send({"type": "websocket.close"})


async def serve_denial(scope, receive, send, rest):
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"secret")]})
    await send({"type": "websocket.http.response.body", "body": b"who are ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"you?"})


async def serve_accept(scope, receive, send, rest):
    await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-room", b"7")]})
    shown = {key: scope[key] for key in ("type", "scheme", "path", "subprotocols", "asgi")}
    shown.update({key: True for key in scope if key == "method"})
    await send({"type": "websocket.send", "text": json.dumps(shown)})
    await receive()


async def serve_deaf(scope, receive, send, rest):
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()
