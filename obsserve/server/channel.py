"""Worker and main process, talking: JSON objects, one a line, over a pair of sockets.

A message is a word, its `type`, and fields. Whoever wants one registers for its type; a message that nobody
wants is ignored, so that each side may be newer than the other. The worker reads on a thread, because its event
loop may be blocked by the application; the main process reads on its event loop. The end of the stream says that
the other side is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Receiver = Callable[[dict[str, Any]], None]

# The longest message: a worker's own metrics are the largest.
MESSAGE_LIMIT: Final = 16 * 1024 * 1024


class WorkerChannel:
    """The worker's end; can be used from any thread. gunicorn's arbiter, which has no event loop, uses it too.

    Args:
        sock: one of a pair of connected sockets.
        lost: called on the reading thread when the other side is gone.
        patient: whether a message waits for the other side to take it; else, one that finds no room is lost.
    """

    def __init__(self, sock: socket.socket, lost: Callable[[], None], *, patient: bool = True) -> None:
        self._flags = 0 if patient else getattr(socket, "MSG_DONTWAIT", 0)
        self._thread = threading.Thread(target=self._read, name="obsserve-channel", daemon=True)
        self.receivers: dict[str, Receiver] = {}
        self._socket = sock
        self._lost = lost
        self._lock = threading.Lock()
        self._told: deque[bytes] = deque()
        sock.settimeout(None)

    def start(self) -> None:
        """Begin to read, on a thread; receivers are called there."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until everything is read that the other side has said, which is gone; at most `timeout` seconds."""
        self._thread.join(timeout)

    def abandon(self) -> None:
        """In a forked child: let go of this end, which stays the parent's."""
        with suppress(OSError):
            os.close(self._socket.detach())

    def send(self, type: str, **fields: Any) -> bool:  # noqa: A002 - the word of the message
        """Send a message, waiting until the other side takes it; return whether it went out."""
        with self._lock:
            try:
                self._socket.sendall(_line(type, fields), self._flags)
            except OSError:
                return False
        self.send_told()
        return True

    def tell(self, type: str, **fields: Any) -> None:  # noqa: A002
        """Send a message without ever waiting, for the event loop; one that finds no room goes with the next.

        Another thread may be in the middle of a large message that the main process does not take: while it is
        stopped, the worker serves on.
        """
        self._told.append(_line(type, fields))
        self.send_told()

    def send_told(self) -> None:
        """Send what has found no room before, as far as there is some now."""
        while self._told and self._lock.acquire(blocking=False):
            try:
                # One that is small goes out whole, or not at all.
                self._socket.sendall(self._told[0], getattr(socket, "MSG_DONTWAIT", 0))
                self._told.popleft()
            except BlockingIOError:
                return
            except OSError:
                self._told.clear()
            finally:
                self._lock.release()

    def _read(self) -> None:
        with suppress(OSError, ValueError), self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                receiver = self.receivers.get(message["type"])
                if receiver is not None:
                    receiver(message)
        self._lost()


def _line(kind: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, **fields}).encode() + b"\n"


class MainChannel:
    """The main process's end of one worker's channel.

    Args:
        sock: one of a pair of connected sockets.
        receive: called on the event loop with each message.
    """

    def __init__(self, sock: socket.socket, receive: Receiver) -> None:
        self._socket = sock
        self._receive = receive
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: list[bytes] = []

    async def read(self) -> None:
        """Read until the worker is gone."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=MESSAGE_LIMIT)
        self._writer.writelines(self._waiting)
        self._waiting.clear()
        try:
            while line := await reader.readline():
                with suppress(ValueError, KeyError):
                    self._receive(json.loads(line))
        except (OSError, ValueError):
            pass
        finally:
            self._writer.close()

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002 - the word of the message
        """Send a message, without waiting for it to be taken."""
        line = _line(type, fields)
        if self._writer is None:
            self._waiting.append(line)
        elif not self._writer.is_closing():
            self._writer.write(line)
