"""Answers WebSockets for the test of custom classes."""

import json


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        scope["state"]["mood"] = "started"
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/deny":
        await send({"type": "websocket.close"})
        return
    if scope["path"] == "/answer":
        headers = [(b"content-length", b"6")]
        await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"tea", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"pot"})
        return
    await send({"type": "websocket.accept"})
    told = {
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "client": scope["client"][0],
        "state": scope["state"]["mood"],
    }
    await send({"type": "websocket.send", "text": json.dumps(told)})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
