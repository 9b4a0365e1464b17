"""The applications that every server of a run serves: raw ASGI, and one FastAPI route."""

from typing import Any

HELLO = b"Hello, world!"
STREAM_CHUNK = b"s" * 65536
STREAM_CHUNKS = 16  # 1 MiB

# Made once: what the application spends is not what is measured.
HELLO_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(HELLO)).encode())],
}
HELLO_BODY = {"type": "http.response.body", "body": HELLO}
STREAM_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/octet-stream")],
}


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send(HELLO_START)
    await send(HELLO_BODY)


async def routes(scope: Any, receive: Any, send: Any) -> None:
    """Answer like `hello`, each path being a route of its own."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    scope["extensions"]["obsserve"].set_route(scope["path"])
    await send(HELLO_START)
    await send(HELLO_BODY)


async def post(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body and answer with its size."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    received, more = 0, True
    while more:
        message = await receive()
        received += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(received).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """Send 1 MiB in chunks of 64 KiB, of unannounced length as streams mostly are."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send(STREAM_START)
    for _ in range(STREAM_CHUNKS):
        await send({"type": "http.response.body", "body": STREAM_CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send each message of a WebSocket back; to requests answer as `hello`."""
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})


def make_fastapi() -> Any:
    from fastapi import FastAPI  # noqa: PLC0415 - the raw applications must start without it

    app = FastAPI()

    @app.get("/items/{item_id}")
    async def read_item(item_id: int, q: str = "none") -> dict[str, Any]:
        return {"item_id": item_id, "q": q}

    return app


def __getattr__(name: str) -> Any:
    """Make ``apps:fastapi`` when a server asks for it, and not when one asks for ``apps:hello``."""
    if name == "fastapi":
        return make_fastapi()
    raise AttributeError(name)
