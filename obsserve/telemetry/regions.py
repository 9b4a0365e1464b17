"""The regions of all serving processes of one server, and what those that are gone had counted.

Owned by the process that serves the metrics port; any arbiter of serving processes can use it. One lock makes
a process's end whole for a scrape: its figures are found either in its region or in the base, never in both.

    add ──▶ serving ──retire──▶ draining ──fold──▶ part of the base
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    from obsserve.telemetry.cells import CellsReader, Row


class Regions:
    """The regions by process.

    Args:
        readers: regions that are there from the beginning, and stay.
        base: what processes that are gone had counted.
        drains: whether a process drains that nobody has retired.
    """

    def __init__(
        self,
        readers: Collection[CellsReader] = (),
        base: Base | None = None,
        drains: Callable[[Any], bool] = lambda _key: False,
    ) -> None:
        self._drains = drains
        self._base = Base() if base is None else base
        self._lock = threading.Lock()
        self._fixed = readers
        self._readers: dict[Hashable, CellsReader] = {}
        self._draining: set[Hashable] = set()

    def add(self, key: Hashable, reader: CellsReader) -> None:
        """Read this process's region from now on."""
        with self._lock:
            self._readers[key] = reader

    def retire(self, key: Hashable) -> None:
        """Leave out a draining process's gauges of its slot: there they are its successor's."""
        with self._lock:
            self._draining.add(key)

    def fold(self, key: Hashable) -> None:
        """Keep what a process that is gone had counted, and let go of its region."""
        with self._lock:
            self._draining.discard(key)
            reader = self._readers.pop(key, None)
            if reader is not None:
                self._base.fold(reader)
                reader.close()

    def keys(self) -> list[Any]:
        """Return the processes whose regions are read."""
        with self._lock:
            return list(self._readers)

    def rows(self) -> tuple[list[Row], list[Row]]:
        """Return the rows of living processes, and those of the base, as of one moment."""
        with self._lock:
            living = [row for reader in self._fixed for row in reader.rows()]
            for key, reader in self._readers.items():
                leaves = key in self._draining or self._drains(key)
                living += [row for row in reader.rows() if not (leaves and _is_gauge_of_slot(row))]
            return living, list(self._base.rows())


def _is_gauge_of_slot(row: Row) -> bool:
    metric = catalogue.METRICS.get(row.metric)
    return row.is_gauge and metric is not None and "worker" in metric.labels
