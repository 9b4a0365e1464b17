"""What holds for any bytes, however they are split, and for any application."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire import GET, HOST, PARSERS, Site, body, echo, read_responses, request, start
from tests.parts import package

package("httptools")

# HYPOTHESIS_PROFILE=full looks further.
MORE = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "full" else 1
FEW = settings(max_examples=120 * MORE, deadline=None, suppress_health_check=list(HealthCheck))
CHUNKED = b"Transfer-Encoding: chunked"
H2C = (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk")

VALID = [
    GET,
    b"\r\n" + request(b"GET", b"/empty-line"),
    request(b"HEAD", b"/head?q=1"),
    request(b"POST", b"/length", b"Content-Length: 5", body=b"hello"),
    request(b"POST", b"/none", b"Content-Length: 0"),
    request(b"POST", b"/chunked", CHUNKED, body=b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"),
    request(b"PUT", b"/trailers", CHUNKED, body=b"1\r\nx\r\n0\r\nTrailer: y\r\n\r\n"),
    request(b"GET", b"/h2c", *H2C),
    request(b"POST", b"/h2c-body", *H2C, b"Content-Length: 3", body=b"abc"),
    request(b"GET", b"http://other.example/absolute"),
    request(b"OPTIONS", b"*"),
    request(b"POST", b"/expect", b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"),
    request(b"GET", b"/kept", b"Connection: keep-alive", version=b"HTTP/1.0"),
]
LAST = [
    request(b"GET", b"/close", b"Connection: close"),
    request(b"GET", b"/old", version=b"HTTP/1.0", host=b""),
    request(b"GET", b"/a b"),
    request(b"GET", b"name"),
    request(b"GET", b"/fragment#x"),
    request(b"GET", b"/no-host", host=b""),
    request(b"GET", b"/hosts", host=HOST * 2),
    request(b"GET", b"/space", b"A : b"),
    request(b"GET", b"/fold", b"A: b\r\n c"),
    request(b"GET", b"/zero", b"A: \x00"),
    b"GET /lf HTTP/1.1\r\nHost: h\nA: b\r\n\r\n",
    request(b"POST", b"/both", b"Content-Length: 3", CHUNKED, body=b"0\r\n\r\n"),
    request(b"POST", b"/lengths", b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"),
    request(b"POST", b"/sign", b"Content-Length: +3", body=b"abc"),
    request(b"POST", b"/coding", b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    request(b"POST", b"/xchunked", b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    request(b"POST", b"/chunk", CHUNKED, body=b"5\r\nhelloX0\r\n\r\n"),
    request(b"POST", b"/size", CHUNKED, body=b"zz\r\n"),
    request(b"POST", b"/large", b"Content-Length: 50", body=b"x" * 50),
    request(b"POST", b"/large-chunks", CHUNKED, body=b"32\r\n" + b"x" * 50 + b"\r\n0\r\n\r\n"),
    request(b"GET", b"/" + b"x" * 200),
    request(b"GET", b"/fields", b"A: " + b"x" * 600),
    request(b"GET", b"/count", *[b"a: b"] * 20),
    request(b"GET", b"/version", version=b"HTTP/1.2"),
    request(b"POST", b"/unfinished", b"Content-Length: 5", body=b"he"),
    GET[:10],
    b"",
]

streams = st.builds(
    lambda valid, last: b"".join(valid) + last,
    st.lists(st.sampled_from(VALID), max_size=4),
    st.sampled_from(LAST),
)


@st.composite
def split_streams(draw):
    data = draw(streams)
    if not data:
        return data, []
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8)))
    edges = [0, *cuts, len(data)]
    return data, [data[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]


def play(parser, parts, app=echo, **options):
    """Send the parts and leave; return the exchanges and the site."""
    site = Site(
        parser, app, limit_request_body=40, limit_request_line=150, limit_request_headers=400,
        limit_request_header_count=15, **options,
    )  # fmt: skip
    client = site.client()
    try:
        for part in parts:
            client.send(part)
        client.leave()
    finally:
        site.close()
    return site, client


def summary(site):
    return [
        (record.method, record.raw_path, record.status, record.ending.detail, record.request_body_size)
        for record in site.ended
    ]


def own_sizes(site, data):
    """The bytes of the requests that were whole; of others, it depends on where reading stopped.

    An empty line between two requests is counted with the one that it came with, so it is left out.
    """
    if b"/empty-line" in data:
        return None
    return [record.request_size for record in site.ended if record.ending.detail == "complete"]


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("parser", PARSERS)
def test_bytes_one_by_one_make_the_same_exchanges(parser, last):
    data = VALID[3] + VALID[5] + last
    whole, _ = play(parser, [data])
    bytewise, _ = play(parser, [bytes([byte]) for byte in data])
    assert comparable(summary(bytewise)) == comparable(summary(whole))


def comparable(exchanges):
    """Leave out what depends on where the server stopped reading a message that it refused."""
    return [
        (
            method,
            b"" if status is not None and status >= 400 else raw_path,
            status,
            detail,
            0 if detail in ("bad_chunk", "body_too_large") else size,
        )
        for method, raw_path, status, detail, size in exchanges
    ]


@FEW
@given(split_streams())
def test_any_split_makes_the_same_exchanges_with_either_parser(case):
    data, parts = case
    expected = None
    for parser in PARSERS:
        for way in ([data] if data else []), parts:
            site, _ = play(parser, way)
            found = comparable(summary(site)), own_sizes(site, data)
            if expected is None:
                expected = found
            assert found == expected, (parser, way)


@FEW
@given(split_streams(), st.integers(0, 8))
def test_records_equal_the_bytes_written(case, stop):
    _, parts = case
    for parser in PARSERS:
        site, client = play(parser, parts[:stop])
        check_records(site, client)


def check_records(site, client):
    """Hold every record against what a client read."""
    records = site.ended
    assert len({id(view) for view in site.observer.started}) == len(site.observer.started)
    assert len(site.observer.started) == len(records)
    assert site.state.active == 0
    assert not site.state.tasks
    answered = [record for record in records if record.status is not None]
    methods = [record.method if record.method == "HEAD" else "GET" for record in answered]
    responses = read_responses(client.received, methods)
    assert [record.status for record in answered] == [response.status for response in responses]
    assert [record.response_body_size for record in answered] == [
        len(response.body) for response in responses
    ]
    assert sum(record.response_size for record in records) == len(client.received)
    assert sum(record.request_size for record in records) <= client.connection.received_bytes
    for record in records:
        assert record.ended >= record.began
        assert (record.status is None) == (record.response_origin == "none")


STEPS = st.one_of(
    st.just(("receive",)),
    st.just(("turn",)),
    st.tuples(
        st.just("start"),
        st.sampled_from([200, 201, 204, 304, 404, 500, 503, 99, "200"]),
        st.sampled_from(
            [
                [],
                [(b"content-length", b"3")],
                [(b"content-length", b"0")],
                [(b"x", b"a\r\nb")],
                [(b"connection", b"close")],
            ]
        ),
    ),
    st.tuples(st.just("body"), st.sampled_from([b"", b"abc", b"toolong"]), st.booleans()),
    st.just(("raise",)),
    st.just(("return", "something")),
    st.just(("forever",)),
    st.just(("swallow",)),
)


def application(steps):
    """Make an application that does these steps for each request."""

    async def app(scope, receive, send):
        swallow = False
        for step in steps:
            try:
                match step:
                    case ("receive",):
                        await receive()
                    case ("turn",):
                        await asyncio.sleep(0)
                    case ("start", status, headers):
                        await start(send, status, *headers)
                    case ("body", data, more):
                        await body(send, data, more=more)
                    case ("raise",):
                        raise ValueError("asked for")
                    case ("return", value):
                        return value
                    case ("forever",):
                        await asyncio.Event().wait()
                    case ("swallow",):
                        swallow = True
            except Exception:
                if not swallow:
                    raise
        return None

    return app


@settings(FEW, max_examples=250 * MORE)
@given(
    st.lists(STEPS, max_size=6),
    st.lists(st.sampled_from(VALID[:8]), min_size=1, max_size=3),
    st.integers(0, 400),
    st.sampled_from(PARSERS),
    st.sampled_from([None, ConnectionResetError()]),
)
def test_every_exchange_ends_once_whatever_the_application_does(steps, messages, cut, parser, exception):
    site = Site(parser, application(steps))
    client = site.client()
    data = b"".join(messages)[: cut or None]
    try:
        client.send(data)
        client.leave(exception)
    finally:
        site.close()
    assert len(site.observer.started) == len(site.ended)
    assert len({id(view) for view in site.observer.started}) == len(site.ended)
    assert len(site.observer.opened) == len(site.observer.closed) == 1
    assert sum(record.response_size for record in site.ended) == len(client.received)
    check_records(site, client)
