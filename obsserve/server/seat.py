"""Where a serving process sits when another process looks after several of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obsserve.telemetry.cells import Cells


@dataclass(frozen=True, slots=True)
class Seat:
    """What the process that looks after this one has given it; that one serves the metrics port.

    Args:
        cells: the region to count in, which that process reads; None when there are no metrics.
        worker: the slot, from 0: the label of what is counted for each worker.
        service_instance_id: one for all workers of a server, because they are one target of Prometheus.
        access_log_fd: where access lines go instead of standard output.
    """

    cells: Cells | None
    worker: int
    service_instance_id: str
    access_log_fd: int | None = None
