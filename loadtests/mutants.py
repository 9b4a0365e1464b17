"""The demo application, made bad: each mutant shows that a threshold can be broken.

``python -m loadtests steady --app loadtests.mutants:slow``
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from urllib.request import urlopen

from websockets.asyncio.client import connect

from obsserve.demo import app as demo

KEPT = []  # what leaks
SEEN = {"requests": 0}


def mutant(change):
    """Do something before each request or WebSocket; lifespans go through untouched."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return await demo(scope, receive, send)
        SEEN["requests"] += 1
        return await change(scope, receive, send)

    return app


@mutant
async def slow(scope, receive, send):
    """Answer late."""
    await asyncio.sleep(1.0)
    await demo(scope, receive, send)


@mutant
async def blocking(scope, receive, send):
    """Block the event loop now and then."""
    if SEEN["requests"] % 20 == 0:
        time.sleep(1.2)  # noqa: ASYNC251 - this is the mutation
    await demo(scope, receive, send)


@mutant
async def collapsing(scope, receive, send):
    """Take the longer the more requests there are: no goodput is left under load."""
    SEEN["active"] = SEEN.get("active", 0) + 1
    try:
        await asyncio.sleep(0.01 * SEEN["active"] ** 2)
        await demo(scope, receive, send)
    finally:
        SEEN["active"] -= 1


@mutant
async def failing(scope, receive, send):
    """Raise now and then."""
    if SEEN["requests"] % 10 == 0:
        raise RuntimeError("this mutant fails")
    await demo(scope, receive, send)


@mutant
async def dying(scope, receive, send):
    """Kill the worker in the middle of a request, once in each."""
    if SEEN["requests"] == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    await demo(scope, receive, send)


@mutant
async def leaking(scope, receive, send):
    """Keep memory and a descriptor for each request."""
    KEPT.append((bytearray(os.urandom(1)) * 65_536, os.open(os.devnull, os.O_RDONLY)))
    await demo(scope, receive, send)


@mutant
async def chatty(scope, receive, send):
    """Talk to itself now and then, so that the server sees more than was sent."""
    if SEEN["requests"] % 50 == 25:
        host, port = scope["server"]
        await asyncio.to_thread(urlopen, f"http://{host}:{port}/echo", b"to myself")
    await demo(scope, receive, send)


@mutant
async def chatty_room(scope, receive, send):
    """Sit in the room itself, once in each worker, say something and leave."""
    if SEEN["requests"] == 3:
        host, port = scope["server"]
        KEPT.append(asyncio.create_task(visit(f"ws://{host}:{port}/chat")))
    await demo(scope, receive, send)


async def visit(url):
    async with connect(url) as room:
        for _ in range(3):
            await room.send("mutant 0 0")
            await room.recv()


@mutant
async def muttering(scope, receive, send):
    """Be a slow client of itself, once in each worker: a head that never ends, a reader who does not read."""
    if SEEN["requests"] == 10:
        for request in (
            b"GET / HTTP/1.1\r\nX-Slow: ",
            b"GET /stream?chunks=200&bytes=65535 HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            KEPT.append(await asyncio.to_thread(socket.create_connection, scope["server"]))
            KEPT[-1].sendall(request)
    await demo(scope, receive, send)


@mutant
async def refusing(scope, receive, send):
    """Refuse now and then, without a word about when to come back."""
    if SEEN["requests"] % 5:
        return await demo(scope, receive, send)
    await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
    return None


@mutant
async def truncating(scope, receive, send):
    """Break off in the middle of a response now and then."""
    if SEEN["requests"] % 10:
        return await demo(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"so far", "more_body": True})
    raise RuntimeError("this mutant breaks off")


@mutant
async def lagging(scope, receive, send):
    """Hold each piece of a response and each message back for a second."""

    async def send_late(message):
        await asyncio.sleep(1.0 if message["type"] in {"http.response.body", "websocket.send"} else 0)
        await send(message)

    await demo(scope, receive, send_late)


async def unstartable(scope, receive, send):
    """Start in the first two workers only: no successor ever serves."""
    if scope["type"] == "lifespan":
        marks = Path(os.environ["LOADTESTS_FOLDER"])  # that of this run
        (marks / f"started-{os.getpid()}").touch()
        if len(list(marks.glob("started-*"))) > 2:  # noqa: ASYNC240 - nothing else runs yet
            await receive()
            return await send(
                {"type": "lifespan.startup.failed", "message": "this mutant does not start again"}
            )
    return await demo(scope, receive, send)


@mutant
async def hanging_up(scope, receive, send):
    """Close each WebSocket after a while, with a code of its own."""
    if scope["type"] != "websocket":
        return await demo(scope, receive, send)
    ends = time.monotonic() + 1.0

    async def receive_or_close():
        if time.monotonic() > ends:
            await send({"type": "websocket.close", "code": 4000})
            return {"type": "websocket.disconnect", "code": 4000}
        return await receive()

    await demo(scope, receive_or_close, send)
    return None
