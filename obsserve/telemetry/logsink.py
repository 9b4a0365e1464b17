"""Where log lines go: a bounded buffer and a thread that writes it, so that no caller ever waits.

Owns the lines between hand-over and descriptor, the writer thread, and the figures about them.
Rules:
- A caller hands over whole lines; the hand-over takes them or drops them, and never blocks or raises.
- When the buffer is full the newest informational lines go first: the last eighth is kept for warnings
  and errors. Every line ends as exactly one of written, dropped and failed.
- Only the writer thread touches the descriptor, with blocking writes. O_NONBLOCK is never set: the
  flag belongs to the open file, which other processes share.
- Half a line is never left for the next one to continue, as far as the descriptor allows.
- The thread is a daemon: a pipe that nobody reads cannot keep the process from ending.
- Counters are called only by the threads that call `flush` and `close` (the server's), because a
  counter cell has one writer; the figures wait in the sink until then.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TextIO

from obsserve.telemetry.logfile import ends_within_a_line, is_regular, take_back

if TYPE_CHECKING:
    from collections.abc import Collection

LineFormat = Literal["json", "console"]
Stream = Literal["access", "server", "app"]
Result = Literal["written", "sampled_out", "filtered", "dropped", "failed"]
Lines = bytes | bytearray

# The descriptor of a stream that the process does not have: its lines are dropped.
NOWHERE: Final = -1
# POSIX: a write of at most PIPE_BUF bytes (4096 on Linux) is not mixed with another process's.
PIPE_LINE_LIMIT: Final = 4096
LINE_LIMIT: Final = 16 * 1024
_WRITE_LIMIT: Final = 256 * 1024
# Pause after a failed write, doubled with each further failure: a full disk is asked again, not hammered.
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 5.0
# Faults that no waiting mends: a pipe whose reader is gone, a descriptor that was closed.
_LASTING: Final = frozenset({errno.EPIPE, errno.EBADF})


class LogSettings(Protocol):
    """What the logs read of the server's settings."""

    @property
    def log_level(self) -> int | str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def log_query(self) -> str: ...
    @property
    def log_query_allow(self) -> tuple[str, ...]: ...
    @property
    def log_client_ip(self) -> str: ...
    @property
    def log_hash_key(self) -> str | None: ...
    @property
    def log_field(self) -> tuple[Any, ...]: ...
    @property
    def log_keys(self) -> str: ...
    @property
    def log_status_499(self) -> bool: ...
    @property
    def log_buffer_bytes(self) -> int: ...
    @property
    def use_colors(self) -> bool | None: ...
    @property
    def service_name(self) -> str: ...


class LogCounters(Protocol):
    """The figures about the logs. Called by the serving thread only."""

    def add(self, stream: Stream, result: Result, n: int = 1) -> None: ...
    def truncated(self, stream: Stream) -> None: ...
    def write_error(self, error: OSError, n: int = 1) -> None: ...
    def write_seconds(self, seconds: float) -> None: ...
    def set_queue(self, records: int, capacity: int) -> None: ...


class NoCounters:
    """Counts nothing: for a log whose figures nobody reads."""

    def add(self, stream: Stream, result: Result, n: int = 1) -> None: ...
    def truncated(self, stream: Stream) -> None: ...
    def write_error(self, error: OSError, n: int = 1) -> None: ...
    def write_seconds(self, seconds: float) -> None: ...
    def set_queue(self, records: int, capacity: int) -> None: ...


class LineSink(Protocol):
    """Takes lines, and never makes its caller wait: `LogSink`, or what exports them."""

    @property
    def fd(self) -> int: ...
    @property
    def line_limit(self) -> int: ...
    def offer(
        self,
        lines: Lines,
        stream: Stream = "access",
        important: Collection[int] = (),
        count: int | None = None,
    ) -> None: ...
    def flush(self) -> None: ...
    def close(self, deadline_seconds: float) -> None: ...


class LogSink:
    """Takes whole lines from any thread and writes them to a descriptor from its own.

    Args:
        fd: descriptor to write to; the sink does not change it, nor close it unless `owns_fd`. NOWHERE
            drops every line, and counts that.
        capacity_bytes: bound on what may wait to be written.
        counters: where the figures go.
        is_pipe: whether writes must fit into PIPE_BUF; None asks the descriptor.
        reports_queue: whether the gauge of waiting records is this sink's; one sink of a process.
        own_file: whether the descriptor is of a file that this process has opened, for appending.
        owns_fd: whether the descriptor is the sink's own, which it closes with itself.
    """

    def __init__(
        self,
        fd: int,
        *,
        capacity_bytes: int,
        counters: LogCounters | None = None,
        is_pipe: bool | None = None,
        reports_queue: bool = True,
        own_file: bool = False,
        owns_fd: bool = False,
    ) -> None:
        self.fd = fd
        self._owns_fd = owns_fd
        self.is_pipe = leads_to_pipe(fd) if is_pipe is None else is_pipe
        self.line_limit: Final = PIPE_LINE_LIMIT if self.is_pipe else LINE_LIMIT
        self._capacity = capacity_bytes
        self._reports_queue = reports_queue
        self._own_file = own_file
        self.counters: LogCounters = NoCounters() if counters is None else counters
        self._queue: SimpleQueue[tuple[Stream, Lines, int] | None] = SimpleQueue()
        # Re-entrant, because a signal handler or a finalizer may log while its thread holds the lock.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._impatient = threading.Event()  # a pause after a failure ends
        self._abandoned = False
        # Whether the last line may be unfinished: an earlier process may have been killed while it wrote.
        self._torn = own_file and is_regular(fd)
        # All under the lock: what waits, and what has happened since the counters were told.
        self._waiting_bytes = 0
        self._waiting_lines: Counter[Stream] = Counter()
        self._results: Counter[tuple[Stream, Result]] = Counter()
        self._errors: Counter[int] = Counter([errno.EBADF] if fd == NOWHERE else [])
        self._seconds = 0.0
        self._seen_bytes = 0
        self._seen_lines = 0

    @property
    def closed(self) -> bool:
        return self._closing.is_set()

    @property
    def writing(self) -> bool:
        """Whether the writer still uses the descriptor."""
        return self._thread is not None and self._thread.is_alive()

    def offer(
        self,
        lines: Lines,
        stream: Stream = "access",
        important: Collection[int] = (),
        count: int | None = None,
    ) -> None:
        """Take lines for writing; what does not fit is dropped and counted. Never blocks, never raises.

        Args:
            lines: whole lines, each ended by a newline and at most `line_limit` long; the sink keeps
                the object, so the caller must not change it afterwards.
            stream: whose lines these are.
            important: numbers of the warning and error lines, from 1: they may use the reserve.
            count: how many lines these are, for a caller who knows: counting them costs more than
                all else here.
        """
        if not lines:
            return
        if count is None:
            count = lines.count(b"\n")
        with self._lock:
            self._seen_bytes += len(lines)
            self._seen_lines += count
            room = self._capacity - self._capacity // 8 - self._waiting_bytes
            if len(lines) > room:
                lines = self._fitting(lines, max(room, 0), important)
                kept = lines.count(b"\n")
                self._results[stream, "dropped"] += count - kept
                count = kept
            if not lines or self._closing.is_set() or not self._writer_runs():
                self._results[stream, "dropped"] += count
                return
            self._waiting_bytes += len(lines)
            self._waiting_lines[stream] += count
            self._queue.put((stream, lines, count))

    def _fitting(self, lines: Lines, room: int, important: Collection[int]) -> bytes:
        """Return the first lines, as far as there is room, and of the others the important ones."""
        cut = lines.rfind(b"\n", 0, room) + 1
        kept = [bytes(lines[:cut])]
        reserve = self._capacity - self._waiting_bytes - cut
        first = lines.count(b"\n", 0, cut) + 1
        for number, line in enumerate(lines[cut:].split(b"\n"), first):
            if number in important and len(line) < reserve:
                kept.append(bytes(line) + b"\n")
                reserve -= len(line) + 1
        return b"".join(kept)

    def flush(self) -> None:
        """Tell the counters what has happened. The lines themselves are on their way since `offer`."""
        with self._lock:
            results, self._results = self._results, Counter()
            errors, self._errors = self._errors, Counter()
            seconds, self._seconds = self._seconds, 0.0
            waiting = self._waiting_lines.total()
            # The bound is one of bytes; in records it is as many as the lines seen so far would be.
            mean = self._seen_bytes / self._seen_lines if self._seen_lines else 1024
        counters = self.counters
        for (stream, result), count in results.items():
            if count:
                counters.add(stream, result, count)
        for number, count in errors.items():
            counters.write_error(OSError(number, os.strerror(number)), count)
        if seconds:
            counters.write_seconds(seconds)
        if self._reports_queue:
            counters.set_queue(waiting, int(self._capacity // mean))

    def reopened(self, error: OSError | None) -> None:
        """Take note that the descriptor is another file's now, or why it is not; on any thread."""
        if error is not None:
            with self._lock:
                self._errors[error.errno or 0] += 1
            return
        self._torn = is_regular(self.fd)
        self._impatient.set()  # what has failed may succeed

    def close(self, deadline_seconds: float) -> None:
        """Write what waits, for at most so many seconds; what is left counts as dropped."""
        with self._lock:
            first = not self._closing.is_set()
            self._closing.set()
            self._impatient.set()
            thread = self._thread
        if thread is not None:
            if first:
                self._queue.put(None)
            thread.join(max(deadline_seconds, 0.0))
        with self._lock:
            self._abandoned = True
            for stream, count in self._waiting_lines.items():
                self._results[stream, "dropped"] += count
            self._waiting_lines.clear()
            self._waiting_bytes = 0
            is_over, self._owns_fd = self._owns_fd and not self.writing, False
        if is_over:
            os.close(self.fd)
        self.flush()

    # --- The writer thread --------------------------------------------------------------------

    def _writer_runs(self) -> bool:
        """Start the writer with the first line, so that a process that logs nothing has no thread."""
        if self._thread is not None and self._thread.is_alive():
            return True
        if self.fd == NOWHERE:
            return False
        thread = threading.Thread(target=self._write_all, name=f"obsserve-log-{self.fd}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: out of resources, or the interpreter is ending
            return False
        self._thread = thread
        return True

    def _write_all(self) -> None:
        pause = _FIRST_PAUSE
        while (entry := self._queue.get()) is not None:
            if self._abandoned:
                return
            error = self._write(*entry)
            if error is None:
                pause = _FIRST_PAUSE
                continue
            if error.errno in _LASTING:
                self._give_up_waiting()
            if self._impatient.wait(pause):
                pause = _FIRST_PAUSE
                if not self._closing.is_set():
                    self._impatient.clear()
            else:
                pause = min(pause * 2, _LAST_PAUSE)

    def _give_up_waiting(self) -> None:
        """Count what waits as failed: nothing is gained by keeping it."""
        with suppress(Empty):
            while (entry := self._queue.get_nowait()) is not None:
                stream, lines, count = entry
                self._settle(stream, count, len(lines), "failed")
            self._queue.put(None)

    def _write(self, stream: Stream, lines: Lines, count: int) -> OSError | None:
        """Write these lines; return what went wrong, with the rest counted as failed."""
        size = len(lines)
        limit = PIPE_LINE_LIMIT if self.is_pipe else _WRITE_LIMIT
        start = 0
        with memoryview(lines) as view:
            while start < size and not self._abandoned:
                end = size
                if size - start > limit:
                    # Up to the last line that ends within the limit; a longer line goes by itself.
                    end = lines.rfind(b"\n", start, start + limit) + 1 or lines.find(b"\n", start) + 1 or size
                done, error = self._write_piece(view[start:end])
                whole = end if error is None else lines.rfind(b"\n", start, start + done) + 1 or start
                written = count if whole == size else lines.count(b"\n", start, whole)
                count -= written
                self._settle(stream, written, whole - start, "written")
                if error is not None:
                    self._settle(stream, count, size - whole, "failed", error)
                    # Half a line may be left behind. It is removed, or the next write ends it first.
                    half = start + done - whole
                    if half and not (self._own_file and take_back(self.fd, half)):
                        self._torn = True
                    return error
                start = end
        return None

    def _write_piece(self, piece: memoryview) -> tuple[int, OSError | None]:
        """Write all of this, however many writes that takes; return how much, and what went wrong."""
        began = time.perf_counter()
        done = 0
        try:
            if self._torn:
                if ends_within_a_line(self.fd):
                    os.write(self.fd, b"\n")
                self._torn = False
            while done < len(piece):
                try:
                    done += os.write(self.fd, piece[done:])
                except BlockingIOError:
                    # Somebody else has made the shared descriptor non-blocking.
                    self._wait_writable()
        except OSError as error:
            return done, error
        finally:
            with self._lock:
                self._seconds += time.perf_counter() - began
        return done, None

    def _wait_writable(self) -> None:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            poll.poll(1000)
        else:  # pragma: no cover - Windows, where console and file writes do not return early
            time.sleep(0.05)

    def _settle(
        self, stream: Stream, count: int, size: int, result: Result, error: OSError | None = None
    ) -> None:
        with self._lock:
            if error is not None:
                self._errors[error.errno or 0] += 1
            if self._abandoned:  # already counted as dropped
                return
            self._waiting_bytes -= size
            self._waiting_lines[stream] -= count
            self._results[stream, result] += count


def leads_to_pipe(fd: int) -> bool:
    """Return whether what is written there goes into a pipe."""
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def descriptor_of(stream: TextIO | None) -> int | None:
    """Return the descriptor behind a standard stream; None when it has none or is closed.

    A number such as 1 must not be assumed: in a process that was started with its output closed, the
    first socket takes it, and log lines would go to a client.
    """
    if stream is None:
        return None
    with suppress(OSError, ValueError, AttributeError):
        return stream.fileno()
    return None


def stdout_descriptor() -> int | None:
    """Return the descriptor of standard output; None when the process has none.

    An object in its place, such as a test's or a notebook's, is passed by.
    """
    fd = descriptor_of(sys.stdout)
    return descriptor_of(sys.__stdout__) if fd is None and sys.stdout is not None else fd


def is_terminal(fd: int | None) -> bool:
    """Whether somebody is likely to read along."""
    try:
        return fd is not None and os.isatty(fd)
    except OSError:
        return False


def line_format(setting: str, fd: int | None) -> LineFormat:
    """Return how to write to this descriptor under `--log-format`: `auto` asks whether it is a terminal."""
    if setting == "console" or (setting == "auto" and is_terminal(fd)):
        return "console"
    return "json"


def colors_wanted(setting: bool | None, fd: int | None) -> bool:
    """Whether to colour console lines: `--use-colors` decides, else a terminal without NO_COLOR does."""
    return setting if setting is not None else is_terminal(fd) and not os.environ.get("NO_COLOR")
