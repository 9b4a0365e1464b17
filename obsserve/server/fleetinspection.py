"""Looking into the workers: the main process asks them over their channels, and waits for a moment.

Called on threads of the metrics port. Who does not answer in time is left out.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from obsserve.server.inspection import ASK, LEVEL
from obsserve.telemetry.logging import set_server_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from obsserve.server.member import Member
    from obsserve.settings import Settings

# What a page waits for all workers together, seconds.
DEADLINE: Final = 2.0


class FleetInspection:
    """All workers.

    Args:
        settings: the options.
        workers: returns them.
    """

    def __init__(self, settings: Settings, workers: Callable[[], Iterable[Member]]) -> None:
        self.settings = settings
        self._workers = workers
        self._changed = threading.Condition()
        self._number = 0
        self._found: dict[tuple[int, Member], list[dict[str, Any]]] = {}

    def requests(self) -> list[dict[str, Any]]:
        """Return what is open in all workers, the oldest first."""
        return sorted(self._ask("requests", self._serving()), key=lambda row: -row["age_seconds"])

    def stacks(self, worker: int | None) -> list[dict[str, Any]]:
        """Return the stacks of one worker, or of all."""
        return self._ask("stacks", [one for one in self._serving() if worker in (None, one.slot)])

    def set_level(self, level: int) -> None:
        """Have the server log from this level on, in all processes that are there now."""
        set_server_level(level)
        for worker in self._serving():
            worker.post(LEVEL, level=level)

    def received(self, worker: Member, message: dict[str, Any]) -> None:
        """Take a worker's answer."""
        with self._changed:
            if message["number"] == self._number:  # else nobody waits for it any more
                self._found[self._number, worker] = message["found"]
                self._changed.notify_all()

    def _serving(self) -> list[Member]:
        return [worker for worker in self._workers() if worker.state in ("ready", "draining")]

    def _ask(self, what: str, workers: list[Member]) -> list[dict[str, Any]]:
        with self._changed:
            self._number = number = self._number + 1
            self._found.clear()
        for worker in workers:
            worker.post(ASK, number=number, what=what)
        end = time.monotonic() + DEADLINE
        with self._changed:
            while len(self._found) < len(workers) and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return [row for rows in self._found.values() for row in rows]
