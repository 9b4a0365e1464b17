"""The sink: nothing that happens to the descriptor reaches the caller, and every line is accounted for."""

import errno
import inspect
import os
import select
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter

import pytest

from obsserve.telemetry.logfile import LogFile
from obsserve.telemetry.logsink import (
    LogCounters,
    NOWHERE,
    LogSink,
    NoCounters,
    colors_wanted,
    descriptor_of,
    is_terminal,
    line_format,
)


class Counted:
    def __init__(self):
        self.results = Counter()
        self.errors = Counter()
        self.seconds = 0.0
        self.queue = None

    def add(self, stream, result, n=1):
        self.results[stream, result] += n

    def truncated(self, stream):
        raise AssertionError

    def write_error(self, error, n=1):
        self.errors[errno.errorcode[error.errno]] += n

    def write_seconds(self, seconds):
        self.seconds += seconds

    def set_queue(self, records, capacity):
        self.queue = (records, capacity)

    def of(self, result, stream="access"):
        return self.results[stream, result]


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


def flushed(sink, counted, result, n):
    def reached():
        sink.flush()
        return counted.of(result) >= n

    until(reached)


def line(number, length=100):
    return f"{number:06d}".ljust(length - 1, "x").encode() + b"\n"


def lines(start, stop, length=100):
    return b"".join(line(number, length) for number in range(start, stop))


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass


def read_available(fd, wanted, seconds=10.0):
    data = b""
    deadline = time.monotonic() + seconds
    while len(data) < wanted and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.05)[0]:
            chunk = os.read(fd, 65536)
            if not chunk:
                break
            data += chunk
    return data


def test_lines_reach_a_file_in_order(tmp_path):
    counted = Counted()
    with open(tmp_path / "log", "wb") as file:
        sink = LogSink(file.fileno(), capacity_bytes=1 << 20, counters=counted)
        assert not sink.is_pipe
        assert sink.line_limit == 16384
        for start in range(0, 500, 50):
            sink.offer(lines(start, start + 50))
        sink.close(10)
    assert (tmp_path / "log").read_bytes() == lines(0, 500)
    assert counted.of("written") == 500
    assert counted.seconds > 0
    assert counted.queue[0] == 0
    assert counted.queue[1] == (1 << 20) // 100


def test_a_pipe_is_written_in_whole_lines_of_at_most_4096_bytes(pipe, monkeypatch):
    reader, writer = pipe
    sizes = []
    write = os.write

    def spy(fd, data):
        if fd == writer:
            sizes.append(bytes(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", spy)
    sink = LogSink(writer, capacity_bytes=1 << 20)
    assert sink.is_pipe
    assert sink.line_limit == 4096
    sink.offer(lines(0, 100, 300))
    sink.close(10)
    assert b"".join(sizes) == lines(0, 100, 300)
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in sizes)


def test_with_nobody_reading_the_caller_goes_on_and_the_rest_is_dropped(pipe):
    reader, writer = pipe
    counted = Counted()
    sink = LogSink(writer, capacity_bytes=40_000, counters=counted)
    offered = 0
    for start in range(0, 5000, 10):
        began = time.monotonic()
        sink.offer(lines(start, start + 10))
        assert time.monotonic() - began < 5
        offered += 10
    flags = os.get_blocking(writer)
    assert flags, "the descriptor is shared: it must stay blocking"
    flushed(sink, counted, "dropped", 1)
    waiting, capacity = counted.queue
    assert 0 < waiting <= 400
    assert capacity == 400
    assert offered == counted.of("written") + counted.of("dropped") + counted.of("failed") + waiting

    # A reader that resumes gets whole lines, the oldest first.
    data = read_available(reader, (counted.of("written") + waiting) * 100)
    sink.close(10)
    got = data.splitlines(keepends=True)
    assert got[0] == line(0)
    assert all(len(one) == 100 for one in got)
    assert offered == counted.of("written") + counted.of("dropped")
    assert counted.queue[0] == 0


def test_the_last_eighth_is_for_warnings_and_errors(pipe):
    reader, writer = pipe
    counted = Counted()
    os.write(writer, b"f" * 65536)  # full: nothing that is offered can be written
    sink = LogSink(writer, capacity_bytes=8000, counters=counted)
    sink.offer(lines(0, 60))
    sink.offer(
        lines(60, 80), important=(1, 15)
    )  # 10 fit below the reserve; of the others number 75 - 1 may stay
    sink.offer(lines(80, 90), important=(2,))
    sink.flush()
    assert counted.of("dropped") == 9 + 9
    assert len(read_available(reader, 65536)) == 65536
    data = read_available(reader, 7200)
    sink.close(10)
    numbers = [int(one[:6]) for one in data.splitlines()]
    assert numbers == [*range(70), 74, 81]


def test_even_important_lines_are_bounded(pipe):
    reader, writer = pipe
    counted = Counted()
    os.write(writer, b"f" * 65536)
    sink = LogSink(writer, capacity_bytes=8000, counters=counted)
    sink.offer(lines(0, 200), important=range(1, 201))
    sink.flush()
    assert counted.queue[0] == 80
    assert counted.of("dropped") == 120
    sink.close(0)
    assert counted.of("dropped") == 200


def test_closing_gives_up_at_the_deadline_and_counts_each_line_once(pipe):
    reader, writer = pipe
    counted = Counted()
    sink = LogSink(writer, capacity_bytes=1 << 20, counters=counted)
    sink.offer(lines(0, 2000))
    flushed(sink, counted, "written", 1)
    began = time.monotonic()
    sink.close(0.2)
    assert time.monotonic() - began < 5
    assert counted.of("written") + counted.of("dropped") == 2000
    sink.offer(lines(0, 3))
    sink.close(0.1)
    assert counted.of("dropped") + counted.of("written") == 2003
    before = Counter(counted.results)
    # The write under way when the sink gave up ends now: it is not counted a second time.
    read_available(reader, 65536 + 4096, 1)
    sink._thread.join(10)
    sink.flush()
    assert counted.results == before
    assert sink.closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_counted_and_asked_again_with_pauses():
    counted = Counted()
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        sink = LogSink(fd, capacity_bytes=1 << 20, counters=counted)
        for start in range(5):
            sink.offer(lines(start, start + 1))
        flushed(sink, counted, "failed", 2)
        sink.close(10)
    finally:
        os.close(fd)
    assert counted.errors == {"ENOSPC": 5}
    assert counted.of("failed") == 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_pauses_grow_while_the_descriptor_fails(monkeypatch):
    pauses = []
    counted = Counted()
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = LogSink(fd, capacity_bytes=1 << 20, counters=counted)
    monkeypatch.setattr(sink._impatient, "wait", lambda seconds: pauses.append(seconds))
    for number in range(9):
        sink.offer(line(number))
    flushed(sink, counted, "failed", 9)
    until(lambda: len(pauses) == 9)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    sink.close(10)
    os.close(fd)


def test_what_waits_for_a_pipe_without_a_reader_has_failed(pipe, monkeypatch):
    reader, writer = pipe
    os.close(reader)
    counted = Counted()
    sink = LogSink(writer, capacity_bytes=1 << 20, counters=counted)
    paused, go = threading.Event(), threading.Event()
    monkeypatch.setattr(sink._impatient, "wait", lambda seconds: (paused.set(), go.wait(10)) and False)
    sink.offer(line(0))
    assert paused.wait(10)
    for number in range(1, 100):
        sink.offer(line(number))
    go.set()
    flushed(sink, counted, "failed", 100)
    assert counted.errors == {"EPIPE": 2}
    sink.close(10)
    assert counted.of("failed") == 100
    assert not sink.writing


def test_a_closed_reader_is_counted(pipe):
    reader, writer = pipe
    os.close(reader)
    counted = Counted()
    sink = LogSink(writer, capacity_bytes=1 << 20, counters=counted)
    sink.offer(lines(0, 3))
    flushed(sink, counted, "failed", 3)
    sink.close(10)
    assert counted.errors == {"EPIPE": 1}


def test_a_closed_descriptor_is_counted():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    counted = Counted()
    sink = LogSink(writer, capacity_bytes=1 << 20, counters=counted)
    sink.offer(lines(0, 3))
    flushed(sink, counted, "failed", 3)
    sink.close(10)
    assert counted.errors == {"EBADF": 1}


def test_lines_to_nowhere_are_dropped_and_the_cause_is_counted():
    counted = Counted()
    sink = LogSink(NOWHERE, capacity_bytes=1 << 20, counters=counted)
    sink.offer(lines(0, 3))
    sink.close(10)
    assert counted.of("dropped") == 3
    assert counted.errors == {"EBADF": 1}
    assert sink._thread is None


def test_partial_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    with open(tmp_path / "log", "wb") as file:
        sink = LogSink(file.fileno(), capacity_bytes=1 << 20)
        sink.offer(lines(0, 20))
        sink.close(10)
    assert (tmp_path / "log").read_bytes() == lines(0, 20)


def test_a_torn_line_is_ended_before_the_next_one(tmp_path, monkeypatch):
    write = os.write
    failing = [True]

    def torn(fd, data):
        if not failing:
            return write(fd, data)
        if len(data) > 150:
            return write(fd, data[:150])
        failing.clear()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", torn)
    counted = Counted()
    with open(tmp_path / "log", "wb") as file:
        sink = LogSink(file.fileno(), capacity_bytes=1 << 20, counters=counted)
        sink.offer(lines(0, 3))
        flushed(sink, counted, "failed", 2)
        sink.offer(lines(3, 5))
        sink.close(10)
    assert counted.of("written") == 3
    assert (tmp_path / "log").read_bytes() == line(0) + line(1)[:50] + line(2)[:0] + b"\n" + lines(3, 5)


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe):
    reader, writer = pipe
    os.set_blocking(writer, False)
    counted = Counted()
    sink = LogSink(writer, capacity_bytes=1 << 20, counters=counted)
    sink.offer(lines(0, 2000))
    flushed(sink, counted, "written", 100)
    data = read_available(reader, 200_000)
    sink.close(10)
    assert data == lines(0, 2000)
    assert counted.of("written") == 2000
    assert not counted.errors


def test_without_a_thread_to_be_had_lines_are_dropped(tmp_path, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    counted = Counted()
    with open(tmp_path / "log", "wb") as file:
        sink = LogSink(file.fileno(), capacity_bytes=1 << 20, counters=counted)
        sink.offer(lines(0, 3), "server")
        sink.close(1)
    assert counted.of("dropped", "server") == 3


def test_nothing_to_write_starts_no_thread(tmp_path):
    with open(tmp_path / "log", "wb") as file:
        sink = LogSink(file.fileno(), capacity_bytes=1 << 20, reports_queue=False)
        sink.offer(b"")
        sink.flush()
        assert sink._thread is None
        sink.close(1)


def test_the_process_ends_although_the_pipe_is_full():
    program = textwrap.dedent(
        """
        import os
        from obsserve.telemetry.logsink import LogSink
        reader, writer = os.pipe()
        sink = LogSink(writer, capacity_bytes=1 << 20)
        sink.offer(b"x" * 99 + b"\\n")
        for _ in range(1000):
            sink.offer((b"x" * 99 + b"\\n") * 10)
        print("done", flush=True)
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


class Stream:
    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        if self.fd is None:
            raise ValueError("closed")
        return self.fd


def test_formats_follow_the_descriptor():
    assert descriptor_of(None) is None
    assert descriptor_of(Stream(None)) is None
    assert descriptor_of(object()) is None
    assert descriptor_of(Stream(7)) == 7
    parent, terminal = os.openpty()
    try:
        assert is_terminal(terminal)
        assert line_format("auto", terminal) == "console"
        assert line_format("json", terminal) == "json"
        assert colors_wanted(None, terminal) == (not os.environ.get("NO_COLOR"))
        assert colors_wanted(False, terminal) is False
    finally:
        os.close(parent)
        os.close(terminal)
    assert not is_terminal(terminal)
    assert not is_terminal(None)
    assert line_format("auto", None) == "json"
    assert line_format("console", None) == "console"
    assert not colors_wanted(None, None)
    assert colors_wanted(True, None)


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    parent, terminal = os.openpty()
    try:
        assert not colors_wanted(None, terminal)
    finally:
        os.close(parent)
        os.close(terminal)


def test_counting_nothing_has_the_form_of_counting():
    def forms(counters):
        return {
            name: str(inspect.signature(method))
            for name, method in vars(counters).items()
            if not name.startswith("_")
        }

    assert forms(NoCounters) == forms(LogCounters)
    assert set(forms(NoCounters)) == {"add", "truncated", "write_error", "write_seconds", "set_queue"}


class FullFor:
    """`os.write` on a disk with room for some bytes, until somebody makes more."""

    def __init__(self, room):
        self.room = room
        self._write = os.write

    def __call__(self, fd, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "full")
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done


def test_half_a_line_is_taken_back_from_a_file_of_our_own(tmp_path, monkeypatch):
    """Another process's next line would be glued to it."""
    disk = FullFor(150)
    monkeypatch.setattr(os, "write", disk)
    counted = Counted()
    file = LogFile(str(tmp_path / "log"))
    sink = LogSink(file.fd, capacity_bytes=1 << 20, counters=counted, own_file=True)
    sink.offer(lines(0, 3))
    flushed(sink, counted, "failed", 2)
    assert (tmp_path / "log").read_bytes() == line(0)
    disk.room = 1 << 20
    sink.offer(lines(3, 5))
    sink.close(10)
    file.close()
    assert (tmp_path / "log").read_bytes() == line(0) + lines(3, 5)
    assert counted.of("written") == 3


def test_half_a_line_of_a_killed_process_is_ended(tmp_path):
    (tmp_path / "log").write_bytes(line(0) + b"half")
    file = LogFile(str(tmp_path / "log"))
    sink = LogSink(file.fd, capacity_bytes=1 << 20, own_file=True)
    sink.offer(lines(1, 3))
    sink.close(10)
    assert (tmp_path / "log").read_bytes() == line(0) + b"half\n" + lines(1, 3)


def test_a_reopened_file_ends_the_pause_after_a_failure(tmp_path, monkeypatch):
    disk = FullFor(0)
    monkeypatch.setattr(os, "write", disk)
    counted = Counted()
    file = LogFile(str(tmp_path / "log"))
    sink = LogSink(file.fd, capacity_bytes=1 << 20, counters=counted, own_file=True)
    monkeypatch.setattr("obsserve.telemetry.logsink._FIRST_PAUSE", 60.0)
    sink.offer(line(0))
    flushed(sink, counted, "failed", 1)
    sink.offer(line(1))
    disk.room = 1 << 20
    os.rename(tmp_path / "log", tmp_path / "log.1")
    done = []
    file.reopen(done.append)
    until(lambda: done)
    assert done == [None]
    sink.reopened(None)
    flushed(sink, counted, "written", 1)
    sink.close(10)
    file.close()
    assert (tmp_path / "log").read_bytes() == line(1)
    assert (tmp_path / "log.1").read_bytes() == b""
