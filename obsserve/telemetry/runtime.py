"""What the process itself is doing: loop lag, stalls, garbage collections, process figures.

- `LoopLag` is fed by the ticker on the serving loop and asked from there.
- `GCWatch` runs wherever a collection happens to run; collections never overlap, so its rows have one
  writer at a time.
- `StallWatchdog` is a thread, because a loop that is blocked cannot say so.
- Figures read at a scrape are callables that return samples: (metric name, label values, value).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import platform
import socket
import struct
import sys
import threading
import time
import traceback
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from obsserve.resource import resource_attributes
from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from obsserve.telemetry.cells import Cells, Labels

    Sample = tuple[str, Labels, float]

if sys.platform != "win32":
    import resource

TICK: Final = 0.1  # seconds
WINDOW: Final = 30.0  # of the sliding maximum, seconds
STALL_AFTER: Final = 1.0  # seconds
_REMEMBERED_LAGS: Final = 1024
_WATCH_INTERVAL: Final = 0.25  # seconds


class LoopLag:
    """How late the event loop runs timers, measured by one that is due every `interval` seconds.

    Arguments:
        region: the cells of this process.
        worker: the slot of this serving process.
        interval: seconds between two ticks.

    """

    __slots__ = ("_interval", "_lag", "_lags", "_max", "_tasks", "_ticks", "_worker", "due", "heartbeat")

    def __init__(self, region: Cells, worker: str = "0", interval: float = TICK) -> None:
        self._interval = interval
        self._worker = worker
        self._lag = Family(region, catalogue.LOOP_LAG, [(worker,)])
        self._max = Family(region, catalogue.LOOP_LAG_MAX, [(worker,)])
        self._tasks = Family(region, catalogue.LOOP_TASKS, [(worker,)])
        self.due = float("inf")
        self.heartbeat = 0.0
        # Ticks and their lags, each lag smaller than all before it: the worst since any moment is the first
        # one after that moment, and a new lag removes those that it outdoes.
        self._ticks: list[float] = []
        self._lags: list[float] = []

    def tick(self, now: float) -> None:
        """Take the time of a tick, `time.perf_counter` seconds."""
        lag = now - self.due
        self.due = now + self._interval
        self.heartbeat = now
        if lag == float("-inf"):
            return  # the first one was not waited for
        lag = max(lag, 0.0)
        ticks, lags = self._ticks, self._lags
        while lags and lags[-1] <= lag:
            lags.pop()
            ticks.pop()
        lags.append(lag)
        ticks.append(now)
        if len(lags) > _REMEMBERED_LAGS:
            del lags[0], ticks[0]
        self._lag.observe(lag, self._worker)
        self._max.set(lags[bisect_left(ticks, now - WINDOW)], self._worker)

    def max_between(self, t0: float, t1: float) -> float:
        """Return the worst lag that fell into the time from t0 until t1, which is now."""
        due = self.due
        pending = 0.0 if t1 <= due else t1 - max(t0, due)
        if t0 >= self.heartbeat:
            return pending
        ticks, lags = self._ticks, self._lags
        first = bisect_left(ticks, t0)
        if first == len(ticks):
            return pending
        # Of the first lag only the part that lies after t0 was felt; the next one lies there as a whole.
        felt = min(lags[first], ticks[first] - t0)
        if first + 1 < len(lags):
            felt = max(felt, lags[first + 1])
        return max(felt, pending)

    def count_tasks(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Publish how many tasks there are; it walks through all of them, so once a second is enough."""
        self._tasks.set(len(asyncio.all_tasks(loop)), self._worker)


class GCWatch:
    """Counts garbage collections and how long they hold everything up, from `install` until `remove`."""

    def __init__(self, region: Cells, worker: str = "0") -> None:
        known = [(generation, worker) for generation in catalogue.GC_GENERATIONS]
        self._worker = worker
        self._began = 0.0
        # Every row exists before the first collection: one that runs while a row is being published must
        # not publish another.
        self._pause = Family(region, catalogue.GC_PAUSE, [(generation,) for generation, _ in known])
        self._collections = Family(region, catalogue.GC_COLLECTIONS, known)
        self._collected = Family(region, catalogue.GC_COLLECTED, known)
        self._uncollectable = Family(region, catalogue.GC_UNCOLLECTABLE, known)

    def install(self) -> None:
        """Begin; what was collected before is counted too, without its pauses."""
        for generation, stats in enumerate(gc.get_stats()):
            labels = (str(generation), self._worker)
            self._collections.add(stats["collections"], *labels)
            self._collected.add(stats["collected"], *labels)
            self._uncollectable.add(stats["uncollectable"], *labels)
        gc.callbacks.append(self._notice)

    def remove(self) -> None:
        """End."""
        if self._notice in gc.callbacks:
            gc.callbacks.remove(self._notice)

    def _notice(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        generation = str(info["generation"])
        if self._began:
            self._pause.observe(time.perf_counter() - self._began, generation)
        self._collections.add(1.0, generation, self._worker)
        self._collected.add(info["collected"], generation, self._worker)
        self._uncollectable.add(info["uncollectable"], generation, self._worker)


class StallWatchdog:
    """A thread that notices when the event loop is blocked, counts it and tells where.

    Arguments:
        region: the cells of this process.
        heartbeat: returns the time of the last tick, 0.0 before the first.
        report: called once for each stall, on the watchdog's thread, with the seconds so far, the stack of
            the loop's thread as text, and what `open_requests` returned.
        open_requests: returns a description of each request in flight.
        threshold: seconds without a tick.

    """

    def __init__(
        self,
        region: Cells,
        heartbeat: Callable[[], float],
        report: Callable[[float, str, Sequence[Any]], None],
        open_requests: Callable[[], Sequence[Any]] = tuple,
        *,
        worker: str = "0",
        threshold: float = STALL_AFTER,
    ) -> None:
        self._stalls = Family(region, catalogue.LOOP_STALLS, [(worker,)])
        self._worker = worker
        self._heartbeat = heartbeat
        self._report = report
        self._open_requests = open_requests
        self._threshold = threshold
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop_thread = 0

    def start(self) -> None:
        """Begin to watch the thread that calls this."""
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="obsserve-watchdog", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """End; waits at most `timeout` seconds for the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    def _watch(self) -> None:
        interval = min(_WATCH_INTERVAL, self._threshold / 4)
        reported = 0.0
        looked, used = time.perf_counter(), time.process_time()
        while not self._stop.wait(interval):
            now, cpu = time.perf_counter(), time.process_time()
            # A process that was stopped as a whole (SIGSTOP, a frozen container) has no blocked loop.
            frozen = now - looked > self._threshold and cpu - used < interval
            looked, used = now, cpu
            beat = self._heartbeat()
            if beat and beat != reported and now - beat > self._threshold and not frozen:
                reported = beat
                self._tell(now - beat)

    def _tell(self, seconds: float) -> None:
        self._stalls.add(1.0, self._worker)
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the documented way to it
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        del frame
        try:
            self._report(seconds, stack, self._open_requests())
        except Exception:  # noqa: BLE001 - a report that fails must not end the watch
            sys.excepthook(*sys.exc_info())


# --- Figures read at a scrape -----------------------------------------------------------------


class ProcessFigures:
    """The `process_*` figures of one process: from /proc, else the few that the `resource` module knows.

    Arguments:
        worker: the label.
        pid: of another process; only where there is /proc.

    """

    def __init__(self, worker: str = "0", pid: int | None = None) -> None:
        self._labels = (worker,)
        self._directory = f"/proc/{'self' if pid is None else pid}"
        self._is_self = pid is None
        self._boot_time = _boot_time()

    def __call__(self) -> Iterator[Sample]:
        """Yield what can be found out; nothing for a process that is gone."""
        found = self._from_proc() if self._boot_time is not None else self._from_resource()
        for metric, value in found:
            yield metric.name, self._labels, value

    def _from_proc(self) -> Iterator[tuple[catalogue.Metric, float]]:
        with contextlib.suppress(OSError):
            # The second field is the command in parentheses and may hold anything; see proc(5).
            fields = _read(f"{self._directory}/stat").rpartition(")")[2].split()
            ticks = os.sysconf("SC_CLK_TCK")
            yield catalogue.PROCESS_CPU, (int(fields[11]) + int(fields[12])) / ticks
            yield catalogue.PROCESS_START, int(fields[19]) / ticks + (self._boot_time or 0.0)
            yield catalogue.PROCESS_VIRTUAL, float(fields[20])
            yield catalogue.PROCESS_RESIDENT, float(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        with contextlib.suppress(OSError):  # another user's process shows neither
            yield catalogue.PROCESS_OPEN_FDS, float(len(os.listdir(f"{self._directory}/fd")))  # noqa: PTH208
            for line in _read(f"{self._directory}/limits").splitlines():
                if line.startswith("Max open files"):
                    soft = line.split()[3]
                    yield catalogue.PROCESS_MAX_FDS, float("inf") if soft == "unlimited" else float(soft)

    def _from_resource(self) -> Iterator[tuple[catalogue.Metric, float]]:
        if sys.platform == "win32" or not self._is_self:
            return
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield catalogue.PROCESS_CPU, usage.ru_utime + usage.ru_stime
        yield catalogue.PROCESS_MAX_FDS, float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def process_start() -> float | None:
    """Return when this process began, in seconds since the epoch; None where that cannot be found out."""
    wanted = catalogue.PROCESS_START.name
    return next((value for name, _, value in ProcessFigures()() if name == wanted), None)


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory; 0 when it is gone, or where there is no /proc."""
    try:
        return int(_read(f"/proc/{pid}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - read at every scrape
        return file.read()


def _boot_time() -> float | None:
    try:
        lines = _read("/proc/stat").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)


def python_info() -> list[Sample]:
    """Return the `python_info` sample, as the Prometheus client library has it."""
    major, minor, patchlevel = platform.python_version_tuple()
    labels = (platform.python_implementation(), major, minor, patchlevel, platform.python_version())
    return [(catalogue.PYTHON_INFO.name, labels, 1.0)]


def build_info(version: str, event_loop: str, http_parser: str) -> list[Sample]:
    """Return the `obsserve_build_info` sample."""
    python = (platform.python_version(), platform.python_implementation())
    return [(catalogue.BUILD_INFO.name, (version, *python, event_loop, http_parser), 1.0)]


def target_resource(service_name: str, service_instance_id: str, version: str) -> dict[str, str]:
    """Return the resource attributes of `target_info`: those that all workers of a server share.

    Args:
        service_name: of the options.
        service_instance_id: one for all workers, as in log and spans.
        version: of this server.
    """
    return {
        "host.name": socket.gethostname(),
        **resource_attributes(),
        "service.name": service_name,
        "service.instance.id": service_instance_id,
        "webengine.name": "obsserve",
        "webengine.version": version,
    }


def open_files_limit() -> int | None:
    """Return how many descriptors this process may have open; None where there is no limit."""
    if sys.platform == "win32":
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def readiness(is_ready: Callable[[], bool]) -> Callable[[], list[Sample]]:
    """Return the source of `obsserve_ready`."""
    return lambda: [(catalogue.READY.name, (), float(is_ready()))]


def listener_backlogs(listeners: Iterable[tuple[str, Any]]) -> Iterator[Sample]:
    """Yield the accept-queue length of each listening TCP socket, where the kernel tells it (Linux).

    Arguments:
        listeners: pairs of listener name and socket.

    """
    if not hasattr(socket, "TCP_INFO") or not sys.platform.startswith("linux"):
        return
    for name, listener in listeners:
        try:
            # struct tcp_info: 8 bytes, then 32-bit words; for a listener the fifth, tcpi_unacked, is the
            # number of connections that wait to be accepted.
            info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
            (waiting,) = struct.unpack_from("=I", info, 24)
        except (OSError, struct.error):
            continue  # closed by now, or not a TCP socket
        yield catalogue.LISTENER_BACKLOG.name, (name,), float(waiting)
