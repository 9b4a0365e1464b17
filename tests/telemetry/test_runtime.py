"""What the process itself is doing: lag, stalls, collections, figures."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obsserve.telemetry import catalogue, runtime
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.runtime import GCWatch, LoopLag, ProcessFigures, StallWatchdog
from tests.parts import package


@pytest.fixture
def region():
    region = Cells.create(rows=64)
    yield region
    region.close()


@pytest.fixture
def read(region):
    reader = region.reader()

    def read(metric, *labels):
        (row,) = (row for row in reader.rows() if (row.metric, row.labels) == (metric.name, labels))
        return row.values

    yield read
    reader.close()


class TestLoopLag:
    def test_a_tick_in_time_has_no_lag(self, region, read):
        lag = LoopLag(region)
        for n in range(5):
            lag.tick(100.0 + n * 0.1)
        values = read(catalogue.LOOP_LAG, "0")
        assert values[0] == 4.0
        assert values[len(catalogue.LAG_BUCKETS) + 1] == pytest.approx(0.0, abs=1e-9)

    def test_a_late_one_is_observed(self, region, read):
        lag = LoopLag(region, worker="7")
        lag.tick(100.0)
        lag.tick(100.4)
        values = read(catalogue.LOOP_LAG, "7")
        assert values[catalogue.LAG_BUCKETS.index(0.5)] == 1.0
        assert values[len(catalogue.LAG_BUCKETS) + 1] == pytest.approx(0.3)
        assert read(catalogue.LOOP_LAG_MAX, "7")[0] == pytest.approx(0.3)
        assert lag.heartbeat == 100.4

    def test_the_maximum_slides(self, region, read):
        lag = LoopLag(region)
        lag.tick(100.0)
        lag.tick(102.1)
        for n in range(1, 400):
            lag.tick(102.1 + n * 0.15)
            expected = 2.0 if n * 0.15 <= 30.0 else 0.05
            assert read(catalogue.LOOP_LAG_MAX, "0")[0] == pytest.approx(expected), n

    def test_before_the_first_tick_nothing_is_late(self, region):
        assert LoopLag(region).max_between(1.0, 5.0) == 0.0

    def test_a_window_that_began_before_the_first_tick(self, region):
        lag = LoopLag(region)
        lag.tick(100.0)
        assert lag.max_between(99.0, 100.05) == 0.0
        assert lag.max_between(99.0, 100.3) == pytest.approx(0.2)

    def test_a_window_after_the_last_tick_is_as_late_as_the_tick_that_is_due(self, region):
        lag = LoopLag(region)
        lag.tick(100.0)
        assert lag.max_between(100.05, 100.06) == 0.0
        assert lag.max_between(100.05, 100.4) == pytest.approx(0.3)
        assert lag.max_between(100.3, 100.4) == pytest.approx(0.1)

    def test_a_window_over_ticks_has_the_worst_of_them(self, region):
        lag = LoopLag(region)
        lag.tick(100.0)
        lag.tick(100.6)  # 0.5 late
        lag.tick(100.9)  # 0.2 late
        lag.tick(101.0)
        assert lag.max_between(99.0, 101.0) == pytest.approx(0.5)
        assert lag.max_between(100.65, 101.0) == pytest.approx(0.2)
        assert lag.max_between(100.95, 101.0) == pytest.approx(0.0, abs=1e-9)
        assert lag.max_between(100.5, 101.0) == pytest.approx(0.2), "of the first only 0.1 was felt"

    @given(
        st.lists(st.floats(0.1, 2.0), min_size=1, max_size=40),
        st.floats(0, 80),
        st.floats(0, 1.0),
    )
    def test_it_is_what_a_look_at_every_tick_would_find(self, gaps, begin, rest):
        region = Cells.create(rows=8)
        lag = LoopLag(region)
        now = 10.0
        lag.tick(now)
        lateness = []  # (late from, late until)
        for gap in gaps:
            lateness.append((now + 0.1, now + gap))
            now += gap
            lag.tick(now)
        end = now + rest
        lateness.append((now + 0.1, end))
        t0 = min(10.0 + begin, end)
        felt = [until - max(since, t0) for since, until in lateness if until >= t0]
        assert lag.max_between(t0, end) == pytest.approx(max([0.0, *felt]), abs=1e-6)
        region.close()

    def test_what_it_remembers_is_bounded(self, region):
        lag = LoopLag(region)
        now = 100.0
        lag.tick(now)
        for n in range(3000):  # each a little less late than the one before: the worst case for memory
            now += 1.0 - n / 10_000
            lag.tick(now)
        assert len(lag._lags) == len(lag._ticks) == runtime._REMEMBERED_LAGS

    def test_tasks(self, region, read):
        lag = LoopLag(region)

        async def main():
            others = [asyncio.create_task(asyncio.sleep(60)) for _ in range(3)]
            lag.count_tasks()
            for task in others:
                task.cancel()

        asyncio.run(main())
        assert read(catalogue.LOOP_TASKS, "0")[0] == 4.0


class TestGCWatch:
    def test_collections_and_pauses(self, region, read):
        before = gc.get_stats()[2]["collections"]
        watch = GCWatch(region, worker="2")
        watch.install()
        try:
            cycle: list = []
            cycle.append(cycle)
            del cycle
            gc.collect()
        finally:
            watch.remove()
        assert read(catalogue.GC_COLLECTIONS, "2", "2")[0] == before + 1
        assert sum(read(catalogue.GC_PAUSE, "2")[: len(catalogue.GC_PAUSE_BUCKETS) + 1]) == 1.0
        assert read(catalogue.GC_PAUSE, "2")[len(catalogue.GC_PAUSE_BUCKETS) + 1] > 0.0
        assert read(catalogue.GC_COLLECTED, "2", "2")[0] >= 1.0

    def test_removed_means_removed(self, region, read):
        watch = GCWatch(region)
        watch.install()
        watch.remove()
        watch.remove()
        before = read(catalogue.GC_COLLECTIONS, "2", "0")[0]
        gc.collect()
        assert read(catalogue.GC_COLLECTIONS, "2", "0")[0] == before
        assert watch._notice not in gc.callbacks


def block(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        time.sleep(0.01)


class TestStallWatchdog:
    @pytest.fixture
    def stalls(self):
        return []

    def watch(self, region, stalls, heartbeat, **settings):
        reported = threading.Event()

        def report(seconds, stack, requests):
            stalls.append((seconds, stack, requests))
            reported.set()

        return StallWatchdog(region, heartbeat, report, threshold=0.1, **settings), reported

    def test_it_tells_what_blocks_and_who_waits(self, region, read, stalls):
        beat = time.perf_counter()
        watchdog, _ = self.watch(region, stalls, lambda: beat, open_requests=lambda: ["GET /slow"])
        watchdog.start()
        block(0.5)
        watchdog.stop()
        assert len(stalls) == 1, "one stall is told once"
        seconds, stack, requests = stalls[0]
        assert seconds > 0.1
        assert "in block" in stack
        assert requests == ["GET /slow"]
        assert read(catalogue.LOOP_STALLS, "0")[0] == 1.0

    def test_each_stall_is_told(self, region, read, stalls):
        beats = [time.perf_counter()]
        watchdog, reported = self.watch(region, stalls, lambda: beats[-1])
        watchdog.start()
        assert reported.wait(5)
        reported.clear()
        beats.append(time.perf_counter())
        assert reported.wait(5)
        watchdog.stop()
        assert read(catalogue.LOOP_STALLS, "0")[0] == 2.0

    def test_a_loop_that_ticks_is_left_alone(self, region, stalls):
        watchdog, _ = self.watch(region, stalls, time.perf_counter)
        watchdog.start()
        block(0.3)
        watchdog.stop()
        assert stalls == []

    def test_before_the_first_tick_there_is_nothing_to_watch(self, region, stalls):
        watchdog, _ = self.watch(region, stalls, lambda: 0.0)
        watchdog.start()
        block(0.2)
        watchdog.stop()
        assert stalls == []

    def test_a_report_that_fails_does_not_end_the_watch(self, region, read, monkeypatch):
        faults = []
        monkeypatch.setattr(sys, "excepthook", lambda *fault: faults.append(fault[0]))
        again = threading.Event()
        beats = [time.perf_counter()]

        def report(*_):
            if len(beats) == 2:
                again.set()
            beats.append(time.perf_counter())
            raise LookupError

        watchdog = StallWatchdog(region, lambda: beats[-1], report, threshold=0.1)
        watchdog.start()
        assert again.wait(5)
        watchdog.stop()
        assert faults[0] is LookupError

    @pytest.mark.parametrize("flavour", ["asyncio", "uvloop"])
    def test_on_a_loop(self, region, stalls, flavour):
        factory = asyncio.SelectorEventLoop
        if flavour == "uvloop":
            factory = package("uvloop").new_event_loop
        lag = LoopLag(region, interval=0.02)
        watchdog, reported = self.watch(region, stalls, lambda: lag.heartbeat)

        async def main():
            loop = asyncio.get_running_loop()

            def tick():
                lag.tick(time.perf_counter())
                loop.call_later(0.02, tick)

            tick()
            watchdog.start()
            await asyncio.sleep(0.05)
            assert stalls == []
            block(0.4)
            assert reported.is_set()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        watchdog.stop()
        assert "block(0.4)" in stalls[0][1]


class TestProcessFigures:
    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
    def test_from_proc(self):
        figures = {name: (labels, value) for name, labels, value in ProcessFigures("main")()}
        assert set(figures) == {name for name in catalogue.METRICS if name.startswith("process_")}
        assert {labels for labels, _ in figures.values()} == {("main",)}
        assert figures["process_resident_memory_bytes"][1] > 1_000_000
        assert figures["process_open_fds"][1] >= 3
        assert abs(figures["process_cpu_seconds_total"][1] - time.process_time()) < 0.5
        assert 0 < time.time() - figures["process_start_time_seconds"][1] < 3600

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
    def test_of_another_process(self):
        names = {name for name, _, _ in ProcessFigures("0", pid=os.getppid())()}
        assert "process_cpu_seconds_total" in names

    def test_a_process_that_is_gone_has_none(self):
        assert list(ProcessFigures("0", pid=2**30)()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
    def test_without_proc_the_resource_module_serves(self, monkeypatch):
        monkeypatch.setattr(runtime, "_boot_time", lambda: None)
        figures = {name: value for name, _, value in ProcessFigures("0")()}
        assert set(figures) == {"process_cpu_seconds_total", "process_max_fds"}
        assert figures["process_cpu_seconds_total"] == pytest.approx(time.process_time(), abs=0.5)
        assert list(ProcessFigures("0", pid=1)()) == []


class TestOtherSources:
    def test_names_and_labels_are_those_of_the_catalogue(self):
        sources = [*runtime.python_info(), *runtime.build_info("1", "uvloop", "h11")]
        sources += runtime.readiness(lambda: False)()
        for name, labels, _ in sources:
            assert len(labels) == len(catalogue.METRICS[name].labels)
        assert sources[-1] == ("obsserve_ready", (), 0.0)

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel does not tell")
    def test_the_accept_queue_of_a_listener(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
            closed = socket.create_server(("127.0.0.1", 0))
            closed.close()
            with socket.socket(socket.AF_UNIX) as unix:
                unix.bind(str(tmp_path / "socket"))
                unix.listen()
                found = list(
                    runtime.listener_backlogs([("main", listener), ("closed", closed), ("unix", unix)])
                )
            assert found == [(catalogue.LISTENER_BACKLOG.name, ("main",), 3.0)]
            for client in clients:
                client.close()


def test_the_resource_is_what_all_workers_share(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other")
    found = runtime.target_resource("shop", "1234", "0.1")
    assert found["service.name"] == "shop"
    assert found["service.instance.id"] == "1234"
    assert found["deployment.environment.name"] == "test"
    assert "process.pid" not in found


def test_the_limit_of_open_files_is_the_soft_one():
    resource = pytest.importorskip("resource")
    assert runtime.open_files_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
