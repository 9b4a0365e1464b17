"""The application of the README's first command: every kind of telemetry from one place.

``obsserve obsserve.demo:app --metrics-port 9464``, then open ``/``. Plain ASGI, for any server, and bounded in
all that a request can ask for. A new route is a function under ``@route``, with its docstring on the start page.
"""

import asyncio
import html
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

MAX_SECONDS = 10.0  # of sleeping, blocking, or waiting between two chunks
MAX_CHUNKS = 1000
MAX_BYTES = 1024 * 1024  # of a request's body
TEXT = b"text/plain; charset=utf-8"


class DemoError(Exception):
    """What the failing routes raise: look for this name in the log, the metrics and the traces."""


class RefusedError(Exception):
    """The request is wrong, and the client is told so: status, reason, further headers."""


class Request(NamedTuple):
    scope: Scope
    receive: Receive
    send: Send
    params: dict[str, str]

    def number(self, name: str, default: float, cap: float) -> float:
        """Return a number of the query, held between 0 and `cap`."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        try:
            value = float(query.get(name, [str(default)])[-1])
        except ValueError as error:
            raise RefusedError(400, f"{name} must be a number") from error
        return min(max(0.0, value), cap)  # in this order NaN becomes 0

    async def start(self, status: int, *headers: Header) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, body: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def reply(self, body: bytes, kind: bytes = TEXT, status: int = 200, *headers: Header) -> None:
        await self.start(status, (b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers)
        await self.chunk(body, more=False)

    async def body(self) -> bytes:
        """Read the body, whole or until the client leaves."""
        received, more = b"", True
        while more:
            message = await self.receive()
            received += message.get("body", b"")
            more = message.get("more_body", False)
            if len(received) > MAX_BYTES:
                raise RefusedError(413, f"the body may have {MAX_BYTES} bytes", (b"connection", b"close"))
        return received

    async def client_left_within(self, seconds: float) -> bool:
        """Wait, but no longer than the client does."""
        try:
            async with asyncio.timeout(seconds):
                while (await self.receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return False
        return True


Handler = Callable[[Request], Awaitable[None]]


class Route(NamedTuple):
    template: str
    pattern: re.Pattern[str]
    handler: Handler
    methods: tuple[str, ...]
    example: str


ROUTES: list[Route] = []


def route(template: str, *methods: str, example: str = "") -> Callable[[Handler], Handler]:
    """Serve `template` with the function below; `example` is where the start page links to."""

    def add(handler: Handler) -> Handler:
        pattern = re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", template))
        ROUTES.append(Route(template, pattern, handler, methods or ("GET", "HEAD"), example or template))
        return handler

    return add


@route("/")
async def index(request: Request) -> None:
    """List the routes (this page)."""
    rows = "".join(ROW.format(one, example=html.escape(one.example)) for one in ROUTES)
    await request.reply(PAGE.format(rows=rows).encode(), b"text/html; charset=utf-8")


@route("/fast")
async def fast(request: Request) -> None:
    """Answer a little JSON at once: request rate, duration, one access line."""
    started = request.scope.get("state", {}).get("started")  # by the lifespan, where the server runs it
    await request.reply(json.dumps({"message": "hello", "started": started}).encode(), b"application/json")


@route("/slow", example="/slow?seconds=0.5")
async def slow(request: Request) -> None:
    """Wait without blocking: duration and time to first byte grow, the loop lag does not."""
    seconds = request.number("seconds", 1.0, MAX_SECONDS)
    await asyncio.sleep(seconds)
    await request.reply(f"slept {seconds:g} s\n".encode())


@route("/blocking", example="/blocking?seconds=2")
async def blocking(request: Request) -> None:
    """Block the event loop: its lag, the stall with its stack, and /metrics that answers all the same."""
    seconds = request.number("seconds", 1.0, MAX_SECONDS)
    time.sleep(seconds)  # noqa: ASYNC251 - the mistake that this route is here to show
    await request.reply(f"blocked the event loop for {seconds:g} s\n".encode())


@route("/fail")
async def fail(_: Request) -> None:
    """Raise before the response: a clean 500, and the exception in log, metrics and span."""
    raise DemoError("this route always fails")


@route("/fail-late")
async def fail_late(request: Request) -> None:
    """Raise after the response began: a status of 200, yet an error, and a reply cut short."""
    await request.start(200, (b"content-type", TEXT))
    await request.chunk(b"so far so good\n")
    raise DemoError("this route fails in the middle of its response")


@route("/no-response")
async def no_response(_: Request) -> None:
    """Return without an answer: the server's own 500, counted as a mistake of the application."""


@route("/status/{code}", example="/status/404")
async def status(request: Request) -> None:
    """Answer with that status: all of them under one route label."""
    text = request.params["code"]
    code = int(text) if len(text) == 3 and text.isascii() and text.isdigit() else 0
    if not 200 <= code <= 599:
        raise RefusedError(400, "the code must be from 200 to 599")
    await request.start(code, (b"content-type", TEXT))  # 204 and 304 have no body:
    await request.chunk(b"" if code in (204, 304) else f"status {code}\n".encode(), more=False)


@route("/stream", example="/stream?chunks=20&seconds=0.1")
async def stream(request: Request) -> None:
    """Send many chunks: bytes sent, and the time to the first byte beside the whole duration."""
    chunks = int(request.number("chunks", 10, MAX_CHUNKS))
    line = b"." * int(request.number("bytes", 1024, MAX_BYTES / 16)) + b"\n"
    await send_chunks(request, TEXT, [line] * chunks, request.number("seconds", 0.0, MAX_SECONDS))


@route("/events", example="/events?events=30&seconds=1")
async def events(request: Request) -> None:
    """Send server-sent events: one of the active requests; a client that leaves it is no error."""
    numbers = range(1, int(request.number("events", 30, MAX_CHUNKS)) + 1)
    texts = [f"id: {number}\ndata: event {number}\n\n".encode() for number in numbers]
    await send_chunks(request, b"text/event-stream", texts, request.number("seconds", 1.0, MAX_SECONDS))


async def send_chunks(request: Request, kind: bytes, chunks: list[bytes], pause: float) -> None:
    await request.start(200, (b"content-type", kind), (b"cache-control", b"no-store"))
    for chunk in chunks:
        await request.chunk(chunk)
        if pause and await request.client_left_within(pause):
            return
    await request.chunk(b"", more=False)


@route("/echo", "POST")
async def echo(request: Request) -> None:
    """Send the request's body back: request and response sizes."""
    await request.reply(await request.body(), b"application/octet-stream")


@route("/background")
async def background(request: Request) -> None:
    """Work on after the response: a short duration, then a log line that carries the request's ids."""
    await request.reply(b"the work goes on\n", TEXT, 202)
    await asyncio.sleep(0.5)
    logging.getLogger(__name__).warning("the background work is done")


@route("/spans")
async def spans(request: Request) -> None:
    """Make two spans with OpenTelemetry: children of the server's own span of this request."""
    try:
        from opentelemetry.trace import get_tracer  # noqa: PLC0415 - no other route needs the package
    except ImportError:
        raise RefusedError(501, "no spans: the package opentelemetry-api is not installed") from None
    for name in ("look it up", "work it out"):
        with get_tracer(__name__).start_as_current_span(name):
            await asyncio.sleep(0.01)
    await request.reply(b"made two spans\n")


@route("/ws")
async def ws(request: Request) -> None:
    """Echo WebSocket messages (try it below): handshake, session, messages, bytes and close code."""
    if request.scope["type"] == "http":
        raise RefusedError(426, "this route speaks WebSocket", (b"upgrade", b"websocket"))
    await request.receive()  # websocket.connect
    await request.send({"type": "websocket.accept"})
    while (message := await request.receive())["type"] == "websocket.receive":
        await request.send({**message, "type": "websocket.send"})


MEMBERS: set[asyncio.Queue[MutableMapping[str, Any]]] = (
    set()
)  # the messages that wait for each, in this worker


@route("/chat")
async def chat(request: Request) -> None:
    """Send WebSocket messages on to all who are connected to this worker: one in, many out."""
    if request.scope["type"] == "http":
        raise RefusedError(426, "this route speaks WebSocket", (b"upgrade", b"websocket"))
    await request.receive()  # websocket.connect
    await request.send({"type": "websocket.accept"})
    waiting: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue(MAX_CHUNKS)

    async def deliver() -> None:
        with suppress(OSError):  # the client has gone
            while True:
                await request.send({**await waiting.get(), "type": "websocket.send"})

    delivery = asyncio.create_task(deliver())
    MEMBERS.add(waiting)
    try:
        while (message := await request.receive())["type"] == "websocket.receive":
            for member in MEMBERS:
                with suppress(asyncio.QueueFull):  # who reads too slowly misses some
                    member.put_nowait(message)
    finally:
        MEMBERS.discard(waiting)
        delivery.cancel()


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>obsserve demo</title>
<h1>obsserve demo</h1><p>Call a route, then look at what the server says about it: the access line on its
standard output, and <code>/metrics</code> on the port given with <code>--metrics-port</code>.
<table>{rows}</table>
<p><button>Try /ws</button> <input value="hello"> (sent when you press Enter) <pre></pre><script>
const [button, input, log] = document.querySelectorAll("button, input, pre"); let socket;
button.onclick = () => {{
  socket = new WebSocket(new URL("ws", location).href.replace("http", "ws"));
  socket.onopen = socket.onmessage = socket.onclose = (e) => log.append(`${{e.type}} ${{e.data ?? e.code ?? ""}}\\n`);
}}; input.onchange = () => socket?.send(input.value);
</script></html>
"""
ROW = '<tr><td>{0.methods[0]}<td><a href="{example}">{0.template}</a><td>{0.handler.__doc__}\n'


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    matches = ((one, one.pattern.fullmatch(scope["path"])) for one in ROUTES)
    found, match = next((pair for pair in matches if pair[1]), (None, None))
    request = Request(scope, receive, send, match.groupdict() if match else {})
    if scope["type"] == "websocket" and (found is None or found.handler not in (ws, chat)):
        return await send({"type": "websocket.close"})  # which refuses the handshake
    if found is None:
        return await request.reply(b"not found\n", TEXT, 404)
    if "obsserve" in (
        scope.get("extensions") or {}
    ):  # so that metrics and spans group by route, never by path
        scope["extensions"]["obsserve"].set_route(found.template)
    if scope.get("method", "GET") not in found.methods:
        allow = ", ".join(found.methods).encode()
        return await request.reply(b"no such method here\n", TEXT, 405, (b"allow", allow))
    try:
        await found.handler(request)
    except RefusedError as refused:
        status, reason, *headers = refused.args
        await request.reply(f"{reason}\n".encode(), TEXT, status, *headers)


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # lifespan.startup
    scope.setdefault("state", {})["started"] = time.time()
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})


PROTOCOLS = {"http": serve, "websocket": serve, "lifespan": lifespan}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PROTOCOLS[scope["type"]](scope, receive, send)  # raises for what it does not speak, as ASGI asks
