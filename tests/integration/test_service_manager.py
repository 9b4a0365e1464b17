"""A server under a service manager: what it is told, when, and what it hands over."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time

import httpx
import pytest
from conftest import total, wait_for

PROCESSES = [(), ("--workers", "2")]


class Manager:
    """The other end of NOTIFY_SOCKET: every message with the time of its arrival."""

    def __init__(self, path):
        self.messages = []
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.2)
        self._open = True
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        while self._open:
            try:
                words = self._socket.recv(4096).decode().splitlines()
            except TimeoutError:
                continue
            self.messages.append((time.monotonic(), words))

    def words(self):
        return [words[0] for _, words in self.messages if words[0] != "WATCHDOG=1"]

    def signs_of_life(self):
        return [when for when, words in tuple(self.messages) if words[0] == "WATCHDOG=1"]

    def close(self):
        self._open = False
        self._thread.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.mark.parametrize("processes", PROCESSES)
def test_ready_when_it_serves_and_stopping_before_it_drains(serve, manager, processes, tmp_path):
    go = tmp_path / "go"
    environment = {**manager.environment, "START_WHEN": str(go)}
    server = serve(
        "service_apps:starts_when_told", "--port", "0", *processes, wait=False, environment=environment
    )
    wait_for(lambda: "starting" in server.stderr_path.read_text(), "the application's start-up")
    assert manager.words() == []
    go.touch()
    server.started()
    wait_for(manager.words, "a word")
    assert httpx.get(server.url).status_code == 200
    assert manager.messages[0][1][1].startswith(f"STATUS=Serving on {server.url}")
    assert server.stop() == 0
    assert manager.words() == ["READY=1", "STOPPING=1"]


@pytest.mark.parametrize("processes", PROCESSES)
def test_it_is_never_ready_when_the_application_cannot_start(serve, manager, processes):
    server = serve(
        "apps:lifespan_raises", "--port", "0", *processes, wait=False, environment=manager.environment
    )
    assert server.process.wait(30) == 3
    assert "READY=1" not in manager.words()


def test_a_reload_begins_and_ends(serve, manager):
    server = serve("worker_apps:pid", "--port", "0", "--workers", "2", environment=manager.environment)
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(manager.words()) >= 3, "the end of the reload")
    assert manager.words() == ["READY=1", "RELOADING=1", "READY=1"]
    assert server.stop() == 0


@pytest.mark.parametrize("processes", [(), ("--supervise",)])
def test_the_watchdog_notices_a_blocked_loop(serve, manager, processes):
    environment = {**manager.environment, "WATCHDOG_USEC": "900000"}
    server = serve("apps:fastapi", "--port", "0", *processes, environment=environment)
    wait_for(lambda: len(manager.signs_of_life()) >= 4, "signs of life")
    blocking = threading.Thread(target=httpx.get, args=(f"{server.url}/block/5",), kwargs={"timeout": 30})
    blocking.start()
    blocking.join()
    alive = len(manager.signs_of_life())
    wait_for(lambda: len(manager.signs_of_life()) >= alive + 2, "signs of life afterwards")
    signs = manager.signs_of_life()
    longest = max(later - earlier for earlier, later in zip(signs, signs[1:], strict=False))
    assert longest > 2 * 0.9, "systemd would have killed it"
    assert server.stop() == 0


def test_a_server_inside_another_program_says_nothing(manager):
    """Whoever embeds the server decides when the program is ready."""
    import asyncio

    import obsserve

    async def app(scope, receive, send): ...

    async def embedded():
        server = obsserve.Server(obsserve.Config(app, port=0, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        server.should_exit = True
        await serving

    os.environ.update(manager.environment)
    try:
        asyncio.run(embedded())
    finally:
        del os.environ["NOTIFY_SOCKET"]
    assert manager.messages == []


@pytest.mark.parametrize("processes", PROCESSES)
def test_a_unix_socket_has_its_permissions_and_leaves_no_file(serve, tmp_path, processes):
    path = tmp_path / "app.sock"
    server = serve("worker_apps:pid", "--uds", str(path), "--uds-permissions", "0600", *processes)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://server/").status_code == 200
    assert server.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("processes", PROCESSES)
def test_a_killed_server_leaves_a_path_that_the_next_one_takes(serve, tmp_path, processes):
    path = tmp_path / "app.sock"
    first = serve("worker_apps:pid", "--uds", str(path), *processes)
    first.process.kill()
    first.process.wait(20)

    def nobody_listens():
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) != 0

    wait_for(nobody_listens, "the end of the workers")
    assert path.exists()
    second = serve("worker_apps:pid", "--uds", str(path), *processes)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://server/").status_code == 200
    assert second.stop() == 0
    assert not path.exists()


def test_a_successor_at_the_same_path_keeps_it(serve, tmp_path):
    path = tmp_path / "app.sock"
    first = serve("apps:fastapi", "--uds", str(path), "--metrics-port", "0")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=30) as client:
        holding = threading.Thread(target=client.get, args=("http://server/sleep/6",))
        holding.start()
        wait_for(lambda: total(first.metrics(), "http_server_active_requests") == 1, "the request")
        first.process.send_signal(signal.SIGTERM)
        wait_for(lambda: first.events("server.drain"), "the first one's drain")
        second = serve("apps:fastapi", "--uds", str(path))
        holding.join()
    assert first.process.wait(20) == 0
    assert path.exists()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://server/sleep/0").status_code == 200
    assert second.stop() == 0
