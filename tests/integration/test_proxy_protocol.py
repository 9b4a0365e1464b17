"""--proxy-protocol over real sockets, on both loops."""

from __future__ import annotations

import socket

import pytest
from conftest import total, wait_for

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 80\r\n"
GET = b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def exchange(server, *parts):
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 20) as client:
        for part in parts:
            client.sendall(part)
        received = b""
        try:
            while data := client.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_client_is_the_one_that_the_proxy_names(serve, loop):
    server = serve("obsserve.demo:app", "--loop", loop, "--proxy-protocol", "--metrics-port", "0")
    for parts in ([V1 + GET], [V1, GET], [V1[:9], V1[9:] + GET]):
        assert exchange(server, *parts).startswith(b"HTTP/1.1 ")
    lines = server.access_lines(3)
    assert {line["client_address"] for line in lines} == {"192.0.2.1"}
    assert {line["network_peer_address"] for line in lines} == {"127.0.0.1"}
    assert {line["http_request_size"] for line in lines} == {len(GET)}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_a_good_header_a_trusted_peer_is_closed_and_counted(serve, loop):
    server = serve("obsserve.demo:app", "--loop", loop, "--proxy-protocol", "--metrics-port", "0")
    assert exchange(server, GET) == b""
    assert exchange(server, b"PROXY TCP4 x y 1 2\r\n" + GET) == b""
    wait_for(lambda: len(server.events("proxy_protocol.refused")) == 2, "two refusals")
    assert {event["reason"] for event in server.events("proxy_protocol.refused")} == {"missing", "malformed"}
    metrics = server.metrics()
    assert total(metrics, "obsserve_proxy_protocol_errors_total") == 2
    assert total(metrics, "obsserve_connections_closed_total", reason="protocol_error") == 2


def test_an_untrusted_peer_is_served_as_itself(serve):
    server = serve(
        "obsserve.demo:app", "--proxy-protocol", "--forwarded-allow-ips", "10.0.0.1", "--metrics-port", "0"
    )
    assert exchange(server, GET).startswith(b"HTTP/1.1 ")
    assert exchange(server, V1 + GET).startswith(b"HTTP/1.1 ")  # an unknown method
    assert {line["client_address"] for line in server.access_lines(2)} == {"127.0.0.1"}


def test_a_forwarding_header_of_an_untrusted_peer_is_told_once_and_counted(serve):
    server = serve("obsserve.demo:app", "--forwarded-allow-ips", "10.0.0.1", "--metrics-port", "0")
    for _ in range(3):
        exchange(server, GET[:-2] + b"X-Forwarded-For: 1.1.1.1\r\n\r\n")
    assert {line["client_address"] for line in server.access_lines(3)} == {"127.0.0.1"}
    assert total(server.metrics(), "obsserve_forwarded_untrusted_total") == 3
    wait_for(lambda: server.events("forwarded.untrusted"), "the hint")
    assert len(server.events("forwarded.untrusted")) == 1
