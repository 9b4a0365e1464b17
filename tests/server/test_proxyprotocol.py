"""The PROXY protocol: what is read of it, from whom, and what happens to what is wrong."""

from __future__ import annotations

import socket
import struct

import pytest

from obsserve.server.proxyprotocol import SIGNATURE, BadHeader, Endpoints, endpoints, wanted


def v2(command=1, family=1, transport=1, data=b"", *, version=2):
    start = SIGNATURE + bytes([version << 4 | command, family << 4 | transport])
    return start + len(data).to_bytes(2, "big") + data


INET = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + struct.pack("!HH", 1234, 80)
INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 1, 2)
)
GOOD = {
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 80\r\n": (("192.0.2.1", 1234), ("198.51.100.2", 80)),
    b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n": (("2001:db8::1", 0), ("2001:db8::2", 65535)),
    b"PROXY UNKNOWN\r\n": (None, None),
    b"PROXY UNKNOWN whatever this is\r\n": (None, None),
    v2(data=INET): (("192.0.2.1", 1234), ("198.51.100.2", 80)),
    v2(data=INET + b"\x02\x00\x03abc"): (("192.0.2.1", 1234), ("198.51.100.2", 80)),
    v2(family=2, data=INET6): (("2001:db8::1", 1), ("2001:db8::2", 2)),
    v2(family=3, data=b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")): (("/a", None), ("/b", None)),
    v2(command=0, family=0, transport=0): (None, None),
    v2(command=0, data=INET): (None, None),
    v2(family=0, transport=0, data=b"anything"): (None, None),
}
BAD = {
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n": "missing",
    b"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n": "missing",
    b"\r\n\r\n\0\r\nQUIZ\n\x21\x11\0\0": "missing",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n": "malformed",
    b"PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n": "malformed",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n": "malformed",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n": "malformed",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n": "malformed",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n": "malformed",
    b"PROXY TCP4 192.0.2.\xff 198.51.100.2 1 2\r\n": "malformed",
    b"PROXY " + b"x" * 200 + b"\r\n": "malformed",
    b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n": "unsupported",
    v2(version=1, data=INET): "unsupported",
    v2(transport=2, data=INET): "unsupported",
    v2(data=INET[:11]): "malformed",
    v2(command=2, data=INET): "malformed",
    v2(family=4, data=INET): "malformed",
}


def read(stream):
    """Read as the server does: never a byte more than was asked for; return the header and what is left."""
    taken = b""
    while size := wanted(taken):
        if len(taken) == len(stream):
            return None, b""
        taken = stream[: len(taken) + size]
    return endpoints(taken), stream[len(taken) :]


@pytest.mark.parametrize("header", GOOD)
def test_a_good_header_is_read_and_not_a_byte_more(header):
    assert read(header + b"\r\n\x16\x03TLS") == (Endpoints(*GOOD[header]), b"\r\n\x16\x03TLS")


@pytest.mark.parametrize("header", GOOD)
def test_an_incomplete_one_is_waited_for(header):
    for end in range(len(header)):
        taken = b""
        while (size := wanted(taken)) and len(taken) < end:
            taken = header[: min(len(taken) + size, end)]
        assert size > 0


@pytest.mark.parametrize("header", BAD)
def test_a_bad_one_is_refused(header):
    with pytest.raises(BadHeader) as caught:
        read(header)
    assert caught.value.reason == BAD[header]


def test_what_cannot_become_one_is_refused_at_once():
    with pytest.raises(BadHeader):
        wanted(b"G")
