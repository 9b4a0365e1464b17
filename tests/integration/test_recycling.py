"""Workers that are replaced because of their requests, memory or age; those that hang, and those that are slow."""

from __future__ import annotations

import os
import signal
import threading

import httpx
import pytest
from conftest import total, wait_for
from test_workers import COUNT, Load, pids, ready, restarts
from websockets.sync.client import connect


def supervised(serve, *arguments, **options):
    return serve("vital_apps:app", "--port", "0", "--metrics-port", "0", "--supervise", *arguments, **options)


def in_background(url):
    """Ask for something that may never be answered."""

    def ask():
        with pytest.raises(httpx.HTTPError):
            httpx.get(url, timeout=40)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_worker_that_has_grown_is_replaced_and_no_request_is_lost(serve):
    server = serve("vital_apps:app", "--port", "0", "--metrics-port", "0", "--limit-max-rss", "250M")
    before = pids(server)
    with Load(server, clients=2) as load:
        httpx.get(f"{server.url}/grow/300")
        wait_for(lambda: restarts(server, "max_rss") == 1 and ready(server, 1), "the replacement")
    assert load.failed == 0
    assert not before & pids(server)
    (told,) = server.events("worker.recycle")
    assert told["reason"] == "max_rss"
    assert told["resident_bytes"] >= told["limit_bytes"] == 250 * 1024 * 1024
    wait_for(lambda: total(server.metrics(), COUNT) == load.answered + 1, "every answer to be counted")
    assert server.stop() == 0


def test_a_limit_that_no_worker_can_keep_is_told_and_replaces_nothing(serve):
    server = serve("vital_apps:app", "--port", "0", "--metrics-port", "0", "--limit-max-rss", "1M")
    before = pids(server)
    wait_for(lambda: server.events("worker.large"), "the warning")
    assert httpx.get(server.url).status_code == 200
    assert pids(server) == before
    assert restarts(server, "max_rss") == 0
    assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_worker_that_is_old_is_replaced_and_no_request_is_lost(serve, workers):
    server = serve(
        "vital_apps:app", "--port", "0", "--metrics-port", "0", "--workers", str(workers),
        "--limit-max-lifetime", "2", "--limit-max-lifetime-jitter", "1",
    )  # fmt: skip
    with Load(server, clients=4) as load:
        wait_for(lambda: restarts(server, "max_lifetime") >= 2 * workers, "every worker twice", 60)
    assert load.failed == 0
    assert server.events("worker.recycle")[0]["age_seconds"] >= 2
    wait_for(lambda: total(server.metrics(), COUNT) == load.answered, "every answer to be counted")
    assert server.stop() == 0


def test_websockets_count_towards_the_limit_of_requests(serve):
    server = serve("vital_apps:app", "--port", "0", "--metrics-port", "0", "--limit-max-requests", "5")
    before = pids(server)
    url = server.url.replace("http", "ws")
    with connect(url) as lasting:
        for _ in range(4):
            with connect(url) as websocket:
                websocket.send("x")
                assert websocket.recv() == "x"
        wait_for(lambda: restarts(server, "max_requests") == 1, "the replacement")
        with pytest.raises(Exception) as closed:  # its worker drains
            while True:
                lasting.send("y")
                lasting.recv(timeout=20)
        assert closed.value.rcvd.code == 1012
    assert not before & pids(server)
    assert server.stop() == 0


def test_a_blocked_loop_is_killed_if_asked_for_and_its_stack_is_told(serve):
    server = supervised(serve, "--timeout-worker-unresponsive", "1.5")
    before = pids(server)
    asking = in_background(f"{server.url}/block/100")
    wait_for(lambda: restarts(server, "unresponsive") == 1 and ready(server, 1), "a successor")
    asking.join(20)
    assert not before & pids(server)
    (killed,) = server.events("worker.kill")
    assert "event loop has been blocked" in killed["message"]
    assert "vital_apps.py" in killed["stack"]
    assert killed["active_requests"] == 0  # as of its last tick, before the request came
    (death,) = server.events("worker.exit")
    assert (death["reason"], death["signal"]) == ("unresponsive", "SIGKILL")
    assert httpx.get(server.url).status_code == 200
    assert server.stop() == 0


def test_a_blocked_loop_is_left_alone_by_default(serve):
    server = supervised(serve, "--timeout-worker-healthcheck", "0.5")
    before = pids(server)
    assert httpx.get(f"{server.url}/block/3", timeout=20).status_code == 200
    assert pids(server) == before
    assert server.stop() == 0


def test_a_process_that_does_not_answer_is_killed_and_its_stack_is_told(serve):
    server = supervised(serve, "--timeout-worker-healthcheck", "1")
    asking = in_background(f"{server.url}/hold")
    wait_for(lambda: restarts(server, "unresponsive") == 1 and ready(server, 1), "a successor")
    asking.join(20)
    (killed,) = server.events("worker.kill")
    assert "process has not answered" in killed["message"]
    assert "hold_the_lock" in killed["stack"]
    assert server.stop() == 0


def test_a_server_that_stood_still_kills_nobody(serve):
    server = supervised(serve, "--timeout-worker-healthcheck", "1", "--timeout-worker-unresponsive", "1")
    before = pids(server)
    everybody = [server.process.pid, *before]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    threading.Event().wait(4)  # longer than either time-out: this is the condition itself
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    assert httpx.get(server.url).status_code == 200
    threading.Event().wait(1)
    assert pids(server) == before
    assert server.stop() == 0


def test_a_slow_import_is_told_and_not_cut_short(serve):
    server = supervised(
        serve, "--timeout-worker-healthcheck", "1", "--timeout-worker-unresponsive", "1",
        environment={"IMPORT_SECONDS": "5"},
    )  # fmt: skip
    assert len(server.events("worker.slow")) == 1
    assert not server.events("worker.kill")
    assert httpx.get(server.url).status_code == 200
    assert server.stop() == 0


@pytest.mark.full
def test_an_import_of_twenty_seconds_is_not_cut_short(serve):
    server = supervised(serve, wait=False, environment={"IMPORT_SECONDS": "20"})
    wait_for(lambda: server.events("server.start"), "the start", 60)
    assert not server.events("worker.kill")
    assert server.started() and httpx.get(server.url).status_code == 200
    assert server.stop() == 0


def test_readiness_asks_for_as_many_workers_as_it_is_told(serve):
    server = serve(
        "vital_apps:app", "--port", "0", "--metrics-port", "0", "--workers", "2", "--ready-min-workers", "2"
    )
    assert httpx.get(f"{server.admin_url}/readyz").status_code == 200
    server.process.send_signal(signal.SIGTTOU)
    wait_for(lambda: ready(server, 1), "one worker less")
    answer = httpx.get(f"{server.admin_url}/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["no_ready_workers"])
    assert server.stop() == 0


def test_more_ready_workers_than_there_are_is_refused(serve):
    server = serve("vital_apps:app", "--workers", "2", "--ready-min-workers", "3", wait=False)
    assert server.process.wait(20) == 2
    assert "ready_min_workers: there are only 2 workers" in server.stderr_path.read_text()
