"""Applications that do not end by themselves."""

from __future__ import annotations

import asyncio
import atexit
import time


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await globals()[f"serve_{scope['path'].strip('/').replace('-', '_')}"](scope, receive, send)


async def started(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})


async def until_told(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def serve_polite_stream(scope, receive, send):
    """Events until the client leaves; then a last one."""
    await started(send)
    await until_told(receive)
    await send({"type": "http.response.body", "body": b"data: bye\n\n"})


async def serve_stream(scope, receive, send):
    """Events until the client leaves."""
    await started(send)
    await until_told(receive)


async def serve_stream_that_raises(scope, receive, send):
    await started(send)
    await until_told(receive)
    raise RuntimeError("the client has left")


async def serve_long_poll(scope, receive, send):
    await until_told(receive)


async def serve_never(scope, receive, send):
    await asyncio.Event().wait()


async def serve_deaf_stream(scope, receive, send):
    await started(send)
    await asyncio.Event().wait()


async def serve_deaf_websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()


async def lingers(scope, receive, send):
    """Does at the exit of its process what takes for ever."""
    if not _lingering:
        _lingering.append(atexit.register(linger))
    await app(scope, receive, send)


_lingering = []


def linger():
    time.sleep(60)
