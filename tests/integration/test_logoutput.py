"""Where access lines go: files that are rotated under load, and streams that are not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import HERE, parse_metrics, total, wait_for

from tests.ports import free_ports
from test_workers import Load

ROOT = HERE.parents[1]


def lines_of(*paths):
    return [json.loads(line) for path in paths for line in path.read_bytes().decode("ascii").splitlines()]


def results(server, stream="access"):
    samples = server.metrics()
    return {
        result: total(samples, "obsserve_log_records_total", stream=stream, result=result)
        for result in ("written", "failed", "dropped")
    }


def logrotate(program, folder, log, pid):
    """Rotate with the file that we ship, changed as it says, every time that it is asked."""
    config = (ROOT / "deploy/logrotate/obsserve").read_text()
    for before, after in (
        ("/var/log/obsserve/*.log", str(log)),
        ("create 0640 obsserve adm", "create 0640"),
        ("systemctl kill --signal=SIGUSR1 --kill-whom=main obsserve.service", f"kill -USR1 {pid}"),
    ):
        assert config.count(before) == 1
        config = config.replace(before, after)
    path = folder / "logrotate.conf"
    path.write_text(config)
    path.chmod(0o644)
    command = [program("logrotate"), "--force", "--state", str(folder / "state"), str(path)]
    return lambda: subprocess.run(command, check=True, capture_output=True, timeout=20)


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_rotation_under_load_loses_no_line(serve, program, tmp_path, arguments):
    program("gzip")
    log = tmp_path / "logs" / "access.log"
    log.parent.mkdir(mode=0o755)
    server = serve(
        "worker_apps:pid", "--port", "0", "--metrics-port", "0", "--access-log-file", str(log), *arguments
    )
    rotate = logrotate(program, tmp_path, log, server.process.pid)
    workers = len(arguments) or 1
    fresh = 0

    def everybody_answers():
        nonlocal fresh
        assert httpx.get(server.url, timeout=30).status_code == 200
        fresh += 1
        samples = server.metrics()
        return all(
            total(samples, "obsserve_worker_requests_total", worker=str(worker)) for worker in range(workers)
        )

    with Load(server, clients=4) as load:
        if arguments:  # who accepts a connection is the system's choice
            wait_for(everybody_answers, "an answer of each worker")
        for done in range(1, 3):
            wait_for(lambda: log.exists() and log.stat().st_size > 20_000, "lines in the present file")
            rotate()
            wait_for(lambda: len(server.events("log.reopen")) == done * workers, "the file to be reopened")
        wait_for(lambda: log.stat().st_size, "lines in the last file")
    assert load.failed == 0
    wait_for(lambda: results(server)["written"] == load.answered + fresh, "every line to be written")
    subprocess.run([program("gunzip"), f"{log}.2.gz"], check=True)
    lines = lines_of(Path(f"{log}.2"), Path(f"{log}.1"), log)
    assert len(lines) == load.answered + fresh
    assert len({line["request_id"] for line in lines}) == load.answered + fresh
    assert {line["worker"] for line in lines} == set(range(workers))
    assert server.access_lines(0) == []
    assert server.stop() == 0


def test_a_file_that_cannot_be_reopened_is_told_and_written_on(serve, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    server = serve(
        "apps:plain", "--port", "0", "--metrics-port", "0", "--access-log-file", str(folder / "log")
    )
    folder.rename(tmp_path / "moved")
    server.process.send_signal(signal.SIGUSR1)
    (event,) = wait_for(lambda: server.events("log.reopen"), "the failure to be told")
    assert event["level"] == "error"
    assert "No such file or directory" in event["message"]
    assert httpx.get(server.url).status_code == 200
    wait_for(lambda: len(lines_of(tmp_path / "moved" / "log")) == 1, "the line")
    assert total(server.metrics(), "obsserve_log_write_errors_total", error="enoent") == 1
    assert server.stop() == 0


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_a_file_that_cannot_be_opened_is_one_line_and_exit_code_3(serve, tmp_path, arguments):
    server = serve(
        "apps:plain", "--port", "0", "--access-log-file", str(tmp_path / "a" / "b"), *arguments, wait=False
    )
    assert server.process.wait(20) == 3
    (said,) = [x for x in server.stderr_path.read_text().splitlines() if x.startswith("obsserve: error: ")]
    assert "No such file or directory" in said
    assert "--access-log-file" in said
    assert "Traceback" not in server.stderr_path.read_text()


class Bare:
    """A server whose standard streams are not files: some of them are closed."""

    def __init__(self, closed, *arguments, stderr=subprocess.DEVNULL):
        self.url, metrics = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        self.metrics_url = f"{metrics}/metrics"
        ports = ("--port", self.url.rpartition(":")[2], "--metrics-port", metrics.rpartition(":")[2])
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "obsserve", *ports, *arguments],
            cwd=HERE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    def get(self, url):
        def answer():
            assert self.process.poll() is None
            try:
                return httpx.get(url, timeout=5)
            except httpx.TransportError:
                return None

        return wait_for(answer, "an answer")

    def metrics(self):
        return parse_metrics(self.get(self.metrics_url).text)

    def dropped(self, stream):
        return total(self.metrics(), "obsserve_log_records_total", stream=stream, result="dropped")


@pytest.mark.parametrize(
    ("closed", "lost"), [(">&-", ["access"]), ("2>&-", ["server"]), ("<&- >&- 2>&-", ["access", "server"])]
)
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_nothing_is_written_to_what_is_open_in_a_closed_streams_place(closed, lost, arguments):
    """The first socket would get the number, and a client the log."""
    server = Bare(closed, "apps:plain", *arguments)
    try:
        server.get(server.url)
        # One connection after the other, as each may get a number that is free.
        for _ in range(20):
            assert httpx.get(server.url).text == "Hello, world!"
        with httpx.Client() as client:
            for _ in range(30):
                assert client.get(server.url).text == "Hello, world!"
        for number in {"access": (1,), "server": (2,)}[lost[0]]:
            assert os.readlink(f"/proc/{server.process.pid}/fd/{number}") == "/dev/null"
        if "access" in lost:
            wait_for(lambda: server.dropped("access") == 51, "the lost lines to be counted")
        if "server" in lost and not arguments:  # with workers, the lines are the main process's
            assert server.dropped("server") >= 1
    finally:
        server.process.terminate()
        assert server.process.wait(20) == 0
