"""Signals, deaths and replacements that meet: whoever comes first, nothing is lost and the exit code is right."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import httpx
import pytest
from conftest import total, wait_for
from test_workers import pids, ready, restarts

MODES = {"single": (), "workers": ("--workers", "2"), "supervised": ("--supervise",)}
APP = ("race_apps:app", "--port", "0", "--metrics-port", "0")

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")


def reloads(server, result):
    return total(server.metrics(), "obsserve_config_reloads_total", result=result)


@contextlib.contextmanager
def no_descriptor_left(server):
    """Nothing can be opened, and no process started, by the main process meanwhile."""
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", MODES)
def test_signals_to_the_very_end_do_not_change_the_exit_code(serve, mode, sig):
    server = serve(*APP, *MODES[mode])
    while server.process.poll() is None:
        server.process.send_signal(sig)
        time.sleep(0.002)  # as often as somebody may signal, not in a busy loop
    assert server.process.returncode == 0
    assert "Traceback" not in server.stderr_path.read_text()
    assert server.events("server.stop")


def test_a_worker_less_while_it_is_being_replaced(serve, tmp_path):
    import_now = tmp_path / "import"
    import_now.touch()
    server = serve(*APP, "--workers", "2", environment={"IMPORTING": str(import_now)})
    import_now.unlink()
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.stderr_path.read_text().count("importing") == 3, "the successor of worker 0")
    import_now.touch()
    wait_for(lambda: len(server.events("worker.ready")) == 3, "the successor of worker 0")
    import_now.unlink()
    wait_for(lambda: server.stderr_path.read_text().count("importing") == 4, "the successor of worker 1")
    server.process.send_signal(signal.SIGTTOU)
    wait_for(lambda: total(server.metrics(), "obsserve_workers_desired") == 1, "the signal")
    import_now.touch()
    wait_for(lambda: reloads(server, "success") == 1, "the end of the replacement")
    wait_for(lambda: ready(server, 1) and len(pids(server)) == 1, "one worker")
    server.process.send_signal(signal.SIGTTIN)
    wait_for(lambda: ready(server, 2), "two workers")
    assert server.stop() == 0
    assert not server.events("server.fault")


def test_a_process_that_cannot_be_started_is_tried_again(serve):
    server = serve(*APP, "--workers", "2")
    victim = min(pids(server))
    with no_descriptor_left(server):
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: server.events("worker.start_failed"), "the failure")
    assert "Too many open files" in server.events("worker.start_failed")[0]["message"]
    wait_for(lambda: ready(server, 2) and victim not in pids(server), "a successor")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: reloads(server, "success") == 1, "a replacement afterwards")
    assert server.stop() == 0
    assert "Traceback" not in server.stderr_path.read_text()


def test_replacements_that_cannot_be_started_fail_and_the_next_do_not(serve):
    server = serve(*APP, "--workers", "2")
    open_files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    with no_descriptor_left(server):
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.events("worker.start_failed"), "the failure")
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: len(server.events("worker.start_failed")) == 2, "another")
    assert reloads(server, "failure") == 1
    assert total(server.metrics(), "obsserve_workers_desired") == 2
    assert len(os.listdir(f"/proc/{server.process.pid}/fd")) <= open_files + 1
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: reloads(server, "success") == 1, "a replacement")
    assert server.stop() == 0


def test_a_worker_that_got_sigterm_itself_has_a_successor_while_it_drains(serve, tmp_path):
    answer_now = tmp_path / "answer"
    server = serve(*APP, "--supervise", environment={"ANSWERING": str(answer_now)})
    (first,) = pids(server)
    answers = []
    waiting = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{server.url}/wait", timeout=30).text)
    )
    waiting.start()
    wait_for(lambda: total(server.metrics(), "obsserve_worker_active_requests") == 1, "the request")
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: ready(server, 1) and first not in pids(server), "a successor")
    assert httpx.get(server.url).text == str(*pids(server))
    assert not answers
    assert restarts(server, "signal") == 1
    answer_now.touch()
    waiting.join(20)
    assert answers == [str(first)]
    wait_for(lambda: server.events("worker.exit"), "its end")
    assert restarts(server, "signal") == 1
    assert server.stop() == 0


def test_a_worker_that_gets_sigterm_before_the_server_serves_is_no_failure(serve, tmp_path):
    import_now = tmp_path / "import"
    server = serve(*APP, "--workers", "2", environment={"IMPORTING": str(import_now)}, wait=False)
    wait_for(lambda: server.stderr_path.read_text().count("importing") == 2, "the import")
    first = server.stderr_path.read_text().partition("importing ")[2].partition("\n")[0]
    os.kill(int(first), signal.SIGTERM)
    wait_for(lambda: server.stderr_path.read_text().count("importing") == 3, "its successor")
    import_now.touch()
    server.started()
    wait_for(lambda: ready(server, 2), "both")
    assert server.stop() == 0


@pytest.mark.parametrize("mode", ["workers", "supervised"])
def test_the_end_comes_while_the_application_starts(serve, tmp_path, mode):
    start_now = tmp_path / "start"
    server = serve(*APP, *MODES[mode], environment={"STARTING": str(start_now)}, wait=False)
    workers = 2 if mode == "workers" else 1
    wait_for(lambda: server.stderr_path.read_text().count("starting\n") == workers, "the start")
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.events("server.drain"), "the end to begin")
    start_now.touch()
    assert server.process.wait(20) == 0
    assert not server.events("worker.ready")  # with figures of a start that was none
    assert "Traceback" not in server.stderr_path.read_text()


def test_the_end_comes_while_a_crash_loop_pauses(serve, tmp_path):
    refuse = tmp_path / "refuse"
    server = serve(*APP, "--workers", "2", environment={"REFUSE_IMPORT": str(refuse)})
    refuse.touch()
    for pid in pids(server):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(server.events("worker.exit")) >= 4, "the first successors' deaths")
    assert server.stop() == 0
    assert server.events("server.stop")


@pytest.mark.parametrize("pause", [0.0, 0.2, 0.8])
def test_the_end_comes_between_replacements(serve, pause):
    server = serve(*APP, "--workers", "2")
    server.process.send_signal(signal.SIGHUP)
    time.sleep(0.02)  # else the system makes one signal of the two
    server.process.send_signal(signal.SIGHUP)
    time.sleep(pause)  # when the end comes is what is varied: there is nothing to wait for
    assert server.stop() == 0
    assert not [event for event in server.events() if event["level"] == "error"]


def test_two_interrupts_do_not_wait_for_a_worker_whose_loop_is_blocked(serve):
    server = serve(*APP, "--workers", "2", "--timeout-graceful-shutdown", "40")
    with pytest.raises(httpx.TimeoutException):
        httpx.get(f"{server.url}/block", timeout=1)
    began = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    wait_for(lambda: server.events("server.drain"), "the drain")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    assert time.monotonic() - began < 25
    assert server.events("worker.kill")
