"""What the pages are tried and drawn on: servers under good and bad clients, with a real Prometheus beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from obsserve.testing_otlp import OTLPSink
from tests.dashboards.stack import ROOT, Prometheus
from tests.dashboards.traffic import Traffic
from tests.integration.conftest import ServerProcess
from tests.ports import free_port
from tests.waiting import wait_for


@contextmanager
def scene(folder, seconds=0):
    """Prometheus after a run: failures, 503s, WebSockets, a reload, a killed worker, and a server in trouble.

    The second server has no room for its log, no collector for what it exports and few series for its routes.

    Args:
        folder: for files of the servers and of Prometheus.
        seconds: of more traffic before a worker is killed, for a picture of some length.
    """
    began = time.time()
    with ExitStack() as stack:
        sink = stack.enter_context(OTLPSink())
        good = start(
            stack,
            folder / "good",
            *("--workers", "2", "--limit-concurrency", "8", "--limit-connections", "100"),
            *("--timeout-request-header", "1", "--timeout-keep-alive", "2", "--ws-ping-interval", "0.5"),
            *("--otlp-endpoint", sink.endpoint, "--trace-trust", "none", "--otlp-logs", "--otlp-metrics"),
        )
        full = stack.enter_context(open("/dev/full", "wb"))
        bad = start(
            stack,
            folder / "bad",
            *("--metrics-max-series", "10", "--otlp-endpoint", f"http://127.0.0.1:{free_port()}"),
            *("--otlp-logs", "--otlp-metrics"),
            stdout=full,
            environment={
                "OTEL_BSP_MAX_QUEUE_SIZE": "16",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
                "OTEL_BLRP_MAX_QUEUE_SIZE": "16",
            },
        )
        found = stack.enter_context(Prometheus(folder / "prometheus", *map(target, (good, bad))))
        wait_for(lambda: len(found.query("obsserve_ready == 1")) == 2, "the first scrapes", 90)
        with (
            Traffic(good.url.removeprefix("http://")) as crowd,
            Traffic(bad.url.removeprefix("http://"), "browse", "fail") as few,
            locust(good, folder / "locust.log"),
        ):
            run(good, found, seconds)
        assert b"locust" in good.stdout_path.read_bytes().lower(), (folder / "locust.log").read_text()
        assert not crowd.wrong + few.wrong, crowd.wrong + few.wrong
        found.servers, found.sink = (good, bad), sink
        found.stand_still(began)
        yield found


@contextmanager
def locust(server, log):
    """Locust's api_mix, twenty seconds of thirty users; its verdict is not asked for: the server refuses many of them."""
    scenario = ("-f", "loadtests/scenarios/api_mix.py", "--headless")
    there = ("--host", server.url, "--server-metrics", server.metrics_url)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "locust", *scenario, *there], cwd=ROOT, stdout=file, stderr=file
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def start(stack, folder, *options, **more):
    folder.mkdir()
    environment = {
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        **more.pop("environment", {}),
    }
    fixed = ("obsserve.demo:app", "--port", "0", "--metrics-port", "0", *options)
    server = ServerProcess(folder, *fixed, environment=environment, **more)
    stack.callback(server.kill)
    return server.started()


def target(server):
    return server.metrics_url.removeprefix("http://").removesuffix("/metrics")


def run(server, prometheus, seconds):
    """Let everything happen that a page shows, and wait until Prometheus has seen it."""
    # Two scrapes that see requests, of each server; then as long as is wanted.
    seen = "increase(http_server_request_duration_seconds_count[10m])"
    wait_for(lambda: len(prometheus.query(f"sum by (instance) ({seen}) > 0")) == 2, "scrapes of requests", 90)
    time.sleep(seconds)
    pids = {labels["worker"]: int(pid) for labels, pid in server.metrics()["obsserve_worker_pid"]}
    os.kill(pids["0"], signal.SIGKILL)
    for action, metric in (
        (None, 'obsserve_worker_restarts_total{reason="signal"}'),
        (signal.SIGHUP, 'obsserve_config_reloads_total{result="success"}'),
        (None, 'obsserve_http_rejected_requests_total{reason="concurrency_limit"}'),
        (None, "obsserve_event_loop_stalls_total"),
        (None, "obsserve_websocket_closes_total"),
        (None, "obsserve_websocket_ping_rtt_seconds_count"),
        (None, "obsserve_log_write_errors_total"),
        (None, "obsserve_metrics_overflow_total"),
        (None, 'otel_sdk_exporter_span_exported_total{error_type!=""}'),
        (None, 'otel_sdk_processor_log_processed_total{error_type!=""}'),
        (None, 'otel_sdk_exporter_metric_data_point_exported_total{error_type=""}'),
    ):
        if action is not None:
            server.process.send_signal(action)
        wait_for(lambda metric=metric: prometheus.query(f"{metric} > 0"), f"{metric} above 0", 90)
    prometheus.wait_for_scrapes(2)  # so that each of them has a rate
