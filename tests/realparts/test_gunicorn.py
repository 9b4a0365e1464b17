"""gunicorn itself, with the shipped configuration: two workers, reload, recycling, one metrics port."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from obsserve.testing_otlp import Answer, OTLPSink
from tests.anyvalues import attributes
from tests.waiting import wait_for

wait_for = partial(wait_for, deadline=30.0)

CONF = Path(__file__).parents[2] / "deploy/gunicorn/gunicorn.conf.py"
APP = """
import asyncio, os

from prometheus_client import Counter, Gauge

ORDERS = Counter("orders", "Orders taken.")
LEVEL = Gauge("level", "A level.", multiprocess_mode="livesum")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    ORDERS.inc()
    LEVEL.set(1)
    if scope["path"] == "/slow":
        await asyncio.sleep(30)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def failing(scope, receive, send):
    raise ValueError("cannot start") if scope["type"] == "lifespan" and await receive() else RuntimeError
"""


class Gunicorn:
    def __init__(self, folder, *arguments, app="served:app", environment=None):
        (folder / "served.py").write_text(APP)
        (folder / "broken.py").write_text("raise ValueError('broken on purpose')\n")
        self.out, self.err = folder / "out", folder / "err"
        environment = {
            **os.environ,
            "BIND": "127.0.0.1:0",
            "OBSSERVE_METRICS_PORT": "0",
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            **(environment or {}),
        }
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *arguments, app],
                cwd=folder, env=environment, stdout=out, stderr=err,
            )  # fmt: skip

    def found(self, pattern):
        def look():
            assert self.process.poll() is None, self.err.read_text()
            return re.search(pattern, self.err.read_text())

        return wait_for(look, pattern).group(1)

    def started(self):
        self.url = self.found(r"Listening at: (http://\S+)")
        self.metrics_url = self.found(r"Metrics on (http://\S+)")
        wait_for(lambda: self.value("obsserve_ready") == 1.0, "readiness")
        return self

    def value(self, name):
        text = httpx.get(self.metrics_url, timeout=10).text
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values))

    def get(self, count):
        for _ in range(count):
            assert httpx.get(self.url).text == "ok"

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(40)


@pytest.fixture
def gunicorn(tmp_path):
    started = []

    def start(*arguments, **options):
        started.append(Gunicorn(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)


COUNT = "http_server_request_duration_seconds_count"


def test_two_workers_with_the_shipped_configuration(gunicorn):
    server = gunicorn("-c", str(CONF)).started()
    server.get(20)
    wait_for(lambda: server.value(COUNT) == 20, "20 counted")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.value("obsserve_worker_restarts_total") == 2, "two workers replaced")
    server.get(10)
    wait_for(lambda: server.value(COUNT) == 30, "nothing lost with the old workers")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.out.read_text().splitlines()]
    assert len([line for line in lines if line["event"] == "http.request"]) == 30
    assert {line["worker"] for line in lines} <= {0, 1}
    assert "Traceback" not in server.err.read_text()


def test_a_killed_workers_counts_stay(gunicorn):
    server = gunicorn("-c", str(CONF), "-w", "1").started()
    server.get(5)
    wait_for(lambda: server.value(COUNT) == 5, "5 counted")
    os.kill(int(server.found(r"Booting worker with pid: (\d+)")), signal.SIGKILL)
    wait_for(lambda: server.value("obsserve_worker_restarts_total") == 1, "the death noticed")
    server.get(3)
    wait_for(lambda: server.value(COUNT) == 8, "8 counted")
    assert server.stop() == 0


def test_max_requests(gunicorn):
    server = gunicorn("-c", str(CONF), "-w", "1", "--max-requests", "5").started()
    server.get(5)
    wait_for(lambda: server.value("obsserve_worker_restarts_total") == 1, "the worker recycled")
    server.get(1)
    wait_for(lambda: server.value(COUNT) == 6, "counted over both")
    assert server.stop() == 0


@pytest.mark.parametrize("app", ["broken:app", "served:failing"])
def test_an_application_that_cannot_start(gunicorn, app):
    server = gunicorn("-c", str(CONF), app=app)
    assert server.process.wait(30) == 3
    said = server.err.read_text()
    assert said.count("Traceback (most recent call last)") == 1, said
    assert len(re.findall("Booting worker", said)) <= 4  # no endless respawn


def test_without_the_hooks_it_says_how_to_get_metrics(gunicorn, tmp_path):
    log = tmp_path / "access.log"
    server = gunicorn(
        "-k", "obsserve.workers.ObsserveH11Worker", "-b", "127.0.0.1:0", "--access-logfile", str(log)
    )
    server.url = server.found(r"Listening at: (http://\S+)")
    assert server.found("(from obsserve.gunicorn import)")
    server.get(1)
    assert server.stop() == 0
    assert json.loads(log.read_text())["http_response_status_code"] == 200


@pytest.mark.parametrize("worker", ["ObsserveWorker", "ObsserveH11Worker"])
def test_a_recycled_worker_leaves_the_unix_socket(gunicorn, tmp_path, worker):
    path = tmp_path / "app.sock"
    arguments = ("-k", f"obsserve.workers.{worker}", "-b", f"unix:{path}", "--max-requests", "1", "-w", "1")
    server = gunicorn(*arguments)
    server.found("(Listening at)")
    for booted in (1, 2, 3):
        wait_for(lambda n=booted: server.err.read_text().count("Booting worker") >= n, "recycling")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://app/", timeout=20).text == "ok"
    assert path.exists()
    assert server.stop() == 0


def test_tls_is_refused_or_spoken_never_left_out(gunicorn, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    server = gunicorn("-c", str(CONF), "--certfile", str(certificate), "--keyfile", str(key))
    from obsserve.settings import OPTIONS

    if "ssl_certfile" in OPTIONS:
        port = server.found(r"Listening at: https?://127.0.0.1:(\d+)")
        server.found(r"Metrics on (http://\S+)")
        assert httpx.get(f"https://127.0.0.1:{port}", verify=False, timeout=20).text == "ok"
    else:
        assert server.process.wait(20) == 2
        assert "does not speak TLS" in server.err.read_text()


def test_reloads_under_load_lose_nothing(gunicorn):
    from concurrent.futures import ThreadPoolExecutor

    server = gunicorn("-c", str(CONF)).started()
    over = False

    def client():
        answered = 0
        while not over:
            assert httpx.get(server.url, timeout=20).text == "ok"  # a connection for each request
            answered += 1
        return answered

    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(client) for _ in range(4)]
        try:
            for replaced in (2, 4):
                server.process.send_signal(signal.SIGHUP)
                wait_for(
                    lambda n=replaced: server.value("obsserve_worker_restarts_total") == n, "replacement"
                )
        finally:
            over = True
        answered = sum(future.result() for future in running)
    wait_for(lambda: server.value(COUNT) == answered, "every answer counted")
    assert server.stop() == 0


class TestLikeOurOwnMainProcess:
    """What the arbiter's metrics port shows is what `obsserve --workers` shows."""

    def test_the_applications_own_metrics_are_merged_and_stay(self, gunicorn):
        server = gunicorn("-c", str(CONF)).started()
        server.get(20)
        wait_for(lambda: server.value("orders_total") == 20, "the orders of both workers")
        text = httpx.get(server.metrics_url, timeout=10).text
        pids = {
            int(float(pid)) for pid in re.findall(r"^obsserve_worker_pid{[^}]*} (\S+)$", text, re.MULTILINE)
        }
        assert len(pids) == 2
        os.kill(min(pids), signal.SIGTERM)  # it drains, and sends what it has counted
        wait_for(lambda: server.value("obsserve_worker_restarts_total") == 1, "one replaced")
        assert server.value("orders_total") == 20
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.value("obsserve_worker_restarts_total") == 3, "both replaced")
        server.get(5)
        wait_for(lambda: server.value("orders_total") == 25, "nothing lost with the old workers")
        assert server.stop() == 0

    def test_it_shows_the_same_names(self, gunicorn):
        server = gunicorn("-c", str(CONF)).started()
        server.get(4)
        wait_for(lambda: server.value(COUNT) == 4, "4 counted")
        text = httpx.get(server.metrics_url, timeout=10).text
        for name in (
            "target_info", "obsserve_worker_pid", "obsserve_worker_start_time_seconds",
            "obsserve_worker_last_heartbeat_timestamp_seconds", "obsserve_worker_requests_total",
            "obsserve_worker_active_requests", "obsserve_worker_connections_open",
            "obsserve_listener_backlog_connections", "obsserve_metrics_snapshot_age_seconds",
            "obsserve_config_reloads_total", "process_open_fds",
        ):  # fmt: skip
            assert re.search(rf"^{name}[{{ ]", text, re.MULTILINE), name
        assert server.value("obsserve_worker_requests_total") == 4
        assert server.value("obsserve_workers_desired") == 2
        assert 'service_name="served:app"' in text
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: server.value("obsserve_workers_desired") == 3, "a third one wanted")
        assert server.stop() == 0

    def test_the_admin_pages(self, gunicorn):
        server = gunicorn("-c", str(CONF)).started()
        admin = server.metrics_url.removesuffix("/metrics")
        wait_for(
            lambda: httpx.get(f"{admin}/-/status", timeout=10).json()["workers"]["ready"] == 2, "two workers"
        )
        status = httpx.get(f"{admin}/-/status", timeout=10).json()
        assert status["service_name"] == "served:app"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            rows = wait_for(
                lambda: httpx.get(f"{admin}/-/requests", timeout=10).json()["requests"], "the open request"
            )
        assert [row["url_path"] for row in rows] == ["/slow"]
        assert httpx.get(f"{admin}/-/stacks", timeout=10).status_code == 403
        assert server.stop() == 0

    def test_a_worker_that_is_stopped_does_not_hold_up_the_page(self, gunicorn):
        server = gunicorn("-c", str(CONF), "--timeout", "0").started()
        server.get(4)
        pid = int(server.value("obsserve_worker_pid{worker=.0.}"))
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(5):
                assert httpx.get(server.metrics_url, timeout=10).status_code == 200
            assert httpx.get(server.metrics_url.replace("metrics", "livez"), timeout=10).status_code == 200
        finally:
            os.kill(pid, signal.SIGCONT)
        assert server.stop() == 0


def pushed(sink, name):
    """The sum of a metric's points in its newest push."""
    newest = max((metric for metric in sink.metrics if metric.name == name), key=moment, default=None)
    if newest is None:
        return None
    kind = newest.WhichOneof("data")
    points = getattr(newest, kind).data_points
    return sum(point.count if kind == "histogram" else point.as_int + point.as_double for point in points)


def moment(metric):
    return getattr(metric, metric.WhichOneof("data")).data_points[0].time_unix_nano


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_arbiter_pushes_while_its_workers_export_spans(gunicorn, protocol):
    """Also when it forks workers after it has begun to push, which then use gRPC themselves."""
    with OTLPSink(protocol) as sink:
        server = gunicorn("-c", str(CONF), environment={
            "OBSSERVE_OTLP_METRICS": "1", "OBSSERVE_OTLP_ENDPOINT": sink.endpoint, "OBSSERVE_OTLP_PROTOCOL": protocol,
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }).started()  # fmt: skip
        server.found(r"Metrics are pushed to (http://\S+)")
        server.get(20)
        wait_for(lambda: pushed(sink, "http.server.request.duration") == 20, "20 pushed")
        assert pushed(sink, "orders") == 20
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.value("obsserve_worker_restarts_total") == 2, "two workers replaced")
        server.get(10)
        wait_for(lambda: pushed(sink, "http.server.request.duration") == 30, "30 pushed")
        wait_for(lambda: len([span for span in sink.spans if span.kind == 2]) == 30, "a span for each")
        assert server.stop() == 0
        assert pushed(sink, "http.server.request.duration") == 30
        resources = [attributes(part.resource) for r in sink.metric_requests for part in r.resource_metrics]
        spans = [attributes(part.resource) for r in sink.requests for part in r.resource_spans]
    assert len({resource["service.instance.id"] for resource in (*resources, *spans)}) == 1
    assert {resource["process.pid"] for resource in resources} == {server.process.pid}
    assert "Traceback" not in server.err.read_text()


def test_a_push_at_the_end_without_a_metrics_port(gunicorn):
    with OTLPSink() as sink:
        server = gunicorn("-c", str(CONF), environment={
            "OBSSERVE_METRICS_PORT": "off", "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint,
        })  # fmt: skip
        server.url = server.found(r"Listening at: (http://\S+)")
        server.found(r"Metrics are pushed to (http://\S+)")
        wait_for(lambda: "Booting worker" in server.err.read_text(), "a worker")
        server.get(7)
        assert server.stop(signal.SIGINT) == 0
        assert pushed(sink, "http.server.request.duration") == 7
        assert sink.spans == []
        assert "Metrics on" not in server.err.read_text()


def test_a_collector_that_hangs_does_not_hold_the_arbiter(gunicorn):
    with OTLPSink() as sink:
        sink.answer = Answer(hang=True)
        server = gunicorn("-c", str(CONF), environment={
            "OBSSERVE_OTLP_METRICS": "1", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }).started()  # fmt: skip
        server.get(3)
        sink.wait_for_attempts(1, 30)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15
        assert "telemetry.export_failed" in server.err.read_text()
        assert "Traceback" not in server.err.read_text()


def test_what_cannot_be_pushed_to_is_one_line(gunicorn):
    server = gunicorn(
        "-c", str(CONF), environment={"OBSSERVE_OTLP_METRICS": "1", "OBSSERVE_OTLP_ENDPOINT": "c:4317"}
    )
    assert server.process.wait(30) == 3
    said = server.err.read_text()
    assert said.count("it is no URL") == 1
    assert "Traceback" not in said
