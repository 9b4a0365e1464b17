"""What a record says of its request's id: whose it may be, what it may look like, where it goes."""

from __future__ import annotations

import re

import pytest
from wire import GET, Waiting, hello, request

GIVEN = b"X-Request-ID: order-7._"


def echoed(client):
    return [response.headers.get(b"x-request-id") for response in client.responses()]


def test_a_trusted_peers_id_is_taken_and_echoed(serve):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["state"]["request_id"])
        await hello(scope, receive, send)

    site = serve(app)
    client = site.client().send(request(b"GET", b"/", GIVEN))
    assert echoed(client) == [b"order-7._"]
    assert (site.last.request_id, seen) == ("order-7._", ["order-7._"])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"two words",
        b"a,b",
        b"x" * 129,
        b'"},{"a":"',
        b"\xc3\xa9",
        b"caf\xe9",
        b"a\tb",
        b"<script>",
    ],
)
def test_an_id_that_could_do_harm_is_replaced(serve, value):
    site = serve(hello)
    client = site.client().send(request(b"GET", b"/", b"X-Request-ID: " + value))
    assert re.fullmatch("[0-9a-f]{32}", site.last.request_id)
    assert echoed(client) == [site.last.request_id.encode()]


def test_the_longest_id(serve):
    site = serve(hello)
    site.client().send(request(b"GET", b"/", b"X-Request-ID: " + b"x" * 128))
    assert site.last.request_id == "x" * 128


def test_a_strangers_id_is_replaced(serve):
    site = serve(hello, forwarded_allow_ips="10.0.0.1")
    client = site.client(peername=("192.0.2.1", 5000)).send(request(b"GET", b"/", GIVEN))
    assert re.fullmatch("[0-9a-f]{32}", site.last.request_id)
    assert echoed(client) == [site.last.request_id.encode()]
    site.client(peername=("10.0.0.1", 5000)).send(request(b"GET", b"/", GIVEN))
    assert site.last.request_id == "order-7._"


def test_refusals_carry_it_too(serve):
    site = serve(Waiting(), limit_concurrency=1)
    site.client().send(GET)
    client = site.client().send(request(b"GET", b"/", GIVEN))
    [response] = client.responses()
    assert (response.status, response.headers[b"x-request-id"]) == (503, b"order-7._")
    client = site.client().send(b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
    [response] = client.responses()
    assert response.status == 400
    assert response.headers[b"x-request-id"] == site.last.request_id.encode()


def test_another_header_or_none(serve):
    site = serve(hello, request_id_header="x-correlation-id")
    client = site.client().send(request(b"GET", b"/", b"X-Correlation-ID: c1", GIVEN))
    assert echoed(client) == [None]
    assert (site.last.request_id, client.responses()[0].headers[b"x-correlation-id"]) == ("c1", b"c1")
    site = serve(hello, request_id_header=None)
    client = site.client().send(request(b"GET", b"/", GIVEN))
    assert echoed(client) == [None]
    assert re.fullmatch("[0-9a-f]{32}", site.last.request_id)


def test_the_route_that_is_known_while_the_application_runs(serve):
    waiting = Waiting()

    async def app(scope, receive, send):
        scope["path_template"] = "/users/{id}"
        await waiting(scope, receive, send)

    site = serve(app)
    site.client().send(GET)
    [connection] = site.state.connections
    assert connection.open_exchange.present_route == "/users/{id}"
    assert connection.open_exchange.route == ""
