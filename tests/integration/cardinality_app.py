"""An application that makes the worst of what clients send: their paths as routes, statuses and exception classes."""

from __future__ import annotations


async def echo(scope, receive, send):
    assert scope["type"] == "http"
    path = scope["path"]
    scope["extensions"]["obsserve"].set_route(path)
    if path.startswith("/raise/"):
        raise type(path.removeprefix("/raise/"), (Exception,), {"__module__": "shop"})(path)
    status = int(path[1:4])
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
