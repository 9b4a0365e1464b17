"""A connection whose client is the test: bytes in, application, bytes out, records observed.

Nothing here waits for time to pass: the loop is turned until nothing is left to do, and deadlines are
passed by telling `sweep` a later time.
"""

from __future__ import annotations

import asyncio
import contextvars
from time import perf_counter

import h11

from obsserve.http.connection import Connection
from obsserve.http.parser import parser_class
from obsserve.http.state import ServerState
from obsserve.settings import Settings
from obsserve.telemetry.hooks import Hooks
from obsserve.testing import MemoryTransport, RecordingObserver

PARSERS = ("httptools", "h11")
HOST = b"Host: example.org\r\n"
END = b"\r\n"


def request(method=b"GET", target=b"/", *fields, body=b"", version=b"HTTP/1.1", host=HOST):
    """Return a request's bytes; `fields` are whole lines without their line end."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return method + b" " + target + b" " + version + b"\r\n" + host + lines + b"\r\n" + body


GET = request()


class RecordingReporter:
    """What the operator would read."""

    def __init__(self):
        self.exceptions = []
        self.misuses = []
        self.ignored = []
        self.strains = []

    def overload_changed(self, strain):
        self.strains.append(strain)

    def app_exception(self, exchange, exception, *, after_end):
        self.exceptions.append((exception, after_end))

    def app_misuse(self, exchange, reason, message):
        self.misuses.append(reason)

    def forwarded_ignored(self, exchange):
        self.ignored.append(exchange.client)


class Client:
    """One connection, from the client's side."""

    def __init__(self, site, **transport):
        self.site = site
        self.connection = Connection(site.state)
        self.transport = MemoryTransport(self.connection, **transport)
        self.connection.connection_made(self.transport)

    def send(self, *parts):
        """Send each part as a read of its own, and let the server work."""
        for part in parts:
            if self.transport.closed:
                break
            self.transport.get_protocol().data_received(part)
            self.site.settle()
        return self

    def leave(self, exception=None):
        """Go away: in order, or with a reset."""
        if not self.transport.closed and exception is None:
            self.connection.eof_received()
        self.transport.lose(exception)
        self.site.settle()
        return self

    def sweep(self, seconds):
        """Let the ticker come by after so many seconds."""
        self.connection.sweep(perf_counter() + seconds)
        self.site.settle()
        return self

    @property
    def received(self):
        return bytes(self.transport.written)

    @property
    def gone(self):
        """Whether the server has ended its side."""
        return self.transport.closed or self.transport.eof_written

    def responses(self, *methods):
        """Read what was received as responses to requests of these methods, GET by default."""
        return read_responses(self.received, methods, ended=self.gone)


class Response:
    def __init__(self, status, headers):
        self.status, self.headers, self.body, self.complete = status, dict(headers), b"", False

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body!r} {self.complete}>"


def read_responses(data, methods=(), *, ended=True):
    """Parse a server's side of a connection with h11 as the client."""
    responses = []
    methods = list(methods)
    while data:
        method = methods.pop(0) if methods else "GET"
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "example.org")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        if ended:
            client.receive_data(b"")
        response = None
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                if response is None and not _only_continued(data):
                    raise
                return responses  # the server cut the response short
            if isinstance(event, h11.Response):
                response = Response(event.status_code, event.headers)
                responses.append(response)
            elif isinstance(event, h11.Data):
                response.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                response.complete = True
                data = bytes(client.trailing_data[0])
                break
            elif not isinstance(event, h11.InformationalResponse):
                return responses
    return responses


def _only_continued(data):
    return data == b"HTTP/1.1 100 Continue\r\n\r\n"


class Site:
    """A server without sockets: what all its connections share, and what was observed of them."""

    def __init__(self, parser, app, *, observe=True, **settings):
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._faulty)
        self.faults = []
        self.observer = RecordingObserver()
        self.reporter = RecordingReporter()
        self.state = ServerState(
            Settings(app="tests:app", **settings),
            loop=self.loop,
            app=app,
            parser=parser_class(parser),
            hooks=Hooks([self.observer] if observe else [], self._observer_failed),
            context=contextvars.copy_context(),
            app_state={"started": True},
            reporter=self.reporter,
        )
        self.state.set_date(b"Thu, 01 Jan 1970 00:00:00 GMT")

    def _faulty(self, loop, context):
        self.faults.append(context)

    def _observer_failed(self, observer, hook, exception):
        raise exception

    @property
    def ended(self):
        return self.observer.ended

    @property
    def endings(self):
        return [exchange.ending.detail for exchange in self.observer.ended]

    @property
    def last(self):
        return self.observer.ended[-1]

    def client(self, **transport):
        return Client(self, **transport)

    def settle(self):
        """Turn the loop until nothing is left to do."""
        for _ in range(1000):
            self.turn()
            if not self.loop._ready:
                return
        raise AssertionError("the loop never comes to rest")

    def turn(self):
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def close(self):
        for connection in list(self.state.connections):
            connection.transport.lose()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.close()
        assert not self.faults, self.faults


# --- Applications ------------------------------------------------------------------------------


async def start(send, status=200, *headers):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send, data=b"", *, more=False):
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def read_body(receive):
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data += message.get("body", b"")
        if not message.get("more_body", False):
            return data


async def hello(scope, receive, send):
    """Answer with a known length, without reading the request body."""
    await start(send, 200, (b"content-length", b"5"))
    await body(send, b"hello")


async def echo(scope, receive, send):
    """Answer with the request's body."""
    data = await read_body(receive)
    if data is None:
        return
    await start(send, 200, (b"content-length", b"%d" % len(data)))
    await body(send, data)


class Waiting:
    """An application that answers when the test says so."""

    def __init__(self):
        self.go = asyncio.Event()
        self.scopes = []
        self.messages = []
        self.cancelled = False

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        await hello(scope, receive, send)
