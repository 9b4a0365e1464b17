"""Applications that are served by several workers, and end some of them."""

from __future__ import annotations

import asyncio
import os
import sys


async def pid(scope, receive, send):
    """Answer with the process that answers; /die ends it."""
    assert scope["type"] == "http"
    if scope["path"] == "/die":
        os._exit(7)
    body = str(os.getpid()).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


async def unless_told(scope, receive, send):
    """Start only as long as there is no file that says otherwise."""
    if scope["type"] == "lifespan":
        await receive()
        if os.path.exists(os.environ["REFUSE_TO_START"]):
            raise RuntimeError("told not to start")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await pid(scope, receive, send)


async def slowly_if_told(scope, receive, send):
    """Take long to start as soon as there is a file that says so."""
    if scope["type"] == "lifespan":
        await receive()
        if os.path.exists(os.environ["START_SLOWLY"]):
            print(f"starting in {os.getpid()}", file=sys.stderr, flush=True)
            await asyncio.sleep(600)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await pid(scope, receive, send)
