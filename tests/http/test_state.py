"""What all connections share."""

from __future__ import annotations

import math

from wire import GET, body, start

from obsserve.http.state import default_headers
from obsserve.settings import Settings


def settings(**options):
    return Settings(app="tests:app", **options)


def test_default_headers():
    assert default_headers(settings()) == [(b"server", b"obsserve")]
    assert default_headers(settings(server_header=False)) == []
    given = settings(headers=["X-Name: Value", "Server: own"])
    assert default_headers(given) == [(b"x-name", b" Value"), (b"server", b" own")]


def test_what_is_off_has_no_bound(serve):
    state = serve(None, timeout_request=None, timeout_write=None, limit_request_body=None).state
    assert state.timeout_request == state.timeout_write == state.limit_request_body == math.inf
    assert state.small_head == min(state.limit_request_line, state.limit_request_headers)


def test_heads_of_an_earlier_second_are_forgotten(serve):
    async def app(scope, receive, send):
        await start(send, 200, (b"content-length", b"0"))
        await body(send)

    site = serve(app)
    client = site.client().send(GET)
    site.state.set_date(b"Fri, 02 Jan 1970 00:00:00 GMT")
    client.send(GET)
    dates = [response.headers[b"date"] for response in client.responses()]
    assert dates == [b"Thu, 01 Jan 1970 00:00:00 GMT", b"Fri, 02 Jan 1970 00:00:00 GMT"]


def test_the_date_can_be_left_out(serve):
    async def app(scope, receive, send):
        await start(send, 200, (b"content-length", b"0"))
        await body(send)

    client = serve(app, date_header=False).client().send(GET)
    assert b"date" not in client.responses()[0].headers


def test_active_counts_requests_in_progress(serve):
    async def app(scope, receive, send):
        active.append(site.state.active)
        await start(send, 200, (b"content-length", b"0"))
        await body(send)

    active = []
    site = serve(app)
    site.client().send(GET, GET)
    assert active == [1, 1]
    assert site.state.active == 0
    assert site.state.total_requests == 2
