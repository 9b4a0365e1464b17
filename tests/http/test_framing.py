from __future__ import annotations

import pytest
from wire import GET, echo, request

from obsserve.http.framing import (
    CHUNKED,
    CLOSE,
    LENGTH,
    NONE,
    BodyEnd,
    choose,
    encode_chunk,
    forbids_length,
    has_no_body,
)


@pytest.mark.parametrize(
    ("method", "status", "version", "length", "framing"),
    [
        ("GET", 200, "1.1", 5, LENGTH),
        ("GET", 200, "1.1", 0, LENGTH),
        ("GET", 200, "1.1", None, CHUNKED),
        ("GET", 200, "1.0", None, CLOSE),
        ("GET", 200, "1.0", 5, LENGTH),
        ("HEAD", 200, "1.1", 5, NONE),
        ("HEAD", 200, "1.0", None, NONE),
        ("GET", 204, "1.1", None, NONE),
        ("GET", 304, "1.1", 5, NONE),
        ("GET", 205, "1.1", 0, LENGTH),
    ],
)
def test_the_framing_follows_from_request_and_status(method, status, version, length, framing):
    assert choose(method, status, version, length) == framing
    assert has_no_body(method, status) == (framing == NONE)


def test_only_204_forbids_a_length():
    assert [status for status in range(200, 600) if forbids_length(status)] == [204]


def test_a_chunk_tells_its_size_in_hexadecimal():
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


CHUNKED_FIELDS = {b"transfer-encoding": b"chunked"}
BODIES = [
    ({}, b""),
    ({b"content-length": b"0"}, b""),
    ({b"content-length": b"9"}, b"\r\n\r\n0\r\n\r\n"),
    (CHUNKED_FIELDS, b"0\r\n\r\n"),
    (CHUNKED_FIELDS, b"5\r\n0\r\n\r\n\r\n000;a=b\r\n\r\n"),
    (CHUNKED_FIELDS, b"A;x=1\r\n0123456789\r\n0\r\nT: u\r\nV: w\r\n\r\n"),
]


@pytest.mark.parametrize(("fields", "data"), BODIES)
@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\n\r\n"])
def test_the_end_of_a_body_is_found_however_it_comes(fields, data, behind):
    stream = data + behind
    for cut in range(len(stream) + 1):
        body_end = BodyEnd(fields)
        end = body_end.find(stream[:cut])
        if end < 0:
            end = body_end.find(stream[cut:])
            assert end + cut == len(data)
        else:
            assert end == len(data)


@pytest.mark.parametrize("data", [b"zz\r\nabc\r\n0\r\n\r\n", b"-5\r\n", b"\r\n0\r\n\r\n"])
def test_a_chunk_without_a_size_never_ends(data):
    assert BodyEnd(CHUNKED_FIELDS).find(data) == -1


@pytest.mark.parametrize(
    "data",
    [
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"\r\n",
    ],
)
class TestMalformedChunks:
    def test_do_not_end(self, data):
        body_end = BodyEnd(CHUNKED_FIELDS)
        assert body_end.find(data) == -1
        assert body_end.malformed

    def test_are_refused_by_both_parsers_and_nothing_behind_them_is_served(self, serve, data):
        post = request(b"POST", b"/", b"Transfer-Encoding: chunked", body=data)
        for parts in (
            [post + GET],
            [post, GET],
            [(post + GET)[at : at + 1] for at in range(len(post + GET))],
        ):
            site = serve(echo)
            site.client().send(*parts)
            assert site.endings == ["bad_chunk"]
