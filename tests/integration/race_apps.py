"""An application that takes its time: to be imported, to start, to answer."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys
import time


def until_there(variable):
    """Wait for a file, if one is named; say so first."""
    if path := os.environ.get(variable):
        sys.stderr.write(f"{variable.lower()} {os.getpid()}\n")
        sys.stderr.flush()
        while not pathlib.Path(path).exists():
            time.sleep(0.02)


until_there("IMPORTING")
if (refuse := os.environ.get("REFUSE_IMPORT")) and pathlib.Path(refuse).exists():
    os._exit(9)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if path := os.environ.get("STARTING"):
            sys.stderr.write("starting\n")
            sys.stderr.flush()
            while not pathlib.Path(path).exists():
                await asyncio.sleep(0.02)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/block":
        time.sleep(60)
    elif scope["path"] == "/wait":
        path = pathlib.Path(os.environ["ANSWERING"])
        while not path.exists():
            await asyncio.sleep(0.02)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
