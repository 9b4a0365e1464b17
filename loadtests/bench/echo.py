"""The load generator for WebSockets: each connection sends a message when the last one has come back.

A program of its own, because it needs a core of its own: ``python -m loadtests.bench.echo PORT …``. It prints one
line in the form of wrk.lua's.
"""

import argparse
import asyncio
import os
import sys
from time import perf_counter
from typing import cast

import uvloop

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GRACE_SECONDS = 10.0
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # 1000, masked with zeros


def length_field(size: int, mask_bit: int) -> bytes:
    """Return a frame's second byte and what follows it of the length (RFC 6455 5.2)."""
    if size < 126:
        return bytes([mask_bit | size])
    if size < 65536:
        return bytes([mask_bit | 126]) + size.to_bytes(2, "big")
    return bytes([mask_bit | 127]) + size.to_bytes(8, "big")


def sent_frame(payload: bytes) -> bytes:
    """Return a text frame as a client sends it, masked."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return b"\x81" + length_field(len(payload), 0x80) + mask + masked


class Echo(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, path: str, size: int) -> None:
        payload = os.urandom(size // 2 + 1).hex()[:size].encode()
        self.path = path
        self.frame = sent_frame(payload)
        self.expected = b"\x81" + length_field(size, 0) + payload
        self.received = b""
        self.opened = self.lost = False
        self.echoes = self.wrong = 0
        self.running = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(HANDSHAKE % self.path.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def start(self) -> None:
        self.running = True
        self.transport.write(self.frame)

    def data_received(self, data: bytes) -> None:
        if not self.opened:
            self.received += data
            self.opened = self.received.startswith(b"HTTP/1.1 101 ") and b"\r\n\r\n" in self.received
            if self.opened:
                self.received = b""
            return
        if not self.running:
            return
        if self.received:
            data = self.received + data
            self.received = b""
        if len(data) < len(self.expected):
            self.received = data
            return
        if data != self.expected:
            self.wrong += 1
            return
        self.echoes += 1
        self.transport.write(self.frame)


async def run(arguments: argparse.Namespace) -> str:
    loop = asyncio.get_running_loop()
    echoes = []
    for _ in range(arguments.connections):
        _, echo = await loop.create_connection(
            lambda: Echo(arguments.path, arguments.size), "127.0.0.1", arguments.port
        )
        echoes.append(echo)
    deadline = loop.time() + GRACE_SECONDS
    while not all(echo.opened or echo.lost for echo in echoes) and loop.time() < deadline:  # noqa: ASYNC110 - once
        await asyncio.sleep(0.01)
    opened = [echo for echo in echoes if echo.opened]
    began = perf_counter()
    for echo in opened:
        echo.start()
    await asyncio.sleep(arguments.seconds)
    microseconds = (perf_counter() - began) * 1e6
    for echo in opened:
        echo.running = False
    requests = sum(echo.echoes for echo in opened)
    lost = sum(echo.lost for echo in opened)
    for echo in opened:
        echo.transport.write(CLOSE)
    await asyncio.sleep(0.05)
    for echo in echoes:
        echo.transport.abort()
    wrong = sum(echo.wrong for echo in opened)
    return (
        f"result requests={requests} microseconds={microseconds:.0f} connect={len(echoes) - len(opened)} "
        f"read={lost} write=0 status={wrong} timeout=0"
    )


def main() -> None:
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench.echo", description="Load a WebSocket echo."
    )
    made.add_argument("port", type=int)
    made.add_argument("--path", default="/")
    made.add_argument("--connections", type=int, default=64)
    made.add_argument("--seconds", type=float, default=2.0)
    made.add_argument("--size", type=int, default=32, help="bytes of each message")
    sys.stdout.write(uvloop.run(run(made.parse_args())) + "\n")


if __name__ == "__main__":
    main()
