"""Several workers: requests survive replacements, counters go only up, exit codes tell the truth."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time

import httpx
import pytest
from conftest import total, wait_for

from tests.crowd import Crowd

COUNT = "http_server_request_duration_seconds_count"


class Load(Crowd):
    """Clients that keep their connections, and start a new one when the server closes the old."""

    def __init__(self, server, clients=8):
        super().__init__(*[self._run] * clients)
        self.answered = self.failed = 0
        self._address = server.url.removeprefix("http://")
        self._lock = threading.Lock()

    def _run(self):
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self.over.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                whole = answer.status == 200 and bool(answer.read())
            except (OSError, http.client.HTTPException):
                whole = False
                connection.close()
            with self._lock:
                self.answered += whole
                self.failed += not whole
            time.sleep(0.005)
        connection.close()


def pids(server):
    samples = server.metrics()
    return {int(value) for _, value in samples.get("obsserve_worker_pid", [])}


def ready(server, workers):
    return total(server.metrics(), "obsserve_workers", state="ready") == workers


def restarts(server, reason):
    return total(server.metrics(), "obsserve_worker_restarts_total", reason=reason)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_when_workers_are_replaced(serve, workers):
    server = serve(
        "worker_apps:pid", "--port", "0", "--metrics-port", "0", "--workers", str(workers), "--supervise"
    )
    before = pids(server)
    counts = []
    with Load(server) as load:
        for done in range(1, 3):
            server.process.send_signal(signal.SIGHUP)
            wanted = done * workers
            while restarts(server, "reload") < wanted:
                counts.append(total(server.metrics(), COUNT))
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: ready(server, workers + 1), "one worker more")
        server.process.send_signal(signal.SIGTTOU)
        wait_for(lambda: ready(server, workers), "one worker less")
    assert load.failed == 0
    assert load.answered > 0
    assert not before & pids(server)
    wait_for(lambda: total(server.metrics(), COUNT) == load.answered, "every answer to be counted")
    counts.append(total(server.metrics(), COUNT))
    assert counts == sorted(counts)
    assert total(server.metrics(), "obsserve_config_reloads_total", result="success") == 2
    assert server.stop() == 0
    assert len(server.access_lines(load.answered)) == load.answered


def test_a_killed_worker_has_a_successor_and_keeps_what_it_counted(serve):
    server = serve("worker_apps:pid", "--port", "0", "--metrics-port", "0", "--workers", "2")
    for _ in range(20):
        assert httpx.get(server.url).status_code == 200
    # The figures by worker are published with each tick of its loop.
    wait_for(
        lambda: total(server.metrics(), "obsserve_worker_requests_total") == 20, "the answers to be counted"
    )
    before = pids(server)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: ready(server, 2) and victim not in pids(server), "a successor")
    assert total(server.metrics(), COUNT) == 20
    assert total(server.metrics(), "obsserve_worker_requests_total") == 20
    assert restarts(server, "signal") == 1
    (death,) = server.events("worker.exit")
    assert (death["pid"], death["signal"], death["reason"]) == (victim, "SIGKILL", "signal")
    assert server.stop() == 0


def test_an_exit_of_the_application_is_told_by_its_code(serve):
    server = serve("worker_apps:pid", "--port", "0", "--metrics-port", "0", "--workers", "1", "--supervise")
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{server.url}/die")
    wait_for(lambda: restarts(server, "exit_code") == 1 and ready(server, 1), "a successor")
    assert server.events("worker.exit")[0]["exit_code"] == 7
    assert httpx.get(server.url, timeout=20).status_code == 200
    assert server.stop() == 0


def test_a_worker_is_replaced_after_so_many_requests(serve):
    server = serve("worker_apps:pid", "--port", "0", "--metrics-port", "0", "--limit-max-requests", "50")
    with Load(server, clients=4) as load:
        wait_for(lambda: restarts(server, "max_requests") >= 2, "two replacements")
    assert load.failed == 0
    wait_for(lambda: total(server.metrics(), COUNT) == load.answered, "every answer to be counted")
    assert server.stop() == 0


@pytest.mark.parametrize("app", ["broken:app", "apps:lifespan_raises", "apps:lifespan_fails"])
def test_an_application_that_cannot_start_is_told_once(serve, app):
    server = serve(app, "--port", "0", "--workers", "3", wait=False)
    assert server.process.wait(30) == 3
    text = server.stderr_path.read_text()
    assert text.count("Traceback") == (0 if app == "apps:lifespan_fails" else 1), text
    assert sum(line.startswith("obsserve: error: ") for line in text.splitlines()) == 1
    assert not server.events("server.start")


def test_a_rolling_replacement_that_cannot_start_leaves_the_old_ones(serve, tmp_path):
    flag = tmp_path / "refuse"
    server = serve(
        "worker_apps:unless_told", "--port", "0", "--metrics-port", "0", "--workers", "2",
        environment={"REFUSE_TO_START": str(flag)},
    )  # fmt: skip
    before = pids(server)
    flag.touch()
    server.process.send_signal(signal.SIGHUP)
    wait_for(
        lambda: total(server.metrics(), "obsserve_config_reloads_total", result="failure") == 1, "the failure"
    )
    assert pids(server) == before
    assert httpx.get(server.url).status_code == 200
    assert server.stop() == 0


def test_a_crash_loop_ends_the_server(serve, tmp_path):
    flag = tmp_path / "refuse"
    server = serve(
        "worker_apps:unless_told", "--port", "0", "--workers", "1", "--supervise",
        environment={"REFUSE_TO_START": str(flag)},
    )  # fmt: skip
    flag.touch()
    os.kill(server.events("worker.ready")[0]["pid"], signal.SIGKILL)
    assert server.process.wait(40) == 3
    assert len(server.events("worker.exit")) == 5
    assert "obsserve: error: The workers keep dying" in server.stderr_path.read_text()


def test_the_whole_group_is_interrupted(serve):
    server = serve("worker_apps:pid", "--port", "0", "--workers", "2")
    children = [event["pid"] for event in server.events("worker.ready")]
    for pid in (*children, server.process.pid):
        os.kill(pid, signal.SIGINT)
    assert server.process.wait(20) == 0
    assert "Traceback" not in server.stderr_path.read_text()


def test_workers_do_not_outlive_the_main_process(serve):
    server = serve("worker_apps:pid", "--port", "0", "--workers", "2")
    children = [event["pid"] for event in server.events("worker.ready")]
    server.process.kill()
    server.process.wait(20)
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), "the workers' end")


def test_while_a_slot_has_two_processes_it_has_begun_once(serve):
    """A successor starts beside the one that it replaces; times of start do not add up."""
    server = serve("obsserve.demo:app", "--metrics-port", "0", "--workers", "2")
    before = {labels["worker"]: began for labels, began in server.metrics()["process_start_time_seconds"]}
    server.process.send_signal(signal.SIGHUP)
    beside = []

    def replaced():
        metrics = server.metrics()
        began = {labels["worker"]: value for labels, value in metrics["process_start_time_seconds"]}
        assert began.get("0", 0) < time.time() + 60, began
        beside.append(total(metrics, "obsserve_workers", state="starting") > 0)
        return total(metrics, "obsserve_worker_restarts_total", reason="reload") == 2 and began

    after = wait_for(replaced, "a successor", 30)
    assert any(beside)
    assert after["0"] > before["0"] and after["main"] == before["main"]
