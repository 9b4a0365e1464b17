"""Ports for programs that must be told theirs, because they cannot say which one they got.

They lie below those that the kernel hands out to whoever binds port 0 or connects, and each process that runs tests at
the same time has a part of its own: a port that is free when a test looks is still free when its program takes it.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

FIRST = 15_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_lock = threading.Lock()


def _part():
    """The first of this process's ports, and the one behind its last."""
    end = 32_768
    with suppress(OSError):
        end = max(int(_RANGE.read_text().split()[0]), FIRST + 1000)
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (end - FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) // 10 * 10
    return FIRST + number * size, FIRST + (number + 1) * size


_begin, _end = _part()
_next = random.randrange(_begin, _end)


def _take(count):
    """The next numbers, in a row; around to the first when there are not so many."""
    global _next
    with _lock:
        if _next + count > _end:
            _next = _begin
        _next += count
        return range(_next - count, _next)


def _are_free(ports):
    with ExitStack() as stack:
        for port in ports:
            # Bound, not listening: a program that another thread starts at this moment inherits the socket until it
            # runs, and whoever waits for a server on this port must not find that one.
            found = stack.enter_context(socket.socket())
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_ports(count):
    """Return free ports in a row."""
    while not _are_free(ports := _take(count)):
        pass
    return list(ports)


def free_port():
    """Return a free port."""
    return free_ports(1)[0]


def free_decade():
    """Return ten free ports by what they have in common: "2345" for 23450 to 23459."""
    while True:
        ports = _take(19)
        first = -(-ports[0] // 10) * 10
        if _are_free(range(first, first + 10)):
            return str(first // 10)
