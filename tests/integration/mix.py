"""Clients that send everything that can be sent, and remember what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

CLIENTS = 12
GET = "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Span:
    """From before a client sent something until the client had no more to do with it."""

    began: float
    ended: float


@dataclass
class Answer:
    """A response that arrived whole; the process id is 0 where it says none."""

    request: str
    request_id: str
    pid: int
    span: Span


class Mix:
    """Sends requests of every kind at random.

    Args:
        url: of the server.
        seed: decides what is sent.
    """

    def __init__(self, url, seed=1):
        host, port = url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._websocket = url.replace("http", "ws")
        self._random = random.Random(seed)
        self.resets = 0  # a busy server may not see what a client sent that resets
        self.answers = []
        self.exchanges = []  # the span of each that was begun, whatever came of it
        self.sessions = []
        self._kinds = {
            self._ask: ["ok/1", "ok/2", "nowhere", "teapot/1", "fail/1", "raise/1", "nothing/1", "stream/1"],
            self._ask_twice: ["ok/3", "live/1", "sampled/1", "sampled/2"],
            self._ask_and_see_it_fail: ["raise-late/1", "incomplete/1", "short/1", "slow/timeout"],
            self._leave: [("slow/2", 0.02), ("endless/1", 0.05), ("big/1", 0.02)],
            self._leave_with_a_reset: [("slow/3", 0.02), ("big/2", 0.02)],
            self._upload: ["upload/1"],
            self._leave_while_uploading: ["upload/2"],
            self._stall: [
                b"GET /ok/st",
                b"POST /upload/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhal",
            ],
            self._garbage: [
                b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"GET / HTTP/3.7\r\nHost: x\r\n\r\n",
                b"BREW /ok/1 HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /ok/1 HTTP/1.1\r\nHost: x\r\nBig: " + b"a" * 20_000 + b"\r\n\r\n",
                b"POST /upload/4 HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n",
                b"POST /upload/5 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"POST /upload/6 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            ],
            self._talk: ["socket/1", "socket/raise", "denied/1"],
        }

    async def run(self, count, clients=CLIENTS):
        """Send about so many requests, from several clients at once."""
        plan = [(send, what) for send, all_of_them in self._kinds.items() for what in all_of_them]
        rounds = (plan * (count // len(plan) + 1))[:count]
        self._random.shuffle(rounds)
        queue = iter(rounds)

        async def client():
            for send, what in queue:
                with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError, WebSocketException):
                    await asyncio.wait_for(send(what), 30)

        await asyncio.gather(*[client() for _ in range(clients)])

    @property
    def sent(self):
        """How many exchanges were begun."""
        return len(self.exchanges)

    @contextlib.contextmanager
    def _during(self, *spans):
        """Add the span of what is done here."""
        span = Span(time.time(), float("inf"))
        for each in spans:
            each.append(span)
        try:
            yield span
        finally:
            span.ended = time.time()

    @contextlib.asynccontextmanager
    async def _connected(self):
        reader, writer = await asyncio.open_connection(*self._address, limit=1 << 24)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _request(self, reader, writer, data):
        """Send a request; take its answer if it comes whole; return whether another may follow."""
        try:
            with self._during(self.exchanges) as span:
                writer.write(data)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                if "content-length" in fields:
                    await reader.readexactly(int(fields["content-length"]))
                elif "chunked" in head:
                    await reader.readuntil(b"0\r\n\r\n")
        except (OSError, EOFError):
            return False
        pid = int(fields.get("x-pid", 0))
        self.answers.append(Answer(data[:24].decode("latin-1"), fields["x-request-id"], pid, span))
        return fields.get("connection") != "close"

    async def _ask(self, path):
        async with self._connected() as (reader, writer):
            await self._request(reader, writer, GET.format(path).encode())

    async def _ask_twice(self, path):
        async with self._connected() as (reader, writer):
            for _ in range(2):
                if not await self._request(reader, writer, GET.format(path).encode()):
                    return

    async def _ask_and_see_it_fail(self, path):
        async with self._connected() as (reader, writer):
            await self._request(reader, writer, GET.format(path).encode())

    async def _leave(self, what):
        path, after = what
        async with self._connected() as (_, writer):
            with self._during(self.exchanges):
                writer.write(GET.format(path).encode())
                await asyncio.sleep(after)

    async def _leave_with_a_reset(self, what):
        path, after = what
        async with self._connected() as (_, writer):
            with self._during(self.exchanges):
                writer.write(GET.format(path).encode())
                self.resets += 1
                await asyncio.sleep(after)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                writer.transport.abort()

    async def _upload(self, path):
        body = b"5\r\nhello\r\n0\r\n\r\n"
        async with self._connected() as (reader, writer):
            head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            await self._request(reader, writer, head + body)

    async def _leave_while_uploading(self, path):
        async with self._connected() as (_, writer):
            with self._during(self.exchanges):
                writer.write(f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf".encode())
                await asyncio.sleep(0.02)

    async def _stall(self, data):
        async with self._connected() as (reader, writer):
            await self._request(reader, writer, data)

    async def _garbage(self, data):
        async with self._connected() as (reader, writer):
            await self._request(reader, writer, data)

    async def _talk(self, path):
        # The session is an exchange too, the one of its handshake.
        with self._during(self.exchanges, self.sessions):
            async with connect(f"{self._websocket}/{path}") as client:
                await client.send("raise" if "raise" in path else "hello")
                await client.recv()
