"""`obsserve top`: a look at a real server, and at what a client may have sent."""

import os
import re
import subprocess
import sys
import time

import httpx
import pytest

from obsserve.top import shown

STATUS = {
    "version": "1", "service_name": "shop:app", "ready": True, "reasons": [], "requests_ended": 100.0,
    "requests_active": 1.0, "requests_rejected": {"draining": 0.0}, "connections_open": {"idle": 2.0},
    "connections_waiting": {"main": 0.0}, "websockets_open": 0.0, "workers": {"ready": 2.0, "starting": 0.0},
    "worker_restarts": {"crash": 1.0}, "cpu_seconds": {"0": 1.0, "1": 2.0}, "resident_bytes": {"0": 2.0**20},
    "loop_lag_max_seconds": {"0": 0.001, "1": 0.25}, "loop_stalls": {"0": 3.0},
    "telemetry_seconds": {"metrics": 0.5}, "series": 700.0,
}  # fmt: skip


def request(path="/a", age=1.0):
    return {
        "age_seconds": age,
        "phase": "application",
        "worker": 0,
        "http_request_method": "GET",
        "url_path": path,
    }


def look(requests=(), height=40, **changes):
    return "\n".join(shown(STATUS, STATUS | changes, 2.0, list(requests), height))


def test_rates_are_those_between_two_looks():
    said = look(requests_ended=150.0, cpu_seconds={"0": 2.0, "1": 2.0}, requests_rejected={"draining": 4.0})
    assert "25.0/s   1 active   2.0/s rejected" in said
    assert "cpu          50%" in said
    assert "loop lag 250.0 ms" in said
    assert "2 ready " in said


def test_why_it_is_not_ready():
    assert "not ready: draining" in look(ready=False, reasons=["draining"])


def test_no_escape_sequence_of_a_client_reaches_the_terminal():
    said = look([request("/\x1b[2J\x9b31m\u202e")])
    assert re.fullmatch(r"[ -~\n]*", said)


def test_what_does_not_fit_is_counted():
    said = look([request(f"/{n}") for n in range(30)], height=18)
    assert "and 21 more" in said
    assert len(said.splitlines()) == 18


@pytest.fixture
def server(tmp_path):
    command = [
        sys.executable, "-m", "obsserve", "obsserve.demo:app", "--port", "0", "--metrics-port", "0",
        "--log-format", "json",
    ]  # fmt: skip
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
    end = time.monotonic() + 30
    found = []
    while len(found) < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        found = re.findall(r'"address": ?"(http[^"]+)"', (tmp_path / "err").read_text())
        time.sleep(0.05)
    yield found
    process.terminate()
    process.wait(20)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "obsserve", "top", *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "COLUMNS": "150"},
    )  # fmt: skip


def test_a_real_server(server):
    url, metrics = server
    for _ in range(3):
        httpx.get(url)
    done = run("--url", metrics, "--once", "--interval", "0.2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("obsserve.demo:app  obsserve ")
    assert "ready" in done.stdout
    assert "AGE" in done.stdout


def test_nobody_there():
    done = run("--url", "http://127.0.0.1:1", "--once")
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_port_it_says_what_to_give():
    done = run("--once")
    assert done.returncode == 2
    assert "--metrics-port" in done.stderr
