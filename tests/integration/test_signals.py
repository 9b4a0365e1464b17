"""Who sends a signal to whom: a terminal, `docker stop`, an init system; each ends in time, in order, with code 0."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import httpx
import pytest
from conftest import HERE, ServerProcess, wait_for
from websockets.sync.client import connect

from tests.parts import missing

MODES = {
    "single": (),
    "supervised": ("--supervise",),
    "workers": ("--workers", "2"),
    "reload": ("--reload", "--reload-dir", str(HERE)),
}


class GroupedServer(ServerProcess):
    """A server in a process group of its own, as a shell starts it."""

    def __init__(self, folder, *arguments, prefix=()):
        self._has_metrics = False
        self.stdout_path, self.stderr_path = folder / "stdout", folder / "stderr"
        self._stdout, self._stderr = self.stdout_path.open("wb"), self.stderr_path.open("wb")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "obsserve", *arguments],
            stdout=self._stdout,
            stderr=self._stderr,
            cwd=HERE,
            start_new_session=True,
        )

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        super().kill()


@pytest.fixture
def grouped(tmp_path):
    servers = []

    def start(*arguments, **options):
        folder = tmp_path / f"grouped{len(servers)}"
        folder.mkdir()
        server = GroupedServer(folder, "drain_apps:app", "--port", "0", *arguments, **options)
        servers.append(server)
        return server.started()

    yield start
    for server in servers:
        server.kill()


@contextlib.contextmanager
def busy(server):
    """A stream, a handler that never ends and a WebSocket that never closes."""
    kept = []  # a generator that is forgotten closes its stream
    with contextlib.ExitStack() as stack:
        for path in ("stream", "deaf-stream"):
            client = stack.enter_context(httpx.Client(timeout=30))
            parts = stack.enter_context(client.stream("GET", f"{server.url}/{path}")).iter_raw()
            assert next(parts) == b"data: 1\n\n"
            kept.append(parts)
        stack.enter_context(connect(server.url.replace("http", "ws") + "/deaf-websocket"))
        with contextlib.suppress(httpx.HTTPError):
            yield


def members(group):
    """The processes of a group that are there, zombies excepted."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{int(name)}/stat") as file:
            state, _, its_group = file.read().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(name))
    return found


def ended_well(server, mode):
    """Exit code 0, the events in their order, nothing of Python's own on stderr, nobody left."""
    assert server.process.wait(25) == 0, server.stderr_path.read_text()
    wait_for(lambda: not members(server.process.pid), "everybody's end")
    text = server.stderr_path.read_text()
    assert "Traceback" not in text
    assert all(line.startswith("{") for line in text.splitlines()), text
    order = [event["event"] for event in server.events()]
    assert order.index("server.start") < order.index("server.drain") < order.index("server.stop")
    assert order[-1] == "server.stop"
    assert "worker.kill" not in order
    assert not [event for event in server.events() if event["level"] == "error"]
    named = " ".join(event["message"] for event in server.events("drain.interrupted"))
    assert "GET /deaf-stream" in named
    assert "GET /stream " not in named  # it was told, and left
    lines = {line["url_path"]: line for line in server.access_lines(4)}
    assert lines["/stream"]["outcome"] == lines["/deaf-stream"]["outcome"] == "shutdown"
    assert lines["/deaf-websocket"]["websocket_close_code"] == 1012
    if mode != "single":
        exits = server.events("worker.exit")
        assert exits and all(event["exit_code"] == 0 and event["level"] == "info" for event in exits)


def some(*wanted):
    """Every mode; but in the ordinary run only these."""
    return [mode if mode in wanted else pytest.param(mode, marks=pytest.mark.full) for mode in MODES]


@pytest.mark.parametrize("mode", some("workers", "reload"))
def test_ctrl_c(grouped, mode):
    signalled(grouped, mode, signal.SIGINT)


@pytest.mark.parametrize("mode", some("single", "workers"))
def test_sigterm_to_the_whole_group(grouped, mode):
    signalled(grouped, mode, signal.SIGTERM)


def signalled(grouped, mode, sig):
    """Send a signal to the whole group."""
    server = grouped("--timeout-graceful-shutdown", "2", *MODES[mode])
    began = time.monotonic()
    with busy(server):
        os.killpg(server.process.pid, sig)
        ended_well(server, mode)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("mode", some("supervised"))
def test_a_signal_to_the_main_process_only(grouped, mode):
    server = grouped("--timeout-graceful-shutdown", "2", *MODES[mode])
    with busy(server):
        server.process.send_signal(signal.SIGTERM)
        ended_well(server, mode)


@pytest.mark.parametrize("mode", ["single", "workers"])
def test_as_the_first_process_of_a_container(grouped, mode):
    """As `docker stop` does it: SIGTERM to PID 1, which has no default action for it."""
    unshare = shutil.which("unshare")
    possible = unshare and subprocess.run(
        [unshare, "--pid", "--fork", "true"], capture_output=True, timeout=20
    )
    if not possible or possible.returncode:
        missing("no PID namespace can be made here: run as root, with unshare (apt-get install util-linux)")
    # --kill-child: whatever is left when the test ends goes with unshare.
    prefix = (unshare, "--pid", "--fork", "--kill-child", "--mount-proc")
    server = grouped("--timeout-graceful-shutdown", "2", *MODES[mode], prefix=prefix)
    started = server.events("server.start")[0]
    assert started["process_pid"] == 1
    with busy(server):
        (first,) = children(server.process.pid)
        os.kill(first, signal.SIGTERM)
        ended_well(server, mode)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.parametrize("mode", some("single", "workers"))
def test_interrupted_twice(grouped, mode):
    server = grouped("--timeout-graceful-shutdown", "20", *MODES[mode])
    began = time.monotonic()
    with busy(server):
        os.killpg(server.process.pid, signal.SIGINT)
        wait_for(lambda: server.events("server.drain"), "the drain")
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(20) == 0
    assert time.monotonic() - began < 15
    assert "Traceback" not in server.stderr_path.read_text()
    wait_for(lambda: not members(server.process.pid), "everybody's end")


@pytest.mark.parametrize("mode", some("single", "workers"))
def test_interrupted_before_it_serves(grouped, tmp_path, mode):
    """Ctrl-C while the application is imported: no traceback, no process left."""
    folder = tmp_path / "early"
    folder.mkdir()
    (folder / "slow_import.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\ntime.sleep(30)\n"
    )
    server = GroupedServer(folder, "slow_import:app", "--port", "0", "--app-dir", str(folder), *MODES[mode])
    try:
        wait_for(lambda: "importing" in server.stderr_path.read_text(), "the import")
        os.killpg(server.process.pid, signal.SIGINT)
        code = server.process.wait(20)
        assert code == 0
        assert not re.search(r"^Traceback", server.stderr_path.read_text(), re.M), (
            server.stderr_path.read_text()
        )
        wait_for(lambda: not members(server.process.pid), "everybody's end")
    finally:
        server.kill()


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_sigusr1_without_a_log_file_is_harmless_and_says_so(serve, arguments):
    server = serve("apps:plain", "--port", "0", *arguments)
    server.process.send_signal(signal.SIGUSR1)
    (said, *_) = wait_for(lambda: server.events("log.reopen"), "a word about it")
    assert "no log file" in said["message"]
    assert httpx.get(server.url).status_code == 200
    assert server.stop() == 0


def test_a_log_file_beside_a_log_config_is_told_to_have_no_effect(serve, tmp_path):
    config, log = tmp_path / "log.json", tmp_path / "access.log"
    config.write_text(
        '{"version": 1, "disable_existing_loggers": false, "handlers": {"e": {"class": "logging.StreamHandler"}}, '
        '"root": {"handlers": ["e"], "level": "INFO"}}'
    )
    server = serve(
        "apps:plain", "--port", "0", "--log-config", str(config), "--access-log-file", str(log), wait=False
    )
    wait_for(lambda: "Leave one of the two out" in server.stderr_path.read_text(), "the warning")
    assert not log.exists()
    wait_for(lambda: "Serving on" in server.stderr_path.read_text(), "the start")
    assert server.stop() == 0
