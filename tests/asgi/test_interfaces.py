import functools
import sys

import pytest

from obsserve.asgi.interfaces import ASGI2Application, accepts, kind_of, served_as_asgi3
from obsserve.errors import StartupError


async def function(scope, receive, send): ...


class Instance:
    async def __call__(self, scope, receive, send): ...


class Old:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await send({"scope": self.scope, "received": await receive()})


class Awaited:
    def __init__(self, scope, receive, send): ...

    def __await__(self): ...


def old_function(scope): ...


def decorated(scope, receive, send):
    return function(scope, receive, send)


def wsgi(environ, start_response): ...


class TestKind:
    @pytest.mark.parametrize(
        "app",
        [function, Instance(), Instance().__call__, Awaited, functools.partial(function), decorated],
    )
    def test_asgi3(self, app):
        assert kind_of(app) == "asgi3"

    @pytest.mark.parametrize("app", [Old, old_function, functools.partial(Old)])
    def test_asgi2(self, app):
        assert kind_of(app) == "asgi2"

    def test_wsgi_is_told_at_the_start_and_not_with_each_request(self):
        with pytest.raises(StartupError, match="give --interface wsgi"):
            kind_of(wsgi)

    def test_what_has_no_signature_is_what_uvicorn_takes_it_for(self, monkeypatch):
        def refuse(function):
            raise ValueError

        monkeypatch.setattr("inspect.signature", refuse)
        assert kind_of(wsgi) == "asgi2"

    def test_accepts(self):
        assert accepts(wsgi, "environ", "start_response")
        assert not accepts(wsgi)
        assert not accepts(5)


class TestServed:
    def test_asgi3_is_itself(self):
        assert served_as_asgi3(function, "asgi3") is function

    async def call(self, app, scope):
        sent = []

        async def receive():
            return "a message"

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)
        return sent

    def test_asgi2_is_called_twice_and_told_its_version(self):
        shared = {"version": "3.0", "spec_version": "2.3"}
        app = served_as_asgi3(Old, "asgi2")
        assert isinstance(app, ASGI2Application)
        import asyncio

        (message,) = asyncio.run(self.call(app, {"type": "http", "asgi": shared}))
        assert message["received"] == "a message"
        assert message["scope"]["asgi"] == {"version": "2.0", "spec_version": "2.3"}
        assert shared["version"] == "3.0", "other requests share it"

    def test_wsgi_without_its_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "a2wsgi", None)
        with pytest.raises(StartupError, match=r"pip install 'obsserve\[wsgi\]'"):
            served_as_asgi3(wsgi, "wsgi")
