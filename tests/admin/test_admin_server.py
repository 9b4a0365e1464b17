"""The metrics port on a real socket: it answers whatever the rest of the process is doing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time

import prometheus_client
import pytest

from obsserve.admin import server as module
from obsserve.admin.app import AdminState
from obsserve.admin.server import AdminServer
from obsserve.errors import StartupError
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.exposition import Exposition
from obsserve.telemetry.metrics import Metrics


@pytest.fixture
def state():
    return AdminState(started=True, heartbeat=time.perf_counter())


@pytest.fixture
def exposition():
    region = Cells.create(rows=512)
    Metrics(region)
    reader = region.reader()
    yield Exposition([reader])
    reader.close()
    region.close()


@pytest.fixture
def admin(state, exposition):
    admin = AdminServer("127.0.0.1", 0, state, exposition, max_connections=4)
    admin.bind()
    admin.start()
    yield admin
    admin.stop()


def request(admin, path, method="GET", headers=None):
    connection = http.client.HTTPConnection(*admin.address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response, response.read()


def exchange_bytes(admin, data):
    with socket.create_connection(admin.address, timeout=10) as client:
        client.sendall(data)
        received = b""
        while piece := client.recv(65536):
            received += piece
        return received


class TestServing:
    @pytest.mark.parametrize("path", ["/", "/metrics", "/livez", "/readyz", "/startupz"])
    def test_every_endpoint(self, admin, path):
        response, body = request(admin, path)
        assert response.status == 200
        assert int(response.headers["Content-Length"]) == len(body) > 0
        assert response.headers["Connection"] == "close"

    def test_head_has_no_body(self, admin):
        response, body = request(admin, "/livez", "HEAD")
        assert (response.status, body, response.headers["Content-Length"]) == (200, b"", "3")
        raw = exchange_bytes(admin, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.endswith(b"\r\n\r\n")

    def test_errors(self, admin):
        assert request(admin, "/nothing")[0].status == 404
        response, _ = request(admin, "/metrics", "POST")
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
        assert exchange_bytes(admin, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")

    def test_a_head_too_large(self, admin):
        head = b"GET / HTTP/1.1\r\nX: " + b"x" * module.MAX_HEAD + b"\r\n\r\n"
        assert exchange_bytes(admin, head).startswith(b"HTTP/1.1 431 ")

    def test_an_unusual_status_can_be_configured(self, admin, state):
        state.draining, state.terminating_status = True, 599
        assert request(admin, "/readyz")[0].status == 599

    def test_a_client_that_says_nothing_is_let_go(self, admin, monkeypatch):
        monkeypatch.setattr(module, "DEADLINE", 0.1)
        with socket.create_connection(admin.address, timeout=10) as client:
            client.sendall(b"GET /livez HT")
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""

    def test_there_is_a_bound_on_conversations(self, admin):
        idle = [socket.create_connection(admin.address, timeout=10) for _ in range(4)]
        deadline = time.monotonic() + 10
        while len(admin._conversations) < 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        with contextlib.suppress(ConnectionResetError):
            assert b" 200 " not in exchange_bytes(admin, b"GET /livez HTTP/1.1\r\n\r\n")
        for client in idle:
            client.close()
        while admin._conversations and time.monotonic() < deadline:
            time.sleep(0.005)
        assert request(admin, "/livez")[0].status == 200

    def test_a_client_that_leaves_is_no_fault(self, admin):
        for _ in range(3):
            with socket.create_connection(admin.address, timeout=10) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert request(admin, "/livez")[0].status == 200


class TestWhileTheApplicationBlocks:
    def test_the_port_answers(self, admin, state):
        """The serving loop, on the main thread, is blocked until probes and scrapes have been answered."""
        answered = {}

        def ask():
            for path in ("/livez", "/metrics", "/readyz"):
                response, body = request(admin, path)
                answered[path] = (response.status, body)

        async def serve():
            state.heartbeat = time.perf_counter()
            asker = threading.Thread(target=ask)
            asker.start()
            asker.join(20)
            assert not asker.is_alive()

        state.ready_max_stall = 0.0
        asyncio.run(serve())
        assert answered["/livez"][0] == answered["/metrics"][0] == 200
        assert b"obsserve_metrics_series" in answered["/metrics"][1]
        assert json.loads(answered["/readyz"][1])["reasons"] == ["unresponsive"]

    def test_a_collector_that_blocks_does_not_take_the_probes_along(self, admin, monkeypatch):
        monkeypatch.setattr(module, "SCRAPE_DEADLINE", 0.2)
        entered, leave = threading.Event(), threading.Event()

        class Stuck:
            def describe(self):
                return []

            def collect(self):
                entered.set()
                leave.wait(20)
                return []

        registry = prometheus_client.CollectorRegistry()
        registry.register(Stuck())
        monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
        first, _ = request(admin, "/metrics")
        assert (first.status, entered.is_set()) == (503, True)
        assert request(admin, "/livez")[0].status == 200
        before = threading.active_count()
        assert request(admin, "/metrics")[0].status == 503
        assert threading.active_count() == before, "scrapes take turns and do not pile up"
        leave.set()
        monkeypatch.setattr(module, "SCRAPE_DEADLINE", 10.0)
        assert request(admin, "/metrics")[0].status == 200

    def test_a_scrape_that_fails_is_told(self, admin, exposition, monkeypatch):
        def fail(*_):
            raise LookupError("gone")

        monkeypatch.setattr(exposition, "scrape", fail)
        response, body = request(admin, "/metrics")
        assert (response.status, body) == (500, b"the scrape failed: LookupError('gone')\n")


class TestLifeCycle:
    def test_the_port_is_taken_before_it_is_served(self, state, exposition):
        admin = AdminServer("127.0.0.1", 0, state, exposition)
        admin.bind()
        host, port = admin.address
        assert (host, port > 0) == ("127.0.0.1", True)
        with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port}: it is in use; choose .* 9464"):
            AdminServer(host, port, state, exposition).bind()
        admin.stop()
        again = AdminServer(host, port, state, exposition)
        again.bind()
        again.stop()

    def test_node_exporters_port_is_called_by_name(self, state, exposition, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            monkeypatch.setattr(module, "NODE_EXPORTER_PORT", port)
            with pytest.raises(StartupError) as caught:
                AdminServer("127.0.0.1", port, state, exposition).bind()
        assert str(caught.value) == (
            f"Cannot listen on the metrics port 127.0.0.1:{port}: it is in use ({port} is node_exporter's "
            "default port); choose another one, for example --metrics-port 9464"
        )

    def test_the_suggested_port_is_not_suggested_to_itself(self):
        error = OSError(module.errno.EADDRINUSE, "in use")
        assert module._why_not("::1", 9464, error).endswith("[::1]:9464: it is in use; choose another one")
        assert "node_exporter's default port" in module._why_not("::1", 9100, error)

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
    def test_other_reasons_are_given_in_one_line(self, state, exposition, host):
        with pytest.raises(StartupError) as caught:
            AdminServer(host, 9464, state, exposition).bind()
        message = str(caught.value)
        assert message.startswith(f"Cannot listen on the metrics port {host}:9464: ")
        assert "\n" not in message

    def test_ipv6(self, state, exposition):
        admin = AdminServer("::1", 0, state, exposition)
        try:
            admin.bind()
        except StartupError:
            pytest.skip("no IPv6 loopback here")
        admin.start()
        assert request(admin, "/livez")[0].status == 200
        admin.stop()

    def test_stop_ends_open_conversations_and_frees_the_port(self, state, exposition):
        admin = AdminServer("127.0.0.1", 0, state, exposition)
        admin.start()
        address = admin.address
        with socket.create_connection(address, timeout=10) as client:
            assert request(admin, "/livez")[0].status == 200
            began = time.monotonic()
            admin.stop()
            assert time.monotonic() - began < 2
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(10) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)
        assert "obsserve-admin" not in {thread.name for thread in threading.enumerate()}

    def test_stop_can_be_called_at_any_time(self, state, exposition):
        admin = AdminServer("127.0.0.1", 0, state, exposition)
        assert admin.address == ("127.0.0.1", 0)
        admin.stop()
        admin.bind()
        admin.stop()
        admin.stop()

    def test_the_applications_event_loop_policy_does_not_matter(self, admin, monkeypatch):
        assert isinstance(admin._loop, asyncio.SelectorEventLoop)
