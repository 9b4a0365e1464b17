"""Applications and configurations of the tests of parity with uvicorn."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os

from flask import Flask, request

correlation = contextvars.ContextVar("correlation", default="none")


async def answer(send, body, status=200, headers=()):
    start = {"type": "http.response.start", "status": status, "headers": list(headers)}
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def plain(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, b"plain")


def made():
    """Make an application."""
    return plain


def wants_arguments(name):
    return plain


async def environment(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, os.environ.get("SHOP_MODE", "none").encode())


async def loop_kind(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, type(asyncio.get_running_loop()).__module__.encode())


async def client(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, f"{scope['client'][0]} {scope['scheme']}".encode())


class OldStyle:
    """ASGI 2."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        if self.scope["type"] != "http":
            raise NotImplementedError
        message = await receive()
        await answer(send, self.scope["asgi"]["version"].encode() + b" " + message["body"])


flask = Flask(__name__)


@flask.route("/items/<int:number>", methods=["GET", "POST"])
def item(number):
    return {"item": number, "body": request.get_data(as_text=True), "query": request.args.to_dict()}


@flask.route("/raise")
def fails():
    raise LookupError("on purpose")


# --- logging that an application does itself ----------------------------------------------------


class HideHealth(logging.Filter):
    def filter(self, record):
        return record.args[2] != "/health"


async def hides_health(scope, receive, send):
    """Adds a filter when it starts, as in the answer that everybody finds."""
    if scope["type"] == "lifespan":
        await receive()
        logging.getLogger("obsserve.access").addFilter(HideHealth())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await answer(send, b"")


async def adds_handler(scope, receive, send):
    """Adds a handler when it starts, and sets a context variable in each request."""
    if scope["type"] == "lifespan":
        await receive()
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("mine %(message)s %(correlation)s"))
        handler.addFilter(add_correlation)
        logging.getLogger("obsserve.access").addHandler(handler)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    correlation.set(scope["path"].removeprefix("/"))
    await answer(send, b"")


LATER = logging.StreamHandler()
LATER.setFormatter(logging.Formatter("mine %(message)s"))


async def adds_handler_later(scope, receive, send):
    """Turns a handler on and off in requests, as a debugging endpoint does."""
    assert scope["type"] == "http"
    logger = logging.getLogger("obsserve.access")
    if scope["path"] == "/add":
        logger.addHandler(LATER)
    elif scope["path"] == "/remove":
        logger.removeHandler(LATER)
    await answer(send, b"")


class OnlySessions(logging.Filter):
    def filter(self, record):
        return record.args[1] == "WEBSOCKET"


class Indexes(logging.Formatter):
    """Takes the arguments apart, as formatters for uvicorn do."""

    def format(self, record):
        if record.name != "obsserve.access":
            return record.getMessage()
        client, method, path, version, status = record.args
        received = record.obsserve["websocket_messages_received"]
        return f"{client}|{method}|{path}|{version}|{status}|{received} received"


async def websocket(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def add_correlation(record):
    record.correlation = correlation.get()
    return True


async def quiet(scope, receive, send):
    assert scope["type"] == "http"
    logging.getLogger("obsserve.access")
    await answer(send, b"", status=500 if scope["path"] == "/fails" else 200)


# Set when the module is imported, as many applications do.
async def sets_level(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        logging.getLogger("obsserve.access").setLevel(logging.WARNING)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await answer(send, b"", status=500 if scope["path"] == "/fails" else 200)
