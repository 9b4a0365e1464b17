"""Flow control in both directions."""

from __future__ import annotations

import asyncio

import pytest
from wire import GET, Waiting, body, echo, hello, read_body, request, start

from obsserve.http.flow import HIGH_WATER, Waiters


def upload(size):
    return request(b"POST", b"/", b"Content-Length: %d" % size)


def test_reading_stops_while_the_application_does_not_keep_up(serve):
    app = Waiting()
    client = serve(app).client().send(upload(3 * HIGH_WATER), b"x" * HIGH_WATER)
    assert client.transport.reading
    client.send(b"x")
    assert not client.transport.reading


def test_and_goes_on_when_it_has_taken_what_was_there(serve):
    taken = []
    go = asyncio.Event()

    async def app(scope, receive, send):
        await go.wait()
        taken.append(len((await receive())["body"]))
        await asyncio.Event().wait()

    site = serve(app)
    client = site.client().send(upload(3 * HIGH_WATER), b"x" * HIGH_WATER, b"x")
    go.set()
    site.settle()
    assert taken == [HIGH_WATER + 1]
    assert client.transport.reading


def test_the_queue_and_a_full_body_are_reasons_of_their_own(serve):
    app = Waiting()
    site = serve(app)
    client = site.client().send(GET + upload(2 * HIGH_WATER) + b"x" * (HIGH_WATER + 1))
    assert not client.transport.reading
    app.go.set()
    site.settle()
    assert client.transport.reading  # the body of the second is nobody's: it is read over


def test_a_stalled_server_is_not_held_against_the_client(serve):
    app = Waiting()
    site = serve(app)
    client = site.client().send(upload(2 * HIGH_WATER), b"x" * (HIGH_WATER + 1)).sweep(100)
    assert site.endings == []
    app.go.set()
    site.settle()
    assert client.responses()[0].status == 200


class Stream:
    """An application that sends parts as long as it may."""

    def __init__(self):
        self.sent = 0

    async def __call__(self, scope, receive, send):
        await start(send, 200)
        for _ in range(5):
            await body(send, b"x", more=True)
            self.sent += 1
        await body(send)


def test_send_waits_for_the_transport(serve):
    app = Stream()
    site = serve(app)
    client = site.client()
    client.connection.pause_writing()
    client.send(GET)
    assert app.sent == 0
    client.connection.resume_writing()
    site.settle()
    assert app.sent == 5
    assert site.last.write_blocked > 0
    assert not site.observer.started[0].ordinary


def test_send_does_not_wait_for_one_that_is_gone(serve):
    app = Stream()
    site = serve(app)
    client = site.client()
    client.connection.pause_writing()
    client.send(GET).leave()
    assert site.endings == ["client_disconnected"]
    assert app.sent == 5
    assert not site.state.tasks


def test_the_requests_own_deadline_holds_while_the_client_does_not_read(serve):
    site = serve(Stream(), timeout_request=5, timeout_write=None)
    client = site.client()
    client.transport.buffered = 100_000
    client.connection.pause_writing()
    client.send(GET).sweep(6)
    assert site.endings == ["response_timeout"]


def test_a_client_that_takes_something_has_time_again(serve):
    site = serve(Stream(), timeout_write=5)
    client = site.client()
    client.transport.buffered = 100
    client.connection.pause_writing()
    client.send(GET)
    client.transport.buffered = 90
    client.sweep(4)
    client.sweep(8)
    assert site.endings == []
    client.sweep(10)
    assert site.endings == ["write_timeout"]
    assert client.transport.aborted


def test_a_client_that_takes_nothing_of_the_last_response_is_left(serve):
    site = serve(hello, timeout_write=5)
    client = site.client()
    client.transport.buffered = 100
    client.send(request(b"GET", b"/", b"A : b")).sweep(4)
    assert not client.transport.aborted
    client.sweep(6)
    assert client.transport.aborted


def test_polling_for_the_clients_end_leaves_nothing_behind(serve):
    left = []

    async def app(scope, receive, send):
        await read_body(receive)
        for _ in range(50):
            poll = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            poll.cancel()
            await asyncio.sleep(0)
        left.append(len(scope["extensions"]["obsserve"].waiters._futures))
        await hello(scope, receive, send)

    serve(app).client().send(GET)
    assert left == [0]


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_waiters_are_woken_in_order_and_one_by_one_cancelled(cancelled):
    woken = []

    async def run():
        waiters = Waiters(asyncio.get_running_loop())

        async def wait(number):
            await waiters.wait()
            woken.append(number)

        tasks = [asyncio.ensure_future(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[cancelled].cancel()
        await asyncio.sleep(0)
        waiters.wake()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert woken == [number for number in range(3) if number != cancelled]


def test_two_receivers_each_get_an_event(serve):
    events = []

    async def app(scope, receive, send):
        first, second = asyncio.ensure_future(receive()), asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        events.append(await first)
        await hello(scope, receive, send)
        events.append(await second)

    serve(app).client().send(upload(2), b"hi")
    assert [event["type"] for event in events] == ["http.request", "http.disconnect"]


def test_what_is_discarded_is_bounded(serve):
    site = serve(hello)
    client = site.client().send(upload(10 * HIGH_WATER), b"x" * HIGH_WATER)
    assert not client.gone
    client.send(b"x")
    assert client.gone
    assert client.transport.reading  # it lingers, so that the response is not lost to a reset
    assert site.endings == ["complete"]
    client.sweep(3)
    assert client.transport.closed


def test_echo_of_a_large_body(serve):
    client = serve(echo).client().send(upload(4 * HIGH_WATER), *[b"x" * HIGH_WATER] * 4)
    assert len(client.responses()[0].body) == 4 * HIGH_WATER
