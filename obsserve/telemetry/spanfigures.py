"""The figures about spans, and about log lines and metrics on the same way: how many began, wait, left, were lost.

Each row has one writer: `TraceFigures` and `LogExportFigures` belong to the serving thread, `SenderFigures` and
`MetricExportFigures` to the sender's.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Cells, Family

# Why a span never got to the exporter.
QUEUE_FULL: Final = "queue_full"
ALREADY_SHUTDOWN: Final = "already_shutdown"
# Parent origins and sampling results, as the conventions spell them.
NONE: Final = "none"
REMOTE: Final = "remote"
LOCAL: Final = "local"
KEPT: Final = "RECORD_AND_SAMPLE"
RECORDED: Final = "RECORD_ONLY"
LEFT_OUT: Final = "DROP"

# Error types of exports besides those of the exporters.
ABANDONED: Final = "shutdown"
REJECTED: Final = "rejected"

_PRIVATE_ROWS: Final = 64


class Delivery(NamedTuple):
    """What became of a batch.

    Args:
        error_type: None when the collector took it.
        message: the error for people.
        rejected: how many spans of it the collector did not want.
    """

    error_type: str | None = None
    message: str = ""
    rejected: int = 0


class QueueFigures(Protocol):
    """The figures of a queue that the serving thread writes."""

    @property
    def slots(self) -> memoryview[float]: ...
    @property
    def queue(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def processed(self) -> Family: ...
    @property
    def exported(self) -> Family: ...
    def sender(self) -> SenderFigures:
        """Return those that the sender writes; called on its thread."""
        ...


class TraceFigures:
    """The figures about spans that the serving thread writes.

    Args:
        region: the cells of this process; None when nobody reads them.
    """

    def __init__(self, region: Cells | None) -> None:
        self.region = region if region is not None else Cells.create(_PRIVATE_ROWS, exemplars=0)
        self.slots = self.region.slots
        self.started = Family(
            self.region,
            catalogue.SPANS_STARTED,
            [(NONE, KEPT), (NONE, LEFT_OUT), (REMOTE, KEPT), (REMOTE, LEFT_OUT)],
        )
        self.live = Family(self.region, catalogue.SPANS_LIVE).row()
        self.queue = Family(self.region, catalogue.SPAN_QUEUE).row()
        self.processed = Family(
            self.region, catalogue.SPANS_PROCESSED, [(reason,) for reason in catalogue.SPAN_DROPS]
        )
        self.exported = Family(self.region, catalogue.SPANS_EXPORTED)
        self.invalid = Family(
            self.region,
            catalogue.TRACE_CONTEXT_INVALID,
            [(reason,) for reason in catalogue.TRACE_CONTEXT_FAULTS],
        )
        self.untrusted = Family(self.region, catalogue.TRACE_CONTEXT_UNTRUSTED).row()
        self.capacity = Family(self.region, catalogue.SPAN_QUEUE_CAPACITY).row()

    def sender(self) -> SenderFigures:
        return SenderFigures(self.region)

    def count_started(self, origin: str, decision: str, *, is_recording: bool) -> None:
        """Count a span that has begun, by where its parent is and by the sampler's decision."""
        self.slots[self.started.row(origin, decision)] += 1.0
        if is_recording:
            self.slots[self.live] += 1.0


class LogExportFigures:
    """The figures about exported log lines that the serving thread writes.

    Args:
        region: the cells of this process.
    """

    def __init__(self, region: Cells) -> None:
        self.region = region
        self.slots = region.slots
        self.queue = Family(region, catalogue.LOG_EXPORT_QUEUE).row()
        self.capacity = Family(region, catalogue.LOG_EXPORT_QUEUE_CAPACITY).row()
        self.processed = Family(
            region, catalogue.LOG_EXPORT_PROCESSED, [(reason,) for reason in catalogue.SPAN_DROPS]
        )
        self.exported = Family(region, catalogue.LOG_EXPORTED)

    def sender(self) -> SenderFigures:
        return SenderFigures(
            self.region,
            processed=catalogue.LOG_EXPORT_PROCESSED,
            inflight=catalogue.LOG_EXPORT_INFLIGHT,
            exported=catalogue.LOG_EXPORTED,
        )


class SenderFigures:
    """The figures that the sender writes.

    Args:
        region: the cells of this process.
        processed: counts what is given to the exporter.
        inflight: says what is on its way.
        exported: counts what has left.
    """

    def __init__(
        self,
        region: Cells,
        *,
        processed: catalogue.Metric = catalogue.SPANS_PROCESSED,
        inflight: catalogue.Metric = catalogue.SPANS_INFLIGHT,
        exported: catalogue.Metric = catalogue.SPANS_EXPORTED,
    ) -> None:
        self._processed = Family(region, processed, [("",)])
        self._inflight = Family(region, inflight)
        self._exported = Family(region, exported, [("",)])
        self._duration = Family(region, catalogue.EXPORT_DURATION, [("",)])

    def began(self, size: int) -> None:
        self._processed.add(size, "")
        self._inflight.set(size)

    def ended(self, size: int, delivery: Delivery, seconds: float) -> None:
        self._inflight.set(0)
        error_type = delivery.error_type or ""
        self._duration.observe(seconds, error_type)
        self._exported.add(size - delivery.rejected, error_type)
        if delivery.rejected:
            self._exported.add(delivery.rejected, REJECTED)

    def dropped(self, size: int) -> None:
        """Count spans that the end came too early for."""
        self._processed.add(size, ALREADY_SHUTDOWN)


class MetricExportFigures:
    """The figures about pushed metrics, which their sender writes.

    Args:
        region: the cells of this process.
    """

    def __init__(self, region: Cells) -> None:
        self._inflight = Family(region, catalogue.POINTS_INFLIGHT)
        self._exported = Family(region, catalogue.POINTS_EXPORTED, [("",)])
        self._collection = Family(region, catalogue.COLLECTION_DURATION, [("",)])
        self._duration = Family(region, catalogue.EXPORT_DURATION, [("",)])

    def collected(self, seconds: float, error_type: str = "") -> None:
        self._collection.observe(seconds, error_type)

    def began(self, points: int) -> None:
        self._inflight.set(points)

    def ended(self, points: int, delivery: Delivery, lost: int, seconds: float) -> None:
        """Count a push that is over.

        Args:
            points: how many it had.
            delivery: what became of it.
            lost: how many of them did not arrive.
            seconds: how long it took.
        """
        self._inflight.set(0)
        error_type = delivery.error_type or ""
        self._duration.observe(seconds, error_type)
        self._exported.add(points - lost - delivery.rejected, "")
        if lost:
            self._exported.add(lost, error_type)
        if delivery.rejected:
            self._exported.add(delivery.rejected, REJECTED)

    def abandoned(self, points: int) -> None:
        """Count the points of a push that the end came too early for."""
        if points:
            self._exported.add(points, ABANDONED)
