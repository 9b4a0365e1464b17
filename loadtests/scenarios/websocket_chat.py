"""websocket_chat: people in a room who talk; what each says comes back to it, and goes to all others.

Timed: the handshake, one's own message until it comes back (echo), the others' until they arrive (fan-out). Each
message and each close code is counted on both sides. With several workers each has a room of its own.
"""

import contextlib
import random
import time

import gevent
import gevent.event
import websocket
from locust import task
from websocket import ABNF

from loadtests.observe import OBSERVER
from loadtests.shapes import Phase, Phases
from loadtests.users import HandmadeUser, pause

PATIENCE_SECONDS = 10.0


class Member(HandmadeUser):
    wait_time = pause(0.1, 0.5)

    def on_start(self):
        self.name = f"{random.getrandbits(48):012x}"
        self.heard = gevent.event.Event()
        self.said = 0
        headers = self.begin()
        began, status, error = time.perf_counter(), 101, None
        self.socket = None
        try:
            url = self.host.replace("http", "ws", 1) + "/chat"
            self.socket = websocket.create_connection(url, timeout=PATIENCE_SECONDS, header=headers)
            self.socket.settimeout(None)
        except (OSError, websocket.WebSocketException) as problem:
            status, error = getattr(problem, "status_code", 0), problem
        self.fire("WS", "connect", began, error, status=status)
        if self.socket is None:
            self.wait()
            return
        self.listener = gevent.spawn(self.listen)

    @task
    def say(self):
        if self.socket is None or self.listener.ready():
            return
        self.said += 1
        self.heard.clear()
        began = time.perf_counter()
        self.socket.send(f"{self.name} {self.said} {began}")
        OBSERVER.books.tallies["ws_sent"] += 1
        came = self.heard.wait(PATIENCE_SECONDS)
        self.fire("WS", "echo", began, None if came else TimeoutError("it did not come back"), exchange=False)

    def listen(self):
        """Read until the other side has said goodbye, so that no message goes uncounted."""
        code = 1006
        try:
            while (frame := self.socket.recv_frame()).opcode != ABNF.OPCODE_CLOSE:
                if frame.opcode == ABNF.OPCODE_PING:
                    self.socket.pong(frame.data)
                elif frame.opcode == ABNF.OPCODE_TEXT:
                    self.hear(*frame.data.decode().split())
            code = int.from_bytes(frame.data[:2], "big") if len(frame.data) >= 2 else 1005
        except (OSError, websocket.WebSocketException):
            pass
        OBSERVER.books.tallies[f"ws_close_{code}"] += 1

    def hear(self, name, number, began):
        OBSERVER.books.tallies["ws_received"] += 1
        if name != self.name:
            self.fire("WS", "fan-out", float(began), exchange=False)
        elif int(number) == self.said:
            self.heard.set()

    def on_stop(self):
        if self.socket is None:
            return
        with contextlib.suppress(OSError, websocket.WebSocketException):
            self.socket.send_close(1000)
        self.listener.join(PATIENCE_SECONDS)
        self.socket.shutdown()


class Shape(Phases):
    phases = (Phase(users=20, seconds=20, spawn_rate=10),)
