"""`--http module:Class`, with a class that was written for uvicorn."""

from __future__ import annotations

import re
import socket

import httpx
import pytest
from tests.parts import package


class TestProtocolClass:
    """uvicorn's own class, which is served by what it expects of uvicorn."""

    @pytest.fixture
    def server(self, serve):
        package("uvicorn")
        return serve(
            "parity_apps:client", "--http", "uvicorn.protocols.http.h11_impl:H11Protocol", "--port", "0",
            "--metrics-port", "0",
        )  # fmt: skip

    def test_it_serves_behind_a_proxy(self, server):
        headers = {"X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "https"}
        answer = httpx.get(server.url, headers=headers)
        assert answer.text == "192.0.2.9 https"
        assert answer.headers["server"] == "obsserve"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", answer.headers["date"])

    def test_the_operator_is_told_what_is_missing(self, server):
        (warning,) = server.events("protocol.custom")
        assert warning["level"] == "warning"
        assert warning["message"].startswith("H11Protocol serves HTTP: its requests leave no access line")

    def test_it_stops_gracefully_with_a_connection_open(self, server):
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n0\r\n\r\n"):
                answer += sock.recv(65536)
            assert b"127.0.0.1 http" in answer
            assert server.stop() == 0
            assert sock.recv(1024) == b""

    def test_one_that_is_not_there(self, serve):
        server = serve("parity_apps:plain", "--http", "uvicorn.server:Nothing", wait=False)
        assert server.process.wait(20) == 3
        assert (
            'Error loading the HTTP protocol class. Attribute "Nothing" not found'
            in server.stderr_path.read_text()
        )
