"""The middleware that uvicorn's users import, called as an application would be."""

import asyncio
import logging

import pytest

from obsserve.middleware.asgi2 import ASGI2Middleware
from obsserve.middleware.message_logger import MessageLoggerMiddleware, shortened
from obsserve.middleware.proxy_headers import ProxyHeadersMiddleware
from obsserve.middleware.wsgi import WSGIMiddleware
from obsserve.protocols.utils import ClientDisconnected, get_client_addr, get_path_with_query_string


def scope_of(kind="http", peer=("10.0.0.1", 5000), **headers):
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asgi = {"version": "3.0", "spec_version": "2.3"}
    return {
        "type": kind,
        "asgi": asgi,
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http" if kind == "http" else "ws",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=1",
        "root_path": "",
        "headers": fields,
        "client": peer,
        "server": ("127.0.0.1", 8000),
    }


def called(app, scope, *messages):
    """What the application sent."""
    sent = []

    async def run():
        waiting = list(messages) or [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive():
            return waiting.pop(0)

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(run())
    return sent


class TestProxyHeaders:
    def seen(self, scope, trusted="10.0.0.0/8"):
        async def app(scope, receive, send):
            await send((scope["client"], scope["scheme"]))

        return called(ProxyHeadersMiddleware(app, trusted), scope)[0]

    def test_a_trusted_peer(self):
        scope = scope_of(x_forwarded_for="192.0.2.9:77, 10.0.0.2", x_forwarded_proto="https")
        assert self.seen(scope) == (("192.0.2.9", 77), "https")

    def test_an_untrusted_peer(self):
        scope = scope_of(peer=("192.0.2.1", 1), x_forwarded_for="192.0.2.9", x_forwarded_proto="https")
        assert self.seen(scope) == (("192.0.2.1", 1), "http")

    def test_a_websocket_keeps_its_kind_of_scheme(self):
        assert self.seen(scope_of("websocket", x_forwarded_proto="https"))[1] == "wss"

    @pytest.mark.parametrize(("trusted", "scheme"), [("*", "https"), (["127.0.0.1"], "http")])
    def test_a_unix_socket_has_no_address_to_trust(self, trusted, scheme):
        assert self.seen(scope_of(peer=None, x_forwarded_proto="https"), trusted) == (None, scheme)

    def test_nothing_is_forwarded(self):
        assert self.seen(scope_of()) == (("10.0.0.1", 5000), "http")
        assert self.seen(scope_of(x_forwarded_for=" , ", x_forwarded_proto="gopher")) == (
            ("10.0.0.1", 5000),
            "http",
        )

    def test_the_lifespan_has_no_client(self):
        async def app(scope, receive, send):
            await send(scope)

        assert called(ProxyHeadersMiddleware(app), {"type": "lifespan"}) == [{"type": "lifespan"}]


class TestMessageLogger:
    @pytest.fixture(autouse=True)
    def trace(self, caplog):
        with caplog.at_level(5, "obsserve.asgi"):
            yield

    def test_every_message(self, caplog):
        async def app(scope, receive, send):
            await receive()
            await send({"type": "http.response.body", "body": b"secret"})

        called(MessageLoggerMiddleware(app), scope_of(authorization="secret"))
        lines = caplog.messages
        assert [line.partition("] ")[2].split()[0] for line in lines] == [
            "Started",
            "Receive",
            "Send",
            "Completed",
        ]
        assert all(line.startswith("10.0.0.1:5000 - ASGI [1] ") for line in lines)
        assert "'body': '<6 bytes>'" in lines[2]
        assert not any("secret" in line for line in lines)

    def test_an_exception(self, caplog):
        async def app(scope, receive, send):
            raise LookupError

        with pytest.raises(LookupError):
            called(MessageLoggerMiddleware(app), {"type": "lifespan"})
        assert caplog.messages[-1] == "ASGI [1] Raised exception"

    def test_what_is_not_there_is_not_measured(self):
        message = {"type": "websocket.send", "text": "four", "bytes": None}
        assert shortened(message) == {"type": "websocket.send", "text": "<4 chars>", "bytes": None}


class TestInterfaces:
    def test_wsgi(self):
        def app(environ, start_response):
            start_response("200 OK", [("X-Path", environ["PATH_INFO"])])
            return [environ["wsgi.input"].read(), b"!"]

        body = {"type": "http.request", "body": b"hello", "more_body": False}
        start, *parts = called(WSGIMiddleware(app), scope_of(), body)
        assert start == {"type": "http.response.start", "status": 200, "headers": [(b"x-path", b"/a b")]}
        assert b"".join(part["body"] for part in parts) == b"hello!"

    def test_asgi2(self):
        def app(scope):
            async def instance(receive, send):
                await send(scope["asgi"]["version"])

            return instance

        assert called(ASGI2Middleware(app), scope_of()) == ["2.0"]


class TestUtils:
    def test_client(self):
        assert get_client_addr(scope_of()) == "10.0.0.1:5000"
        assert get_client_addr(scope_of(peer=None)) == ""

    def test_path(self):
        assert get_path_with_query_string(scope_of()) == "/a%20b?x=1"
        assert get_path_with_query_string({**scope_of(), "query_string": b""}) == "/a%20b"

    def test_the_exception_is_an_os_error(self):
        assert issubclass(ClientDisconnected, OSError)
