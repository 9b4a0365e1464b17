"""The end of a server, in order: not ready, still serving, drained, code 0."""

from __future__ import annotations

import signal
import time

import httpx
import pytest
from conftest import wait_for

WORKERS = [(), ("--workers", "2")]


@pytest.mark.parametrize("processes", WORKERS)
def test_it_serves_on_for_a_while_when_it_is_not_ready_any_more(serve, processes):
    server = serve(
        "worker_apps:pid", "--port", "0", "--metrics-port", "0", "--shutdown-delay", "3", *processes
    )
    assert httpx.get(f"{server.admin_url}/readyz").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.events("server.leave"), "the delay to begin")
    answer = httpx.get(f"{server.admin_url}/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["draining"])
    assert httpx.get(server.url).status_code == 200
    assert not server.events("server.drain")
    assert server.process.wait(20) == 0
    assert server.events("server.stop")


@pytest.mark.parametrize("processes", WORKERS)
def test_an_interrupt_skips_the_delay(serve, processes):
    server = serve("worker_apps:pid", "--port", "0", "--shutdown-delay", "15", *processes)
    began = time.monotonic()
    assert server.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 14
    assert not server.events("server.leave")


def test_a_delay_that_leaves_no_time_to_drain_is_refused(serve):
    server = serve("worker_apps:pid", "--shutdown-delay", "20", wait=False)
    assert server.process.wait(20) == 2
    assert "leave no time to drain" in server.stderr_path.read_text()


def test_a_worker_whose_loop_is_blocked_does_not_hold_the_end_up(serve):
    server = serve(
        "apps:fastapi", "--port", "0", "--workers", "1", "--supervise", "--timeout-graceful-shutdown", "1"
    )
    with pytest.raises(httpx.TimeoutException):
        httpx.get(f"{server.url}/block/40", timeout=1)
    assert server.stop(timeout=20) == 0
    assert server.events("worker.kill")
