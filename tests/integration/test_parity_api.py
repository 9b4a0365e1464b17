"""What libraries and programs do with uvicorn's Server and Config, with the import changed."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading

import httpx
import pytest
from conftest import wait_for

import obsserve
from obsserve.errors import StartupError
from obsserve.telemetry import logging as server_logging


async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Give back the process-wide logging state."""
    monkeypatch.setattr(server_logging, "_state", server_logging._State())
    last_resort = logging.lastResort
    yield
    logging.lastResort = last_resort
    for name in ("obsserve", "obsserve.error", "obsserve.access", "obsserve.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def config(app=application, **options):
    given = {"port": 0, "log_level": "error", "access_log": False, "loop": "asyncio", **options}
    return obsserve.Config(app, **given)


def url_of(server):
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"


def in_thread(server):
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "start")
    return thread


def test_a_thread_with_should_exit():
    server = obsserve.Server(config())
    thread = in_thread(server)
    assert httpx.get(url_of(server)).text == "hello"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    assert server.server_state.total_requests == 1


def test_serve_inside_a_running_loop():
    async def program():
        server = obsserve.Server(config())
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        async with httpx.AsyncClient() as client:
            text = (await client.get(url_of(server))).text
        server.should_exit = True
        await task
        return text

    assert asyncio.run(program()) == "hello"


def test_sockets_handed_in():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        server = obsserve.Server(config(port=1))
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        wait_for(lambda: server.started, "start")
        assert httpx.get(f"http://127.0.0.1:{port}").text == "hello"
        server.should_exit = True
        thread.join(20)


def test_a_subclass_without_signal_handlers():
    from contextlib import contextmanager

    class Quiet(obsserve.Server):
        @contextmanager
        def capture_signals(self):
            yield

    server = Quiet(config())
    before = signal.getsignal(signal.SIGTERM)
    thread = in_thread(server)
    assert signal.getsignal(signal.SIGTERM) is before
    server.should_exit = True
    thread.join(20)


def test_handle_exit_overridden(monkeypatch):
    """As libraries for server-sent events do it, on the class."""
    seen = []
    original = obsserve.Server.handle_exit

    def handle_exit(self, sig, frame):
        seen.append(sig)
        original(self, sig, frame)

    monkeypatch.setattr(obsserve.Server, "handle_exit", handle_exit)

    class Signalled(obsserve.Server):
        async def on_tick(self, counter):
            if self.started and not seen:
                signal.raise_signal(signal.SIGINT)
            return await super().on_tick(counter)

    # As uvicorn, the server raises the signal again when it has stopped.
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(Signalled(config()).serve())
    assert seen == [signal.SIGINT]


def test_on_tick_counts_and_stops():
    class Ticks(obsserve.Server):
        seen = ()

        async def on_tick(self, counter):
            self.seen += (counter,)
            return len(self.seen) >= 3

    server = Ticks(config())
    server.run()
    assert server.seen == (0, 1, 2)


def test_startup_and_shutdown_overridden():
    order = []

    class Told(obsserve.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets=sockets)
            order.append(("up", self.started))

        async def on_tick(self, counter):
            self.should_exit = True
            return await super().on_tick(counter)

        async def shutdown(self, sockets=None):
            await super().shutdown(sockets=sockets)
            order.append(("down", self.should_exit))

    server = Told(config())
    server.run()
    assert order == [("up", True), ("down", True)]


def test_a_context_manager_of_testing_code():
    """The recipe for an end-to-end test that everybody copies."""
    from contextlib import contextmanager

    class Background(obsserve.Server):
        @contextmanager
        def run_in_thread(self):
            thread = in_thread(self)
            try:
                yield
            finally:
                self.should_exit = True
                thread.join(20)

    server = Background(config())
    with server.run_in_thread():
        assert httpx.get(url_of(server)).status_code == 200


def test_install_signal_handlers_overridden():
    """Recipes older than `capture_signals` switch the signals off this way; a thread has none anyway."""

    class Quiet(obsserve.Server):
        def install_signal_handlers(self):
            raise AssertionError("nobody calls it any more")

    server = Quiet(config())
    before = signal.getsignal(signal.SIGINT)
    thread = in_thread(server)
    assert signal.getsignal(signal.SIGINT) is before
    assert httpx.get(url_of(server)).text == "hello"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.anyio
class TestInsideTheLoopOfPytest:
    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.fixture
    async def server(self):
        """The fixture of many test suites: serve in the test's own loop."""
        server = obsserve.Server(config())
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield server
        server.should_exit = True
        await task

    async def test_requests(self, server):
        async with httpx.AsyncClient(base_url=url_of(server)) as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(5)))
        assert {answer.text for answer in answers} == {"hello"}
        assert server.server_state.total_requests == 5

    async def test_state_is_that_of_the_running_server(self, server):
        assert server.started
        assert server.config.loaded
        assert not server.should_exit
        assert not server.force_exit
        assert [type(header) for header in server.server_state.default_headers] == [tuple]
        assert server.servers[0].is_serving()


def test_serving_without_signal_handlers_on_a_socket_of_ones_own():
    """As test clients do, by the method below `serve`."""

    async def program():
        given = config(lifespan="off")
        server = obsserve.Server(given)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            task = asyncio.create_task(server._serve(sockets=[sock]))
            while not server.started:
                await asyncio.sleep(0.01)
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"http://127.0.0.1:{sock.getsockname()[1]}")
            server.should_exit = True
            await task
        return answer.text

    assert asyncio.run(program()) == "hello"


def test_force_exit_leaves_what_is_running():
    held = threading.Event()

    async def holds(scope, receive, send):
        assert scope["type"] == "http"
        held.set()
        await asyncio.Event().wait()

    server = obsserve.Server(config(holds, timeout_graceful_shutdown=None))
    thread = in_thread(server)
    with socket.create_connection(server.servers[0].sockets[0].getsockname(), 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert held.wait(20)
        server.should_exit = True
        server.force_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_two_servers_in_one_process():
    servers = [obsserve.Server(config()) for _ in range(2)]
    threads = [in_thread(server) for server in servers]
    assert {httpx.get(url_of(server)).text for server in servers} == {"hello"}
    for server, thread in zip(servers, threads, strict=True):
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def test_an_exit_handler_that_is_put_on_the_instance(monkeypatch):
    """As programs do that have their own idea of SIGTERM."""
    server = obsserve.Server(config())
    seen = []
    original = server.handle_exit

    def handle_exit(sig, frame):
        seen.append(sig)
        original(sig, frame)

    server.handle_exit = handle_exit

    async def program():
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        await task

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(program())
    assert seen == [signal.SIGINT]


def test_config_is_loaded_and_bound_by_hand():
    given = config()
    assert not given.loaded
    given.load()
    assert given.loaded
    assert given.loaded_app is not None
    sock = given.bind_socket()
    try:
        server = obsserve.Server(given)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started, "start")
        assert httpx.get(f"http://127.0.0.1:{sock.getsockname()[1]}").text == "hello"
        server.should_exit = True
        thread.join(20)
    finally:
        sock.close()


class Lives:
    """An application with a lifespan, which keeps what happened."""

    def __init__(self, *, starts=True):
        self.events = []
        self._starts = starts

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            self.events.append(scope["state"]["from"])
            await application(scope, receive, send)
            return
        scope["state"]["from"] = "lifespan"
        while True:
            kind = (await receive())["type"]
            self.events.append(kind)
            await send({"type": f"{kind}.{'complete' if self._starts else 'failed'}"})
            if kind == "lifespan.shutdown" or not self._starts:
                return


class TestDrivenByHand:
    """As programs do that have a main loop of their own."""

    @pytest.mark.parametrize("own_lifespan", [True, False])
    def test_the_steps_of_serve(self, own_lifespan):
        app = Lives()

        async def program():
            given = config(app, metrics_port=0)
            if not given.loaded:
                given.load()
            server = obsserve.Server(given)
            if own_lifespan:
                server.lifespan = given.lifespan_class(given)
            await server.startup()
            assert server.started
            async with httpx.AsyncClient() as client:
                answer = await client.get(url_of(server))
                page = await client.get(server._observation.metrics_url)
            asyncio.get_running_loop().call_soon(setattr, server, "should_exit", True)
            await server.main_loop()
            await server.shutdown()
            await server.shutdown()  # a finally clause may come to it again
            return answer.text, page.text, [thread.name for thread in threading.enumerate()]

        text, page, threads = asyncio.run(program())
        assert text == "hello"
        assert "http_server_request_duration_seconds_count" in page
        assert app.events == ["lifespan.startup", "lifespan", "lifespan.shutdown"]
        assert not {"obsserve-admin", "obsserve-watchdog"} & {*threads}

    def test_an_application_that_does_not_start(self):
        app = Lives(starts=False)

        async def program():
            given = config(app, metrics_port=0)
            server = obsserve.Server(given)
            server.lifespan = given.lifespan_class(given)
            await server.startup()
            await server.shutdown()
            return server, [thread.name for thread in threading.enumerate()]

        server, threads = asyncio.run(program())
        assert (server.started, server.should_exit, server.servers) == (False, True, [])
        assert app.events == ["lifespan.startup"]
        assert not {"obsserve-admin", "obsserve-watchdog"} & {*threads}

    def test_an_address_that_is_taken(self):
        async def program():
            with socket.create_server(("127.0.0.1", 0)) as taken:
                server = obsserve.Server(config(Lives(), port=taken.getsockname()[1]))
                with pytest.raises(StartupError, match="in use"):
                    await server.startup()

        asyncio.run(program())

    def test_on_sockets_of_ones_own(self):
        async def program():
            server = obsserve.Server(config())
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                await server.startup(sockets=[sock])
                async with httpx.AsyncClient() as client:
                    answer = await client.get(f"http://127.0.0.1:{sock.getsockname()[1]}")
                await server.shutdown(sockets=[sock])
            return answer.text

        assert asyncio.run(program()) == "hello"


async def no_database(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def test_an_application_that_fails_to_start_ends_the_program(capsys):
    server = obsserve.Server(config(no_database, access_log=True))
    with pytest.raises(SystemExit) as left:
        server.run()
    assert left.value.code == 3
    assert not server.started
    assert "The application failed to start: no database. The server stops" in capsys.readouterr().err


def test_also_in_a_loop_that_is_running():
    async def program():
        with pytest.raises(SystemExit) as left:
            await obsserve.Server(config(no_database)).serve()
        return left.value.code

    assert asyncio.run(program()) == 3
