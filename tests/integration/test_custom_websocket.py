"""`--ws module:Class`, with uvicorn's own classes."""

from __future__ import annotations

import json
import os

import pytest
from conftest import total, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from tests.parts import package

CLASSES = [
    "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
    "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
]


@pytest.fixture(params=CLASSES, ids=["wsproto", "websockets"])
def server(serve, request):
    package("uvicorn")
    arguments = [
        "--ws",
        request.param,
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--timeout-graceful-shutdown",
        "10",
    ]
    server = serve("custom_ws_app:app", *arguments)
    server.ws = server.url.replace("http", "ws")
    return server


def test_it_serves_and_its_handshakes_are_observed(server):
    headers = {"X-Forwarded-For": "192.0.2.9"}
    with connect(f"{server.ws}/echo?a=1", additional_headers=headers) as client:
        told = json.loads(client.recv())
        assert told == {"path": "/echo", "query": "a=1", "client": "192.0.2.9", "state": "started"}
        client.send("hello")
        assert client.recv() == "hello"
        noise = os.urandom(100_000)
        client.send(noise)
        assert client.recv() == noise
        wait_for(
            lambda: total(server.metrics(), "obsserve_connections_open", state="websocket") == 1, "the gauge"
        )
    (line,) = server.access_lines(1)
    assert (line["event"], line["http_response_status_code"]) == ("websocket.handshake", 101)
    assert line["url_path"] == "/echo"
    samples = server.metrics()
    assert total(samples, "obsserve_websocket_handshakes_total", result="accepted") == 1
    wait_for(
        lambda: total(server.metrics(), "obsserve_connection_sent_bytes_total") > 100_000, "the bytes counted"
    )
    (warning,) = server.events("protocol.custom")
    assert "serves WebSockets" in warning["message"]
    assert server.stop() == 0


@pytest.mark.parametrize(("path", "status", "body"), [("/deny", 403, b""), ("/answer", 418, b"teapot")])
def test_a_refusal_has_its_status(server, path, status, body):
    with pytest.raises(InvalidStatus) as caught, connect(server.ws + path):
        pass
    assert (caught.value.response.status_code, caught.value.response.body) == (status, body)
    (line,) = server.access_lines(1)
    assert (line["http_response_status_code"], line["http_response_body_size"]) == (status, len(body))
    assert line["event"] == "websocket.handshake"
    assert server.stop() == 0


def test_it_is_told_of_the_drain(server):
    with connect(f"{server.ws}/echo") as client:
        client.recv()
        server.process.terminate()
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(20)
    assert caught.value.rcvd.code == 1012
    assert server.process.wait(20) == 0


def test_one_that_is_not_there(serve):
    server = serve("custom_ws_app:app", "--ws", "uvicorn.server:Nothing", wait=False)
    assert server.process.wait(20) == 3
    text = server.stderr_path.read_text()
    assert text == (
        'obsserve: error: Error loading the WebSocket protocol class. Attribute "Nothing" not found in module '
        '"uvicorn.server".\n'
    )
