"""An application whose start-up lasts until a file appears."""

from __future__ import annotations

import asyncio
import os
import sys

from worker_apps import pid


async def starts_when_told(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("starting", file=sys.stderr, flush=True)
        while not os.path.exists(os.environ["START_WHEN"]):
            await asyncio.sleep(0.02)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await pid(scope, receive, send)
