"""Everything that happens to workers, under load: no request is lost, no counter goes back, nothing is left."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import ssl
import threading
import time

import httpx
import pytest
import trustme
from conftest import total, wait_for
from scraper import Scraper
from test_workers import COUNT, pids, ready, restarts
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.crowd import Crowd

CLIENTS = 8
WEBSOCKETS = 2


class Site:
    """A server with TLS or without, and how to speak to it."""

    def __init__(self, serve, folder, *, tls, workers):
        arguments = ["--port", "0", "--metrics-port", "0", "--workers", str(workers), "--supervise"]
        self.context = None
        if tls:
            authority = trustme.CA()
            certificate = authority.issue_cert("127.0.0.1")
            certificate.private_key_and_cert_chain_pem.write_to_path(folder / "all.pem")
            arguments += ["--ssl-certfile", str(folder / "all.pem"), "--ssl-keyfile", str(folder / "all.pem")]
            self.context = ssl.create_default_context()
            authority.configure_trust(self.context)
        self.server = serve("vital_apps:app", *arguments, "--limit-max-requests", "2000")
        self.authority = self.server.url.partition("//")[2]

    def connection(self):
        if self.context is None:
            return http.client.HTTPConnection(self.authority, timeout=30)
        return http.client.HTTPSConnection(self.authority, timeout=30, context=self.context)

    def websocket(self):
        scheme = "ws" if self.context is None else "wss"
        return connect(f"{scheme}://{self.authority}/", ssl=self.context, open_timeout=30)


class Clients(Crowd):
    """Clients that keep their connections, and WebSockets that stay open; what fails is kept with its time."""

    def __init__(self, site):
        super().__init__(*[self._ask] * CLIENTS, *[self._speak] * WEBSOCKETS, patience=40)
        self.site = site
        self.answered = 0
        self.echoed = 0
        self.failures = []
        self.closed = []
        self._lock = threading.Lock()
        self.ending = threading.Event()

    def _failed(self, error):
        with self._lock:
            self.failures.append((time.monotonic(), repr(error)))

    def _ask(self):
        with contextlib.closing(self.site.connection()) as connection:
            self._ask_on(connection)

    def _ask_on(self, connection):
        is_fresh = True
        while not self.over.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                assert answer.status == 200 and answer.read()
                is_fresh = answer.will_close
                with self._lock:
                    self.answered += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                if self.ending.is_set() and is_fresh:
                    return  # nobody listens any more
                self._failed(error)
                connection.close()
                is_fresh = True
            time.sleep(0.005)

    def _speak(self):
        while not self.over.is_set():
            try:
                with self.site.websocket() as websocket:
                    while not self.over.is_set():
                        websocket.send("x")
                        assert websocket.recv(timeout=30) == "x"
                        with self._lock:
                            self.echoed += 1
                        time.sleep(0.02)
            except ConnectionClosed as closed:
                with self._lock:
                    self.closed.append(closed.rcvd.code if closed.rcvd is not None else 1006)
            except Exception as error:
                if self.ending.is_set():
                    return
                self._failed(error)


def recycled(server):
    return restarts(server, "max_requests")


def killed(server):
    """Kill a worker; another, when that one was about to leave anyhow, whose end counts as what it was going for."""
    at = time.monotonic()
    for _ in range(3):
        victim = min(pids(server))
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda gone=victim: gone not in pids(server), "the death to be noticed", 60)
        with contextlib.suppress(pytest.fail.Exception):
            wait_for(lambda: restarts(server, "signal") == 1, "the death to be counted", 5)
            return victim, at
    pytest.fail("three workers were killed, and none was counted")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("rolls", "workers", "tls"),
    [
        (1, 1, False),
        (1, 2, True),
        *(
            pytest.param(10, *kind, marks=pytest.mark.full)
            for kind in ((1, False), (2, False), (1, True), (2, True))
        ),
    ],
)
def test_no_request_is_lost_and_every_answer_is_counted(serve, tmp_path, rolls, workers, tls):
    site = Site(serve, tmp_path, tls=tls, workers=workers)
    server = site.server
    with Clients(site) as clients, Scraper(server) as scraper:
        for done in range(1, rolls + 1):
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: reloads(server) >= done, f"roll {done}", 60)
        wait_for(lambda: recycled(server) >= 1, "a worker to be recycled", 60)
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: ready(server, workers + 1), "one worker more", 60)
        server.process.send_signal(signal.SIGTTOU)
        wait_for(lambda: ready(server, workers), "one worker less", 60)
        assert not clients.failures
        assert set(clients.closed) <= {1012}

        victim, at = killed(server)
        wait_for(lambda: ready(server, workers) and victim not in pids(server), "a successor", 60)
        lost = list(clients.failures)
        # Each client has one request in flight, or a connection that it had to the worker.
        assert len(lost) <= CLIENTS + WEBSOCKETS, lost
        assert all(at <= when for when, _ in lost)
        answered = clients.answered
        wait_for(lambda: clients.answered > answered + 50, "answers after the death")
        assert clients.failures == lost

        clients.ending.set()
        # Counted as of the moment before the end: what is answered from now on, only the log can tell.
        server.process.send_signal(signal.SIGTERM)
        scraper.end()
        code = server.process.wait(40)
    assert code == 0
    assert clients.failures == lost
    assert not scraper.faults, scraper.faults[:5]
    assert scraper.scrapes > 5
    assert clients.echoed > 0
    assert "Traceback" not in server.stderr_path.read_text()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_the_figures_equal_the_answers_after_all_of_it(serve, tmp_path, workers):
    site = Site(serve, tmp_path, tls=False, workers=workers)
    server = site.server
    with Clients(site) as clients:
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: reloads(server) >= 1 and recycled(server) >= 1, "the replacements", 60)
        killed(server)
        wait_for(lambda: ready(server, workers), "a successor", 60)
    # WebSocket handshakes are exchanges, too.
    http_answers = {"http_response_status_code": "200"}
    sure, possible = clients.answered, clients.answered + len(clients.failures)
    # A worker may be killed between an answer and its count, or between the count and the answer.
    wait_for(
        lambda: sure - CLIENTS <= total(server.metrics(), COUNT, **http_answers) <= possible, "the counts"
    )
    assert server.stop() == 0


def reloads(server):
    return total(server.metrics(), "obsserve_config_reloads_total", result="success")


# --- many restarts --------------------------------------------------------------------------------


def footprint(server):
    """What the main process holds: descriptors, mappings of regions, and what its page costs."""
    own = f"/proc/{server.process.pid}"
    with open(f"{own}/maps") as maps:
        regions = sum("obsserve" in line or "memfd" in line for line in maps)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        page = httpx.get(server.metrics_url, timeout=10).text
        times.append(time.perf_counter() - began)
    return len(os.listdir(f"{own}/fd")), regions, len(page.splitlines()), min(times)


def files():
    """Where a server might leave something."""
    return {
        f"{place}/{name}"
        for place in ("/dev/shm", "/tmp")
        for name in os.listdir(place)
        if "obsserve" in name or "pymp" in name
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [8, pytest.param(1000, marks=pytest.mark.full)])
def test_many_restarts_leave_nothing_behind(serve, tmp_path, count):
    left = files()
    workers = 4
    # Compiled once, as where it is installed; else a thousand starts would mostly measure the compiler.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    options = (
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--workers",
        str(workers),
        "--lifespan",
        "off",
        "--ws",
        "none",
    )
    server = serve("worker_apps:pid", *options, environment=compiled)
    for _ in range(50):
        assert httpx.get(server.url).status_code == 200

    def roll(number):
        server.process.send_signal(signal.SIGHUP)
        # Asked of the log, which costs the server nothing; `worker.exit` comes when one has left.
        wait_for(
            lambda: server.stderr_path.read_bytes().count(b'"worker.exit"') >= number * workers,
            f"roll {number}",
            120,
        )

    roll(1)  # so that every series is there
    before = footprint(server)
    for number in range(2, count // workers + 2):
        roll(number)
    wait_for(lambda: reloads(server) == count // workers + 1, "the last roll")
    wait_for(lambda: footprint(server)[:2] <= before[:2], "what is held to be as before")
    after = footprint(server)
    print(
        f"{count} restarts, before and after (descriptors, regions, lines, seconds of a scrape): {before}, {after}"
    )
    metrics = server.metrics()
    assert restarts(server, "reload") >= count
    assert total(metrics, COUNT) == 50
    assert total(metrics, "obsserve_worker_requests_total") == 50
    assert abs(after[2] - before[2]) <= 2
    assert after[3] < 3 * before[3] + 0.005, (before, after)
    assert server.stop() == 0
    assert files() <= left
