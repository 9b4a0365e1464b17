"""Takes all the descriptors that its process may have, and gives them back."""

import os
import resource

held = []


async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/exhaust":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
    elif scope["path"] == "/free":
        while held:
            os.close(held.pop())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
