"""What a session tells of its messages: when, of which, and that each is over once."""

import asyncio

import pytest
from test_codec import BINARY, TEXT, close, frame
from test_websocket_connection import HANDSHAKE, site_settings
from wire import Site

from obsserve.telemetry.hooks import Hooks
from obsserve.websocket.codec import codec_named
from obsserve.websocket.connection import WebSocketOptions
from obsserve.websocket.messages import ToldSession
from obsserve.websocket.session import Session


class Told:
    """An observer that writes down what it is told."""

    def __init__(self):
        self.log, self.messages = [], []

    def message_received(self, message):
        assert message.began <= message.handed
        assert not message.ended
        self.messages.append(message)
        self.log.append(("received", message.is_text, message.size))

    def message_handled(self, message):
        assert message.handed <= message.ended
        assert message in self.messages
        self.log.append(("handled", message.is_text, message.size))

    def message_sent(self, message):
        assert 0 < message.began <= message.ended
        self.log.append(("sent", message.is_text, message.size))

    def session_ended(self, session):
        self.log.append(("closed", session.handling and session.handling.size))


class Application:
    """Goes on when it is let; how it handles a message the message says."""

    def __init__(self):
        self.more = asyncio.Semaphore(0)

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await self.more.acquire()
            event = await receive()
            if event["type"] == "websocket.disconnect" or event.get("text") == "leave":
                return
            if event.get("text") == "raise":
                raise LookupError("on purpose")
            if event.get("text") == "answer":
                await send({"type": "websocket.send", "bytes": b"12345"})


@pytest.fixture(params=["websockets", "wsproto"])
def opened(request):
    sites = []

    def open_one(told, **options):
        app = Application()
        site = Site("h11", app, ws=request.param)
        sites.append(site)
        site.state.hooks = Hooks([told])
        settings = site_settings(ws=request.param, **{"trace_websocket_messages": True} | options)
        made = WebSocketOptions(settings, *codec_named(request.param))
        site.state.websocket_taker = made.take
        client = site.client().send(HANDSHAKE)
        assert client.received.startswith(b"HTTP/1.1 101 ")
        client.app = app
        return client

    yield open_one
    for site in sites:
        site.close()


def let(client, count=1):
    for _ in range(count):
        client.app.more.release()
    client.site.settle()


def test_a_message_is_handled_until_the_next_one_is_asked_for(opened):
    told = Told()
    client = opened(told)
    client.send(frame(TEXT, b"one") + frame(BINARY, b"second"))
    assert told.log == [], "the application has got none yet"
    let(client)
    assert told.log == [("received", True, 3)]
    let(client)
    assert told.log[1:] == [("handled", True, 3), ("received", False, 6)]
    assert told.messages[0].ended <= told.messages[1].handed


def test_what_is_sent_is_told(opened):
    told = Told()
    client = opened(told)
    client.send(frame(TEXT, b"answer"))
    let(client)
    assert told.log == [("received", True, 6), ("sent", False, 5)]


def test_what_is_left_when_the_client_closes_is_told_too(opened):
    told = Told()
    client = opened(told)
    client.send(frame(TEXT, b"1") + frame(TEXT, b"22") + close(1000))
    assert told.log == [("closed", None)]
    let(client, 3)
    assert told.log[1:] == [
        ("received", True, 1), ("handled", True, 1), ("received", True, 2), ("handled", True, 2),
    ]  # fmt: skip


def test_the_close_says_what_is_being_handled(opened):
    told = Told()
    client = opened(told)
    client.send(frame(TEXT, b"1"))
    let(client)
    client.send(close(1000))
    assert told.log == [("received", True, 1), ("closed", 1)]
    let(client)
    assert told.log[2:] == [("handled", True, 1)]


@pytest.mark.parametrize(("last", "exception"), [(b"leave", None), (b"raise", LookupError)])
def test_an_application_that_ends_has_handled_its_last_message(opened, last, exception):
    told = Told()
    client = opened(told)
    client.send(frame(TEXT, last))
    let(client)
    (message,) = told.messages
    assert told.log == [("received", True, 5), ("closed", 5), ("handled", True, 5)]
    assert message.exception is None if exception is None else isinstance(message.exception, exception)


def test_nobody_told_is_nothing_missed(opened):
    told = Told()
    client = opened(told)
    client.site.state.hooks._observers.clear()
    client.site.state.hooks._compile()
    client.send(frame(TEXT, b"answer") + frame(TEXT, b"x"))
    let(client, 2)
    assert told.log == []


@pytest.mark.parametrize(("asked", "session"), [(False, Session), (True, ToldSession)])
def test_without_the_option_the_session_is_the_plain_one(asked, session):
    settings = site_settings(trace_websocket_messages=asked)
    assert WebSocketOptions(settings, *codec_named("auto")).session is session
