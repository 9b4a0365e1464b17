"""What is read: each message its own bytes, limits by exact size, records of what never was a request."""

from __future__ import annotations

import asyncio
import sys

import pytest
from wire import END, GET, HOST, Waiting, echo, hello, request

CHUNKED = b"Transfer-Encoding: chunked"
H2C = (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings")
LINE = len(b"GET / HTTP/1.1\r\n")


def post(*fields, **parts):
    return request(b"POST", b"/", *fields, **parts)


def ways(data):
    """Whole, in two reads cut at each place, and byte by byte."""
    halves = [[data[:cut], data[cut:]] for cut in range(1, len(data), 7)]
    return [[data], *halves, [data[at : at + 1] for at in range(len(data))]]


MESSAGES = [
    GET,
    post(b"Content-Length: 5", body=b"hello"),
    request(b"GET", b"/a-longer-one"),
    post(CHUNKED, body=b"5;a=b\r\nhello\r\n1\r\n\n\r\n0\r\nT: x\r\n\r\n"),
    post(CHUNKED, body=b"4\r\n\r\n\r\n\r\n0\r\n\r\n"),
    request(b"GET", b"/h2c", *H2C),
    post(b"Content-Length: 4", body=b"\r\n\r\n"),
    request(b"GET", b"/last"),
]


class TestSizes:
    def test_each_exchange_has_its_own_bytes_however_they_come(self, serve):
        data = b"".join(MESSAGES)
        for parts in ways(data):
            site = serve(echo)
            client = site.client().send(*parts)
            assert [exchange.request_size for exchange in site.ended] == [
                len(message) for message in MESSAGES
            ]
            assert client.connection.received_bytes == len(data)

    def test_what_comes_behind_the_end_changes_no_record(self, serve):
        site = serve(hello)
        client = site.client().send(post(b"Content-Length: 10", body=b"abc"))
        [view] = site.observer.started
        size = view.request_size
        client.send(b"defghij", GET)
        assert view.request_size == size
        assert [exchange.request_size for exchange in site.ended][1:] == [len(GET)]

    def test_an_idle_connection_keeps_nothing_of_its_last_request(self, serve):
        site = serve(hello)
        data = request(
            b"POST", b"/" + b"t" * 500, b"A: " + b"v" * 500, b"Content-Length: 200", body=b"b" * 200
        )
        for parts in ([data], [data[:300], data[300:]], [data[:-50], data[-50:]]):
            connection = site.client().send(*parts).connection
            slots = [slot for kind in type(connection).__mro__ for slot in getattr(kind, "__slots__", ())]
            kept = [getattr(connection, slot, None) for slot in slots]
            assert connection.exchange is None
            assert not [value for value in kept if isinstance(value, bytes) and value]


class TestLimits:
    @pytest.mark.parametrize("before", [b"", b"\r\n", GET, GET * 2])
    @pytest.mark.parametrize("spaces", [b"", b" " * 50])
    @pytest.mark.parametrize("over", [0, 1])
    def test_of_the_fields(self, serve, before, spaces, over):
        data = request(b"GET", b"/", b"A:" + spaces + b"x" * 60)
        limit = len(data) - LINE - len(END) - over
        expected = "header_too_large" if over else "complete"
        for parts in ways(before + data):
            site = serve(hello, limit_request_line=LINE, limit_request_headers=limit)
            site.client().send(*parts)
            assert site.endings[before.count(b"GET") :] == [expected], parts

    @pytest.mark.parametrize("before", [b"", GET])
    @pytest.mark.parametrize("over", [0, 1])
    def test_of_the_request_line(self, serve, before, over):
        data = request(b"GET", b"/" + b"x" * 60)
        limit = data.index(b"\n") + 1 - over
        expected = "uri_too_long" if over else "complete"
        for parts in ways(before + data):
            site = serve(hello, limit_request_line=limit)
            site.client().send(*parts)
            assert site.endings[before.count(b"GET") :] == [expected], parts

    @pytest.mark.parametrize("over", [0, 1])
    def test_of_the_count(self, serve, over):
        data = request(b"GET", b"/", *[b"a: b"] * (9 + over))
        for parts in ways(data):
            site = serve(hello, limit_request_header_count=10)
            site.client().send(*parts)
            assert site.endings == ["header_too_large" if over else "complete"]

    @pytest.mark.parametrize("over", [0, 1])
    def test_of_a_trailer(self, serve, over):
        data = post(CHUNKED, body=b"1\r\nx\r\n0\r\nT: " + b"x" * (295 + over) + b"\r\n\r\n")
        for parts in ways(data):
            site = serve(echo, limit_request_headers=300)
            site.client().send(*parts)
            assert site.endings == ["bad_chunk" if over else "complete"]

    def test_of_an_extension_that_never_ends(self, serve):
        site = serve(echo, limit_request_headers=300)
        client = site.client().send(post(CHUNKED, body=b"1"), *[b";a=" + b"b" * 97] * 4)
        assert site.endings == ["bad_chunk"]
        assert client.gone

    def test_many_small_chunks_are_no_trailer(self, serve):
        site = serve(echo, limit_request_headers=100)
        client = site.client().send(post(CHUNKED), *[b"1;a=bcdefgh\r\nx\r\n"] * 100, b"0\r\n\r\n")
        assert client.responses()[0].body == b"x" * 100

    def test_memory_of_a_head_that_never_ends_is_bounded(self, serve):
        site = serve(hello, limit_request_line=100, limit_request_headers=1000)
        client = site.client().send(b"GET / HTTP/1.1\r\nA: ")
        while not client.gone:
            client.send(b"x" * 50)
            assert len(client.connection._head) <= 1100
        assert site.endings == ["header_too_large"]


class TestRecordsOfRefusedHeads:
    @pytest.mark.parametrize(
        ("data", "method", "path", "version", "ending"),
        [
            (b"\x00" + GET, "", b"", "", "bad_request_line"),
            (b"GET \x00" + GET, "GET", b"", "", "bad_request_line"),
            (request(b"HEAD", b"/p", b"A : b"), "HEAD", b"/p", "1.1", "bad_header"),
            (request(b"GET", b"/p?q", b"A: \x00"), "GET", b"/p", "1.1", "bad_header"),
            (request(b"BREW", b"/p"), "BREW", b"", "", "unknown_method"),
            (request(b"GET", b"/p", version=b"HTTP/1.7"), "GET", b"/p", "", "unsupported_version"),
            (request(b"GET", b"/p", version=b"HTTP/2.0"), "GET", b"/p", "", "unsupported_version"),
            (request(b"GET", b"/" + b"x" * 300), "GET", b"", "", "uri_too_long"),
        ],
    )
    @pytest.mark.parametrize("before", [b"", GET])
    def test_tell_what_was_readable(self, serve, data, method, path, version, ending, before):
        for parts in ways(before + data):
            site = serve(hello, limit_request_line=200)
            site.client().send(*parts)
            last = site.last
            if ending == "unsupported_version":  # with the head, or at once: only then is the path told
                assert last.raw_path in (b"", path)
                path = last.raw_path
            assert (last.method, last.raw_path, last.http_version, last.ending.detail) == (
                method, path, version, ending,
            ), parts  # fmt: skip
            assert len(site.ended) == 1 + bool(before)

    def test_a_refused_head_request_gets_no_body(self, serve):
        client = serve(hello).client().send(request(b"HEAD", b"/", b"A : b"))
        assert client.received.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize("part", [b"GET /p HTTP/1.1\r\nHo", b"GET /p HTTP/1.1", b"GET /p HTTP/1.1\r\n"])
    def test_of_a_client_that_leaves(self, serve, part):
        site = serve(hello)
        site.client().send(part).leave()
        assert (site.last.method, site.last.raw_path, site.endings) == ("GET", b"/p", ["client_disconnected"])

    def test_of_one_that_is_too_slow(self, serve):
        site = serve(hello)
        client = site.client().send(b"GET /p HTTP/1.1\r\nHo").sweep(11)
        assert (site.last.method, site.last.raw_path, site.endings) == ("GET", b"/p", ["header_timeout"])
        assert client.responses()[0].status == 408


class TestHeads:
    def test_white_space_around_a_value_is_not_part_of_it(self, serve):
        app = Waiting()
        serve(app).client().send(request(b"GET", b"/", b"A:\t b \t", host=b"Host: h \r\n"))
        assert app.scopes[0]["headers"] == [(b"host", b"h"), (b"a", b"b")]

    @pytest.mark.parametrize("field", [b"Connection: close \t", b"Connection: x, Close"])
    def test_nor_of_an_option(self, serve, field):
        assert serve(hello).client().send(request(b"GET", b"/", field)).gone

    def test_several_connection_fields_are_one_list(self, serve):
        client = serve(hello).client().send(request(b"GET", b"/", b"Connection: close", b"Connection: x"))
        assert client.responses()[0].headers[b"connection"] == b"close"
        assert client.gone

    def test_no_connection_is_left_deaf(self, serve):
        # llhttp takes Proxy-Connection for Connection, and reads no more.
        client = serve(hello).client().send(request(b"GET", b"/", b"Proxy-Connection: close"), GET)
        assert len(client.responses()) == 2 or client.gone

    @pytest.mark.parametrize(
        "first",
        [
            request(b"GET", b"/", b"Proxy-Connection: close"),
            post(CHUNKED, body=b"0\r\nConnection: close\r\n\r\n"),
        ],
    )
    def test_nor_one_that_is_being_answered(self, serve, first):
        # Nor does it behind such a trailer field.
        app = Waiting()
        site = serve(app)
        client = site.client().send(first + GET)
        app.go.set()
        site.settle()
        assert len(client.responses()) == 2 or client.gone

    @pytest.mark.parametrize("field", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
    def test_a_trailer_field_that_would_frame_the_message(self, serve, field):
        site = serve(hello)
        client = site.client().send(post(CHUNKED, body=b"0\r\n" + field + END + END), GET)
        assert site.endings == ["bad_chunk"]
        assert client.gone

    @pytest.mark.parametrize("host", [b"", HOST * 2, b"Host: a b\r\n"])
    def test_the_absolute_form_does_not_make_up_for_a_bad_host(self, serve, host):
        site = serve(hello)
        site.client().send(request(b"GET", b"http://h/a", host=host))
        assert site.endings == ["bad_host"]

    @pytest.mark.parametrize("target", [b"http:///x", b"http://", b"http://:80/", b"http://u@/"])
    def test_an_absolute_form_needs_a_host(self, serve, target):
        site = serve(hello)
        site.client().send(request(b"GET", target))
        assert site.endings == ["bad_request_line"]

    def test_several_spaces_pass(self, serve):
        site = serve(hello)
        site.client().send(b"GET  /  HTTP/1.1\r\n" + HOST + END)
        assert site.endings == ["complete"]

    @pytest.mark.parametrize("parts", [[request(b"BREW")], [b"BR", request(b"EW")], [b"BREW", request(b"")]])
    def test_an_unknown_method_behind_a_request(self, serve, parts):
        site = serve(hello)
        site.client().send(GET + parts[0], *parts[1:])
        assert (site.endings, site.last.method) == (["complete", "unknown_method"], "BREW")

    def test_what_follows_a_last_request_is_not_read(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(request(b"GET", b"/", b"Connection: close"), GET)
        app.go.set()
        site.settle()
        assert site.endings == ["complete"]
        assert client.gone


class TestUpgrades:
    def test_the_body_of_one_that_is_ignored_is_streamed(self, serve):
        app = Waiting()
        serve(app).client().send(post(*H2C, b"Content-Length: 10", body=b"abc"))
        assert len(app.scopes) == 1

    def test_a_client_that_leaves_in_that_body_is_recorded(self, serve):
        site = serve(echo)
        site.client().send(post(*H2C, b"Content-Length: 10", body=b"abc")).leave()
        assert (site.endings, site.last.disconnect_phase) == (["client_disconnected"], "request_body")

    def test_it_may_wait_for_100_continue(self, serve):
        client = serve(echo).client().send(post(*H2C, b"Expect: 100-continue", b"Content-Length: 3"))
        assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert client.responses()[-1].body == b"abc"

    def test_http_1_0_cannot_ask_for_a_websocket(self, serve):
        site = serve(hello)
        taken = []
        site.state.websocket_taker = lambda *parts: taken.append(parts)
        fields = (b"Upgrade: websocket", b"Connection: Upgrade")
        site.client().send(request(b"GET", b"/", *fields, version=b"HTTP/1.0"))
        assert (taken, site.endings) == ([], ["complete"])

    def test_an_option_that_only_contains_the_word_asks_for_nothing(self, serve):
        site = serve(hello)
        site.client().send(request(b"GET", b"/", b"Upgrade: h2c", b"Connection: xupgrade"), GET)
        assert site.endings == ["complete"] * 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are eager since Python 3.12")
class TestEagerTasks:
    @pytest.mark.parametrize(
        "parts",
        [
            [GET],
            [GET * 3],
            [post(b"Content-Length: 3", body=b"abc")],
            [GET + post(b"Content-Length: 3", body=b"a"), b"bc"],
        ],
    )
    def test_answer_before_the_read_is_over(self, serve, parts):
        site = serve(hello)
        site.loop.set_task_factory(asyncio.eager_task_factory)
        client = site.client().send(*parts, GET)
        assert set(site.endings) == {"complete"}
        assert len(client.responses()) == len(site.ended) == b"".join([*parts, GET]).count(b"HTTP/1.1")
        assert not site.state.tasks
        assert site.state.active == 0


@pytest.mark.parametrize(
    "data", [b" GET / HTTP/1.1\r\n", b"x" * 33 + b" / HTTP/1.1\r\n", b"GE\rT / HTTP/1.1\r\n"]
)
def test_what_is_no_method_is_told_by_nobody(serve, data):
    for parts in ways(data):
        site = serve(hello)
        site.client().send(*parts)
        assert (site.endings, site.last.method) == (["bad_request_line"], "")


def test_a_lone_cr_in_a_field_is_a_bad_header(serve):
    site = serve(hello)
    site.client().send(b"GET / HTTP/1.1\r\nHost:\r h\r\n\r\n")
    assert site.endings == ["bad_header"]
