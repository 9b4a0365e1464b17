from __future__ import annotations

import pytest

from obsserve.http.head import (
    BadResponseError,
    HeadCache,
    HostCache,
    TargetCache,
    check_duplicates,
    check_framing,
    check_size,
    check_target,
    connection_options,
    serialise_head,
    split_target,
)

DATE = b"Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query", "authority"),
    [
        (b"/", "/", b"/", b"", None),
        (b"/a%20b?c=%20", "/a b", b"/a%20b", b"c=%20", None),
        (b"//host/x", "//host/x", b"//host/x", b"", None),
        (b"/?", "/", b"/", b"", None),
        (b"/?a?b", "/", b"/", b"a?b", None),
        (b"http://h:1/a?b", "/a", b"/a", b"b", b"h:1"),
        (b"HTTPS://u:p@h", "/", b"/", b"", b"h"),
        (b"http://h?q", "/", b"/", b"q", b"h"),
        (b"*", "*", b"*", b"", None),
    ],
)
def test_a_target_is_split(target, path, raw_path, query, authority):
    found = split_target(target)
    assert (found.path, found.raw_path, found.query_string, found.authority) == (
        path,
        raw_path,
        query,
        authority,
    )
    assert found.ordinary == target.startswith(b"/")


@pytest.mark.parametrize(
    ("method", "target", "detail"),
    [
        ("GET", b"/", None),
        ("OPTIONS", b"*", None),
        ("GET", b"http://h/", None),
        ("GET", b"*", "bad_request_line"),
        ("GET", b"/#f", "bad_request_line"),
        ("GET", b"http://h/#f", "bad_request_line"),
        ("GET", b"name", "bad_request_line"),
        ("GET", b"ftp://h/", "bad_request_line"),
        ("GET", b"http://a b/", "bad_request_line"),
        ("CONNECT", b"h:443", "unknown_method"),
    ],
)
def test_the_form_of_a_target_is_checked(method, target, detail):
    ending = check_target(method, target)
    assert (ending.detail if ending else None) == detail


def test_caches_are_bounded():
    targets = TargetCache()
    for number in range(targets.MAX_ENTRIES + 10):
        assert targets[b"/%d" % number].raw_path == b"/%d" % number
    assert len(targets) <= targets.MAX_ENTRIES
    before = len(targets)
    assert targets[b"/" + b"x" * targets.MAX_KEY].path
    assert len(targets) == before
    hosts = HostCache()
    for number in range(hosts.MAX_ENTRIES + 10):
        assert hosts.check(b"h%d" % number)
    assert len(hosts) <= hosts.MAX_ENTRIES
    heads = HeadCache()
    for number in range(heads.MAX_ENTRIES + 10):
        heads.remember((number,), serialise_head(200, [], [], b""))
    assert len(heads) <= heads.MAX_ENTRIES


@pytest.mark.parametrize(
    "host", [b"h", b"h:80", b"a_b.c", b"[::1]", b"[fe80::1%25eth0]:80", b"", b"h:", b"h \t"]
)
def test_a_host_is_accepted(host):
    assert HostCache().check(host)


@pytest.mark.parametrize("host", [b"a/b", b"a@b", b"a b", b"h:x", b"[::1", b"h\x00", "ä".encode()])
def test_a_host_is_refused(host):
    hosts = HostCache()
    assert not hosts.check(host)
    assert host not in hosts


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        (b"host", "bad_host"),
        (b"content-length", "length_conflict"),
        (b"transfer-encoding", "te_cl_conflict"),
        (b"x", None),
    ],
)
def test_a_repeated_field(name, detail):
    ending = check_duplicates([(name, b"1"), (b"y", b""), (name, b"1")])
    assert (ending.detail if ending else None) == detail


@pytest.mark.parametrize(
    ("fields", "version", "detail"),
    [
        ({b"content-length": b"5"}, "1.1", None),
        ({b"content-length": b" 5\t"}, "1.1", None),
        ({b"content-length": b"\xb2"}, "1.1", "length_conflict"),
        ({b"content-length": b"9" * 20}, "1.1", "length_conflict"),
        ({b"transfer-encoding": b"Chunked"}, "1.1", None),
        ({b"transfer-encoding": b"chunked"}, "1.0", "te_cl_conflict"),
        ({b"transfer-encoding": b"chunked\x0b"}, "1.1", "te_cl_conflict"),
        ({b"transfer-encoding": b"gzip, chunked"}, "1.1", "unknown_transfer_coding"),
        ({b"transfer-encoding": b"chunked, gzip"}, "1.1", "te_cl_conflict"),
        ({b"transfer-encoding": b"chunked", b"content-length": b"5"}, "1.1", "te_cl_conflict"),
    ],
)
def test_the_framing_of_a_request(fields, version, detail):
    ending = check_framing(fields, version)
    assert (ending.detail if ending else None) == detail


def test_options_of_connection():
    assert connection_options(b"Close , Upgrade") == [b"close", b"upgrade"]


class TestSerialising:
    def test_of_an_ordinary_head(self):
        head = serialise_head(200, [(b"X-A", b"1"), (b"Content-Length", b"5")], [(b"server", b"s")], DATE)
        assert head.start == b"HTTP/1.1 200 OK\r\ndate: " + DATE + b"\r\nserver: s\r\nx-a: 1\r\n"
        assert head.complete == head.start + b"content-length: 5\r\n\r\n"
        assert (head.complete_length, head.content_length, head.close, head.event_stream) == (
            5,
            5,
            False,
            False,
        )

    def test_of_no_date(self):
        assert serialise_head(200, [], [], b"").start == b"HTTP/1.1 200 OK\r\n"

    @pytest.mark.parametrize("status", [204, 304])
    def test_of_a_status_without_a_body_offers_no_complete_response(self, status):
        head = serialise_head(status, [(b"content-length", b"5")], [], b"")
        assert head.complete_length is None
        assert head.content_length == (5 if status == 304 else None)

    def test_of_an_unregistered_status(self):
        assert serialise_head(799, [], [], b"").start == b"HTTP/1.1 799 \r\n"

    def test_of_fields_that_are_the_servers(self):
        head = serialise_head(200, [(b"Connection", b"Close"), (b"Transfer-Encoding", b"chunked")], [], b"")
        assert head.start == b"HTTP/1.1 200 OK\r\n"
        assert head.close

    @pytest.mark.parametrize("status", [0, 100, 102, 199, 1000, "200", None, 200.0])
    def test_refuses_a_status(self, status):
        with pytest.raises(BadResponseError):
            serialise_head(status, [], [], b"")

    @pytest.mark.parametrize(
        "pair",
        [
            ("x", b"y"), (b"x", "y"), (b"", b"y"), (b"x y", b"y"), (b"x", b"a\r\nb: c"), (b"x", b"a\x00"), (b"x\r", b""),
            (b"content-length", b"x"), (b"content-length", b"-1"), (b"transfer-encoding", b"gzip"),
        ],
    )  # fmt: skip
    def test_refuses_a_field(self, pair):
        with pytest.raises(BadResponseError):
            serialise_head(200, [pair], [], b"")

    def test_refuses_two_lengths(self):
        with pytest.raises(BadResponseError):
            serialise_head(200, [(b"content-length", b"1"), (b"content-length", b"2")], [], b"")


HEAD = b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"
LINE, FIELDS = len(b"GET / HTTP/1.1\r\n"), len(b"Host: h\r\nA: b\r\n")


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize(
    ("line", "fields", "detail"),
    [
        (LINE, FIELDS, None),
        (LINE - 1, FIELDS, "uri_too_long"),
        (LINE, FIELDS - 1, "header_too_large"),
        (LINE - 1, FIELDS - 1, "uri_too_long"),
    ],
)
def test_the_size_of_a_head(start, line, fields, detail):
    found = [check_size(b"x" * start + HEAD[:cut], start, line, fields) for cut in range(len(HEAD) + 1)]
    assert (found[-1].detail if found[-1] is not None else None) == detail
    refused = [ending for ending in found if ending is not None]
    assert found[len(found) - len(refused) :] == refused  # once it is certain, it stays certain
    assert {ending.detail for ending in refused} <= {detail}


def test_what_never_was_a_request_line():
    assert check_size(b"x" * 99, 0, 100, 100) is None
    assert check_size(b"x" * 100, 0, 100, 100).detail == "bad_request_line"
    assert check_size(b"x " * 50, 0, 100, 100).detail == "uri_too_long"
