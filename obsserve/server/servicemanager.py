"""What the service manager that started this process wants to know, in the protocol of sd_notify(3).

Owns the address that `NOTIFY_SOCKET` names. Without one, as in a terminal, every method does nothing. A datagram
that cannot be sent is left out: nobody who waits for it is worse off than with a server that says nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A service manager that does not read must not hold the server up, seconds.
SEND_TIMEOUT: Final = 0.5
# Signs of life in each of the manager's periods: sd_watchdog_enabled(3) recommends two, and one may come late.
SIGNS_PER_PERIOD: Final = 3


class ServiceManager:
    """Tells the service manager how this process is doing.

    Args:
        environ: the environment, with `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` if there is one.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A path or, with @, a name in Linux's abstract namespace; other schemes are of virtual machines.
        known = address.startswith(("/", "@")) and hasattr(socket, "AF_UNIX")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._listens = known
        self.watchdog_period = _watchdog_period(environ) if known else None
        self._next_sign = 0.0

    def ready(self, status: str) -> None:
        """Say that start-up is complete, or that a reload is.

        Args:
            status: what `systemctl status` shows, one line.
        """
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the workers are being replaced; `ready` follows."""
        # The time is for Type=notify-reload (systemd 253), which tells with it that this is after its signal.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=Replacing the workers")

    def stopping(self, status: str = "Shutting down") -> None:
        """Say that the server takes its leave; the watchdog ends with it."""
        self._send("STOPPING=1", f"STATUS={status}")

    def sign_of_life(self, now: float) -> None:
        """Feed the watchdog, not more often than it needs.

        Args:
            now: `time.perf_counter` seconds.
        """
        period = self.watchdog_period
        if period is not None and now >= self._next_sign:
            self._next_sign = now + period / SIGNS_PER_PERIOD
            self._send("WATCHDOG=1")

    async def feed_watchdog(self, alive: Callable[[], bool]) -> None:
        """Feed the watchdog until cancelled; without one, return at once.

        Args:
            alive: whether there is anything to vouch for.
        """
        if self.watchdog_period is None:
            return
        while True:
            if alive():
                self.sign_of_life(time.perf_counter())
            await asyncio.sleep(self.watchdog_period / SIGNS_PER_PERIOD / 2)

    def _send(self, *lines: str) -> None:
        if not self._listens:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_TIMEOUT)
            sender.sendto("\n".join(lines).encode(), self._address)


def _watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Return after how many seconds without a sign of life the service manager acts; None for never."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for another process, whose environment was inherited
    with suppress(ValueError):
        period = int(environ.get("WATCHDOG_USEC", "")) / 1e6
        return period if period > 0 else None
    return None
