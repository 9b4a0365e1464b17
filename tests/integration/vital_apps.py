"""An application that grows, blocks its loop, holds the interpreter's lock, or takes long to import."""

from __future__ import annotations

import os
import re
import time

kept = []
# Told so by the test; a module that loads large models.
time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))


def hold_the_lock():
    """Compute for ages in C, where the interpreter's lock is never given back."""
    re.match(r"(a+)+$", "a" * 50 + "b")


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": event["text"]})
        return
    assert scope["type"] == "http"
    what, _, amount = scope["path"].strip("/").partition("/")
    if what == "grow":
        kept.append(os.urandom(1024) * 1024 * int(amount))
    elif what == "block":
        time.sleep(float(amount))
    elif what == "hold":
        hold_the_lock()
    body = str(os.getpid()).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})
