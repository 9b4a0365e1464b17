"""Counters, gauges and histogram buckets in memory that another process can map.

One region for each serving process. The layout, little parts first:
- a slot is 8 aligned bytes, a double, with one writer: a reader sees the old value or the new one;
- a row is STRIDE slots and holds everything that is counted for one label set of one metric;
- the header (16 unsigned slots) says where the parts are and how many rows and exemplars are published;
- the directory names the rows, in their order: length (4 bytes), CRC-32 (4 bytes), JSON
  `[metric, is_gauge, labels]`, padded to 8 bytes. It only grows; the count in the header is advanced last;
- an exemplar is 64 bytes: sequence number (odd while it is written), CRC-32, slot it belongs to, value,
  unix time, trace id, span id. A reader that meets a torn one leaves it out. The last places are kept for the
  counters of errors, which come late and are what one looks for.
A histogram's count is the sum of its buckets, so the two cannot disagree. Label sets beyond a metric's bound
or the region's end share the overflow row of their metric (labels null). When a process is gone, its region
is folded into a `Base`: what was counted stays, gauges go.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from obsserve.telemetry.pace import unhurried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from obsserve.telemetry.catalogue import Metric

STRIDE: Final = 64  # eight cache lines; the exchange row, the widest, takes 60
SLOT: Final = 8
DEFAULT_ROWS: Final = 3072
DEFAULT_EXEMPLARS: Final = 2304

_MAGIC: Final = int.from_bytes(b"obsserve", "little")
_VERSION: Final = 1
_HEADER_SLOTS: Final = 16
_ROW_COUNT: Final = 8
_EXEMPLAR_COUNT: Final = 9
_DIRECTORY_BYTES_PER_ROW: Final = 192  # a long route, a qualified exception name and the rest; whole lines
_OVERFLOW_RESERVE: Final = (
    64  # rows that only overflow rows may take: more than there are metrics with labels
)
_EXEMPLAR_RESERVE: Final = 256  # more than there are counters of errors, of all exceptions that have a name

_ENTRY: Final = struct.Struct("=II")
_EXEMPLAR: Final = struct.Struct("=Qdd16s8s")
_EXEMPLAR_SIZE: Final = 64
_EXEMPLAR_PAYLOAD: Final = 16

Labels = tuple[str, ...]


class Exemplar(NamedTuple):
    """One observation of a bucket or counter with the trace that it happened in."""

    value: float
    timestamp: float
    trace_id: str
    span_id: str


class Row(NamedTuple):
    """What is counted for one label set; labels None is the overflow set."""

    metric: str
    labels: Labels | None
    is_gauge: bool
    values: Sequence[float]
    exemplars: dict[int, Exemplar]


class CellsFullError(Exception):
    """The region cannot even hold the overflow row of a metric: it was made far too small."""


class _Mapping:
    """The mapped file, cut into its parts."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._whole = memoryview(memory)
        self.header = self._whole[: _HEADER_SLOTS * SLOT].cast("Q")
        if self.header[0] != _MAGIC or self.header[1] != _VERSION or self.header[2] != STRIDE:
            self.close()
            raise ValueError("not a region of this version of obsserve")
        rows, directory, exemplars, start = self.header[3:7]
        self.row_capacity = rows
        self.exemplar_capacity = exemplars
        directory_end = _HEADER_SLOTS * SLOT + directory
        self.directory = self._whole[_HEADER_SLOTS * SLOT : directory_end]
        self.exemplars = self._whole[directory_end : directory_end + exemplars * _EXEMPLAR_SIZE]
        self.slots = self._whole[start : start + rows * STRIDE * SLOT].cast("d")

    def close(self) -> None:
        for part in ("header", "directory", "exemplars", "slots", "_whole"):
            view: memoryview | None = getattr(self, part, None)
            if view is not None:
                view.release()
        self._memory.close()


class Cells:
    """The writer's side: one for each serving process. `slots[row(...) + n] += 1` is the whole hot path."""

    def __init__(self, file: int, mapping: _Mapping, path: Path | None) -> None:
        self._file = file
        self._mapping = mapping
        self._path = path
        self._lock = threading.Lock()
        self._directory_end = 0
        self._overflow_rows: dict[str, int] = {}
        self._exemplar_places: dict[int, int] = {}
        self.slots: memoryview[float] = mapping.slots

    @classmethod
    def create(
        cls,
        rows: int = DEFAULT_ROWS,
        exemplars: int = DEFAULT_EXEMPLARS,
        path: str | os.PathLike[str] | None = None,
    ) -> Cells:
        """Make an empty region.

        Arguments:
            rows: how many label sets, of all metrics together, get a row of their own.
            exemplars: how many buckets and counters can carry an exemplar.
            path: where another process finds it until `unlink()`; without it the region has no name
                and is reached through `fileno()`.

        Raises:
            FileExistsError: there is a file at the path.

        """
        rows += _OVERFLOW_RESERVE
        directory = rows * _DIRECTORY_BYTES_PER_ROW
        start = _HEADER_SLOTS * SLOT + directory + exemplars * _EXEMPLAR_SIZE
        size = start + rows * STRIDE * SLOT
        file = _open_file(size, path)
        memory = mmap.mmap(file, size)
        with memoryview(memory) as whole, whole[: _HEADER_SLOTS * SLOT].cast("Q") as header:
            for index, number in enumerate((_MAGIC, _VERSION, STRIDE, rows, directory, exemplars, start)):
                header[index] = number
        return cls(file, _Mapping(memory), None if path is None else Path(path))

    @classmethod
    def adopt(cls, file: int) -> Cells:
        """Become the writer of an empty region that another process has made.

        Arguments:
            file: its descriptor, which is this object's from now on.

        Raises:
            ValueError: it is no region, or one of another version.

        """
        return cls(file, _Mapping(mmap.mmap(file, os.fstat(file).st_size)), None)

    def row(self, metric: str, labels: Labels, *, is_gauge: bool = False) -> int:
        """Publish a row and return its first slot; when the region is full, the metric's overflow row.

        Callers keep what they get: each call makes another row, and rows with equal labels are summed.
        """
        with self._lock:
            row = self._publish(metric, labels, is_gauge, reserve=_OVERFLOW_RESERVE)
            return self._overflow(metric, is_gauge) if row is None else row

    def overflow_row(self, metric: str, *, is_gauge: bool = False) -> int:
        """Return the first slot of the row that the label sets of a metric share beyond its limit."""
        with self._lock:
            return self._overflow(metric, is_gauge)

    def _overflow(self, metric: str, is_gauge: bool) -> int:
        row = self._overflow_rows.get(metric)
        if row is None:
            row = self._publish(metric, None, is_gauge, reserve=0)
            if row is None:
                raise CellsFullError(metric)
            self._overflow_rows[metric] = row
        return row

    def _publish(self, metric: str, labels: Labels | None, is_gauge: bool, *, reserve: int) -> int | None:
        mapping = self._mapping
        index = mapping.header[_ROW_COUNT]
        entry = json.dumps([metric, is_gauge, labels], ensure_ascii=False, separators=(",", ":"))
        payload = entry.encode("utf-8", "replace")  # a lone surrogate would make the exposition fail
        start = self._directory_end
        end = start + _ENTRY.size + len(payload)
        room = len(mapping.directory) - reserve * _DIRECTORY_BYTES_PER_ROW
        if index >= mapping.row_capacity - reserve or end > room:
            return None
        mapping.directory[start:end] = _ENTRY.pack(len(payload), crc32(payload)) + payload
        self._directory_end = end + -end % SLOT
        mapping.header[_ROW_COUNT] = index + 1
        return index * STRIDE

    def exemplar(
        self,
        slot: int,
        value: float,
        timestamp: float,
        trace_id: bytes,
        span_id: bytes,
        *,
        may_take_reserve: bool = False,
    ) -> bool:
        """Put the newest exemplar of a slot; False when there is no room for another slot's.

        Arguments:
            slot: the bucket or counter that the observation was added to.
            value: what was observed.
            timestamp: unix time, seconds.
            trace_id: 16 bytes.
            span_id: 8 bytes.
            may_take_reserve: whether it may have one of the last places.

        """
        mapping = self._mapping
        place = self._exemplar_places.get(slot)
        count = mapping.header[_EXEMPLAR_COUNT]
        if place is None:
            capacity = mapping.exemplar_capacity
            if not may_take_reserve:
                capacity -= min(_EXEMPLAR_RESERVE, capacity // 8)
            if count >= capacity:
                return False
            place = self._exemplar_places[slot] = count
        start = place * _EXEMPLAR_SIZE
        payload = _EXEMPLAR.pack(slot, value, timestamp, trace_id, span_id)
        with mapping.exemplars[start : start + _EXEMPLAR_PAYLOAD].cast("Q") as guard:
            guard[0] |= 1
            mapping.exemplars[start + _EXEMPLAR_PAYLOAD : start + _EXEMPLAR_SIZE] = payload
            guard[1] = crc32(payload)
            guard[0] += 1
        if place == count:
            mapping.header[_EXEMPLAR_COUNT] = count + 1
        return True

    def fileno(self) -> int:
        """Return the descriptor that a child process can inherit and attach."""
        return self._file

    def unlink(self) -> None:
        """Take the name away; whoever holds the region keeps it."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def reader(self) -> CellsReader:
        """Return a reader over the same file, as another process would have it."""
        return CellsReader.attach(self._file)

    def close(self) -> None:
        """Let go of the memory; nobody may write to `slots` any more."""
        self.unlink()
        self._mapping.close()
        os.close(self._file)


def _open_file(size: int, path: str | os.PathLike[str] | None) -> int:
    if path is None and hasattr(os, "memfd_create"):
        file = os.memfd_create("obsserve-cells", os.MFD_CLOEXEC)
        os.ftruncate(file, size)
        return file
    if path is None:
        import tempfile  # noqa: PLC0415  (only where there is no memfd)

        with tempfile.TemporaryFile() as nameless:
            file = os.dup(nameless.fileno())
    else:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    # Written out, not only made long: a disk that is full must fail here and not with SIGBUS later.
    with os.fdopen(os.dup(file), "wb") as whole:
        whole.write(bytes(size))
    return file


class Family:
    """The rows of one metric by label values, for one writing thread.

    Not for the hot path: that keeps the slots it needs.

    Arguments:
        cells: where the rows are.
        metric: of the catalogue.
        known: label sets that are published at once, so that their rate starts from zero.

    """

    def __init__(self, cells: Cells, metric: Metric, known: Iterable[Labels] = ()) -> None:
        self._cells = cells
        self._slots = cells.slots
        self._metric = metric
        self._rows: dict[Labels, int] = {}
        for labels in ((),) if not metric.labels else known:
            self.row(*labels)

    def row(self, *labels: str) -> int:
        """Return the first slot of a label set; beyond the metric's bound, of its overflow set."""
        row = self._rows.get(labels)
        if row is None:
            metric = self._metric
            if len(self._rows) >= metric.bound:
                return self._cells.overflow_row(metric.name, is_gauge=metric.type == "gauge")
            row = self._rows[labels] = self._cells.row(metric.name, labels, is_gauge=metric.type == "gauge")
        return row

    def add(self, amount: float, *labels: str) -> None:
        """Add to a counter."""
        self._slots[self.row(*labels)] += amount

    def set(self, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._slots[self.row(*labels)] = value

    def observe(self, value: float, *labels: str) -> None:
        """Add an observation to a histogram: one slot for each bucket, then infinity, then the sum."""
        self._observe(self.row(*labels), value)

    def observe_overflow(self, value: float) -> None:
        """Add an observation to the overflow set of a histogram."""
        self._observe(self._cells.overflow_row(self._metric.name), value)

    def _observe(self, row: int, value: float) -> None:
        buckets = self._metric.buckets
        self._slots[row + bisect_left(buckets, value)] += 1.0
        self._slots[row + len(buckets) + 1] += value


class CellsReader:
    """The reader's side, in any process: what has been counted so far, without a word to the writer."""

    def __init__(self, mapping: _Mapping) -> None:
        self._mapping = mapping
        self._entries: list[tuple[str, Labels | None, bool]] = []
        self._directory_end = 0

    @classmethod
    def attach(cls, source: int | str | os.PathLike[str]) -> CellsReader:
        """Map a region, given its descriptor or its path.

        Raises:
            OSError: it cannot be mapped.
            ValueError: it is no region, or one of another version.

        """
        if isinstance(source, int):
            memory = mmap.mmap(source, os.fstat(source).st_size, access=mmap.ACCESS_READ)
        else:
            with open(source, "rb") as file:  # noqa: PTH123 - an os.PathLike is enough
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(_Mapping(memory))

    def value(self, slot: int) -> float:
        """Return what one slot holds at this moment.

        Raises:
            ValueError: the region is closed.

        """
        return self._mapping.slots[slot]

    def rows(self) -> list[Row]:
        """Return every published row with its values at this moment."""
        self._read_directory()
        exemplars = self._read_exemplars()
        # One copy of everything that is in use: rows are read as close to each other in time as can be.
        with self._mapping.slots[: len(self._entries) * STRIDE] as used:
            values = memoryview(used.tobytes()).cast("d")
        return [
            Row(metric, labels, is_gauge, values[n * STRIDE : (n + 1) * STRIDE], exemplars.get(n, {}))
            for n, (metric, labels, is_gauge) in unhurried(enumerate(self._entries))
        ]

    def _read_directory(self) -> None:
        directory = self._mapping.directory
        count = self._mapping.header[_ROW_COUNT]
        while len(self._entries) < count:
            start = self._directory_end + _ENTRY.size
            length, checksum = _ENTRY.unpack_from(directory, self._directory_end)
            payload = bytes(directory[start : start + length])
            if len(payload) != length or crc32(payload) != checksum:
                return  # the count was seen before the entry it stands for; the next look finds both
            metric, is_gauge, labels = json.loads(payload)
            self._entries.append((metric, None if labels is None else tuple(labels), is_gauge))
            end = start + length
            self._directory_end = end + -end % SLOT

    def _read_exemplars(self) -> dict[int, dict[int, Exemplar]]:
        found: dict[int, dict[int, Exemplar]] = {}
        for place in range(self._mapping.header[_EXEMPLAR_COUNT]):
            start = place * _EXEMPLAR_SIZE
            copy = bytes(self._mapping.exemplars[start : start + _EXEMPLAR_SIZE])
            sequence, checksum = struct.unpack_from("=QQ", copy)
            payload = copy[_EXEMPLAR_PAYLOAD:]
            if sequence & 1 or checksum != crc32(payload):
                continue
            slot, value, timestamp, trace_id, span_id = _EXEMPLAR.unpack(payload)
            row, column = divmod(slot, STRIDE)
            found.setdefault(row, {})[column] = Exemplar(value, timestamp, trace_id.hex(), span_id.hex())
        return found

    def close(self) -> None:
        """Unmap the region."""
        self._mapping.close()


class Base:
    """What processes that are gone had counted: their counters and histograms, without their gauges."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, Labels | None], Row] = {}

    def fold(self, reader: CellsReader) -> None:
        """Take over what the region of a process that is gone had counted."""
        for row in reader.rows():
            if row.is_gauge:
                continue
            known = self._rows.get((row.metric, row.labels))
            self._rows[row.metric, row.labels] = row if known is None else merged(known, row)

    def rows(self) -> Iterator[Row]:
        """Yield the summed rows."""
        yield from self._rows.values()


def keep_newest(exemplars: dict[int, Exemplar], others: Mapping[int, Exemplar]) -> None:
    """Take over those of the others that are newer or alone in their place."""
    for place, exemplar in others.items():
        rival = exemplars.get(place)
        if rival is None or rival.timestamp < exemplar.timestamp:
            exemplars[place] = exemplar


def merged(one: Row, other: Row) -> Row:
    """Return two rows of the same label set as one: values summed, the newer of two exemplars."""
    exemplars = dict(one.exemplars)
    keep_newest(exemplars, other.exemplars)
    values = [a + b for a, b in zip(one.values, other.values, strict=True)]
    return Row(one.metric, one.labels, one.is_gauge, values, exemplars)


def steady(total: float) -> float:
    """Return a sum of seconds without the last digits, which depend on the order in which it was added up.

    The order changes when a process ends and its region is folded into the base. A counter that then shrinks by its
    last bit counts as a reset in Prometheus, which takes all of it for growth.
    """
    return total if total % 1 == 0 else float(f"{total:.12g}")


# --- The exchange row -------------------------------------------------------------------------
# One look-up finds the row of a finished exchange, and few additions fill it. An ordinary exchange (it
# reached the application at once, and its first and last byte fall into one latency bucket) adds one to
# ORDINARY + bucket, which stands for all three histograms; any other adds to each histogram's own buckets.
# Each slot only ever grows, so that no sum of slots goes backwards between two scrapes.

LATENCY_SLOTS: Final = 15
QUEUE_SLOTS: Final = 10
ORDINARY: Final = 0
DURATION_SUM: Final = 15
FIRST_BYTE_SUM: Final = 16
QUEUE_SUM: Final = 17
REQUEST_BYTES: Final = 18
RESPONSE_BYTES: Final = 19
DURATION: Final = 20
FIRST_BYTE: Final = 35
QUEUE: Final = 50
# The order in which `speedups` takes them.
EXCHANGE_PLACES: Final = (
    DURATION_SUM,
    FIRST_BYTE_SUM,
    QUEUE_SUM,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    DURATION,
    FIRST_BYTE,
    QUEUE,
)


def duration_counts(values: Sequence[float]) -> list[float]:
    """Return the request-duration buckets of an exchange row, not cumulated."""
    return [a + b for a, b in zip(values[:LATENCY_SLOTS], values[DURATION:FIRST_BYTE], strict=True)]


def first_byte_counts(values: Sequence[float]) -> list[float]:
    """Return the time-to-first-byte buckets of an exchange row, not cumulated."""
    return [a + b for a, b in zip(values[:LATENCY_SLOTS], values[FIRST_BYTE:QUEUE], strict=True)]


def queue_counts(values: Sequence[float]) -> list[float]:
    """Return the queue-time buckets of an exchange row, not cumulated."""
    counts = list(values[QUEUE : QUEUE + QUEUE_SLOTS])
    counts[0] += sum(values[:LATENCY_SLOTS])
    return counts
