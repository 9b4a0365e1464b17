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


def test_a_blocked_loop_does_not_hold_the_end_of_a_single_process_up(serve):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0", "--timeout-graceful-shutdown", "1")
    with pytest.raises(httpx.TimeoutException):
        httpx.get(f"{server.url}/block/60", timeout=1)
    began = time.monotonic()
    assert server.stop(timeout=30) == 0
    assert 1 < time.monotonic() - began < 20
    (event,) = server.events("server.kill")
    assert event["level"] == "error"
    assert "time.sleep(seconds)" in event["stack"]
    (line,) = server.access_lines(1)
    assert (line["url_path"], line["outcome"], line["flags"]) == ("/block/60", "shutdown", ["KS", "LG"])
    assert server.process.returncode == 0


def test_a_start_that_does_not_end_does_not_hold_the_end_up(serve, tmp_path):
    flag = tmp_path / "slowly"
    flag.touch()
    server = serve(
        *("worker_apps:slowly_if_told", "--port", "0", "--timeout-graceful-shutdown", "1"),
        wait=False,
        environment={"START_SLOWLY": str(flag)},
    )
    wait_for(lambda: f"starting in {server.process.pid}" in server.stderr_path.read_text(), "the start-up")
    assert server.stop(timeout=20) == 0
    (event,) = server.events("server.kill")
    assert "start-up does not end" in event["message"]


def test_two_interrupts_do_not_wait_for_a_blocked_loop(serve):
    server = serve("apps:fastapi", "--port", "0", "--timeout-graceful-shutdown", "off")
    with pytest.raises(httpx.TimeoutException):
        httpx.get(f"{server.url}/block/60", timeout=1)

    def gone():
        server.process.send_signal(signal.SIGINT)  # two that wait to be taken are one: so again and again
        return server.process.poll() is not None

    wait_for(gone, "the end")
    assert server.stop() == 0
    assert server.events("server.kill")


def test_a_thread_that_goes_on_does_not_hold_the_end_up(serve):
    server = serve("apps:fastapi", "--port", "0", "--timeout-graceful-shutdown", "1")
    with pytest.raises(httpx.TimeoutException):
        httpx.get(f"{server.url}/thread/60", timeout=1)
    assert server.stop(timeout=20) == 0
    assert server.events("server.stop")
    (event,) = server.events("server.kill")
    assert event["threads"]
    assert "Threads of the application" in event["message"]
    (line,) = server.access_lines(1)
    assert line["url_path"] == "/thread/60"


def test_what_is_done_at_exit_does_not_hold_the_end_up(serve):
    server = serve("drain_apps:lingers", "--port", "0", "--timeout-graceful-shutdown", "1")
    assert server.stop(timeout=20) == 0
    assert server.events("server.stop")
    (event,) = server.events("server.kill")
    assert "at the exit of the process" in event["message"]
    assert "linger" in event["stack"]
