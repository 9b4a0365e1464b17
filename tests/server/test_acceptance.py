"""Connections that cannot be accepted: told once per burst, counted once per second."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest
import uvloop

from obsserve.server.acceptance import Acceptance


class Log:
    def __init__(self):
        self.events = []

    def error(self, event, **fields):
        self.events.append((event, fields["error"]))

    def info(self, event, **fields):
        self.events.append((event, None))


class Watched:
    def __init__(self, loop):
        self.now, self.counted, self.log = 100.0, [], Log()
        self.acceptance = Acceptance(loop, self.log, self.counted.append, lambda: self.now)


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


@pytest.fixture
def asyncio_loop():
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def failure(code=errno.EMFILE):
    error = OSError(code, os.strerror(code))
    return {"message": "socket.accept() out of system resource", "exception": error, "socket": None}


def test_a_burst_is_told_once_and_counted_by_the_second(asyncio_loop):
    watched = Watched(asyncio_loop)
    for _ in range(3):
        for _ in range(2048):  # what asyncio makes of one connection
            asyncio_loop.call_exception_handler(failure())
        watched.now += 1
    watched.acceptance.check()
    assert watched.counted == ["EMFILE"] * 3
    assert watched.log.events == [("accept.failed", "EMFILE")]
    watched.now += 10
    watched.acceptance.check()
    watched.acceptance.check()
    asyncio_loop.call_exception_handler(failure(errno.ENFILE))
    assert watched.log.events[1:] == [("accept.recovered", None), ("accept.failed", "ENFILE")]


def test_uvloop_tells_of_nothing_so_a_descriptor_is_asked_for(monkeypatch):
    loop = uvloop.new_event_loop()
    watched = Watched(loop)
    watched.acceptance.check()

    def exhausted(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", exhausted)
        for _ in range(3):
            watched.acceptance.check()
            watched.now += 1
    watched.acceptance.check()
    watched.now += 10
    watched.acceptance.check()
    loop.close()
    assert watched.counted == ["EMFILE"] * 3
    assert [event for event, _ in watched.log.events] == ["accept.failed", "accept.recovered"]


def test_other_faults_of_the_loop_go_where_they_went_before(loop):
    before = []
    loop.set_exception_handler(lambda _, context: before.append(context["message"]))
    own = loop.get_exception_handler()
    watched = Watched(loop)
    loop.call_exception_handler({"message": "a task", "exception": ValueError()})
    loop.call_exception_handler({"message": "a file", "exception": OSError(errno.EMFILE, "")})
    assert before == ["a task", "a file"]
    assert not watched.counted
    watched.acceptance.stop()
    assert loop.get_exception_handler() is own


def test_a_handler_that_was_put_in_later_stays(asyncio_loop):
    watched = Watched(asyncio_loop)
    later = lambda *_: None
    asyncio_loop.set_exception_handler(later)
    watched.acceptance.stop()
    assert asyncio_loop.get_exception_handler() is later
