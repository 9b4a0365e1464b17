"""How the application's own metrics come from the worker processes to the one that serves the metrics port.

A worker takes a snapshot when it is asked, every few seconds when something has changed, and when it ends; a
thread of its own does it, because a collector of the application may block, and the event loop may be blocked.
A scrape asks all workers at once and waits for a moment. A worker that has not answered in time is shown as it
was last, its snapshot's age tells so, and it is not waited for again until it has answered.

Neither side knows what carries the messages.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from obsserve.telemetry.appmetrics import AppMetrics, WorkersAppMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from prometheus_client.core import Metric

    from obsserve.telemetry.appmetrics import Snapshot

# What a worker that is killed can lose of the application's counts, seconds.
INTERVAL: Final = 5.0
# What one scrape waits for all workers together, seconds.
DEADLINE: Final = 1.0
# The type of the messages, in both directions.
MESSAGE: Final = "app_metrics"


class SnapshotSender:
    """The worker's side.

    Args:
        send: carries the fields of a message to the other side; called on this object's thread.
        failed: called there for each collector that raised, and each snapshot that could not be sent.
        interval: seconds between two looks that nobody has asked for.
    """

    def __init__(
        self, send: Callable[..., Any], failed: Callable[[], None], *, interval: float = INTERVAL
    ) -> None:
        self._send = send
        self._failed = failed
        self._interval = interval
        self._metrics = AppMetrics(failed)
        self._sent: Snapshot = []
        self._number = 0
        self._answered = 0
        self._wanted = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="obsserve-app-metrics", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def asked(self, message: dict[str, Any]) -> None:
        """Take note that a scrape wants a snapshot; can be called on any thread.

        Args:
            message: its `number` comes back with the answer.
        """
        self._number = int(message["number"])
        self._wanted.set()

    def finish(self, timeout: float) -> None:
        """Send what has changed since the last time, and end; waits at most `timeout` seconds for it."""
        self._ending = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._ending:
            self._wanted.wait(self._interval)
            self._wanted.clear()
            self._try()
        self._try()  # the end may have come during the last one

    def _try(self) -> None:
        try:
            self._take()
        except Exception:  # noqa: BLE001 - whatever the application's collector yields, the next one is wanted
            self._failed()

    def _take(self) -> None:
        number = self._number
        snapshot = self._metrics.snapshot()
        # Most of the time nothing has changed, and the word for that is short.
        if snapshot != self._sent:
            self._send(number=number, snapshot=snapshot)
            self._sent = snapshot
        elif number != self._answered:
            self._send(number=number, snapshot=None)
        self._answered = number


class SnapshotCollector:
    """The scraping side.

    Args:
        asks: returns, for each process that is to be asked, the function that sends it the number of a question;
            called on the scrape's thread.
        deadline: seconds that a scrape waits for the answers.
    """

    def __init__(
        self, asks: Callable[[], dict[Hashable, Callable[[int], Any]]], *, deadline: float = DEADLINE
    ) -> None:
        self._asks = asks
        self._deadline = deadline
        self._merged = WorkersAppMetrics()
        self._changed = threading.Condition()
        self._number = 0
        self._answered: dict[Hashable, int] = {}
        self._silent: set[Hashable] = set()

    def received(self, process: Hashable, worker: str, message: dict[str, Any]) -> None:
        """Take a worker's message; can be called on any thread.

        Args:
            process: tells one process from another, also of the same slot.
            worker: its slot.
            message: as `SnapshotSender` sent it.
        """
        self._merged.update(process, worker, message["snapshot"])
        with self._changed:
            self._answered[process] = int(message["number"])
            self._silent.discard(process)
            self._changed.notify_all()

    def fold(self, process: Hashable) -> None:
        """Keep what a process that is gone had counted, and wait for it no longer."""
        self._merged.fold(process)
        with self._changed:
            self._answered.pop(process, None)
            self._silent.discard(process)
            self._changed.notify_all()

    def collect(self) -> Iterable[Metric]:
        """Ask all workers, wait for a moment, and return the merged families."""
        asks = self._asks()
        with self._changed:
            self._number = number = self._number + 1
            # A process that never said anything is awaited too: it may have something to say.
            awaited = {process for process in asks if process not in self._silent}
            for process in awaited:
                self._answered.setdefault(process, 0)
        for ask in asks.values():
            ask(number)
        end = time.monotonic() + self._deadline
        with self._changed:
            while missing := {p for p in awaited if self._answered.get(p, number) < number}:
                if not self._changed.wait(end - time.monotonic()):
                    self._silent |= missing
                    break
        return self._merged.collect()

    def ages(self) -> list[tuple[str, float]]:
        """Return the slot of each worker that has sent something, and its snapshot's age in seconds."""
        return self._merged.ages()
