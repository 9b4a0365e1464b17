"""The pulse of a serving process: ten times a second it does what would cost too much per request."""

from __future__ import annotations

import time
from time import perf_counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

INTERVAL: Final = 0.1
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Clock:
    """Turns `time.perf_counter` seconds into the wall clock's.

    `offset` is epoch seconds minus `perf_counter`; the ticker refreshes it, so that a corrected system
    clock is followed.
    """

    __slots__ = ("offset",)

    def __init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        self.offset = time.time() - perf_counter()


def http_date(epoch_seconds: int) -> bytes:
    """Return an IMF-fixdate (RFC 9110 5.6.7), which knows no locale."""
    t = time.gmtime(epoch_seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    ).encode()


class Ticker:
    """Calls back every tenth of a second, as punctually as the loop lets it.

    Args:
        loop: the serving loop.
        each_tick: called with the `perf_counter` time of the tick.
        each_second: called with the whole epoch second, when a new one has begun.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        each_tick: Callable[[float], None],
        each_second: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._each_tick = each_tick
        self._each_second = each_second
        self._second = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._tick()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        # Re-armed first: a callback that raises must not stop the deadlines.
        self._handle = self._loop.call_later(INTERVAL, self._tick)
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._each_second(second)
        self._each_tick(perf_counter())
