"""Clients of the demo application, good and bad ones: whatever a panel shows, somebody here causes."""

from __future__ import annotations

import contextlib
import socket
import struct
from functools import partial

import httpx
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from tests.crowd import Crowd

BROKEN = (OSError, httpx.HTTPError, EOFError, WebSocketException)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KINDS = ("browse", "fail", "leave", "babble", "pipeline", "read_slowly", "chat", "hang_up", "crowd", "block")


class Traffic(Crowd):
    """Clients of every kind.

    Args:
        address: host:port of the server.
        kinds: names of the methods to run; all by default.
    """

    def __init__(self, address, *kinds):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.wrong: list[BaseException] = []
        super().__init__(*(partial(self._run, getattr(self, name)) for name in kinds or KINDS))

    def _run(self, kind):
        while not self.over.is_set():
            try:
                kind()
            except BROKEN:  # what a client sees when a worker is killed or refuses
                pass
            except Exception as error:  # a mistake of this file, which the test tells
                self.wrong.append(error)
            self.over.wait(0.05)

    def get(self, *paths, method="GET", **options):
        # Without verify each client would read the certificates of all authorities.
        with httpx.Client(base_url=f"http://{self.host}:{self.port}", timeout=10, verify=False) as client:
            return [client.request(method, path, **options).status_code for path in paths]

    def raw(self, data):
        sock = socket.create_connection((self.host, self.port), timeout=10)
        sock.sendall(data)
        return sock

    # --- Those who behave ---------------------------------------------------------------------

    def browse(self):
        self.get("/", "/fast", "/fast", "/slow?seconds=0.02", "/background", "/spans", "/status/204")
        self.get("/status/301", "/status/404", "/nowhere", "/stream?chunks=5")
        self.get("/echo", method="POST", content=b"x" * 20_000)
        self.get("/fast", headers={"traceparent": TRACEPARENT, "user-agent": "x" * 1000})
        self.get("/fast", headers={"traceparent": "00-not-a-context"})

    def chat(self):
        with connect(f"ws://{self.host}:{self.port}/ws") as one:
            for _ in range(5):
                one.send("text")
                one.recv(timeout=5)
                one.send(b"bytes")
                one.recv(timeout=5)
                self.over.wait(0.3)
        with contextlib.suppress(InvalidStatus), connect(f"ws://{self.host}:{self.port}/not-there"):
            pass

    # --- Those who do not ---------------------------------------------------------------------

    def fail(self):
        self.get("/fail", "/status/500", "/status/503", "/no-response")
        with contextlib.suppress(httpx.HTTPError):
            self.get("/fail-late")

    def leave(self):
        """Go while the application works, and in the middle of an upload."""
        sock = self.raw(b"GET /slow?seconds=2 HTTP/1.1\r\nHost: a\r\n\r\n")
        self.over.wait(0.1)
        sock.close()
        sock = self.raw(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        self.over.wait(0.05)
        # A reset instead of an end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def babble(self):
        for data in (
            b"what?\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nbad\r\n\r\n",
        ):
            with self.raw(data) as sock:
                while sock.recv(4096):
                    pass
        # A head that does not end: the header timeout closes it.
        self.raw(b"GET / HTTP/1.1\r\nHost:").close()

    def pipeline(self):
        with self.raw(b"GET /fast HTTP/1.1\r\nHost: a\r\n\r\n" * 5) as sock:
            sock.settimeout(5)
            sock.recv(100)
            self.over.wait(0.2)

    def read_slowly(self):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        with sock:
            sock.connect((self.host, self.port))
            sock.sendall(
                b"GET /stream?chunks=500&bytes=60000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )
            for _ in range(15):
                self.over.wait(0.1)
                sock.recv(65536)

    def hang_up(self):
        """End a WebSocket without a close frame."""
        with connect(f"ws://{self.host}:{self.port}/ws") as one:
            one.send("x")
            one.recv(timeout=5)
            one.socket.shutdown(socket.SHUT_RDWR)

    def crowd(self):
        """Come in numbers that the limit of concurrent requests does not allow."""
        socks = []
        for _ in range(16):
            socks.append(self.raw(b"GET /slow?seconds=0.5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.recv(100)
            sock.close()
        self.over.wait(0.5)

    def block(self):
        """Block an event loop for longer than the watchdog allows, now and then."""
        self.get("/blocking?seconds=1.3")
        self.over.wait(3)
