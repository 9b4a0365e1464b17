"""WebSockets over real sockets, with the `websockets` client: both codecs, both parsers, and the records."""

from __future__ import annotations

import asyncio
import json

import pytest
import websockets
from conftest import flags_of, total, wait_for
from websockets.asyncio.client import connect

COMBINATIONS = [(http, ws) for http in ("httptools", "h11") for ws in ("websockets", "wsproto")]


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def server(request, serve):
    http, ws = request.param
    return serve(
        "ws_apps:app", "--port", "0", "--metrics-port", "0", "--http", http, "--ws", ws, "--ws-max-size", "100000",
        "--timeout-graceful-shutdown", "3",
    )  # fmt: skip


def url(server, path):
    return server.url.replace("http://", "ws://") + path


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_echo_of_every_size_and_kind(server):
    messages = [
        "",
        "hello",
        "ünïcode",
        "x" * 125,
        "x" * 126,
        "x" * 2000,
        "x" * 70000,
        b"",
        b"\0\1\2",
        b"y" * 70000,
    ]

    async def talk():
        async with connect(url(server, "/echo/room"), max_size=None) as client:
            for message in messages:
                await client.send(message)
                assert await client.recv() == message
            await client.send(["frag", "men", "ted"])
            assert await client.recv() == "fragmented"
            assert client.protocol.extensions, "permessage-deflate was offered"
            pong = await client.ping()
            await pong

    run(talk())
    handshake, session = server.access_lines(2)
    assert handshake["event"] == "websocket.handshake"
    assert handshake["http_response_status_code"] == 101
    assert flags_of(handshake) == ["UP"]
    assert handshake["http_route"] == session["http_route"] == "/echo/{room}"
    assert session["event"] == "websocket.session"
    assert session["request_id"] == handshake["request_id"]
    assert session["websocket_messages_received"] == session["websocket_messages_sent"] == len(messages) + 1
    payload = sum(len(m.encode() if isinstance(m, str) else m) for m in [*messages, "fragmented"])
    assert session["websocket_bytes_received"] == session["websocket_bytes_sent"] == payload
    assert (session["websocket_close_code"], session["websocket_close_initiator"]) == (1000, "client")
    samples = server.metrics()
    assert total(samples, "http_server_request_duration_seconds_count", http_response_status_code="101") == 1
    assert total(samples, "obsserve_websocket_handshakes_total", result="accepted") == 1
    assert total(samples, "obsserve_websocket_closes_total", code="1000", initiator="client") == 1
    assert total(samples, "obsserve_websocket_connections_open") == 0
    received = {"direction": "received"}
    wait_for(
        lambda: total(server.metrics(), "obsserve_websocket_messages_total", **received) == len(messages) + 1,
        "the messages to be counted",
    )
    assert total(server.metrics(), "obsserve_websocket_message_bytes_total", direction="sent") == payload
    assert total(samples, "http_server_active_requests") == 0


@pytest.mark.parametrize(
    ("path", "code", "initiator"),
    [("/close/4001", 4001, "app"), ("/return", 1000, "app"), ("/raise", 1011, "app")],
)
def test_the_application_ends_it(server, path, code, initiator):
    async def talk():
        async with connect(url(server, path)) as client:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == code

    run(talk())
    session = server.access_lines(2)[1]
    assert (session["websocket_close_code"], session["websocket_close_initiator"]) == (code, initiator)
    if path == "/raise":
        assert session["level"] == "error"
        assert session["error_type"] == "ValueError"
        samples = server.metrics()
        assert total(samples, "obsserve_http_app_exceptions_total", phase="websocket") == 1


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/reject", 403, b""),
        ("/denial", 401, b"who are you?"),
        ("/raise-early", 500, b"Internal Server Error"),
    ],
)
def test_the_application_denies_it(server, path, status, body):
    async def talk():
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(url(server, path)):
                pass
        return refused.value.response

    response = run(talk())
    assert (response.status_code, response.body) == (status, body)
    (line,) = server.access_lines(1)
    assert (line["event"], line["http_response_status_code"]) == ("websocket.handshake", status)
    result = "app_error" if status == 500 else "denied"
    assert total(server.metrics(), "obsserve_websocket_handshakes_total", result=result) == 1


def test_accept_with_subprotocol_and_headers(server):
    async def talk():
        async with connect(url(server, "/accept"), subprotocols=["soap", "chat"]) as client:
            assert client.subprotocol == "chat"
            assert client.response.headers["x-room"] == "7"
            scope = json.loads(await client.recv())
        assert scope["subprotocols"] == ["soap", "chat"]
        assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", "ws", "/accept")
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
        assert "method" not in scope

    run(talk())


def test_what_the_client_does_wrong(server):
    """Each is closed with its code, and recorded with it."""

    async def talk(frame):
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET /echo/x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        rest = await reader.read()
        writer.close()
        assert rest[0] == 0x88
        return int.from_bytes(rest[2:4], "big")

    mask = b"\0\0\0\0"
    assert run(talk(b"\x81\x02hi")) == 1002  # not masked
    assert run(talk(b"\xc1\x82" + mask + b"hi")) == 1002  # a reserved bit
    assert run(talk(b"\x81\x82" + mask + b"\xff\xfe")) == 1007  # no UTF-8
    assert run(talk(b"\x82\xff" + (200000).to_bytes(8, "big") + mask + b"x" * 200000)) == 1009
    sessions = [line for line in server.access_lines(8) if line["event"] == "websocket.session"]
    assert sorted(line["websocket_close_code"] for line in sessions) == [1002, 1002, 1007, 1009]
    assert {line["websocket_close_initiator"] for line in sessions} == {"server"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"), b"426"),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), b"400"),
        ((b"GET", b"POST"), b"400"),
    ],
)
def test_a_handshake_that_is_none(server, change, status):
    request = (
        b"GET /echo/x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    async def talk():
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.replace(*change))
        answer = await reader.read()
        writer.close()
        return answer

    answer = run(talk())
    assert answer.split(b" ")[1] == status
    if status == b"426":
        assert b"sec-websocket-version: 13" in answer
    samples = server.metrics()
    assert total(samples, "obsserve_http_protocol_errors_total", reason="bad_upgrade") == 1
    assert total(samples, "obsserve_websocket_handshakes_total", result="bad_request") == 1


def test_a_connection_that_is_lost(server):
    async def talk():
        client = await connect(url(server, "/echo/x"))
        await client.send("one")
        await client.recv()
        client.transport.abort()

    run(talk())
    session = server.access_lines(2)[1]
    assert (session["websocket_close_code"], session["websocket_close_initiator"]) == (1006, "none")
    assert session["level"] == "warning"


def test_shutdown_tells_the_peers(server):
    async def talk():
        async with connect(url(server, "/echo/x")) as client:
            await client.send("one")
            await client.recv()
            server.process.terminate()
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.recv()
            return closed.value.rcvd.code

    assert run(talk()) == 1012
    assert server.stop() == 0
    session = server.access_lines(2)[1]
    assert (session["websocket_close_code"], session["websocket_close_initiator"]) == (1012, "server")


def test_backpressure_stops_reading(server):
    """The application receives nothing: the server stops reading after its queue, and the client stalls."""

    async def talk():
        async with connect(url(server, "/deaf"), compression=None) as client:

            async def flood():
                for _ in range(2000):
                    await client.send(b"x" * 60000)

            flooding = asyncio.create_task(flood())
            done, _ = await asyncio.wait([flooding], timeout=1)
            assert not done, "120 MB were taken from a client to whom nobody listens"
            flooding.cancel()
            client.transport.abort()

    run(talk())
    samples = server.metrics()
    assert total(samples, "process_resident_memory_bytes") < 200_000_000


def test_pings_find_a_dead_peer(serve):
    server = serve(
        "ws_apps:app",
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--ws-ping-interval",
        "0.2",
        "--ws-ping-timeout",
        "0.3",
    )

    async def talk():
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET /echo/x HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        rest = await reader.read()
        writer.close()
        return rest

    rest = run(talk())
    assert rest[0] == 0x89  # a ping
    assert (1011).to_bytes(2, "big") + b"keepalive ping timeout" in rest

    async def alive():
        async with connect(url(server, "/echo/x")) as client:
            wait_for_rtt = 0
            while not wait_for_rtt:
                await client.send("x")
                await client.recv()
                wait_for_rtt = total(server.metrics(), "obsserve_websocket_ping_rtt_seconds_count")

    run(alive())
    session = server.access_lines(2)[1]
    assert (session["websocket_close_code"], session["websocket_close_initiator"]) == (1011, "server")
    assert total(server.metrics(), "obsserve_websocket_ping_timeouts_total") == 1


def test_sessions_count_against_the_concurrency_limit(serve):
    server = serve("ws_apps:app", "--port", "0", "--metrics-port", "0", "--limit-concurrency", "1")

    async def talk():
        async with connect(url(server, "/echo/x")) as client:
            await client.send("x")
            await client.recv()
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(url(server, "/echo/x"))
            assert refused.value.response.status_code == 503
        async with connect(url(server, "/echo/x")) as client:
            await client.send("again")
            assert await client.recv() == "again"

    run(talk())
    assert total(server.metrics(), "obsserve_websocket_handshakes_total", result="limit") == 1


def test_no_websockets_when_they_are_off(serve):
    server = serve("ws_apps:app", "--port", "0", "--ws", "none")

    async def talk():
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url(server, "/echo/x"))
        return refused.value.response.status_code

    assert run(talk()) == 404  # served as the ordinary request that it also is
