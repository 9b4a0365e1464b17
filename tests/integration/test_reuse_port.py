"""`--reuse-port`: the kernel spreads connections over the workers, and replacing them resets nobody."""

from __future__ import annotations

import collections
import http.client
import signal

import httpx
from conftest import total, wait_for
from test_workers import pids, ready, restarts

from tests.crowd import Crowd


class NewConnections(Crowd):
    """Clients that open a connection for each request."""

    def __init__(self, server, clients=4):
        super().__init__(*[self._run] * clients)
        self.answers = collections.Counter()
        self.failures = []
        self._address = server.url.removeprefix("http://")

    def _run(self):
        while not self.over.is_set():
            connection = http.client.HTTPConnection(self._address, timeout=30)
            try:
                connection.request("GET", "/", headers={"Connection": "close"})
                self.answers[int(connection.getresponse().read())] += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            connection.close()


def shared(serve, *arguments):
    return serve("worker_apps:pid", "--port", "0", "--metrics-port", "0", "--reuse-port", *arguments)


def test_connections_are_spread_over_the_workers(serve):
    server = shared(serve, "--workers", "3")
    with NewConnections(server) as clients:
        wait_for(lambda: clients.answers.total() >= 300, "300 answers")
    assert not clients.failures
    assert set(clients.answers) == pids(server)
    assert min(clients.answers.values()) > clients.answers.total() / 10
    assert server.stop() == 0


def test_nobody_is_reset_when_workers_come_and_go(serve):
    server = shared(serve, "--workers", "2")
    with NewConnections(server) as clients:
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: restarts(server, "reload") == 2, "the replacement", 60)
        server.process.send_signal(signal.SIGTTOU)
        wait_for(lambda: ready(server, 1), "one worker less", 60)
        wait_for(lambda: total(server.metrics(), "obsserve_workers", state="draining") == 0, "its end", 60)
        answered = clients.answers.total()
        wait_for(lambda: clients.answers.total() > answered + 100, "answers by the one that is left")
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: ready(server, 2), "one worker more", 60)
        newest = max(pids(server))
        wait_for(lambda: clients.answers[newest] > 10, "answers by the new one")
    assert not clients.failures
    assert server.stop() == 0


def test_two_servers_share_a_port(serve):
    first = shared(serve)
    port = first.url.rpartition(":")[2]
    second = serve("worker_apps:pid", "--port", port, "--reuse-port")
    answers = {httpx.get(first.url).text for _ in range(60)}
    assert answers == {str(first.process.pid), str(second.process.pid)}
    assert first.stop() == 0
    assert httpx.get(second.url).text == str(second.process.pid)
    assert second.stop() == 0


def test_it_is_for_a_port(serve):
    server = serve("worker_apps:pid", "--reuse-port", "--uds", "/nowhere/x.sock", wait=False)
    assert server.process.wait(20) == 2
    assert "reuse_port: it is for host and port" in server.stderr_path.read_text()
