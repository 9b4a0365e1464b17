"""Finished spans, or log lines, on their way out: a bounded queue, and the one thread that empties it.

Owns the queue and the sender thread. Rules:
- The request path appends bytes and, once for each batch, releases a lock that nobody holds against it.
  It never waits. A full queue drops the newest span and counts it.
- An export that fails loses its batch, after the exporter's own retries. After three failures in a row
  the sender pauses, longer each time, and tries one batch again; meanwhile the queue fills and drops.
- A shutdown ends at its deadline whatever the collector does; what is then left is counted as lost.

    running ──shutdown()──▶ draining ──queue empty──▶ stopped
                               └──deadline──▶ abandoned: the thread counts nothing any more
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from math import inf
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from obsserve.speedups import native
from obsserve.telemetry.catalogue import COMPLETE, OTHER, error_type_of
from obsserve.telemetry.spanfigures import ABANDONED, ALREADY_SHUTDOWN, QUEUE_FULL, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from obsserve.telemetry.spanfigures import QueueFigures, SenderFigures

SENDER: Final = "obsserve-spans"  # the thread's name
METRIC_SENDER: Final = "obsserve-metric-export"  # of the one that pushes metrics

EXPORT_FAILED: Final = "telemetry.export_failed"
EXPORT_RECOVERED: Final = "telemetry.export_recovered"

# How long the sender pauses after repeated failures, and how often it says so.
_FAILURES_BEFORE_PAUSE: Final = 3
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 60.0
_REPORT_INTERVAL: Final = 60.0
# Seconds after the start before the exporter is imported, unless there is something to do for it.
HEAD_START: Final = 0.25
# What the last attempt may take when the collector has already been found dead.
LAST_ATTEMPT: Final = 1.0


class Carrier(Protocol):
    """Takes batches of encoded spans to a collector, with its own retries."""

    def deliver(self, spans: Sequence[bytes]) -> Delivery: ...

    def shutdown(self) -> None:
        """Give up whatever is under way; called from another thread than `deliver`."""
        ...


class Spans(deque[bytes]):
    """Encoded spans that wait; `Spans` of `speedups` keeps them one after the other in one place."""

    def take(self, count: int) -> Sequence[bytes]:
        """Remove the first so many and return them."""
        return [self.popleft() for _ in range(count)]


def make_spans() -> Spans:
    """Return what keeps spans that wait: that in C where it was built."""
    return Spans() if native is None else native.Spans()


class SpanQueue:
    """Queue and sender.

    Args:
        make_carrier: makes the carrier, in the sender's thread and not at once: importing an exporter takes
            long, and the first response need not wait for it.
        figures: of the serving thread.
        report: takes event and message for the server's log; called from the sender's thread.
        capacity: how many spans may wait.
        batch_size: how many are exported at once.
        schedule_delay: seconds after which fewer are exported too.
        spans: keeps them until then.
        noun: what they are, for the server's log.
        sender: the thread's name.
    """

    def __init__(
        self,
        make_carrier: Callable[[], Carrier],
        figures: QueueFigures,
        report: Callable[[str, str], None],
        *,
        capacity: int,
        batch_size: int,
        schedule_delay: float,
        spans: Spans | None = None,
        noun: str = "spans",
        sender: str = SENDER,
    ) -> None:
        self._make_carrier = make_carrier
        self._figures = figures
        # For whoever puts encoded spans in: only while there are fewer than `room`, and the sender is to be
        # woken when there are `wake_at`. The steps are spelled out there because each request pays for them.
        self.spans = Spans() if spans is None else spans
        self.room = capacity
        self.wake_at = batch_size
        self._batch_size = batch_size
        self._schedule_delay = schedule_delay
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        self._flush_asked = 0
        self._flush_done = 0
        self._flushed = threading.Condition()
        self._stopping = False
        self._abandoned = False
        self._sending = 0
        self._carrier: Carrier | None = None
        self._noun = noun
        self._health = Health(report, noun)
        figures.slots[figures.capacity] = capacity
        self._thread = threading.Thread(target=self._run, name=sender, daemon=True)

    def start(self) -> None:
        self._thread.start()

    # --- The serving thread ------------------------------------------------------------------

    def refuse(self, count: int = 1) -> None:
        """Count spans for which there is no room."""
        self._figures.processed.add(count, ALREADY_SHUTDOWN if self._stopping else QUEUE_FULL)

    def wake_sender(self) -> None:
        """Let the sender know that a batch is full."""
        if self._wakeup.locked():
            self._wake()

    def tick(self) -> None:
        """Publish how many spans wait."""
        self._figures.slots[self._figures.queue] = len(self.spans)

    def flush(self, timeout: float) -> bool:
        """Try to export what waits now; return whether that was over within so many seconds."""
        with self._flushed:
            self._flush_asked += 1
            asked = self._flush_asked
            self._wake()
            if not self._thread.is_alive():
                return False
            return self._flushed.wait_for(lambda: self._flush_done >= asked, timeout)

    def shutdown(self, timeout: float) -> bool:
        """Export what waits and stop, within so many seconds; return whether the sender has stopped."""
        if self._stopping:
            return not self._thread.is_alive()
        self._stopping = True
        self.room = 0
        self._wake()
        if self._thread.is_alive():
            self._thread.join(min(timeout, LAST_ATTEMPT) if self._health.pause_left() else timeout)
        if self._thread.is_alive():
            self._abandon()
        if self._carrier is not None:
            self._carrier.shutdown()
        self.tick()
        return not self._abandoned

    def _abandon(self) -> None:
        """Leave the thread to itself, and count what it has not sent."""
        self._abandoned = True
        sending, waiting = self._sending, len(self.spans)
        if sending:
            self._figures.exported.add(sending, ABANDONED)
        if waiting:
            self._figures.processed.add(waiting, ALREADY_SHUTDOWN)
            self.spans.clear()
        self._health.abandoned(sending + waiting)

    def _wake(self) -> None:
        # Another thread may have been faster.
        with contextlib.suppress(RuntimeError):
            self._wakeup.release()

    # --- The sender --------------------------------------------------------------------------

    def _run(self) -> None:
        figures = self._figures.sender()
        try:
            if self._wakeup.acquire(timeout=HEAD_START):
                self._wake()  # for the loop below, which waits for the same
            self._carrier = carrier = self._make_carrier()
            self._send_until_stopped(carrier, figures)
        except Exception as fault:  # noqa: BLE001 - the thread must not die without a word
            if not self._abandoned:
                self._stopping = True
                self.room = 0
                self._health.failed(f"{type(fault).__name__}: {fault}; no more {self._noun} are exported", 0)
        finally:
            if self.spans and not self._abandoned:
                figures.dropped(len(self.spans))
                self.spans.clear()
            self._mark_flushed(self._flush_asked)

    def _send_until_stopped(self, carrier: Carrier, figures: SenderFigures) -> None:
        while not self._abandoned:
            pause = self._health.pause_left()
            self.wake_at = sys.maxsize if pause else self._batch_size
            woken = self._wakeup.acquire(timeout=pause or self._schedule_delay)
            stopping, asked = self._stopping, self._flush_asked
            everything = stopping or not woken or asked > self._flush_done
            self._send(carrier, figures, len(self.spans) if everything else 0)
            self._mark_flushed(asked)
            if stopping:
                return

    def _send(self, carrier: Carrier, figures: SenderFigures, left: int) -> None:
        """Export that many spans, and full batches for as long as there are any."""
        spans = self.spans
        while left > 0 or len(spans) >= self._batch_size:
            size = min(self._batch_size, len(spans))
            left -= size
            self._sending = size
            figures.began(size)
            began = perf_counter()
            delivery = _deliver(carrier, spans.take(size))  # held by no name: its memory serves the next
            if self._abandoned:
                return
            self._sending = 0
            figures.ended(size, delivery, perf_counter() - began)
            if delivery.error_type is None:
                self._health.succeeded()
            else:
                self._health.failed(delivery.message, size)
                if self._health.pause_left():
                    return

    def _mark_flushed(self, asked: int) -> None:
        if asked > self._flush_done:
            with self._flushed:
                self._flush_done = asked
                self._flushed.notify_all()


def _deliver(carrier: Carrier, batch: Sequence[bytes]) -> Delivery:
    try:
        return carrier.deliver(batch)
    except Exception as fault:  # noqa: BLE001 - whatever an exporter does, the sender goes on
        name = error_type_of(COMPLETE, None, fault) or OTHER
        return Delivery(name, f"{name}: {fault}")


class Health:
    """Whether the collector takes what it is sent; tells the server's log, and no more than once a minute."""

    def __init__(self, report: Callable[[str, str], None], noun: str) -> None:
        self._report = report
        self._noun = noun
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._until = 0.0
        self._lost = 0
        self._told = False
        self._told_at = -inf

    def pause_left(self) -> float:
        """Return for how many seconds nothing is to be sent."""
        return max(self._until - monotonic(), 0.0)

    def failed(self, message: str, lost: int) -> None:
        self._failures += 1
        self._lost += lost
        now = monotonic()
        if self._failures >= _FAILURES_BEFORE_PAUSE:
            self._until = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        if now - self._told_at >= _REPORT_INTERVAL:
            self._told, self._told_at = True, now
            self._report(EXPORT_FAILED, f"{message} ({self._lost} {self._noun} lost)")

    def abandoned(self, lost: int) -> None:
        """Tell of the spans that the end left behind, whatever was told before."""
        if lost:
            self._report(EXPORT_FAILED, f"the shutdown could not wait for {lost} {self._noun} to be exported")

    def succeeded(self) -> None:
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._until = 0.0
        if self._told:
            self._told = False
            self._report(EXPORT_RECOVERED, f"{self._noun} are exported again; {self._lost} were lost")
            self._lost = 0
