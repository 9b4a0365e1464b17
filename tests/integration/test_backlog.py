"""A listening socket whose queue is really full: the metrics say so, and whoever waited is served."""

from __future__ import annotations

import socket
import sys
import threading

import httpx
import pytest
from conftest import total, wait_for

REQUEST = b"GET /items/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel does not tell")
def test_a_full_backlog_shows_and_empties(serve):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0", "--backlog", "3")
    host, port = server.url.removeprefix("http://").split(":")
    blocker = threading.Thread(target=httpx.get, args=(f"{server.url}/block/4",), kwargs={"timeout": 20})
    blocker.start()
    wait_for(lambda: total(server.metrics(), "http_server_active_requests") == 1, "a blocked loop")
    clients = [socket.socket() for _ in range(10)]
    try:
        for client in clients:
            client.setblocking(False)
            client.connect_ex((host, int(port)))
        # The kernel lets one more wait than the backlog says; whoever comes then is put off.
        samples = wait_for(
            lambda: (
                total(samples := server.metrics(), "obsserve_listener_backlog_connections") == 4 and samples
            ),
            "a full backlog",
            3,
        )
        assert total(samples, "obsserve_limit", limit="backlog") == 3
        assert total(samples, "obsserve_connections_accepted_total") == 1
        answered = 0
        for client in clients:
            client.settimeout(20)
            wait_for(lambda c=client: connected(c), "a connection")
            client.sendall(REQUEST)
            answered += client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert answered == 10
        blocker.join(20)
        wait_for(
            lambda: total(server.metrics(), "obsserve_listener_backlog_connections") == 0, "an empty backlog"
        )
    finally:
        for client in clients:
            client.close()


def connected(client):
    try:
        return client.getpeername()
    except OSError:
        return None
