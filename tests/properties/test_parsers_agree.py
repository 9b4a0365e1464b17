"""Whatever comes, both parsers see the same requests in it, and refuse at the same place."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from test_exchanges import CHUNKED, FEW, LAST, VALID, play
from wire import PARSERS, request

# What is likely to be read in two ways: line ends, separators, digits, parts of framing.
BYTES = [bytes([byte]) for byte in b'\r\n\t \x00\x0b\x0c\x7f\x80\xff:;,="\\/?#%*_-+0159afxAZ']
PIECES = [
    *BYTES, b"\r\n", b"\n\n", b"\r\r\n", b"\r\n ", b"\r\n\t", b"  ", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b" HTTP/1.1",
    b"Host: h\r\n", b"Content-Length: 1\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked\r\n", b"chunked",
    b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"5;a=b", b";a=\"b\"", b"0x",
]  # fmt: skip


@st.composite
def damaged(draw):
    """A few good requests and perhaps a bad one, of which some bytes were replaced, put in or taken out."""
    chosen = draw(st.lists(st.sampled_from([*VALID, *LAST]), min_size=1, max_size=3))
    data = b"".join(chosen)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        out = draw(st.sampled_from([0, 0, 1, 2, 5]))
        data = data[:at] + draw(st.sampled_from([b"", *PIECES])) + data[at + out :]
    return data


def seen(parser, data):
    """The requests that were served, and whether something was refused after them."""
    site, _ = play(parser, [data] if data else [])
    served = []
    for record in site.ended:
        if record.response_origin == "server":
            return served, True
        served.append((record.method, record.raw_path, record.query_string, record.request_body_size))
    return served, False


def agree(data):
    data += b"\r\n\r\n\r\n"  # httptools refuses a line at its first wrong byte, h11 when it is complete
    assume(b"RTSP" not in data)  # httptools reads it as HTTP: see http/parser.py
    first, second = (seen(parser, data) for parser in PARSERS)
    assert first == second


@FEW
@given(damaged())
@example(request(b"POST", b"/", CHUNKED, body=b"5;=a\r\nhello\r\n0\r\n\r\n"))
def test_damaged_requests(data):
    agree(data)


EXTENSION_BYTES = [
    b"a",
    b"Z9",
    b";",
    b"=",
    b'"',
    b" ",
    b"\t",
    b"\\",
    b"\x80",
    b"\x01",
    b",",
    b"\x7f",
    b"\r",
    b"\n",
]


@FEW
@given(st.lists(st.sampled_from(EXTENSION_BYTES), max_size=7).map(b"".join))
@example(b";")
@example(b";a=b;c")
@example(b';a="b\\"c";d')
@example(b';a="b')
@example(b";a b")
@example(b" ;a")
def test_chunk_extensions(extension):
    # llhttp takes the one for a name with a value, and then lets a string follow it; nobody sends that.
    assume(b";=" not in extension)
    agree(request(b"POST", b"/", CHUNKED, body=b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"))


@pytest.mark.parametrize(
    "extension", [b";", b"; a", b";a b", b";a=\x01", b';a="b', b';a="b"c', b";a\x00", b" ", b"\t;a"]
)
def test_extensions_that_are_none_are_refused(extension):
    data = request(b"POST", b"/", CHUNKED, body=b"5" + extension + b"\r\nhello\r\n0\r\n\r\n")
    for parser in PARSERS:
        site, _ = play(parser, [data])
        assert [record.ending.detail for record in site.ended] == ["bad_chunk"]
