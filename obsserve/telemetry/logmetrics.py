"""The metrics of the logs: what became of records, and how writing goes."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Final

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obsserve.telemetry.cells import Cells, Labels

_LOG_THREADS: Final = 16


class LogCounters:
    """What became of log records; can be used from every thread.

    Each thread has its own rows, which the exposition sums. Threads beyond a bound share the rows of the
    last one: an addition is one bytecode away from being whole there, and in CPython no thread switch falls
    into it.
    """

    def __init__(self, region: Cells, worker: str = "0") -> None:
        self._region = region
        self._worker = worker
        self._queue = Family(region, catalogue.LOG_QUEUE)
        self._capacity = Family(region, catalogue.LOG_QUEUE_CAPACITY)
        self._last = _LogRows(
            region,
            [(stream, result) for stream in catalogue.LOG_STREAMS for result in catalogue.LOG_RESULTS],
        )
        self._rows = {threading.get_ident(): self._last}

    def add(self, stream: str, result: str, n: int = 1) -> None:
        """Count records of a stream by what became of them, both words from the catalogue."""
        self._mine().records.add(n, stream, result)

    def truncated(self, stream: str) -> None:
        """Count a record that was cut."""
        self._mine().truncated.add(1.0, stream)

    def write_error(self, error: BaseException, n: int = 1) -> None:
        """Count writes that failed in the same way."""
        number = error.errno if isinstance(error, OSError) else None
        name = errno.errorcode.get(number or 0, "other")
        self._mine().write_errors.add(n, name.lower())

    def write_seconds(self, seconds: float) -> None:
        """Count the time that a write took."""
        self._mine().write_seconds.add(seconds)

    def set_queue(self, records: int, capacity: int) -> None:
        """Publish how many records wait and how many can."""
        self._queue.set(records, self._worker)
        self._capacity.set(capacity, self._worker)

    def _mine(self) -> _LogRows:
        thread = threading.get_ident()
        rows = self._rows.get(thread)
        if rows is None:
            if len(self._rows) < _LOG_THREADS:
                self._last = _LogRows(self._region)
                self._rows[thread] = self._last
            rows = self._last
        return rows


class _LogRows:
    """One thread's rows."""

    def __init__(self, region: Cells, known: Iterable[Labels] = ()) -> None:
        self.records = Family(region, catalogue.LOG_RECORDS, known)
        self.truncated = Family(region, catalogue.LOG_TRUNCATED)
        self.write_errors = Family(region, catalogue.LOG_WRITE_ERRORS)
        self.write_seconds = Family(region, catalogue.LOG_WRITE_SECONDS)
