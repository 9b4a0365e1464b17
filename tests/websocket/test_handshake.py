"""The opening handshake: which requests ask for a WebSocket rightly (RFC 6455 4.2, RFC 9110 7.8)."""

from __future__ import annotations

import pytest

from obsserve.websocket.handshake import check_request

KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")


def detail(*headers, method="GET", version="1.1"):
    ending = check_request(method, version, dict(headers), headers)
    return ending.detail if ending is not None else None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([KEY, VERSION], None),
        ([KEY, VERSION, (b"content-length", b"0")], None),
        ([KEY, VERSION, (b"x", b"1"), (b"x", b"2")], None),
        ([KEY], "upgrade_required"),
        ([KEY, (b"sec-websocket-version", b"8")], "upgrade_required"),
        ([VERSION], "bad_upgrade"),
        ([VERSION, (b"sec-websocket-key", b"abc")], "bad_upgrade"),
        ([VERSION, (b"sec-websocket-key", b"YWJj")], "bad_upgrade"),
        ([KEY, KEY, VERSION], "bad_upgrade"),
        ([KEY, VERSION, VERSION], "bad_upgrade"),
        ([KEY, VERSION, (b"content-length", b"2")], "bad_upgrade"),
        ([KEY, VERSION, (b"transfer-encoding", b"chunked")], "bad_upgrade"),
    ],
)
def test_a_request(headers, expected):
    assert detail(*headers) == expected


@pytest.mark.parametrize("line", [{"method": "POST"}, {"version": "1.0"}])
def test_it_is_a_get_of_http_1_1(line):
    assert detail(KEY, VERSION, **line) == "bad_upgrade"
