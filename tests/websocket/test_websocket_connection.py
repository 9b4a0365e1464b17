"""One WebSocket over a transport in memory: its queue, its pings, its options, and the word about its age."""

import asyncio

import pytest
from test_codec import BINARY, PONG, TEXT, close, deflated, frame, server_frames
from wire import Site, request

from obsserve.websocket.codec import codec_named
from obsserve.websocket.connection import CHECKPOINT_INTERVAL, CLOSE_TIMEOUT, WebSocketOptions

HANDSHAKE = request(
    b"GET", b"/ws", b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Extensions: permessage-deflate",
)  # fmt: skip


class Application:
    """Accepts, and takes a message whenever it is let."""

    def __init__(self):
        self.received = []
        self.more = asyncio.Semaphore(0)

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await self.more.acquire()
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            self.received.append(event.get("text") or event.get("bytes"))
            await send({**event, "type": "websocket.send"})


@pytest.fixture(params=["websockets", "wsproto"])
def open_websocket(request):
    sites = []

    def open_one(**settings):
        app = Application()
        site = Site("h11", app, ws=request.param, **settings)
        sites.append(site)
        site.reporter.checkpoints = []
        site.reporter.websocket_checkpoint = lambda session, age: site.reporter.checkpoints.append(age)
        made = WebSocketOptions(site_settings(ws=request.param, **settings), *codec_named(request.param))
        site.state.websocket_taker = made.take
        client = site.client().send(HANDSHAKE)
        head, _, rest = client.received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert rest == b""
        client.head, client.app = head, app
        return client

    yield open_one
    for site in sites:
        site.close()


def site_settings(**settings):
    from obsserve.settings import Settings

    return Settings(app="tests:app", **settings)


def frames(client):
    return server_frames(client.received.partition(b"\r\n\r\n")[2])


def let(client, count=1):
    for _ in range(count):
        client.app.more.release()
    client.site.settle()


@pytest.mark.parametrize("limit", [1, 3, 32])
def test_ws_max_queue(open_websocket, limit):
    client = open_websocket(ws_max_queue=limit)
    for number in range(limit):
        assert client.transport.is_reading(), "there is room"
        client.send(frame(TEXT, b"%d" % number))
    assert not client.transport.is_reading(), "the queue is full"
    let(client)
    assert client.transport.is_reading(), "there is room again"
    let(client, limit)
    assert client.app.received == [str(number) for number in range(limit)]


def test_what_arrives_in_one_read_is_all_delivered(open_websocket):
    client = open_websocket(ws_max_queue=2)
    client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(10)))
    assert not client.transport.is_reading()
    let(client, 10)
    assert client.app.received == [str(number) for number in range(10)]
    assert client.transport.is_reading()


def test_a_slow_reader_holds_the_application(open_websocket):
    client = open_websocket()
    client.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
    protocol = client.transport.get_protocol()
    protocol.pause_writing()
    let(client, 2)
    assert client.app.received == ["one"], "its first message has not left yet"
    protocol.resume_writing()
    client.site.settle()
    assert client.app.received == ["one", "two"]


def test_ws_max_size(open_websocket):
    client = open_websocket(ws_max_size=1000)
    client.send(frame(BINARY, bytes(1000)))
    let(client)
    assert client.app.received == [bytes(1000)]
    client.send(frame(BINARY, bytes(1001)))
    assert frames(client)[-1][1][:2] == (1009).to_bytes(2, "big")


def test_ws_per_message_deflate(open_websocket):
    client = open_websocket()
    assert b"sec-websocket-extensions: permessage-deflate" in client.head
    client.send(frame(TEXT, deflated(b"small"), rsv=4))
    let(client)
    assert client.app.received == ["small"]


def test_small_messages_are_not_compressed(open_websocket):
    client = open_websocket()
    for size in (1023, 1024):
        client.send(frame(TEXT, deflated(b"x" * size), rsv=4))
        let(client)
    assert [len(message) for message in client.app.received] == [1023, 1024]
    (small_first, small), (large_first, large) = frames(client)
    assert (small_first, len(small)) == (0x81, 1023)
    assert large_first == 0xC1, "the bit of permessage-deflate (RFC 7692 6)"
    assert len(large) < 100


def test_no_ws_per_message_deflate(open_websocket):
    client = open_websocket(ws_per_message_deflate=False)
    assert b"sec-websocket-extensions" not in client.head
    client.send(frame(TEXT, deflated(b"small"), rsv=4))
    assert frames(client)[-1][1][:2] == (1002).to_bytes(2, "big")


def test_ws_ping_interval_and_timeout(open_websocket):
    client = open_websocket(ws_ping_interval=10.0, ws_ping_timeout=5.0)
    client.sweep(9)
    assert frames(client) == []
    client.sweep(11)
    ((first, payload),) = frames(client)
    assert first == 0x89
    client.send(frame(PONG, payload))
    client.sweep(19)
    assert len(frames(client)) == 1, "it was answered"
    client.sweep(22)
    client.sweep(28)
    assert frames(client)[-1] == (0x88, (1011).to_bytes(2, "big") + b"keepalive ping timeout")


def test_no_pings_when_they_are_off(open_websocket):
    client = open_websocket(ws_ping_interval=None)
    client.sweep(1000)
    assert frames(client) == []


def test_a_pong_that_nobody_asked_for(open_websocket):
    client = open_websocket(ws_ping_interval=10.0, ws_ping_timeout=5.0)
    client.send(frame(PONG, b"?"))
    client.sweep(11)
    client.send(frame(PONG, b"another"))
    client.sweep(17)
    assert frames(client)[-1][0] == 0x88, "the ping itself was not answered"


def test_a_close_frame_that_does_not_come(open_websocket):
    client = open_websocket(ws_max_size=10)
    client.site.state.connections.copy().pop().successor.drain()
    client.site.settle()
    assert frames(client)[-1] == (0x88, (1012).to_bytes(2, "big"))
    client.sweep(CLOSE_TIMEOUT - 1)
    assert not client.gone
    client.sweep(CLOSE_TIMEOUT + 1)
    assert client.gone


def test_the_peer_closes(open_websocket):
    client = open_websocket()
    client.send(frame(TEXT, b"last") + close(1001, b"going"))
    let(client, 2)
    assert client.app.received == ["last"]
    assert frames(client)[-1][0] == 0x88
    assert client.gone


def test_a_long_session_is_told_of_each_five_minutes(open_websocket):
    client = open_websocket(ws_ping_interval=None)
    for minutes in (4, 6, 7, 11, 12):
        client.sweep(minutes * 60)
    assert [round(age / 60) for age in client.site.reporter.checkpoints] == [6, 11]
    assert CHECKPOINT_INTERVAL == 300.0
