"""Every way in which the catalogue lets an HTTP exchange end, played once."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest
from wire import GET, Waiting, body, echo, hello, request, start

from obsserve.telemetry import catalogue

CHUNKED = b"Transfer-Encoding: chunked"
LENGTH_5 = (b"content-length", b"5")


async def streaming(scope, receive, send):
    await start(send, 200, (b"content-type", b"text/event-stream"))
    await body(send, b"data: 1\n\n", more=True)
    await asyncio.Event().wait()


async def raising(scope, receive, send):
    raise ValueError("broken")


async def raising_late(scope, receive, send):
    await start(send)
    await body(send, b"part", more=True)
    raise ValueError("broken")


async def silent(scope, receive, send):
    pass


async def unfinished(scope, receive, send):
    await start(send)


async def too_long(scope, receive, send):
    await start(send, 200, LENGTH_5)
    await body(send, b"hel", more=True)
    await body(send, b"lo there")


async def too_short(scope, receive, send):
    await start(send, 200, LENGTH_5)
    await body(send, b"hel")


def sends(*parts, app=hello, **settings):
    return lambda serve: serve(app, **settings).client().send(*parts)


def write_timeout(serve):
    site = serve(too_long)
    client = site.client()
    client.transport.buffered = 1
    client.connection.pause_writing()
    return client.send(GET).sweep(61)


def concurrency_limit(serve):
    site = serve(Waiting(), limit_concurrency=1)
    site.client().send(GET)
    return site.client().send(GET)


def connection_limit(serve):
    site = serve(hello, limit_connections=1)
    site.client()
    return site.client().send(GET)


def queue_full(serve):
    site = serve(Waiting(), limit_concurrency=1, limit_queue=1)
    return [site.client().send(GET) for _ in range(3)][-1]


def queue_timeout(serve):
    site = serve(Waiting(), limit_concurrency=1, limit_queue=1, timeout_queue=1)
    site.client().send(GET)
    client = site.client().send(GET)
    site.state.admission.tick(perf_counter() + 1.1)
    return client


def overload(**strain):
    def play(serve):
        site = serve(hello, limit_loop_lag=0.5, limit_memory=1000)
        site.state.admission.watch(perf_counter(), **{"lag": 0.0, "memory": 0, **strain})
        return site.client().send(GET)

    return play


def worker_shutdown(serve):
    client = serve(Waiting()).client().send(GET)
    client.connection.abandon(catalogue.WORKER_SHUTDOWN)
    return client


PLAYS = {
    "complete": sends(GET),
    "stream_closed_by_client": lambda serve: sends(GET, app=streaming)(serve).leave(),
    "client_disconnected": lambda serve: sends(GET, app=Waiting())(serve).leave(),
    "bad_request_line": sends(request(target=b"/a b")),
    "bad_header": sends(request(b"GET", b"/", b"a : b")),
    "bad_host": sends(request(host=b"")),
    "bad_chunk": sends(request(b"POST", b"/", CHUNKED, body=b"x\r\n"), app=echo),
    "length_conflict": sends(request(b"POST", b"/", b"Content-Length: x")),
    "te_cl_conflict": sends(request(b"POST", b"/", CHUNKED, b"Content-Length: 1")),
    "body_too_large": sends(request(b"POST", b"/", b"Content-Length: 2"), limit_request_body=1),
    "uri_too_long": sends(request(target=b"/" + b"x" * 8192)),
    "header_too_large": sends(request(b"GET", b"/", b"a: " + b"x" * 65536)),
    "unknown_method": sends(request(b"BREW")),
    "unknown_transfer_coding": sends(request(b"POST", b"/", b"Transfer-Encoding: gzip, chunked")),
    "unsupported_version": sends(request(version=b"HTTP/3.0")),
    "header_timeout": lambda serve: sends(GET[:5])(serve).sweep(11),
    "body_timeout": lambda serve: sends(request(b"POST", b"/", b"Content-Length: 2"), app=echo)(serve).sweep(
        31
    ),
    "write_timeout": write_timeout,
    "response_timeout": lambda serve: sends(GET, app=Waiting(), timeout_request=1)(serve).sweep(2),
    "concurrency_limit": concurrency_limit,
    "connection_limit": connection_limit,
    "queue_full": queue_full,
    "queue_timeout": queue_timeout,
    "loop_overload": overload(lag=0.6),
    "memory_overload": overload(memory=1001),
    "app_exception": sends(GET, app=raising),
    "app_exception_after_start": sends(GET, app=raising_late),
    "app_no_response": sends(GET, app=silent),
    "app_incomplete_response": sends(GET, app=unfinished),
    "app_body_too_long": sends(GET, app=too_long),
    "app_body_too_short": sends(GET, app=too_short),
    "worker_shutdown": worker_shutdown,
}

# WebSocket handshakes end so; and nothing refuses an HTTP request because the server drains.
NOT_OF_HTTP = {"bad_upgrade", "upgrade_required", "draining"}


def test_the_plays_are_the_catalogue():
    assert set(PLAYS) == set(catalogue.ENDINGS) - NOT_OF_HTTP


@pytest.mark.parametrize("detail", PLAYS)
def test_each_ending(serve, detail):
    client = PLAYS[detail](serve)
    [record] = client.site.ended
    ending = catalogue.ENDINGS[detail]
    assert record.ending is ending
    assert len(client.site.observer.started) >= 1
    if ending.status is not None:
        assert record.status == ending.status
        assert record.response_origin == "server"
        [response] = client.responses()
        assert response.status == ending.status
        assert response.complete
        assert response.headers[b"connection"] == b"close"
        assert (b"retry-after" in response.headers) == (ending.rejection is not None)
    if ending.outcome is not None:
        assert record.outcome == ending.outcome
    if ending.error_type is not None:
        assert record.error_type == ending.error_type
    if ending.flag is not None:
        assert ending.flag in record.flags
    if ending is not catalogue.COMPLETE:
        assert client.gone
        assert client.connection.close_reason == ending.close_reason
    assert record.response_size == len(client.received)


@pytest.mark.parametrize("raises", [False, True])
def test_who_waits_for_the_client_is_told_at_the_end_of_a_drain(serve, raises):
    """A stream that has read its request gets a disconnect; one whose request still comes does not."""
    told = []

    async def app(scope, receive, send):
        await start(send)
        await body(send, b"part", more=True)
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message["type"])
        if raises:
            raise OSError("the client has left")

    site = serve(app)
    waiting = site.client().send(GET)
    uploading = site.client().send(request(b"POST", b"/", CHUNKED))
    site.state.dismissing = True
    for client in (waiting, uploading):
        client.connection.open_exchange.wake()
    site.settle()
    assert told == ["http.disconnect"]
    assert site.endings == ["worker_shutdown"]
    assert not site.reporter.exceptions
    assert not site.reporter.misuses
    assert uploading.connection.open_exchange is not None
