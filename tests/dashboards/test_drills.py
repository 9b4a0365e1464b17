"""Fault drills: break something real; the alert that should fire does, and the commands of its runbook show the cause."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager

import httpx
import pytest

from obsserve.testing_otlp import OTLPSink
from tests.dashboards.stack import RULES, Prometheus, hurried, look
from tests.dashboards.traffic import Traffic
from tests.integration.conftest import ServerProcess, wait_for
from tests.parts import missing

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


@pytest.fixture
def drill(tmp_path):
    """Start a server with these options, and Prometheus with hurried rules; nothing fires yet."""

    @contextmanager
    def started(*options, application="obsserve.demo:app", **more):
        (tmp_path / "server").mkdir()
        fixed = (application, "--port", "0", "--metrics-port", "0", *options)
        server = ServerProcess(tmp_path / "server", *fixed, **more)
        try:
            server.started()
            target = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
            rules = {path.name: hurried(path.read_text()) for path in RULES.glob("*.yml")}
            with Prometheus(tmp_path / "prometheus", target, rules=rules) as prometheus:
                wait_for(lambda: prometheus.query("obsserve_ready == 1"), "the first scrape", 90)
                assert not prometheus.firing()
                yield server, prometheus
        finally:
            server.kill()

    return started


def test_a_worker_is_killed_again_and_again(drill):
    with drill("--workers", "2") as (server, prometheus):
        for killed in range(1, 5):

            def pids():
                found = server.metrics().get("obsserve_worker_pid", [])
                return [int(pid) for _, pid in found] if len(found) == 2 else None

            os.kill(wait_for(pids, "two workers")[0], signal.SIGKILL)
            restarts = f'obsserve_worker_restarts_total{{reason="signal"}} == {killed}'
            wait_for(lambda restarts=restarts: prometheus.query(restarts), "the successor", 60)
        prometheus.wait_for_alert("ObsserveWorkerCrashLooping")
        shown = look("ObsserveWorkerCrashLooping", prometheus, server)
        assert '"worker.exit"' in shown and 'reason="signal"' in shown


def test_the_disk_is_full(drill, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk]).returncode
    ):
        missing("a small disk cannot be mounted: run as root, with CAP_SYS_ADMIN")
    try:
        with (
            drill("--access-log-file", str(disk / "access.log")) as (server, prometheus),
            Traffic(server.url.removeprefix("http://"), "browse"),
        ):
            prometheus.wait_for_alert("ObsserveLogWriteErrors")
            shown = look("ObsserveLogWriteErrors", prometheus, server)
            assert 'error="enospc"' in shown
            assert any(str(disk) in line and "100%" in line for line in shown.splitlines())
            # Requests do not notice.
            assert httpx.get(server.url + "/fast").status_code == 200
    finally:
        subprocess.run(["umount", disk], check=True)
        shutil.rmtree(disk)


def test_the_collector_stops(drill):
    sink = OTLPSink()
    stopped = False
    try:
        with (
            drill("--otlp-endpoint", sink.endpoint, environment={"OTEL_BSP_SCHEDULE_DELAY": "200"}) as (
                server,
                prometheus,
            ),
            Traffic(server.url.removeprefix("http://"), "browse"),
        ):
            sink.wait_for(10)
            sink.close()
            stopped = True
            prometheus.wait_for_alert("ObsserveExporterFailing", 150)
            shown = look("ObsserveExporterFailing", prometheus, server)
            assert '"telemetry.export_failed"' in shown and 'error_type="UNAVAILABLE"' in shown
    finally:
        if not stopped:
            sink.close()


def test_the_event_loop_is_blocked(drill):
    with drill() as (server, prometheus):
        httpx.get(server.url + "/blocking?seconds=3", timeout=30)
        prometheus.wait_for_alert("ObsserveEventLoopStalled")
        shown = look("ObsserveEventLoopStalled", prometheus, server)
        # The stack names the line that blocked.
        assert '"loop.stall"' in shown and "time.sleep" in shown


def test_there_is_more_than_the_limit_allows(drill):
    with (
        drill("--limit-concurrency", "4") as (server, prometheus),
        Traffic(server.url.removeprefix("http://"), "crowd", "browse"),
    ):
        prometheus.wait_for_alert("ObsserveRejectingRequests")
        shown = look("ObsserveRejectingRequests", prometheus, server)
        assert 'reason="concurrency_limit"' in shown
        assert "null concurrency_limit" in shown  # the access lines: no route was reached


def test_telemetry_is_expensive(drill):
    names = [f"x-captured-{number}" for number in range(20)]
    captured = [word for name in names for word in ("--log-request-header", name)]
    head = "".join(f"{name}: {'v' * 200}\r\n" for name in names)
    request = f"GET /fast HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode()
    with drill(*captured) as (server, prometheus):
        stop = threading.Event()

        def load():
            with socket.create_connection(server.url.removeprefix("http://").split(":")) as sock:
                while not stop.is_set():
                    sock.sendall(request * 16)
                    sock.recv(65536)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            prometheus.wait_for_alert("ObsserveTelemetryExpensive", 120)
            shown = look("ObsserveTelemetryExpensive", prometheus, server)
        finally:
            stop.set()
            thread.join(30)
        share = {
            signal_name: float(value)
            for signal_name, value in re.findall(r'{signal="(\w+)"} => ([\d.e-]+)', shown)
        }
        assert max(share, key=share.get) == "access_log", shown
        assert '{instance="' in shown


COLLECTOR = """
import time
from prometheus_client import REGISTRY, Gauge
from obsserve.demo import app

began = time.monotonic()
Gauge("shop_stock", "Things on the shelf.", multiprocess_mode="livesum").set(5)


class Slow:
    def describe(self):
        return []

    def collect(self):
        if time.monotonic() - began > 10:
            time.sleep(600)
        return []


REGISTRY.register(Slow())
"""


@pytest.mark.parametrize("cause", ["a collector that does not return", "a process that is stopped"])
def test_a_snapshot_is_stale(drill, tmp_path, cause):
    (tmp_path / "shop.py").write_text(COLLECTOR if "collector" in cause else COLLECTOR.replace("600", "0"))
    options = ("--workers", "2", "--app-dir", str(tmp_path), "--timeout-worker-healthcheck", "off")
    with drill(*options, application="shop:app") as (server, prometheus):
        workers = {labels["worker"]: int(pid) for labels, pid in server.metrics()["obsserve_worker_pid"]}
        stopped = None
        if "stopped" in cause:
            stopped = workers["1"]
            os.kill(stopped, signal.SIGSTOP)
        try:
            prometheus.wait_for_alert("ObsserveSnapshotStale", 120)
            shown = look("ObsserveSnapshotStale", prometheus, server)
        finally:
            if stopped is not None:
                os.kill(stopped, signal.SIGCONT)
        states = {int(pid): state for pid, state in re.findall(r"^ *(\d+) +([A-Z])\S* ", shown, re.MULTILINE)}
        beats = re.findall(r'^{[^}]*worker="(\d)"} => ([\d.e+-]+) @', shown, re.MULTILINE)
        beats = {worker: float(age) for worker, age in beats}
        if stopped is None:
            assert beats and max(beats.values()) < 10 and "T" not in states.values(), shown
        else:
            assert states[stopped] == "T" and states[workers["0"]] != "T", shown
            assert beats["1"] > 20 and beats["0"] < 10, shown
