"""The users that the scenarios share: they mark what they send, and the observer counts it."""

from __future__ import annotations

import itertools
import random
import time

import geventhttpclient.client
from geventhttpclient.connectionpool import ConnectionPool
from locust import FastHttpUser, User
from locust.contrib.fasthttp import FastHttpSession
from locust.user.task import LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

from loadtests.observe import OBSERVER

GOLDEN = 0.6180339887498949
_numbers = itertools.count()

# geventhttpclient sends a GET again, in silence, when its connection breaks. Who looks for lost requests wants to
# see them, and each request that is counted here is one request on the wire.
if not hasattr(geventhttpclient.client, "_may_retry_after_send_error"):
    raise ImportError("this release of geventhttpclient cannot be kept from repeating requests")
geventhttpclient.client._may_retry_after_send_error = lambda _method: False  # noqa: SLF001


_create_socket = ConnectionPool._create_socket  # noqa: SLF001


def _counted(pool):
    made = _create_socket(pool)
    OBSERVER.books.tallies["connections"] += 1
    return made


ConnectionPool._create_socket = _counted  # noqa: SLF001  (no other place sees a connection that was made)


class ObservedSession(FastHttpSession):
    """Gives each request an id, as traceparent and as X-Request-ID, and counts it before it is sent."""

    def request(self, method, url, name=None, *, headers=None, context=None, **options):
        trace_id, traceparent = OBSERVER.trace()
        headers = {"traceparent": traceparent, "X-Request-ID": trace_id, **(headers or {})}
        OBSERVER.books.begun += 1
        return super().request(
            method, url, name, headers=headers, context={**(context or {}), "trace_id": trace_id}, **options
        )


class LeavesInPeace:
    """A user who, when told to go while waiting, begins nothing any more.

    Locust kills who waits; one whose wait is over at this very moment would otherwise be killed in the middle of
    its next request.
    """

    def stop(self, force=False):
        waiting = self._state == LOCUST_STATE_WAITING
        if waiting:
            self._state = LOCUST_STATE_STOPPING
        return super().stop(force=force or waiting)


class ObservedUser(LeavesInPeace, FastHttpUser):
    """Whoever sends HTTP requests: closed-loop, the next one when the last is answered."""

    abstract = True
    network_timeout = 30.0
    connection_timeout = 10.0
    late = 0.0  # seconds between when the request was due and when it was sent

    def __init__(self, environment):
        self.default_headers = {"User-Agent": OBSERVER.user_agent, **(self.default_headers or {})}
        super().__init__(environment)
        given = self.client
        self.client = ObservedSession(
            base_url=self.host,
            request_event=environment.events.request,
            user=self,
            network_timeout=self.network_timeout,
            connection_timeout=self.connection_timeout,
            max_redirects=self.max_redirects,
            max_retries=self.max_retries,
            insecure=self.insecure,
            concurrency=self.concurrency,
            client_pool=self.client_pool,
            ssl_context_factory=self.ssl_context_factory,
            headers=self.default_headers,
        )
        self.client.cookiejar = given.cookiejar

    def context(self):
        return {"late": self.late}


class PacedUser(ObservedUser):
    """Sends on a timetable, `rate` requests each second, whether or not the server keeps up.

    What the server is late by counts: the corrected latency runs from when a request was due, as with wrk2, so
    that a server that stalls cannot hide it by slowing its clients down. The timetables of all users are
    interleaved evenly.
    """

    abstract = True
    rate = 1.0

    def on_start(self):
        phase = next(_numbers) * GOLDEN % 1.0
        now = time.perf_counter()
        turn = int(now * self.rate - phase) + 1
        self.due = (turn + phase) / self.rate
        time.sleep(max(0.0, self.due - now))  # gevent's

    def wait_time(self):
        self.due += 1.0 / self.rate
        return max(0.0, self.due - time.perf_counter())

    def context(self):
        return {"late": max(0.0, time.perf_counter() - self.due)}


class HandmadeUser(LeavesInPeace, User):
    """Speaks to the server by means of its own, and enters what it does in the books."""

    abstract = True

    def begin(self):
        """Count an exchange, before it is sent. Return the headers that mark it."""
        OBSERVER.books.begun += 1
        self.trace_id, traceparent = OBSERVER.trace()
        return {"User-Agent": OBSERVER.user_agent, "traceparent": traceparent, "X-Request-ID": self.trace_id}

    def fire(self, kind, name, began, error=None, *, exchange=True, status=0, cut=False):
        """Enter how it went.

        Args:
            kind: a method, or WS, or SSE.
            name: what it is called in the report.
            began: when, seconds of `time.perf_counter`.
            error: why it failed, None if it did not.
            exchange: False for what is only a part of one.
            status: of the response, 0 if there was none.
            cut: whether the response was cut short.
        """
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=error,
            context={"exchange": exchange, "status": status, "cut": cut, "trace_id": self.trace_id},
            response=None,
        )


def pause(shortest, longest):
    """Return a `wait_time` of people who think: between these seconds."""
    return lambda _user: random.uniform(shortest, longest)
