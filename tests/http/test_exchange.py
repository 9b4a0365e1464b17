"""One request and its response, as client, application and observer see it."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from wire import GET, Waiting, body, echo, hello, read_body, request, start

LENGTH_5 = (b"content-length", b"5")


def test_head_and_body_of_known_length_leave_in_one_write(serve):
    site = serve(hello)
    client = site.client().send(GET)
    assert len(client.transport.writes) == 1
    [response] = client.responses()
    assert (response.status, response.body, response.headers[b"content-length"]) == (200, b"hello", b"5")
    assert not client.gone


def test_head_and_whole_body_of_unknown_length_leave_in_one_write_with_a_length(serve):
    async def app(scope, receive, send):
        await start(send)
        await body(send, b"hello")

    client = serve(app).client().send(GET)
    assert len(client.transport.writes) == 1
    [response] = client.responses()
    assert response.headers[b"content-length"] == b"5"
    assert b"transfer-encoding" not in response.headers


def test_the_head_leaves_alone_when_no_body_follows_in_the_turn(serve):
    go = asyncio.Event()

    async def app(scope, receive, send):
        await start(send)
        await go.wait()
        await body(send, b"later")

    site = serve(app)
    client = site.client().send(GET)
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.received.endswith(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked\r\n" in client.received
    assert site.ended == []
    go.set()
    site.settle()
    [response] = client.responses()
    assert (response.body, response.complete) == (b"later", True)


def test_a_response_in_parts_is_chunked(serve):
    async def app(scope, receive, send):
        await start(send)
        await body(send, b"one", more=True)
        await body(send, b"", more=True)
        await body(send, b"two", more=True)
        await body(send)

    site = serve(app)
    client = site.client().send(GET)
    head, _, rest = client.received.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert rest == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert site.last.response_body_size == 6
    assert site.last.response_size == len(client.received)
    assert not client.gone


def test_a_response_in_parts_with_a_length_is_not_chunked(serve):
    async def app(scope, receive, send):
        await start(send, 200, LENGTH_5)
        await body(send, b"he", more=True)
        await body(send, b"llo", more=True)
        await body(send)

    site = serve(app)
    client = site.client().send(GET)
    assert client.received.endswith(b"\r\n\r\nhello")
    assert b"\r\ncontent-length: 5\r\n" in client.received
    assert site.endings == ["complete"]


@pytest.mark.parametrize(
    ("status", "sent", "length"),
    [(204, b"", None), (204, b"x", None), (304, b"", b"5"), (304, b"hello", b"5")],
)
def test_responses_that_have_no_body(serve, status, sent, length):
    async def app(scope, receive, send):
        await start(send, status, *([(b"content-length", length)] if length else []))
        await body(send, sent)

    site = serve(app)
    client = site.client().send(GET, GET)
    assert [response.status for response in client.responses()] == [status, status]
    for response in client.responses():
        assert response.headers.get(b"content-length") == length
        assert b"transfer-encoding" not in response.headers
        assert response.body == b""
    assert [exchange.response_body_size for exchange in site.ended] == [0, 0]


@pytest.mark.parametrize("in_parts", [False, True])
def test_head_gets_the_head_that_get_would_get(serve, in_parts):
    async def app(scope, receive, send):
        await start(send, 200, LENGTH_5)
        if in_parts:
            await body(send, b"he", more=True)
            await body(send, b"llo")
        else:
            await body(send, b"hello")

    site = serve(app)
    client = site.client().send(request(b"HEAD"), GET)
    answered_head, answered_get = client.responses("HEAD", "GET")
    for response in (answered_head, answered_get):
        response.headers.pop(b"x-request-id", None)
    assert answered_head.headers == answered_get.headers
    assert (answered_head.body, answered_get.body) == (b"", b"hello")
    assert [exchange.response_body_size for exchange in site.ended] == [0, 5]


class TestHTTP10:
    def test_is_closed_after_the_response(self, serve):
        site = serve(hello)
        client = site.client().send(request(version=b"HTTP/1.0", host=b""))
        assert client.gone
        [response] = client.responses()
        assert response.headers[b"connection"] == b"close"
        assert site.last.http_version == "1.0"

    def test_is_kept_alive_when_asked(self, serve):
        site = serve(hello)
        client = site.client().send(
            *[request(b"GET", b"/", b"Connection: keep-alive", version=b"HTTP/1.0")] * 2
        )
        assert not client.gone
        assert [response.headers[b"connection"] for response in client.responses()] == [b"keep-alive"] * 2

    def test_without_a_length_the_end_of_the_connection_ends_the_body(self, serve):
        async def app(scope, receive, send):
            await start(send)
            await body(send, b"one", more=True)
            await body(send, b"two")

        site = serve(app)
        client = site.client().send(request(b"GET", b"/", b"Connection: keep-alive", version=b"HTTP/1.0"))
        assert client.gone
        assert not client.transport.aborted
        head, _, rest = client.received.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"connection: close" in head
        assert rest == b"onetwo"

    def test_a_body_cut_short_without_a_length_ends_with_a_reset(self, serve):
        async def app(scope, receive, send):
            await start(send)
            await body(send, b"one", more=True)
            raise ValueError("in the middle")

        site = serve(app)
        client = site.client().send(request(version=b"HTTP/1.0"))
        assert client.transport.aborted
        assert site.endings == ["app_exception_after_start"]

    def test_is_never_told_to_continue(self, serve):
        site = serve(echo)
        client = site.client().send(
            request(b"POST", b"/", b"Content-Length: 2", b"Expect: 100-continue", version=b"HTTP/1.0"), b"hi"
        )
        assert b"100 Continue" not in client.received
        assert client.responses()[0].body == b"hi"


class TestExpectation:
    POST = request(b"POST", b"/", b"Content-Length: 2", b"Expect: 100-continue")

    def test_is_met_when_the_application_reads(self, serve):
        client = serve(echo).client().send(self.POST)
        assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hi")
        assert client.responses()[0].body == b"hi"
        assert not client.gone

    def test_is_not_met_when_the_body_is_there_already(self, serve):
        client = serve(echo).client().send(self.POST + b"hi")
        assert b"100 Continue" not in client.received
        assert not client.gone

    def test_is_not_met_when_the_application_does_not_read(self, serve):
        site = serve(hello)
        client = site.client().send(self.POST)
        [response] = client.responses()
        assert b"100 Continue" not in client.received
        assert response.headers[b"connection"] == b"close"  # the client may send the body or not
        assert client.gone

    def test_another_expectation_is_left_alone(self, serve):
        client = (
            serve(echo)
            .client()
            .send(request(b"POST", b"/", b"Content-Length: 2", b"Expect: gold", body=b"hi"))
        )
        assert client.responses()[0].body == b"hi"

    def test_the_continue_counts_among_the_bytes(self, serve):
        site = serve(echo)
        client = site.client().send(self.POST, b"hi")
        assert site.last.response_size == len(client.received)


class TestExceptions:
    def test_before_the_response(self, serve):
        error = ValueError("broken")

        async def app(scope, receive, send):
            raise error

        site = serve(app)
        client = site.client().send(GET)
        [response] = client.responses()
        assert (response.status, response.headers[b"connection"]) == (500, b"close")
        assert client.gone
        assert site.endings == ["app_exception"]
        assert (site.last.exception, site.last.error_type, site.last.response_origin) == (
            error,
            "ValueError",
            "server",
        )
        assert site.last.status == 500
        assert site.reporter.exceptions == [(error, False)]

    def test_after_a_start_that_has_not_left(self, serve):
        async def app(scope, receive, send):
            await start(send, 200)
            raise ValueError("broken")

        site = serve(app)
        client = site.client().send(GET)
        assert [response.status for response in client.responses()] == [500]
        assert site.endings == ["app_exception"]

    def test_after_a_part_of_the_body(self, serve):
        async def app(scope, receive, send):
            await start(send, 200)
            await body(send, b"part", more=True)
            raise ValueError("broken")

        site = serve(app)
        client = site.client().send(GET)
        [response] = client.responses()
        assert not response.complete
        assert client.gone
        assert site.endings == ["app_exception_after_start"]
        assert site.last.status == 200

    def test_after_a_whole_response_the_connection_stays(self, serve):
        async def app(scope, receive, send):
            await hello(scope, receive, send)
            raise ValueError("too late")

        site = serve(app)
        client = site.client().send(GET, GET)
        assert [response.status for response in client.responses()] == [200, 200]
        assert site.endings == ["complete", "complete"]
        assert [after_end for _, after_end in site.reporter.exceptions] == [True, True]
        assert not client.gone

    @pytest.mark.parametrize("length", [True, False])
    def test_raised_again_after_the_frameworks_own_500(self, serve, length):
        async def app(scope, receive, send):
            await start(send, 500, *([(b"content-length", b"5")] if length else []))
            await body(send, b"sorry")
            raise ValueError("the cause")

        site = serve(app)
        client = site.client().send(GET, GET)
        assert [response.status for response in client.responses()] == [500, 500]
        assert site.endings == ["app_exception", "app_exception"]
        assert (site.last.status, site.last.error_type, site.last.response_origin) == (
            500,
            "ValueError",
            "app",
        )
        assert [after_end for _, after_end in site.reporter.exceptions] == [False, False]
        assert not client.gone

    def test_a_500_of_the_application_without_an_exception(self, serve):
        async def app(scope, receive, send):
            await start(send, 503)
            await body(send, b"sorry")

        site = serve(app)
        client = site.client().send(GET, GET)
        assert site.endings == ["complete", "complete"]
        assert (site.last.status, site.last.error_type, site.last.outcome) == (503, "503", "server_error")
        assert not client.gone

    def test_pipelined_behind_a_500(self, serve):
        async def app(scope, receive, send):
            if scope["path"] == "/":
                await start(send, 500)
                await body(send, b"sorry")
                raise ValueError("the cause")
            await hello(scope, receive, send)

        site = serve(app)
        client = site.client().send(GET + request(target=b"/second"))
        assert [response.status for response in client.responses()] == [500, 200]
        assert site.endings == ["app_exception", "complete"]

    @pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_of_any_kind_end_the_exchange_and_not_the_server(self, serve, kind):
        async def app(scope, receive, send):
            if scope["path"] == "/":
                raise kind
            await hello(scope, receive, send)

        site = serve(app)
        assert site.client().send(GET).responses()[0].status == 500
        assert site.client().send(request(target=b"/next")).responses()[0].status == 200
        assert site.endings == ["app_exception", "complete"]


class TestMisuse:
    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ({"type": "http.response.body", "body": b""}, "bad_message"),
            ({"type": "websocket.accept"}, "bad_message"),
            ({"type": "http.response.start", "status": "200"}, "bad_message"),
            ({"type": "http.response.start", "status": 99}, "bad_message"),
            ({"type": "http.response.start", "status": 1000}, "bad_message"),
            ({"type": "http.response.start", "status": 200, "headers": [("x", "y")]}, "bad_message"),
            (
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"-1")]},
                "bad_message",
            ),
            (
                {"type": "http.response.start", "status": 200, "headers": [(b"transfer-encoding", b"gzip")]},
                "bad_message",
            ),
        ],
    )
    def test_a_wrong_first_message(self, serve, message, reason):
        async def app(scope, receive, send):
            await send(message)

        site = serve(app)
        client = site.client().send(GET)
        assert client.responses()[0].status == 500
        assert site.endings == ["app_exception"]
        assert site.last.app_protocol_error == reason

    @pytest.mark.parametrize("name", [b"x", b"X-Long-Name"])
    @pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\x00b"])
    def test_a_response_header_value_cannot_split_the_response(self, serve, name, value):
        async def app(scope, receive, send):
            await start(send, 200, (name, value))
            await body(send)

        site = serve(app)
        client = site.client().send(GET)
        [response] = client.responses()
        assert response.status == 500
        assert b"set-cookie" not in client.received
        assert site.last.app_protocol_error == "bad_message"

    @pytest.mark.parametrize("name", [b"x y", b"x:y", b"x\r\ny", b"", b"x\n", "ä".encode()])
    def test_a_response_header_name_cannot_split_the_response(self, serve, name):
        async def app(scope, receive, send):
            await start(send, 200, (name, b"1"))
            await body(send)

        client = serve(app).client().send(GET)
        assert [response.status for response in client.responses()] == [500]

    def test_a_second_start(self, serve):
        async def app(scope, receive, send):
            await start(send)
            await start(send)

        site = serve(app)
        assert site.client().send(GET).responses()[0].status == 500
        assert site.last.app_protocol_error == "duplicate_start"

    def test_a_message_after_the_end_is_refused_and_harms_nobody(self, serve):
        raised = []

        async def app(scope, receive, send):
            await hello(scope, receive, send)
            try:
                await body(send, b"more")
            except RuntimeError as error:
                raised.append(error)

        site = serve(app)
        client = site.client().send(GET, GET)
        assert [response.body for response in client.responses()] == [b"hello", b"hello"]
        assert len(raised) == 2
        assert site.reporter.misuses == ["send_after_close"] * 2
        assert site.endings == ["complete", "complete"]

    def test_no_response(self, serve):
        async def app(scope, receive, send):
            pass

        site = serve(app)
        client = site.client().send(GET)
        assert client.responses()[0].status == 500
        assert site.endings == ["app_no_response"]
        assert site.reporter.misuses == ["no_response"]
        assert client.gone

    def test_a_return_value(self, serve):
        async def app(scope, receive, send):
            await hello(scope, receive, send)
            return "unexpected"

        site = serve(app)
        site.client().send(GET)
        assert site.reporter.misuses == ["bad_message"]
        assert site.endings == ["complete"]

    def test_a_start_without_a_body(self, serve):
        async def app(scope, receive, send):
            await start(send)

        site = serve(app)
        client = site.client().send(GET)
        assert site.endings == ["app_incomplete_response"]
        assert site.last.status == 200
        assert site.last.response_size == len(client.received)
        assert client.gone

    def test_a_body_without_an_end(self, serve):
        async def app(scope, receive, send):
            await start(send)
            await body(send, b"part", more=True)

        site = serve(app)
        client = site.client().send(GET)
        assert not client.responses()[0].complete
        assert site.endings == ["app_incomplete_response"]

    def test_a_first_part_longer_than_the_length_is_answered_500(self, serve):
        async def app(scope, receive, send):
            await start(send, 200, LENGTH_5)
            await body(send, b"too long")

        site = serve(app)
        assert site.client().send(GET).responses()[0].status == 500
        assert site.last.app_protocol_error == "body_too_long"

    def test_a_later_part_longer_than_the_length_never_leaves(self, serve):
        async def app(scope, receive, send):
            await start(send, 200, LENGTH_5)
            await body(send, b"hel", more=True)
            await body(send, b"lo there")

        site = serve(app)
        client = site.client().send(GET)
        assert client.received.endswith(b"\r\n\r\nhel")
        assert client.gone
        assert site.endings == ["app_body_too_long"]

    @pytest.mark.parametrize("in_parts", [False, True])
    def test_a_body_shorter_than_the_length(self, serve, in_parts):
        async def app(scope, receive, send):
            await start(send, 200, LENGTH_5)
            if in_parts:
                await body(send, b"h", more=True)
            await body(send, b"el")

        site = serve(app)
        client = site.client().send(GET)
        assert client.gone
        assert site.endings == ["app_body_too_short"]
        assert site.reporter.misuses == ["body_too_short"]


class TestDisconnect:
    def test_during_the_request_body(self, serve):
        seen = []

        async def app(scope, receive, send):
            seen.append(await receive())
            seen.append(await receive())

        site = serve(app)
        site.client().send(request(b"POST", b"/", b"Content-Length: 5", body=b"he")).leave()
        assert [message["type"] for message in seen] == ["http.request", "http.disconnect"]
        assert site.endings == ["client_disconnected"]
        assert (site.last.disconnect_phase, site.last.status, site.last.request_body_size) == (
            "request_body",
            None,
            2,
        )
        assert site.last.response_origin == "none"

    def test_while_it_waits_for_the_response(self, serve):
        app = Waiting()
        site = serve(app)
        client = site.client().send(GET).leave()
        assert (site.last.disconnect_phase, site.last.status) == ("waiting", None)
        app.go.set()
        site.settle()  # what the application still sends is ignored
        assert client.received == b""
        assert site.endings == ["client_disconnected"]
        assert site.reporter.exceptions == []

    @pytest.mark.parametrize(("headers", "phase"), [([LENGTH_5], "response"), ([], "stream")])
    def test_during_the_response(self, serve, headers, phase):
        async def app(scope, receive, send):
            await start(send, 200, *headers)
            await body(send, b"he", more=True)
            await receive()
            assert (await receive())["type"] == "http.disconnect"
            await body(send, b"llo")

        site = serve(app)
        client = site.client().send(GET).leave()
        assert (site.endings, site.last.disconnect_phase, site.last.status) == (
            ["client_disconnected"],
            phase,
            200,
        )
        assert site.last.response_body_size == 2
        assert site.last.response_size == len(client.received)
        assert site.reporter.exceptions == []

    def test_after_the_response_is_no_event(self, serve):
        site = serve(hello)
        client = site.client().send(GET).leave()
        assert site.endings == ["complete"]
        assert client.connection.close_reason == "client_closed"

    def test_of_an_event_stream_is_its_ordinary_end(self, serve):
        async def app(scope, receive, send):
            await start(send, 200, (b"content-type", b"text/event-stream"))
            await body(send, b"data: 1\n\n", more=True)
            await read_body(receive)
            await receive()

        site = serve(app)
        site.client().send(GET).leave()
        assert site.endings == ["stream_closed_by_client"]
        assert (site.last.outcome, site.last.error_type, site.last.flags) == ("ok", None, ["SC"])

    def test_by_a_reset(self, serve):
        site = serve(Waiting())
        client = site.client().send(GET).leave(ConnectionResetError())
        assert "RS" in site.last.flags
        assert client.connection.close_reason == "client_reset"

    def test_ends_every_pipelined_request(self, serve):
        site = serve(Waiting())
        site.client().send(GET * 3).leave()
        assert site.endings == ["client_disconnected"] * 3
        assert site.state.active == 0

    def test_between_the_lines_of_a_head(self, serve):
        site = serve(hello)
        site.client().send(GET[:20]).leave()
        assert site.endings == ["client_disconnected"]
        assert site.last.disconnect_phase == "request_body"

    def test_of_a_silent_connection_leaves_no_record(self, serve):
        site = serve(hello)
        site.client().leave()
        assert site.ended == []
        assert len(site.observer.opened) == len(site.observer.closed) == 1


class TestRequestBody:
    @pytest.mark.parametrize(
        ("fields", "wire_body"),
        [
            ((b"Content-Length: 11",), b"hello world"),
            ((b"Transfer-Encoding: chunked",), b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n"),
        ],
    )
    @pytest.mark.parametrize("bytewise", [False, True])
    def test_reaches_the_application(self, serve, fields, wire_body, bytewise):
        site = serve(echo)
        data = request(b"POST", b"/", *fields, body=wire_body)
        client = site.client().send(*([bytes([byte]) for byte in data] if bytewise else [data]))
        assert client.responses()[0].body == b"hello world"
        assert (site.last.request_body_size, site.last.request_size) == (11, len(data))
        assert not client.gone

    def test_an_empty_body_is_one_message(self, serve):
        seen = []

        async def app(scope, receive, send):
            seen.append(await receive())
            await hello(scope, receive, send)
            seen.append(await receive())

        serve(app).client().send(GET)
        assert seen == [
            {"type": "http.request", "body": b"", "more_body": False},
            {"type": "http.disconnect"},
        ]

    def test_reading_stops_while_the_application_does_not_keep_up(self, serve):
        go = asyncio.Event()

        async def app(scope, receive, send):
            await go.wait()
            await echo(scope, receive, send)

        site = serve(app)
        client = site.client().send(request(b"POST", b"/", b"Content-Length: 65537"))
        client.send(b"x" * 65536)
        assert client.transport.reading
        client.send(b"x")
        assert not client.transport.reading
        go.set()
        site.settle()
        assert client.transport.reading
        assert len(client.responses()[0].body) == 65537

    def test_several_receivers_are_all_told_of_the_disconnect(self, serve):
        seen = []

        async def app(scope, receive, send):
            await receive()
            seen.extend(await asyncio.gather(receive(), receive()))

        serve(app).client().send(GET).leave()
        assert [message["type"] for message in seen] == ["http.disconnect"] * 2


class TestFlowControl:
    def test_send_waits_while_the_client_does_not_take_it(self, serve):
        sent = []

        async def app(scope, receive, send):
            await start(send)
            for part in range(3):
                await body(send, b"x", more=part < 2)
                sent.append(part)

        site = serve(app)
        client = site.client()
        client.connection.pause_writing()
        client.send(GET)
        assert sent == []
        client.connection.resume_writing()
        site.settle()
        assert sent == [0, 1, 2]
        assert site.last.write_blocked > 0

    def test_a_waiting_send_returns_when_the_client_leaves(self, serve):
        returned = []

        async def app(scope, receive, send):
            await start(send)
            await body(send, b"x", more=True)
            returned.append(True)

        site = serve(app)
        client = site.client()
        client.connection.pause_writing()
        client.send(GET).leave()
        assert returned == [True]
        assert site.endings == ["client_disconnected"]


def test_every_request_starts_from_the_servers_context(serve):
    import contextvars

    variable = contextvars.ContextVar("variable", default="clean")
    seen = []

    async def app(scope, receive, send):
        seen.append(variable.get())
        variable.set("dirty")
        await hello(scope, receive, send)

    serve(app).client().send(GET * 3)
    assert seen == ["clean"] * 3


def test_state_is_copied_for_each_request(serve):
    seen = []

    async def app(scope, receive, send):
        seen.append(dict(scope["state"]))
        scope["state"]["mine"] = 1
        await hello(scope, receive, send)

    serve(app).client().send(GET * 2)
    ids = [state.pop("request_id") for state in seen]
    assert seen == [{"started": True}] * 2
    assert len(set(ids)) == 2


def test_a_route_can_be_announced(serve):
    async def app(scope, receive, send):
        scope["extensions"]["obsserve"].set_route("/users/{id}")
        await hello(scope, receive, send)

    site = serve(app)
    site.client().send(request(target=b"/users/7"))
    assert site.last.route == "/users/{id}"


def test_moments_of_an_exchange_are_in_order(serve):
    site = serve(echo)
    site.client().send(request(b"POST", b"/", b"Content-Length: 2"), b"hi")
    record = site.last
    moments = [record.began, record.head_done, record.app_started, record.body_done, record.response_started]
    moments += [record.first_byte, record.ended]
    assert all(moments)
    assert moments == sorted(moments)


def test_default_headers_stand_back_for_the_applications_own(serve):
    async def app(scope, receive, send):
        await start(send, 200, (b"Server", b"mine"), (b"Date", b"never"), LENGTH_5)
        await body(send, b"hello")

    client = serve(app).client().send(GET)
    assert client.received.lower().count(b"server:") == 1
    assert client.received.lower().count(b"date:") == 1
    assert client.responses()[0].headers[b"server"] == b"mine"


def answers(body_part, *headers, status=200, more=False):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body_part, "more_body": more})
        if more:
            await body(send)

    return app


class TestWhatAnApplicationMaySend:
    @pytest.mark.parametrize("headers", [[[b"x-a", b"1"], [b"content-length", b"2"]], [(b"x-a", b"1")]])
    def test_headers_of_any_iterable(self, serve, headers):
        async def app(scope, receive, send):
            await send(
                {"type": "http.response.start", "status": 200, "headers": (pair for pair in list(headers))}
            )
            await body(send, b"ok")

        site = serve(app)
        client = site.client().send(GET, GET)
        assert [response.headers[b"x-a"] for response in client.responses()] == [b"1", b"1"]
        assert list(site.last.response_headers) == [tuple(pair) for pair in headers]

    @pytest.mark.parametrize("header", [(bytearray(b"x"), b"1"), ("x", "1"), (b"x",), None])
    def test_other_headers_are_refused(self, serve, header):
        site = serve(answers(b"", header))
        client = site.client().send(GET)
        assert client.responses()[0].status == 500
        assert site.last.app_protocol_error == "bad_message"

    @pytest.mark.parametrize("more", [False, True])
    @pytest.mark.parametrize("length", [[], [(b"content-length", b"8")]])
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")])
    def test_bodies_of_bytes(self, serve, kind, length, more):
        site = serve(answers(kind(b"abcdefgh"), *length, more=more))
        [response] = site.client().send(GET).responses()
        assert (response.status, response.body) == (200, b"abcdefgh")
        assert site.last.response_body_size == 8

    @pytest.mark.parametrize("more", [False, True])
    @pytest.mark.parametrize("body_part", ["text", 5, None, [b"a"]])
    def test_no_others(self, serve, body_part, more):
        site = serve(answers(body_part, more=more))
        assert site.client().send(GET).responses()[0].status == 500
        assert site.last.app_protocol_error == "bad_message"

    def test_a_part_may_change_after_it_was_sent(self, serve):
        async def app(scope, receive, send):
            part = bytearray(b"abc")
            await start(send, 200)
            await body(send, part, more=True)
            part[:] = b"xyz"
            await body(send)

        assert serve(app).client().send(GET).responses()[0].body == b"abc"

    @pytest.mark.parametrize("status", [HTTPStatus.OK, HTTPStatus.NOT_FOUND])
    def test_a_status_of_the_standard_library(self, serve, status):
        site = serve(answers(b"", (b"content-length", b"0"), status=status))
        site.client().send(GET)
        assert type(site.last.status) is int
        assert site.last.status == status

    def test_not_101_which_would_end_http(self, serve):
        site = serve(answers(b"", status=101))
        assert site.client().send(GET).responses()[0].status == 500

    def test_head_tells_no_length_that_nobody_knows(self, serve):
        client = serve(answers(b"")).client().send(request(b"HEAD"))
        assert b"content-length" not in client.received
        assert not client.gone


class TestTheLastPartOfA500:
    def test_a_client_that_leaves_behind_it_has_had_everything(self, serve):
        async def app(scope, receive, send):
            await start(send, 503, (b"content-length", b"0"))
            await body(send)
            client.transport.lose()

        site = serve(app)
        client = site.client()
        client.send(GET)
        assert (site.endings, site.last.disconnect_phase) == (["complete"], None)


class TestContinue:
    def test_the_server_that_has_not_asked_for_the_body_waits_for_itself(self, serve):
        app = Waiting()
        site = serve(app)
        expecting = request(b"POST", b"/", b"Expect: 100-continue", b"Content-Length: 2")
        client = site.client().send(expecting).sweep(100)
        assert site.endings == []
        app.go.set()
        site.settle()
        assert client.responses()[0].status == 200

    def test_then_the_client_has_its_time(self, serve):
        site = serve(echo)
        expecting = request(b"POST", b"/", b"Expect: 100-continue ", b"Content-Length: 2")
        client = site.client().send(expecting).sweep(29)
        assert site.endings == []
        client.sweep(31)
        assert site.endings == ["body_timeout"]
