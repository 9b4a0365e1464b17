"""Connections: order, limits, deadlines, refusals and closing."""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from wire import GET, HOST, Waiting, body, echo, hello, read_body, request, start

from obsserve.telemetry import catalogue


def bytewise(data):
    return [bytes([byte]) for byte in data]


def halves(data):
    return [data[: len(data) // 2], data[len(data) // 2 :]]


SPLITS = {"whole": lambda data: [data], "halves": halves, "bytewise": bytewise}


@pytest.fixture(params=SPLITS)
def split(request):
    return SPLITS[request.param]


async def name_of_path(scope, receive, send):
    text = scope["raw_path"]
    await start(send, 200, (b"content-length", b"%d" % len(text)))
    await body(send, text)


class TestOrder:
    def test_keep_alive(self, serve, split):
        site = serve(name_of_path)
        client = site.client().send(*split(request(target=b"/1")), *split(request(target=b"/2")))
        assert [response.body for response in client.responses()] == [b"/1", b"/2"]
        assert [exchange.connection_request for exchange in site.ended] == [1, 2]
        assert not client.gone

    def test_pipelined_requests_are_answered_in_order(self, serve, split):
        site = serve(name_of_path)
        data = b"".join(request(target=b"/%d" % number) for number in range(5))
        client = site.client().send(*split(data))
        assert [response.body for response in client.responses()] == [b"/%d" % number for number in range(5)]
        assert sum(exchange.request_size for exchange in site.ended) == len(data)

    def test_a_pipelined_request_waits_for_the_one_before(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(GET * 3)
        assert len(app.scopes) == 1
        assert not client.transport.reading
        app.go.set()
        site.settle()
        assert len(app.scopes) == 3
        assert client.transport.reading
        assert [exchange.pipelined for exchange in site.ended] == [False, True, True]

    def test_a_refused_message_is_answered_in_its_turn(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(GET + request(host=b"") + GET)
        assert client.received == b""
        app.go.set()
        site.settle()
        assert [response.status for response in client.responses()] == [200, 400]
        assert site.endings == ["complete", "bad_host"]
        assert client.gone

    def test_a_body_after_a_pipelined_head(self, serve):
        site = serve(echo)
        data = GET + request(b"POST", b"/", b"Content-Length: 5", body=b"hello") + GET
        client = site.client().send(data)
        assert [response.body for response in client.responses()] == [b"", b"hello", b""]

    def test_empty_lines_before_a_request_are_skipped(self, serve, split):
        site = serve(hello)
        client = site.client().send(*split(b"\r\n" + GET + b"\r\n" + GET))
        assert len(client.responses()) == 2

    def test_close_is_honoured_and_what_follows_is_not_served(self, serve):
        site = serve(hello)
        client = site.client().send(request(b"GET", b"/", b"Connection: close") + GET)
        [response] = client.responses()
        assert response.headers[b"connection"] == b"close"
        assert client.gone
        assert client.connection.close_reason == "negotiated"
        assert site.endings == ["complete"]

    def test_the_application_can_close(self, serve):
        async def app(scope, receive, send):
            await start(send, 200, (b"connection", b"close"), (b"content-length", b"0"))
            await body(send)

        client = serve(app).client().send(GET)
        assert client.received.count(b"connection: close") == 1
        assert client.gone


class TestScope:
    def test_of_an_ordinary_request(self, serve):
        app = Waiting()
        serve(app, root_path="/api").client().send(
            request(b"GET", b"/a%20b/%C3%A4?q=%20&r", b"X-Name: Value")
        )
        [scope] = app.scopes
        assert scope["type"] == "http"
        assert scope["method"] == "GET"
        assert (scope["path"], scope["raw_path"]) == ("/api/a b/ä", b"/api/a%20b/%C3%A4")
        assert (scope["query_string"], scope["root_path"]) == (b"q=%20&r", "/api")
        assert scope["headers"] == [(b"host", b"example.org"), (b"x-name", b"Value")]
        assert (scope["client"], scope["server"]) == (("127.0.0.1", 50000), ("127.0.0.1", 8000))
        assert (scope["scheme"], scope["http_version"]) == ("http", "1.1")

    def test_forwarding_headers_of_a_trusted_peer(self, serve):
        app = Waiting()
        data = request(b"GET", b"/", b"X-Forwarded-For: 6.6.6.6, 1.2.3.4", b"X-Forwarded-Proto: https")
        serve(app).client().send(data)
        serve(app).client(peername=("10.0.0.1", 1)).send(data)
        trusted, untrusted = app.scopes
        assert (trusted["client"], trusted["scheme"]) == (("1.2.3.4", 0), "https")
        assert (untrusted["client"], untrusted["scheme"]) == (("10.0.0.1", 1), "http")

    def test_an_absolute_target_replaces_the_host(self, serve):
        app = Waiting()
        serve(app).client().send(request(target=b"http://user:pw@other.example/x?y"))
        [scope] = app.scopes
        assert scope["raw_path"] == b"/x"
        assert scope["headers"] == [(b"host", b"other.example")]

    def test_options_of_the_server_itself(self, serve):
        app = Waiting()
        serve(app).client().send(request(b"OPTIONS", b"*"))
        assert app.scopes[0]["path"] == "*"

    def test_a_unix_socket_has_no_client(self, serve):
        app = Waiting()
        serve(app).client(peername="", sockname="/run/x.sock").send(GET)
        assert (app.scopes[0]["client"], app.scopes[0]["server"]) == (None, ("/run/x.sock", None))


class TestLimits:
    def test_concurrency_admits_exactly_as_many(self, serve):
        app = Waiting()
        site = serve(app, limit_concurrency=2)
        clients = [site.client().send(GET) for _ in range(3)]
        assert len(app.scopes) == 2
        [refused] = clients[2].responses()
        assert (refused.status, refused.headers[b"retry-after"]) == (503, b"1")
        assert (site.endings, site.last.outcome) == (["concurrency_limit"], "rejected")
        assert clients[2].gone
        app.go.set()
        site.settle()
        assert site.client().send(GET).responses()[0].status == 200

    def test_idle_connections_do_not_count_as_concurrency(self, serve):
        site = serve(hello, limit_concurrency=1)
        clients = [site.client().send(GET) for _ in range(3)]
        assert [client.responses()[0].status for client in clients] == [200] * 3

    def test_connections_admit_exactly_as_many(self, serve):
        site = serve(hello, limit_connections=2)
        clients = [site.client() for _ in range(3)]
        clients[2].send(GET)
        assert clients[2].responses()[0].status == 503
        assert site.endings == ["connection_limit"]
        clients[2].leave()
        assert clients[0].send(GET).responses()[0].status == 200

    @pytest.mark.parametrize("over", [0, 1])
    def test_of_the_request_line(self, serve, split, over):
        line_limit = 100
        target = b"/" + b"x" * (line_limit - len(b"GET / HTTP/1.1\r\n") + over)
        site = serve(hello, limit_request_line=line_limit)
        client = site.client().send(*split(request(target=target)))
        assert client.responses()[0].status == (414 if over else 200)
        assert site.endings == ["uri_too_long" if over else "complete"]

    @pytest.mark.parametrize("over", [0, 1])
    def test_of_the_fields(self, serve, split, over):
        fields_limit = 200
        value = b"x" * (fields_limit - len(HOST) - len(b"a: \r\n") + over)
        site = serve(hello, limit_request_headers=fields_limit)
        client = site.client().send(*split(request(b"GET", b"/", b"a: " + value)))
        assert client.responses()[0].status == (431 if over else 200)
        assert site.endings == ["header_too_large" if over else "complete"]

    @pytest.mark.parametrize("over", [0, 1])
    def test_of_the_number_of_fields(self, serve, split, over):
        site = serve(hello, limit_request_header_count=5)
        client = site.client().send(*split(request(b"GET", b"/", *[b"x: y"] * (4 + over))))
        assert client.responses()[0].status == (431 if over else 200)
        assert site.endings == ["header_too_large" if over else "complete"]

    @pytest.mark.parametrize("over", [0, 1])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_of_the_body(self, serve, split, over, chunked):
        size = 10 + over
        site = serve(echo, limit_request_body=10)
        if chunked:
            data = request(b"POST", b"/", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n")
            data += b"%x\r\n%b\r\n0\r\n\r\n" % (size - 5, b"x" * (size - 5))
        else:
            data = request(b"POST", b"/", b"Content-Length: %d" % size, body=b"x" * size)
        client = site.client().send(*split(data))
        assert client.responses()[0].status == (413 if over else 200)
        assert site.endings == ["body_too_large" if over else "complete"]
        assert client.gone == bool(over)

    @pytest.mark.parametrize("part", [b"x", b"x" * 50, b"x" * 1000])
    def test_a_head_without_end_is_refused(self, serve, part):
        site = serve(hello, limit_request_line=100, limit_request_headers=200)
        client = site.client().send(b"GET / HTTP/1.1\r\nA: ", *[part] * 1000)
        assert client.responses()[0].status == 431
        assert site.endings == ["header_too_large"]

    @pytest.mark.parametrize("part", [b"x", b"x" * 50, b"x" * 1000])
    def test_a_target_without_end_is_refused(self, serve, part):
        site = serve(hello, limit_request_line=100, limit_request_headers=200)
        client = site.client().send(b"GET /", *[part] * 1000)
        assert client.responses()[0].status == 414
        assert site.endings == ["uri_too_long"]

    def test_chunk_extensions_without_end_are_refused(self, serve):
        site = serve(echo, limit_request_headers=200)
        client = site.client().send(
            request(b"POST", b"/", b"Transfer-Encoding: chunked", body=b"5;a="), *[b"x" * 50] * 1000
        )
        assert client.responses()[0].status == 400
        assert site.endings == ["bad_chunk"]

    def test_trailers_without_end_are_refused(self, serve):
        site = serve(echo, limit_request_headers=200)
        client = site.client().send(
            request(b"POST", b"/", b"Transfer-Encoding: chunked", body=b"0\r\n"), *[b"a: b\r\n"] * 1000
        )
        assert client.responses()[0].status == 400
        assert site.endings == ["bad_chunk"]


class TestUnreadBody:
    def test_is_drained_when_small(self, serve):
        site = serve(hello)
        data = request(b"POST", b"/", b"Content-Length: 65536")
        client = site.client().send(data, *[b"x" * 16384] * 4, GET)
        assert [response.status for response in client.responses()] == [200, 200]
        assert site.ended[0].response_body_size == 5
        assert not client.gone

    @pytest.mark.parametrize("part", [16384, 65537])
    def test_closes_the_connection_when_large(self, serve, part):
        site = serve(hello)
        client = site.client().send(request(b"POST", b"/", b"Content-Length: 200000"))
        assert not client.gone
        for _ in range(200000 // part):
            client.send(b"x" * part)
        assert client.gone
        assert client.connection.close_reason == "negotiated"
        assert site.endings == ["complete"]

    def test_that_is_buffered_already_counts(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(request(b"POST", b"/", b"Content-Length: 200000", body=b"x" * 70000))
        assert not client.transport.reading
        app.go.set()
        site.settle()
        assert client.gone


class TestDeadlines:
    def test_of_a_silent_connection(self, serve):
        site = serve(hello)
        client = site.client()
        assert not client.sweep(9.9).gone
        assert client.sweep(10.1).gone
        assert client.connection.close_reason == "header_timeout"
        assert client.received == b""
        assert site.ended == []

    @pytest.mark.parametrize("before", [b"", GET])
    @pytest.mark.parametrize("beginning", [b"G", GET[:10], GET[:-1]])
    def test_of_the_head(self, serve, before, beginning):
        site = serve(hello)
        client = site.client().send(*([before] if before else []), beginning)
        assert not client.sweep(9.9).gone
        assert client.sweep(10.1).gone
        assert client.responses()[-1].status == 408
        assert site.endings[-1:] == ["header_timeout"]
        assert (site.last.outcome, site.last.error_type) == ("timeout", "request_timeout")

    def test_of_the_head_is_not_extended_by_dripping(self, serve):
        site = serve(hello)
        client = site.client().send(GET[:10])
        client.connection.idle_since -= 9
        client.connection._head_began -= 9
        client.send(GET[10:11])
        assert client.sweep(1.1).gone

    def test_of_the_body(self, serve):
        site = serve(echo)
        client = site.client().send(request(b"POST", b"/", b"Content-Length: 5", body=b"he"))
        assert not client.sweep(29.9).gone
        assert client.sweep(30.1).gone
        assert client.responses()[0].status == 408
        assert site.endings == ["body_timeout"]
        assert site.last.request_body_size == 2

    def test_of_the_body_does_not_count_while_the_application_is_slow(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(request(b"POST", b"/", b"Content-Length: 200000", body=b"x" * 70000))
        assert not client.sweep(1000).gone

    def test_of_a_body_that_nobody_wants(self, serve):
        site = serve(hello)
        client = site.client().send(request(b"POST", b"/", b"Content-Length: 5", body=b"he"))
        assert client.sweep(30.1).gone
        assert site.endings == ["complete"]
        assert client.connection.close_reason == "body_timeout"

    def test_of_the_response(self, serve):
        app = Waiting()
        site = serve(app, timeout_request=3)
        client = site.client().send(GET)
        assert not client.sweep(2.9).gone
        assert client.sweep(3.1).gone
        assert client.responses()[0].status == 504
        assert site.endings == ["response_timeout"]
        assert app.cancelled
        assert site.reporter.exceptions == []

    def test_of_a_response_that_has_begun(self, serve):
        async def app(scope, receive, send):
            await start(send)
            await body(send, b"part", more=True)
            await asyncio.Event().wait()

        site = serve(app, timeout_request=3)
        client = site.client().send(GET).sweep(3.1)
        assert client.gone
        assert not client.responses()[0].complete
        assert (site.endings, site.last.status) == (["response_timeout"], 200)

    def test_of_writing(self, serve):
        async def app(scope, receive, send):
            await start(send)
            await body(send, b"x" * 1000, more=True)
            await body(send, b"x" * 1000)

        site = serve(app)
        client = site.client()
        client.transport.buffered = 1000
        client.connection.pause_writing()
        client.send(GET)
        assert not client.sweep(59.9).gone
        assert client.sweep(60.1).transport.aborted
        assert site.endings == ["write_timeout"]
        assert client.connection.close_reason == "write_timeout"

    def test_of_writing_starts_anew_with_every_progress(self, serve):
        async def app(scope, receive, send):
            await start(send)
            await body(send, b"x" * 1000, more=True)
            await read_body(receive)
            await receive()

        site = serve(app)
        client = site.client()
        client.transport.buffered = 1000
        client.connection.pause_writing()
        client.send(GET).sweep(59)
        client.transport.buffered = 999
        client.sweep(100)
        assert not client.sweep(159).gone
        assert client.sweep(161).transport.aborted

    def test_of_keep_alive(self, serve):
        site = serve(hello)
        client = site.client().send(GET)
        assert not client.sweep(4.9).gone
        assert client.sweep(5.1).gone
        assert client.connection.close_reason == "keepalive_timeout"
        assert site.endings == ["complete"]

    def test_of_keep_alive_zero_closes_at_once(self, serve):
        site = serve(hello, timeout_keep_alive=0)
        client = site.client().send(GET)
        assert client.gone
        assert client.connection.close_reason == "keepalive_timeout"

    def test_of_keep_alive_zero_serves_what_is_pipelined(self, serve):
        site = serve(hello, timeout_keep_alive=0)
        client = site.client().send(GET * 3)
        assert len(client.responses()) == 3

    def test_of_keep_alive_does_not_touch_a_running_request(self, serve):
        site = serve(Waiting())
        assert not site.client().send(GET).sweep(1000).gone

    def test_of_a_client_that_goes_on_sending_after_a_refusal(self, serve):
        site = serve(hello)
        client = site.client().send(request(host=b""))
        assert client.transport.eof_written
        assert not client.transport.closed
        client.send(b"more")
        assert client.sweep(2.1).transport.closed

    def test_of_a_refused_client_that_sends_without_end(self, serve):
        site = serve(hello)
        client = site.client().send(request(host=b""), *[b"x" * 65536] * 2)
        assert not client.transport.aborted  # a reset would take the answer with it
        assert len(site.ended) == 1
        assert client.sweep(2.1).transport.closed

    def test_can_be_off(self, serve):
        site = serve(
            Waiting(),
            timeout_request_header=None,
            timeout_request_body=None,
            timeout_write=None,
            timeout_request=None,
        )
        assert not site.client().sweep(1e9).gone
        assert not site.client().send(GET).sweep(1e9).gone
        assert not site.client().send(GET[:10]).sweep(1e9).gone


class TestDraining:
    def test_closes_an_idle_connection_soon(self, serve):
        site = serve(hello)
        client = site.client().send(GET)
        site.state.draining = True
        assert client.sweep(0.6).gone
        assert client.connection.close_reason == "drain"

    def test_serves_what_arrives_and_closes(self, serve):
        site = serve(hello)
        client = site.client().send(GET)
        site.state.draining = True
        client.send(GET)
        assert [response.headers.get(b"connection") for response in client.responses()] == [None, b"close"]
        assert client.gone
        assert client.connection.close_reason == "drain"

    def test_closes_after_a_running_response(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(GET)
        site.state.draining = True
        app.go.set()
        site.settle()
        assert client.responses()[0].headers[b"connection"] == b"close"
        assert client.gone

    def test_abandons_what_is_open_at_the_end(self, serve):
        from obsserve.telemetry import catalogue

        app = Waiting()
        site = serve(app)
        client = site.client().send(GET)
        client.connection.abandon(catalogue.WORKER_SHUTDOWN)
        site.settle()
        assert client.responses()[0].status == 503
        assert site.endings == ["worker_shutdown"]
        assert app.cancelled
        assert client.connection.close_reason == "shutdown"


class TestUpgrade:
    H2C = (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAA")

    def test_an_offer_of_h2c_is_ignored(self, serve, split):
        site = serve(hello)
        client = site.client().send(*split(request(b"GET", b"/", *self.H2C) + GET))
        assert [response.status for response in client.responses()] == [200, 200]
        assert not client.gone

    @pytest.mark.parametrize(
        ("framing", "wire_body"),
        [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")],
    )
    def test_the_body_stays_intact(self, serve, split, framing, wire_body):
        site = serve(echo)
        data = request(b"POST", b"/", *self.H2C, framing, body=wire_body)
        following = request(b"PUT", b"/2", b"Content-Length: 3", body=b"bye")
        client = site.client().send(*split(data + following))
        assert [response.body for response in client.responses("POST", "PUT")] == [b"hello", b"bye"]
        assert [exchange.method for exchange in site.ended] == ["POST", "PUT"]
        assert not client.gone


CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLING = {
    "both framings": (request(b"POST", b"/", b"Content-Length: 4", CHUNKED), 400, "te_cl_conflict"),
    "both framings, other order": (
        request(b"POST", b"/", CHUNKED, b"Content-Length: 4"),
        400,
        "te_cl_conflict",
    ),
    "two lengths": (
        request(b"POST", b"/", b"Content-Length: 4", b"Content-Length: 5"),
        400,
        "length_conflict",
    ),
    "the same length twice": (request(b"POST", b"/", *[b"Content-Length: 4"] * 2), 400, "length_conflict"),
    "a list of lengths": (request(b"POST", b"/", b"Content-Length: 4, 4"), 400, "length_conflict"),
    "a signed length": (request(b"POST", b"/", b"Content-Length: +4"), 400, "length_conflict"),
    "a negative length": (request(b"POST", b"/", b"Content-Length: -4"), 400, "length_conflict"),
    "a hexadecimal length": (request(b"POST", b"/", b"Content-Length: 0x4"), 400, "length_conflict"),
    "a length with an underscore": (request(b"POST", b"/", b"Content-Length: 1_0"), 400, "length_conflict"),
    "a huge length": (request(b"POST", b"/", b"Content-Length: " + b"9" * 30), 400, "length_conflict"),
    "an empty length": (request(b"POST", b"/", b"Content-Length: "), 400, "length_conflict"),
    "chunked twice": (request(b"POST", b"/", CHUNKED, CHUNKED), 400, "te_cl_conflict"),
    "chunked, chunked": (
        request(b"POST", b"/", b"Transfer-Encoding: chunked, chunked"),
        400,
        "te_cl_conflict",
    ),
    "chunked not last": (request(b"POST", b"/", b"Transfer-Encoding: chunked, gzip"), 400, "te_cl_conflict"),
    "identity": (request(b"POST", b"/", b"Transfer-Encoding: identity"), 400, "te_cl_conflict"),
    "xchunked": (request(b"POST", b"/", b"Transfer-Encoding: xchunked"), 400, "te_cl_conflict"),
    "quoted chunked": (request(b"POST", b"/", b'Transfer-Encoding: "chunked"'), 400, "te_cl_conflict"),
    "chunked in HTTP/1.0": (request(b"POST", b"/", CHUNKED, version=b"HTTP/1.0"), 400, "te_cl_conflict"),
    "gzip, chunked": (
        request(b"POST", b"/", b"Transfer-Encoding: gzip, chunked"),
        501,
        "unknown_transfer_coding",
    ),
    "space before the colon": (request(b"POST", b"/", b"Content-Length : 4"), 400, "bad_header"),
    "tab before the colon": (request(b"POST", b"/", b"Transfer-Encoding\t: chunked"), 400, "bad_header"),
    "a folded field": (request(b"POST", b"/", b"A: b\r\n c"), 400, "bad_header"),
    "a fold in the first field": (request(b"GET", b"/", host=b" A: b\r\nHost: h\r\n"), 400, "bad_header"),
    "a field without a colon": (request(b"GET", b"/", b"nonsense"), 400, "bad_header"),
    "a field without a name": (request(b"GET", b"/", b": x"), 400, "bad_header"),
    "a zero byte in a value": (request(b"GET", b"/", b"A: b\x00c"), 400, "bad_header"),
    "a bare CR in a value": (request(b"GET", b"/", b"A: b\rContent-Length: 4"), 400, "bad_header"),
    "a bare LF in the fields": (b"GET / HTTP/1.1\r\nHost: h\nA: b\r\n\r\n", 400, "bad_header"),
    "no host": (request(host=b""), 400, "bad_host"),
    "two hosts": (request(host=HOST * 2), 400, "bad_host"),
    "a host with a path": (request(host=b"Host: a/b\r\n"), 400, "bad_host"),
    "a host with user-info": (request(host=b"Host: a@b\r\n"), 400, "bad_host"),
    "a space in the target": (request(target=b"/a b"), 400, "bad_request_line"),
    "a fragment in the target": (request(target=b"/a#b"), 400, "bad_request_line"),
    "a target that is a name": (request(target=b"name"), 400, "bad_request_line"),
    "an asterisk for GET": (request(target=b"*"), 400, "bad_request_line"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505, "unsupported_version"),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request_line"),
    "a target beyond ASCII": (request(target="/ä".encode()), 400, "bad_request_line"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_version"),
    "HTTP/1.2": (request(version=b"HTTP/1.2"), 505, "unsupported_version"),
    "HTTP/2.0": (request(version=b"HTTP/2.0"), 505, "unsupported_version"),
    "an unknown method": (request(b"BREW"), 501, "unknown_method"),
    "a lower-case method": (request(b"get"), 501, "unknown_method"),
    "CONNECT": (request(b"CONNECT", b"h:443"), 501, "unknown_method"),
}


class TestRefusals:
    @pytest.mark.parametrize("vector", SMUGGLING)
    def test_of_a_message_that_cannot_be_trusted(self, serve, vector, split):
        data, status, detail = SMUGGLING[vector]
        site = serve(hello)
        # what follows must never be taken for a request of its own
        client = site.client().send(*split(data + GET))
        [response] = client.responses()
        assert (site.endings, response.status) == ([detail], status)
        assert response.headers[b"connection"] == b"close"
        assert client.gone
        assert client.connection.close_reason == "protocol_error"
        assert site.last.response_origin == "server"
        assert site.last.response_size == len(client.received)
        assert site.state.active == 0

    @pytest.mark.parametrize(
        "wire_body",
        [
            b"xyz\r\n", b"-1\r\n", b"0x5\r\nhello\r\n", b" 5\r\nhello\r\n", b"+5\r\nhello\r\n", b"\r\n",
            b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n", b"5;\nhello\r\n0\r\n\r\n",
        ],
    )  # fmt: skip
    def test_of_a_broken_chunk(self, serve, split, wire_body):
        site = serve(echo)
        client = site.client().send(*split(request(b"POST", b"/", CHUNKED, body=wire_body) + GET))
        assert client.responses()[0].status == 400
        assert len(client.responses()) == 1
        assert site.endings == ["bad_chunk"]
        assert client.gone

    def test_of_a_broken_chunk_after_the_response_closes(self, serve):
        site = serve(hello)
        client = site.client().send(request(b"POST", b"/", CHUNKED), b"xyz\r\n")
        assert [response.status for response in client.responses()] == [200]
        assert site.endings == ["complete"]
        assert client.gone
        assert client.connection.close_reason == "protocol_error"

    @pytest.mark.parametrize(
        "data",
        [
            request(target=b"/?a=|[]{}"),
            request(host=b"Host: under_score.local:8000\r\n"),
            request(host=b"Host: [::1]:8000\r\n"),
            request(host=b"Host: \r\n"),
            request(host=b"host:example.org \r\n"),
            request(host=b"", version=b"HTTP/1.0"),
            request(b"POST", b"/", b"Transfer-Encoding: Chunked", body=b"0\r\n\r\n"),
            request(b"GET", b"/", "X-Name: müller".encode("latin-1")),
            request(b"PROPFIND"),
            request(b"GET", b"/", b"Empty:"),
        ],
    )
    def test_spare_ordinary_clients(self, serve, split, data):
        site = serve(hello)
        client = site.client().send(*split(data))
        assert [response.status for response in client.responses()] == [200]


class TestObservation:
    def test_of_a_connection(self, serve):
        site = serve(hello)
        client = site.client().send(GET, GET)
        [view] = site.observer.opened
        assert view.requests == 2
        assert view.received_bytes == 2 * len(GET)
        assert view.sent_bytes == len(client.received)
        assert view.state == "idle"
        client.leave()
        assert site.observer.closed == [view]
        assert view.close_reason == "client_closed"
        assert view.closed_at >= view.opened_at
        assert view.closed_while_active is None
        assert site.state.connections == set()

    @pytest.mark.parametrize(("act", "whose"), [("leave", "remote"), ("close", "local")])
    def test_of_who_closed_an_active_connection(self, serve, act, whose):
        site = serve(Waiting())
        client = site.client().send(GET)
        assert client.connection.state == "active"
        client.leave() if act == "leave" else client.connection.close("shutdown")
        assert client.connection.closed_while_active == whose

    def test_can_be_absent(self, serve):
        site = serve(hello, observe=False)
        assert [
            response.status for response in site.client().send(GET + GET[:-2] + b" \r\n\r\n").responses()
        ] == [200, 400]

    def test_of_a_faulty_observer_leaves_the_response_alone(self, serve):
        site = serve(hello)
        faults = []
        site.state.hooks._on_fault = lambda observer, hook, fault: faults.append(hook)

        def broken(exchange):
            raise RuntimeError("broken observer")

        site.observer.exchange_ended = broken
        site.state.hooks._compile()
        assert [response.status for response in site.client().send(GET, GET).responses()] == [200, 200]
        assert faults

    def test_in_the_request_s_own_context(self, serve):
        seen = []
        variable = contextvars.ContextVar("variable", default=None)

        async def app(scope, receive, send):
            seen.append(variable.get())
            await hello(scope, receive, send)

        site = serve(app)
        site.observer.exchange_running = variable.set
        site.state.hooks._compile()
        site.client().send(GET, GET + GET)
        assert seen == site.observer.started
        assert variable.get() is None

    def test_that_fails_as_the_application_begins_leaves_the_response_alone(self, serve):
        site = serve(hello)
        faults = []
        site.state.hooks._on_fault = lambda observer, hook, fault: faults.append(hook)

        def broken(exchange):
            raise RuntimeError("broken observer")

        site.observer.exchange_running = broken
        site.state.hooks._compile()
        assert [response.status for response in site.client().send(GET, GET).responses()] == [200, 200]
        assert faults == ["exchange_running"]


async def closing(scope, receive, send):
    await start(send, 200, (b"connection", b"close"), (b"content-length", b"0"))
    await body(send)


async def raising(scope, receive, send):
    raise ValueError("asked for")


class TestTheServersOwnClose:
    @pytest.mark.parametrize("app", [closing, raising])
    def test_is_not_blamed_on_the_client(self, serve, app):
        site = serve(app)
        client = site.client().send(GET * 3).leave()
        assert len(site.ended) == client.connection.requests == 1
        assert client.connection.closed_while_active is None

    def test_lets_the_client_read_where_only_both_sides_can_be_closed(self, serve):
        site = serve(hello)
        client = site.client()
        client.transport.can_write_eof = lambda: False  # as over TLS
        client.send(request(b"GET", b"/", b"A : b"), b"more")
        assert not client.transport.closed
        client.sweep(3)
        assert client.transport.closed

    def test_of_the_connections_beyond_the_limit_spares_the_others(self, serve):
        site = serve(hello, limit_connections=1)
        first, second = site.client(), site.client()
        first.send(GET)
        second.send(GET)
        assert [response.status for response in first.responses()] == [200]
        assert [response.status for response in second.responses()] == [503]
        assert second.responses()[0].headers[b"retry-after"] == b"1"
        assert second.gone

    def test_of_one_that_sent_nothing_before_the_drain(self, serve):
        site = serve(hello)
        client = site.client()
        site.state.draining, site.state.drain_started = True, client.connection.opened_at
        client.sweep(1.9)
        assert not client.gone
        client.sweep(2.1)
        assert (client.gone, client.connection.close_reason) == (True, "drain")


class TestAbandon:
    def test_ends_all_that_is_open(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(GET * 3)
        client.connection.abandon(catalogue.WORKER_SHUTDOWN)
        site.settle()
        assert site.endings == ["worker_shutdown"] * 3
        assert [response.status for response in client.responses()] == [503]
        assert app.cancelled

    def test_ends_a_head_that_is_arriving(self, serve):
        site = serve(hello)
        site.client().send(GET[:20]).connection.abandon(catalogue.WORKER_SHUTDOWN)
        assert site.endings == ["worker_shutdown"]

    def test_before_the_task_has_begun(self, serve):
        site = serve(hello)
        connection = site.client().connection
        connection.data_received(GET)
        connection.abandon(catalogue.WORKER_SHUTDOWN)
        site.settle()
        assert site.endings == ["worker_shutdown"]
        assert not site.state.tasks

    def test_an_application_that_will_not_be_cancelled(self, serve):
        async def app(scope, receive, send):
            while not stop.is_set():
                try:
                    await stop.wait()
                except asyncio.CancelledError:
                    events.append(await receive())
            await hello(scope, receive, send)

        stop, events = asyncio.Event(), []
        site = serve(app)
        client = site.client().send(GET)
        client.connection.abandon(catalogue.WORKER_SHUTDOWN)
        site.settle()
        stop.set()
        site.settle()
        assert events == [{"type": "http.disconnect"}]
        assert site.endings == ["worker_shutdown"]
        assert [response.status for response in client.responses()] == [503]


def test_a_websocket_that_is_asked_for_while_draining_is_refused(serve):
    from obsserve.settings import Settings
    from obsserve.websocket.codec import codec_named
    from obsserve.websocket.connection import WebSocketOptions

    site = serve(None)
    options = WebSocketOptions(Settings(app="tests:app"), *codec_named("auto"))
    site.state.websocket_taker = options.take
    site.state.draining = True
    fields = (
        b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    client = site.client().send(request(b"GET", b"/", *fields))
    assert client.received.startswith(b"HTTP/1.1 503 ")
    (ended,) = site.ended
    assert ended.ending.detail == "draining"
