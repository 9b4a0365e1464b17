"""Disk full, file rotated, stderr without a reader, collector lost: as fast as ever, and losses are counted."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import threading

import httpx
import pytest
from conftest import total, wait_for
from test_logoutput import Bare

from obsserve.testing_otlp import OTLPSink
from tests.parts import missing

COUNT = "http_server_request_duration_seconds_count"
RECORDS = "obsserve_log_records_total"
ERRORS = "obsserve_log_write_errors_total"
FILLER = 4_000_000  # leaves room for some hundred lines
BASE = ("--port", "0", "--metrics-port", "0")


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "obsserve-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        missing("a small file system cannot be mounted: run as root, with CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def ask(server, count):
    with httpx.Client(base_url=server.url) as client:
        for _ in range(count):
            assert client.get("/").status_code == 200


def access(samples, *results):
    return sum(total(samples, RECORDS, stream="access", result=result) for result in results)


def accounted(server):
    """The metrics, when what became of every line is known."""

    def all_of_them():
        samples = server.metrics()
        known = access(samples, "written", "failed", "dropped") + total(samples, "obsserve_log_queue_records")
        return samples if known == total(samples, COUNT) else None

    return wait_for(all_of_them, "every line to be accounted for")


def whole_lines(path):
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_a_full_disk_loses_lines_counted_and_heals(serve, small_disk, arguments):
    log = small_disk / "access.log"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * FILLER)
    server = serve("apps:plain", *BASE, "--access-log-file", str(log), *arguments)
    ask(server, 600)
    samples = wait_for(
        lambda: access(samples := server.metrics(), "failed") and samples, "the disk to be full"
    )
    assert total(samples, ERRORS, error="enospc") >= 1
    kept = len(whole_lines(log))
    assert 0 < kept < 600
    filler.unlink()
    if arguments:
        server.process.send_signal(signal.SIGUSR1)  # who has made room need not wait

    def healed():
        ask(server, 1)
        return len(whole_lines(log)) > kept

    wait_for(healed, "lines to be written again", 30)
    ask(server, 50)
    samples = accounted(server)
    wait_for(lambda: total(server.metrics(), "obsserve_log_queue_records") == 0, "all to be written")
    samples = accounted(server)
    # Not one line is broken, and the file has what was counted.
    assert len(whole_lines(log)) == access(samples, "written")
    assert server.stop() == 0


class NobodyReads:
    """A server whose stderr is a pipe; its reader leaves when the server is up."""

    def __init__(self, *arguments):
        reader, writer = os.pipe()
        self.server = Bare("", *arguments, stderr=writer)
        self.process, self.url = self.server.process, self.server.url
        os.close(writer)
        try:
            self.server.get(self.server.url)
        finally:
            os.close(reader)

    def metrics(self):
        return self.server.metrics()

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


def test_a_stderr_that_nobody_reads_any_more():
    server = NobodyReads("apps:fastapi")
    try:
        with httpx.Client(base_url=server.url) as client:
            for _ in range(100):
                assert client.get("/log/1").status_code == 200

        def known():
            samples = server.metrics()
            results = ("failed", "dropped", "written")
            lines = {r: total(samples, RECORDS, stream="app", result=r) for r in results}
            return samples if sum(lines.values()) == 200 and lines["failed"] else None

        assert total(wait_for(known, "the lost lines to be counted"), ERRORS, error="epipe") >= 1
    finally:
        assert server.stop() == 0


# --- As fast as without the fault ---------------------------------------------------------------


class Rotations(threading.Thread):
    """Renames a server's log file and tells the server, once a second."""

    def __init__(self, server, log):
        super().__init__()
        self._server, self._log = server, log
        self._over = threading.Event()
        self.done = 0

    def run(self):
        while not self._over.wait(1.0):
            if self._log.exists():
                self._log.rename(self._log.with_suffix(".1"))
            self._server.process.send_signal(signal.SIGUSR1)
            self.done += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join(10)


class Pair:
    """Two servers that differ in a fault alone, measured in turn."""

    def __init__(self, program, healthy, faulty, path="/"):
        self._servers = {"healthy": healthy, "faulty": faulty}
        self._rates = {"healthy": [], "faulty": []}
        self._costs = {"healthy": [], "faulty": []}
        self._wrk, self._path = program("wrk"), path

    def _measure(self, name, seconds=1):
        server = self._servers[name]
        processor, requests = self._work(server)
        said = subprocess.run(
            [self._wrk, "-t1", "-c32", f"-d{seconds}s", server.url + self._path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "Non-2xx" not in said, said
        self._rates[name].append(float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]))
        processor_after, requests_after = self._work(server)
        self._costs[name].append((processor_after - processor) / (requests_after - requests))

    @staticmethod
    def _work(server):
        """Return the processor time that a server has used, and the requests that it has served."""
        samples = server.metrics()
        return total(samples, "process_cpu_seconds_total"), total(samples, COUNT)

    def _size(self):
        samples = self._servers["faulty"].metrics()
        return total(samples, "process_resident_memory_bytes"), total(samples, "process_open_fds")

    def compare(self, rounds=10):
        """Return how fast the faulty server is, as a share of the other; nothing of it may grow.

        By the median over the rounds of the requests in a second of one to those of the other beside it: what
        else the machine does lasts longer than a round, and so touches both. Where that is not enough, a second
        look at the same servers adds as many rounds.
        """
        for name in self._servers:
            self._measure(name, 2)
        memory, descriptors = self._size()
        share = 0.0
        for _ in range(3):
            self._rounds(rounds)
            share = statistics.median(self._shares())
            if share > 0.95:
                break
        end_memory, end_descriptors = self._size()
        assert end_memory - memory < 8 << 20  # what waits to be written is bounded at 4 MiB
        assert end_descriptors <= descriptors + 40  # connections that are being closed
        rates, costs = (
            {name: statistics.median(values) for name, values in measured.items()}
            for measured in (self._rates, self._costs)
        )
        shares = sorted(self._shares())
        print(
            f"{share:.3f} as fast as without the fault ({shares[0]:.2f} to {shares[-1]:.2f}, {len(shares)} rounds); "
            f"medians: requests a second {rates}, seconds a request {costs}"
        )
        return share

    def _rounds(self, count):
        for turn in range(count):
            for name in ("healthy", "faulty") if turn % 2 else ("faulty", "healthy"):
                self._measure(name)

    def _shares(self):
        # The first of each was for warming up.
        pairs = zip(self._rates["healthy"][1:], self._rates["faulty"][1:], strict=True)
        return [faulty / healthy for healthy, faulty in pairs]


@pytest.mark.full
class TestThroughput:
    """To be run with the machine to itself: `pytest -m full -s tests/integration/test_faults_under_load.py`."""

    def test_disk_full(self, serve, program, small_disk, tmp_path):
        (small_disk / "filler").write_bytes(b"x" * FILLER)
        healthy = serve("apps:plain", *BASE, "--access-log-file", str(tmp_path / "log"))
        faulty = serve("apps:plain", *BASE, "--access-log-file", str(small_disk / "log"))
        assert Pair(program, healthy, faulty).compare() > 0.95
        samples = accounted(faulty)
        assert access(samples, "failed", "dropped") > 1000
        assert len(whole_lines(small_disk / "log")) == access(samples, "written")

    def test_rotation(self, serve, program, tmp_path):
        log = tmp_path / "rotated.log"
        healthy = serve("apps:plain", *BASE, "--access-log-file", str(tmp_path / "log"))
        faulty = serve("apps:plain", *BASE, "--access-log-file", str(log))
        with Rotations(faulty, log) as rotations:
            assert Pair(program, healthy, faulty).compare() > 0.95
        assert rotations.done > 20
        assert access(accounted(faulty), "failed", "dropped") == 0

    def test_stderr_without_a_reader(self, serve, program):
        healthy = serve("apps:fastapi", *BASE)
        faulty = NobodyReads("apps:fastapi")
        try:
            assert Pair(program, healthy, faulty, "/log/1").compare() > 0.95
            assert total(faulty.metrics(), RECORDS, stream="app", result="failed") > 0
        finally:
            faulty.stop()

    def test_collector_lost(self, serve, program):
        with OTLPSink("grpc") as sink, OTLPSink("grpc") as lost:
            endpoint = lost.endpoint
            lost.close()
            sampling = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
            healthy = serve("apps:plain", *BASE, "--otlp-endpoint", sink.endpoint, environment=sampling)
            faulty = serve("apps:plain", *BASE, "--otlp-endpoint", endpoint, environment=sampling)
            assert Pair(program, healthy, faulty).compare() > 0.95
            samples = faulty.metrics()
            failed = sum(
                value
                for labels, value in samples["otel_sdk_exporter_span_exported_total"]
                if labels["error_type"]
            )
            assert (
                failed + total(samples, "otel_sdk_processor_span_processed_total", error_type="queue_full")
                > 0
            )
