"""An application that ends its requests in every way there is, and says which worker answered."""

from __future__ import annotations

import asyncio
import os

PID = str(os.getpid()).encode()
PART = b"x" * 100_000


async def app(scope, receive, send):
    assert scope["type"] != "lifespan"  # so that no worker has spans of it
    kind = scope["path"].strip("/").split("/")[0].replace("-", "_")
    serve = globals().get(f"serve_{kind}")
    if serve is None:
        await answer(send, 404)
        return
    scope["extensions"]["obsserve"].set_route(f"/{kind}/{{rest}}")
    await serve(scope, receive, send)


async def start(send, status=200, *headers):
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"x-pid", PID), *headers]},
    )


async def answer(send, status=200, body=b"hello"):
    await start(send, status, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


async def until_gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def serve_ok(scope, receive, send):
    await answer(send)


async def serve_live(scope, receive, send):
    await answer(send)


async def serve_sampled(scope, receive, send):
    await answer(send)


async def serve_teapot(scope, receive, send):
    await answer(send, 418)


async def serve_fail(scope, receive, send):
    await answer(send, 502)


async def serve_raise(scope, receive, send):
    raise LookupError("on purpose")


async def serve_raise_late(scope, receive, send):
    await start(send, 200, (b"content-length", b"100"))
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    raise LookupError("on purpose")


async def serve_nothing(scope, receive, send):
    return


async def serve_incomplete(scope, receive, send):
    await start(send)
    await send({"type": "http.response.body", "body": b"some", "more_body": True})


async def serve_short(scope, receive, send):
    await start(send, 200, (b"content-length", b"100"))
    await send({"type": "http.response.body", "body": b"some"})


async def serve_stream(scope, receive, send):
    await start(send, 200, (b"content-type", b"text/event-stream"))
    for number in range(5):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0.001)
    await send({"type": "http.response.body"})


async def serve_endless(scope, receive, send):
    await start(send, 200, (b"content-type", b"application/octet-stream"))
    gone = asyncio.ensure_future(until_gone(receive))
    while not gone.done():
        await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
        await asyncio.sleep(0.005)


async def serve_big(scope, receive, send):
    await start(send, 200, (b"content-length", b"%d" % (len(PART) * 100)))
    for number in range(100):
        await send({"type": "http.response.body", "body": PART, "more_body": number < 99})


async def serve_slow(scope, receive, send):
    await until_gone(receive)


async def serve_upload(scope, receive, send):
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    await answer(send)


async def serve_socket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        if event.get("text") == "raise":
            raise LookupError("on purpose")
        await send({"type": "websocket.send", "text": event.get("text")})


async def serve_denied(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})
