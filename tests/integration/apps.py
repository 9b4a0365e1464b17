"""Applications that the integration tests serve."""

from __future__ import annotations

import asyncio
import logging
import time

import structlog
from fastapi import BackgroundTasks, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from opentelemetry import trace

fastapi = FastAPI()


@fastapi.get("/items/{item_id}")
async def item(item_id: int):
    return {"item": item_id}


@fastapi.get("/stream/{parts}")
async def stream(parts: int):
    async def body():
        for part in range(parts):
            yield f"part {part}\n".encode()
            await asyncio.sleep(0)

    return StreamingResponse(body(), media_type="text/plain")


@fastapi.get("/raise")
async def fails():
    raise ValueError("on purpose")


@fastapi.get("/background")
async def background(tasks: BackgroundTasks):
    async def later():
        await asyncio.sleep(0.2)

    tasks.add_task(later)
    return {"queued": True}


@fastapi.post("/upload")
async def upload(data: dict):
    return {"keys": sorted(data)}


@fastapi.get("/sleep/{seconds}")
async def sleep(seconds: float):
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@fastapi.get("/thread/{seconds}")
def thread(seconds: float):
    """In a thread of the framework's pool, which nothing cancels."""
    time.sleep(seconds)


@fastapi.get("/block/{seconds}")
async def block(seconds: float):
    time.sleep(seconds)
    return {"blocked": seconds}


@fastapi.get("/log/{number}")
async def log(number: int):
    with trace.get_tracer("apps").start_as_current_span("work"):
        await asyncio.sleep(0)
        logging.getLogger("apps").warning("by logging", extra={"number": number})
        await asyncio.sleep(0)
        structlog.get_logger().warning("by structlog", number=number)
    return {"number": number}


@fastapi.websocket("/echo")
async def echo(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


async def plain(scope, receive, send):
    """No lifespan, one small answer."""
    assert scope["type"] == "http"
    body = b"Hello, world!"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan_fails(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})


async def lifespan_raises(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    raise RuntimeError("the database is away")


async def lifespan_state(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["pool"] = "ready"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = scope["state"]["pool"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


not_callable = 5
