"""The application's own prometheus_client metrics: taken in each worker, merged in the main process.

A worker's `snapshot` is plain data that fits into JSON; it may be taken on any thread. `WorkersAppMetrics` keeps the
last one of each process and merges them when asked:
- counters, histograms and summaries are summed; what a process that is gone had counted stays;
- gauges follow their `multiprocess_mode`, and vanish with their process; where each process is shown for itself
  (`all`, `liveall`, gauges of custom collectors, enums) the sample gets the label `worker`, a slot and never a
  process id;
- infos are united, of two exemplars the newer one stays.
The values are read from ordinary metrics: neither PROMETHEUS_MULTIPROC_DIR nor set-up is needed. The library keeps
no time of a gauge's value, so `mostrecent` is by the time at which a snapshot first saw it.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from prometheus_client.core import Metric

    # name, labels, value, exemplar (labels, value, time) or None, time of a most recent gauge or None
    Sample = tuple[str, tuple[tuple[str, str], ...], float, Any, float | None]
    Snapshot = list[dict[str, Any]]

_SUMMED: Final = frozenset({"counter", "histogram", "gaugehistogram", "summary"})
_LIBRARY_COLLECTORS: Final = frozenset({"ProcessCollector", "PlatformCollector", "GCCollector"})


def collectors(registry: Any) -> list[tuple[Callable[[], Iterable[Metric]], str]]:
    """Return the application's collectors, each with its gauges' multiprocess mode.

    The library's own are left out: the server has their figures, for every worker.
    """
    known = getattr(registry, "_collector_to_names", None)
    if known is None:  # the library's inside may change
        return [(registry.collect, "all")]
    return [
        (collector.collect, getattr(collector, "_multiprocess_mode", "all"))
        for collector in list(known)
        if not (
            type(collector).__name__ in _LIBRARY_COLLECTORS
            and type(collector).__module__.startswith("prometheus_client.")
        )
    ]


class AppMetrics:
    """One process's side.

    Args:
        failed: called for each collector that raised.
    """

    def __init__(self, failed: Callable[[], None] = lambda: None) -> None:
        self._failed = failed
        self._turn = threading.Lock()
        self._seen: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]] = {}

    def snapshot(self) -> Snapshot:
        """Return what the application has counted; nothing, if it does not use the library."""
        library = sys.modules.get("prometheus_client")
        if library is None:
            return []
        with self._turn:
            return list(self._families(library.REGISTRY))

    def _families(self, registry: Any) -> Iterator[dict[str, Any]]:
        for collect, mode in collectors(registry):
            try:
                families = list(collect())
            except Exception:  # noqa: BLE001 - the application's collector; the others are still worth having
                self._failed()
                continue
            for family in families:
                yield {
                    "name": family.name,
                    "help": family.documentation,
                    "type": family.type,
                    "unit": family.unit,
                    "mode": mode.removeprefix("live") if family.type == "gauge" else "",
                    "samples": [
                        self._plain(sample, mode)
                        for sample in family.samples
                        if sample.name != f"{family.name}_created"
                    ],
                }

    def _plain(self, sample: Any, mode: str) -> Sample:
        labels = tuple(sample.labels.items())
        exemplar = None
        if sample.exemplar is not None:
            when = sample.exemplar.timestamp
            exemplar = (sample.exemplar.labels, sample.exemplar.value, None if when is None else float(when))
        changed = None
        if mode.endswith("mostrecent"):
            value, changed = self._seen.get((sample.name, labels), (math.nan, 0.0))
            if value != sample.value:
                changed = time.time()
                self._seen[sample.name, labels] = (sample.value, changed)
        return sample.name, labels, float(sample.value), exemplar, changed


class WorkersAppMetrics:
    """The main process's side: the snapshots of the living workers, and what those that are gone had counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[Hashable, tuple[str, Snapshot, float]] = {}
        self._base: dict[str, _Merged] = {}

    def update(self, process: Hashable, worker: str, snapshot: Snapshot | None) -> None:
        """Take over a process's snapshot.

        Args:
            process: tells one process from another, also of the same slot.
            worker: its slot.
            snapshot: as `AppMetrics.snapshot` returned it, by way of JSON or not; None when nothing has changed.
        """
        with self._lock:
            if snapshot is None:
                snapshot = self._latest[process][1] if process in self._latest else []
            self._latest[process] = (worker, snapshot, time.monotonic())

    def fold(self, process: Hashable) -> None:
        """Keep what a process that is gone had counted, and forget the rest of it."""
        with self._lock:
            worker, snapshot, _ = self._latest.pop(process, ("", [], 0.0))
            for family in snapshot:
                if family["type"] in _SUMMED or family["type"] == "info":
                    _merged_into(self._base, family).add(family, worker)

    def ages(self) -> list[tuple[str, float]]:
        """Return the slot of each living worker and the seconds since its last snapshot."""
        now = time.monotonic()
        with self._lock:
            newest: dict[str, float] = {}
            for worker, _, taken in self._latest.values():
                newest[worker] = min(now - taken, newest.get(worker, math.inf))
        return list(newest.items())

    def collect(self) -> Iterator[Metric]:
        """Yield the merged families as the library's objects: this is one of its collectors."""
        with self._lock:
            merged = {name: family.copy() for name, family in self._base.items()}
            latest = list(self._latest.values())
        for worker, snapshot, _ in latest:
            for family in snapshot:
                _merged_into(merged, family).add(family, worker)
        for whole in merged.values():
            yield whole.family()


def _merged_into(families: dict[str, _Merged], family: dict[str, Any]) -> _Merged:
    known = families.get(family["name"])
    if known is None:
        known = families[family["name"]] = _Merged(family)
    return known


class _Merged:
    """One family of several processes."""

    def __init__(self, family: dict[str, Any]) -> None:
        self._facts = (family["name"], family["help"], family["type"], family["unit"])
        self._mode: str = family["mode"]
        self._samples: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, Any, float | None]] = {}

    def copy(self) -> _Merged:
        name, text, kind, unit = self._facts
        twin = _Merged({"name": name, "help": text, "type": kind, "unit": unit, "mode": self._mode})
        twin._samples = dict(self._samples)
        return twin

    def add(self, family: dict[str, Any], worker: str) -> None:
        kind = self._facts[2]
        if family["type"] != kind:
            return  # two releases of the application during a replacement; the first one's type stands
        for name, pairs, value, exemplar, changed in family["samples"]:
            labels = tuple((label, text) for label, text in pairs)
            is_quantile = kind == "summary" and any(label == "quantile" for label, _ in labels)
            if kind in _SUMMED and not is_quantile:
                self._combine((name, labels), value, exemplar, lambda one, other: one + other)
            elif kind == "info":
                self._samples[name, labels] = (value, None, None)
            elif self._mode == "sum":
                self._combine((name, labels), value, exemplar, lambda one, other: one + other)
            elif self._mode in ("min", "max"):
                self._combine((name, labels), value, exemplar, min if self._mode == "min" else max)
            elif self._mode == "mostrecent":
                known = self._samples.get((name, labels))
                if known is None or (known[2] or 0.0) < (changed or 0.0):
                    self._samples[name, labels] = (value, None, changed)
            else:
                self._samples[name, _with_worker(labels, worker)] = (value, None, None)

    def _combine(
        self,
        series: tuple[str, tuple[tuple[str, str], ...]],
        value: float,
        exemplar: Any,
        how: Callable[[float, float], float],
    ) -> None:
        known = self._samples.get(series)
        if known is not None:
            value = how(known[0], value)
            if exemplar is None or (known[1] is not None and (known[1][2] or 0.0) > (exemplar[2] or 0.0)):
                exemplar = known[1]
        self._samples[series] = (value, exemplar, None)

    def family(self) -> Metric:
        from prometheus_client.core import Exemplar, Metric  # noqa: PLC0415 - a worker may do without

        family = Metric(*self._facts)
        # A label set's samples stay together, as the formats demand; the snapshots have them in order.
        for (name, labels), (value, exemplar, _) in self._samples.items():
            found = None if exemplar is None else Exemplar(*exemplar)
            family.add_sample(name, dict(labels), value, None, found)
        return family


def _with_worker(labels: tuple[tuple[str, str], ...], worker: str) -> tuple[tuple[str, str], ...]:
    taken = any(label == "worker" for label, _ in labels)
    return (*labels, ("obsserve_worker" if taken else "worker", worker))
