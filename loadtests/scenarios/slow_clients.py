"""slow_clients: some send their headers byte by byte, some read slowly, some stop reading; the others may not notice.

The slow heads get their 408, the readers who stop are cut off, those who are merely slow get everything.
"""

import socket
import time

from locust import task

from loadtests.observe import OBSERVER
from loadtests.shapes import Phase, Phases
from loadtests.users import HandmadeUser, ObservedUser, pause

HEAD = b"GET /fast HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
LARGE = "/stream?chunks=64&bytes=65535"  # 4 MiB: more than any buffer on the way
PATIENCE_SECONDS = 15.0


class Bystander(ObservedUser):
    fixed_count = 8
    wait_time = pause(0.05, 0.15)

    @task
    def fast(self):
        self.client.get("/fast")


class RawUser(HandmadeUser):
    """Speaks over a socket of its own."""

    abstract = True
    wait_time = pause(0.1, 0.5)

    def connect(self):
        host, _, port = self.host.partition("://")[2].partition(":")
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        client.settimeout(PATIENCE_SECONDS)
        client.connect((host, int(port or 80)))
        return client

    def ask(self, client):
        lines = [f"GET {LARGE} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.begin().items()]
        client.sendall("\r\n".join([*lines, "", ""]).encode())


class SlowHead(RawUser):
    fixed_count = 4

    @task
    def drip(self):
        """Send a header that never ends, slowly, and see what the server says."""
        self.begin()
        began, status, error = time.perf_counter(), 0, None
        try:
            with self.connect() as client:
                client.sendall(HEAD)
                client.settimeout(0.2)
                answer = b""
                while not answer and time.perf_counter() - began < PATIENCE_SECONDS:
                    try:
                        answer = client.recv(4096)
                        break  # also when it closed without a word
                    except TimeoutError:
                        client.sendall(b"x")
            status = int(answer.split()[1]) if answer else 0
        except OSError as problem:
            error = problem
        if status != 408:
            error = error or ValueError(f"a head that never ends was answered with {status or 'nothing'}")
        OBSERVER.books.tallies["slow_heads"] += status == 408
        self.fire("GET", "head that never ends", began, error, status=status)


class SlowReader(RawUser):
    fixed_count = 3

    @task
    def sip(self):
        """Read everything, a little at a time."""
        received, began, error = 0, time.perf_counter(), None
        head = b""
        try:
            with self.connect() as client:
                self.ask(client)
                while data := client.recv(32_768):
                    head = head or data
                    received += len(data)
                    time.sleep(0.01)
            if received < 64 * 65_536:
                error = ValueError(f"{received} bytes are not all")
        except OSError as problem:
            error = problem
        status = int(head.split()[1]) if head else 0
        self.fire("GET", "read slowly", began, error, status=status, cut=error is not None)


class StuckReader(RawUser):
    fixed_count = 3

    @task
    def freeze(self):
        """Read the first bytes, then nothing, until the server has had enough."""
        began, error = time.perf_counter(), None
        head = b""
        try:
            with self.connect() as client:
                self.ask(client)
                head = client.recv(64)
                time.sleep(7)  # the server's patience is a few seconds; see its options
                received = sum(len(data) for data in iter(lambda: client.recv(65_536), b""))
                if received >= 64 * 65_536:
                    error = ValueError("the server kept everything for a reader who had stopped")
        except ConnectionError:
            pass  # cut off, as it should be
        except OSError as problem:
            error = problem
        status = int(head.split()[1]) if head else 0
        self.fire("GET", "stopped reading", began, error, status=status, cut=True)
        OBSERVER.books.tallies["stuck"] += error is None


class Shape(Phases):
    phases = (Phase(users=18, seconds=24),)
