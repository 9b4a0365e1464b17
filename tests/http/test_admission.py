"""Requests that wait for their turn, and load that is shed."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest
from wire import GET, Waiting, echo, hello, request

from obsserve.telemetry import catalogue

POST = request(b"POST", b"/", b"Content-Length: 5")


class Turns:
    """An application that answers each request when the test says so; `asked` holds who was let in, in order."""

    def __init__(self):
        self.asked = []
        self.go = {}

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        self.asked.append(path)
        self.go[path] = asyncio.Event()
        await self.go[path].wait()
        await hello(scope, receive, send)

    def answer(self, site, path):
        self.go[path].set()
        site.settle()


def get(number):
    return request(target=b"/%d" % number)


def statuses(client):
    return [response.status for response in client.responses()]


class TestQueue:
    def test_requests_are_let_in_in_the_order_of_their_arrival(self, serve):
        app = Turns()
        site = serve(app, limit_concurrency=1, limit_queue=3)
        clients = [site.client().send(get(number)) for number in range(4)]
        assert (app.asked, site.state.admission.waiting) == (["/0"], 3)
        for number in range(4):
            assert app.asked[-1] == f"/{number}"
            app.answer(site, f"/{number}")
        assert [statuses(client) for client in clients] == [[200]] * 4
        assert site.endings == ["complete"] * 4
        assert (site.state.admission.waiting, site.state.active, site.state.total_requests) == (0, 0, 4)

    def test_none_overtakes_those_that_wait(self, serve):
        app = Turns()
        site = serve(app, limit_concurrency=1, limit_queue=2)
        site.client().send(get(0))
        site.client().send(get(1))
        late = site.client()
        # The first one ends and another arrives in the same turn of the loop, before the second is let in.
        app.go["/0"].set()
        site.loop.call_soon(late.transport.get_protocol().data_received, get(2))
        site.settle()
        assert app.asked == ["/0", "/1"]
        app.answer(site, "/1")
        assert app.asked == ["/0", "/1", "/2"]

    def test_the_wait_is_in_the_record(self, serve):
        app = Turns()
        site = serve(app, limit_concurrency=1, limit_queue=1)
        site.client().send(get(0))
        site.client().send(get(1))
        waited_from = perf_counter()
        app.answer(site, "/0")
        app.answer(site, "/1")
        record = site.last
        assert record.raw_path == b"/1"
        assert record.head_done < waited_from < record.app_started

    def test_the_queue_has_an_end(self, serve):
        site = serve(Waiting(), limit_concurrency=1, limit_queue=2)
        clients = [site.client().send(GET) for _ in range(4)]
        assert [statuses(client) for client in clients] == [[], [], [], [503]]
        assert (site.endings, site.last.error_type) == (["queue_full"], "queue_full")
        assert site.last.flags == ["QF"]

    def test_who_waits_too_long_is_refused(self, serve):
        site = serve(Waiting(), limit_concurrency=1, limit_queue=2, timeout_queue=3)
        clients = [site.client().send(GET) for _ in range(3)]
        site.state.admission.tick(perf_counter() + 2.9)
        assert site.endings == []
        site.state.admission.tick(perf_counter() + 3.1)
        site.settle()
        assert site.endings == ["queue_timeout"] * 2
        assert [statuses(client) for client in clients] == [[], [503], [503]]
        assert site.state.room == 1

    @pytest.mark.parametrize("reset", [None, ConnectionResetError()])
    def test_who_leaves_gives_up_its_place(self, serve, reset):
        app = Turns()
        site = serve(app, limit_concurrency=1, limit_queue=2)
        site.client().send(get(0))
        impatient = site.client().send(get(1))
        patient = site.client().send(get(2))
        impatient.leave(reset)
        assert (site.endings, site.last.disconnect_phase) == (["client_disconnected"], "waiting")
        assert len(site.observer.started) == len(site.ended) + 1  # of those that run
        assert site.state.admission.waiting == 1
        app.answer(site, "/0")
        app.answer(site, "/2")
        assert (app.asked, statuses(patient)) == (["/0", "/2"], [200])
        assert site.state.total_requests == 3

    def test_a_body_may_arrive_meanwhile(self, serve):
        app = Turns()

        async def both(scope, receive, send):
            await (app if scope["method"] == "GET" else echo)(scope, receive, send)

        site = serve(both, limit_concurrency=1, limit_queue=1)
        site.client().send(get(0))
        client = site.client().send(POST).send(b"hel").send(b"lo")
        app.answer(site, "/0")
        assert client.responses()[0].body == b"hello"

    def test_what_is_pipelined_behind_waits_too(self, serve):
        app = Turns()
        site = serve(app, limit_concurrency=1, limit_queue=1)
        site.client().send(get(0))
        client = site.client().send(get(1) + get(2))
        for number in range(3):
            app.answer(site, f"/{number}")
        assert statuses(client) == [200, 200]

    def test_the_end_of_the_grace_period_ends_those_that_wait(self, serve):
        site = serve(Waiting(), limit_concurrency=1, limit_queue=1)
        site.client().send(GET)
        waiting = site.client().send(GET)
        waiting.connection.abandon(catalogue.WORKER_SHUTDOWN)
        site.settle()
        assert (site.endings, statuses(waiting)) == (["worker_shutdown"], [503])
        assert (site.state.admission.waiting, site.state.active) == (0, 1)

    def test_what_is_refused_while_it_waits_has_its_id(self, serve):
        site = serve(Waiting(), limit_concurrency=1, limit_queue=1, limit_request_body=3)
        site.client().send(GET)
        chunked = request(b"POST", b"/", b"Transfer-Encoding: chunked")
        client = site.client().send(chunked).send(b"5\r\nhello\r\n")
        [response] = client.responses()
        assert (response.status, site.endings) == (413, ["body_too_large"])
        assert response.headers[b"x-request-id"].decode() == site.last.request_id
        assert (site.state.admission.waiting, site.state.total_requests) == (0, 2)

    def test_a_request_that_waits_is_served_while_the_server_drains(self, serve):
        app = Turns()
        site = serve(app, limit_concurrency=1, limit_queue=1)
        site.client().send(get(0))
        waiting = site.client().send(get(1))
        site.state.draining = True
        app.answer(site, "/0")
        app.answer(site, "/1")
        [response] = waiting.responses()
        assert (response.status, response.headers[b"connection"]) == (200, b"close")


class TestShedding:
    def test_it_begins_with_the_strain_and_ends_when_it_is_calm(self, serve):
        site = serve(hello, limit_loop_lag=0.5)
        now = perf_counter()
        admission = site.state.admission
        admission.watch(now, lag=0.5, memory=0)
        assert statuses(site.client().send(GET)) == [200]
        admission.watch(now, lag=0.6, memory=0)
        admission.watch(now + 0.1, lag=0.7, memory=0)
        assert statuses(site.client().send(GET)) == [503]
        admission.watch(now + 1.0, lag=0.0, memory=0)
        assert statuses(site.client().send(GET)) == [503]
        admission.watch(now + 1.2, lag=0.0, memory=0)
        assert statuses(site.client().send(GET)) == [200]
        assert site.reporter.strains == [catalogue.LOOP_OVERLOAD, None]

    def test_one_strain_may_follow_the_other(self, serve):
        site = serve(hello, limit_loop_lag=0.5, limit_memory=1000)
        admission = site.state.admission
        admission.watch(1.0, lag=0.6, memory=0)
        admission.watch(1.1, lag=0.0, memory=2000)
        site.client().send(GET)
        assert site.endings == ["memory_overload"]
        assert site.reporter.strains == [catalogue.LOOP_OVERLOAD, catalogue.MEMORY_OVERLOAD]

    def test_who_waits_already_is_still_let_in(self, serve):
        app = Turns()
        site = serve(app, limit_concurrency=1, limit_queue=1, limit_loop_lag=0.5)
        site.client().send(get(0))
        waiting = site.client().send(get(1))
        site.state.admission.watch(1.0, lag=0.6, memory=0)
        app.answer(site, "/0")
        app.answer(site, "/1")
        assert statuses(waiting) == [200]
        assert statuses(site.client().send(get(2))) == [503]
