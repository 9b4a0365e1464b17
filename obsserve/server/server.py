"""One serving process: what uvicorn's users know as `Server`, and the place where the parts meet.

Owns the listeners, the shared state, the lifespan and the drain. In order: bind (application and metrics
port), start the application, listen, serve, drain, stop the application, flush telemetry.

    new ──startup()──▶ started ──should_exit──▶ draining ──no exchange left, or deadline──▶ stopped
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from obsserve.asgi.frameworks import learn_routes
from obsserve.asgi.lifespan import Lifespan, LifespanFailedError
from obsserve.contradictions import tell_doubts
from obsserve.http.connection import Connection
from obsserve.http.parser import parser_class
from obsserve.http.state import ServerState
from obsserve.logconfig import BUILT_IN
from obsserve.server import listeners, tuning
from obsserve.server.acceptance import Acceptance
from obsserve.server.customprotocol import acceptor
from obsserve.server.drain import LAST_MOMENT, Drain
from obsserve.server.observation import Observation
from obsserve.server.proxyprotocol import ProxyHeader
from obsserve.server.reporter import Reporter
from obsserve.server.ticker import INTERVAL, Ticker, http_date
from obsserve.telemetry import catalogue
from obsserve.telemetry.logging import adopt_structlog, server_logger
from obsserve.websocket.codec import codec_named
from obsserve.websocket.connection import WebSocketOptions

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from types import FrameType

    from obsserve.config import Config
    from obsserve.server.lastresort import LastResort
    from obsserve.server.seat import Seat
    from obsserve.server.servicemanager import ServiceManager
    from obsserve.server.tls import TLS
    from obsserve.settings import Settings

# What the telemetry of a start that failed may take: exporters are still being imported then.
FIRST_EXPORT: Final = 5.0

HANDLED_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)


class Server:
    """Serves one application in this process.

    Args:
        config: the options; they are read when the server starts.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started = False
        self.should_exit = False
        self.force_exit = False
        self.servers: list[asyncio.Server] = []
        self.server_state: ServerState
        self.lifespan: Lifespan
        self.last_notified = 0.0
        self.seat: Seat | None = None  # given by a process that looks after several
        self.service_manager: ServiceManager | None = (
            None  # given by the command, whose process is the service
        )
        self.last_resort: LastResort | None = None  # given likewise
        self.delays_shutdown = True
        self.startup_failure: LifespanFailedError | None = None
        self._captured: list[int] = []
        self._former_reopen: Any = None
        self._structlog_adopted = False
        self._driven_by_hand = False  # startup() is called outside serve(), and shutdown() is the end
        self._sockets: list[socket.socket] = []
        self._unix_path: listeners.UnixPath | None = None
        self._observation: Observation
        self._ticker: Ticker
        self._settings: Settings
        self._tls: TLS | None = None
        self._acceptance: Acceptance | None = None
        self._resident_bytes: Callable[[], int] | None = None  # where load is shed
        self._ticked_at = 0.0

    # --- running -----------------------------------------------------------------------------

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in an event loop of its own until told to stop.

        Args:
            sockets: bound sockets to listen on instead of those that the options name.

        Raises:
            StartupError: the server cannot start.
            SystemExit: with 3, as with uvicorn: the application failed to start up, which has been logged.
        """
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._serve_until_signalled(sockets))
        self._exit_if_failed()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in the running event loop until told to stop; see `run`.

        A signal that stopped the server is raised again afterwards, for the program around it.
        """
        await self._serve_until_signalled(sockets)
        for captured in reversed(self._captured):
            signal.raise_signal(captured)
        self._exit_if_failed()

    def _exit_if_failed(self) -> None:
        if self.startup_failure is not None and self.seat is None:  # whoever gave a seat tells why itself
            sys.exit(self.startup_failure.exit_code)

    async def _serve_until_signalled(self, sockets: list[socket.socket] | None) -> None:
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._prepare()
        self.lifespan = Lifespan(self.config.loaded_app, self._settings.lifespan, self._report_lifespan)
        try:
            await self.startup(sockets)
            if not self.started:
                return
            await self.main_loop()
            await self.shutdown()
        finally:
            self._release()

    def _prepare(self) -> None:
        """Make what a start needs of the options: the application, the logs, what observes."""
        config = self.config
        config.configure_logging()
        if not config.loaded:
            config.load()
        self._settings = config.settings
        # Whoever configures logging keeps their own structlog, too.
        self._structlog_adopted = self._settings.log_config == BUILT_IN and adopt_structlog()
        self._log = server_logger()
        if self.seat is None:
            tell_doubts(self._settings, self._log)
        tuning.tune_process()
        self._observation = Observation(self._settings, self._log, self.seat)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, start the application, listen.

        `serve` calls it. Whoever calls it by hand goes on with `main_loop` and `shutdown`; a lifespan that
        `config.lifespan_class(config)` made may be given as `lifespan` before.

        Args:
            sockets: bound sockets to listen on instead of those that the options name.

        Raises:
            StartupError: an address cannot be bound.
        """
        if hasattr(self, "_observation"):
            await self._start(sockets)
            return
        self._driven_by_hand = True
        self._prepare()
        if hasattr(self, "lifespan"):
            self.lifespan.report = self._report_lifespan
        else:
            self.lifespan = Lifespan(self.config.loaded_app, self._settings.lifespan, self._report_lifespan)
        try:
            await self._start(sockets)
        finally:
            if not self.started:
                self._release()

    async def _start(self, sockets: list[socket.socket] | None) -> None:
        settings, observation = self._settings, self._observation
        for custom in (self.config.custom_protocol_class, self.config.custom_websocket_class):
            custom()  # a mistake in their names is told before anything has begun
        if sockets is not None:
            self._sockets = sockets
        else:
            self._sockets = listeners.bind_sockets(settings)
            self._unix_path = listeners.bound_path(settings)
        observation.bind()
        observation.start()
        app = self.config.loaded_app
        began = perf_counter()
        try:
            await self.lifespan.startup()
        except LifespanFailedError as failure:
            self._startup_failed()
            observation.lifespan_finished(
                "startup", perf_counter() - began, supported=True, failed=True, exception=failure.cause
            )
            self.startup_failure = failure
            self._report_startup(failure)
            self.should_exit = True
            return
        observation.lifespan_finished("startup", perf_counter() - began, supported=self.lifespan.supported)
        learn_routes()  # whatever the application needs is imported by now
        self.server_state = self._shared_state(app)
        self._serve_websockets()
        self._ticker = Ticker(self.server_state.loop, self._tick, self._each_second)
        self._ticker.start()
        self._acceptance = Acceptance(self.server_state.loop, self._log, observation.accept_failed)
        await self._listen()
        self.started = True
        observation.serving(self.server_state, self._sockets)
        self._announce()

    def _shared_state(self, app: Any) -> ServerState:
        observation = self._observation
        self._reporter = Reporter(self._log, observation.metrics)
        state = ServerState(
            self._settings,
            loop=asyncio.get_running_loop(),
            app=app,
            parser=parser_class(self._settings.http),
            hooks=observation.observers(app_configures_structlog=not self._structlog_adopted),
            context=self.lifespan.context,
            app_state=self.lifespan.state,
            reporter=self._reporter,
        )
        if self._settings.limit_loop_lag is not None or self._settings.limit_memory is not None:
            from obsserve.telemetry.runtime import resident_bytes  # noqa: PLC0415 - for hardly anybody

            self._resident_bytes = partial(resident_bytes, os.getpid())
        state.has_request_ids = self._settings.access_log or observation.traces
        return state

    def _serve_websockets(self) -> None:
        custom = self.config.custom_websocket_class()
        if custom is not None:
            from obsserve.server.customwebsocket import taker  # noqa: PLC0415 - for hardly anybody

            self.server_state.websocket_taker = taker(custom, self.config, self.server_state, self._log)
            return
        assert isinstance(self._settings.ws, str)
        chosen = codec_named(self._settings.ws)
        if chosen is not None:
            self.server_state.websocket_taker = WebSocketOptions(self._settings, *chosen).take

    async def _listen(self) -> None:
        if self.config.ssl is not None:
            from obsserve.server.tls import TLS  # noqa: PLC0415 - only for those who serve TLS

            self._tls = TLS(self.config, self._log, self._observation.certificate_loaded)
        custom = acceptor(self.config, self.server_state, self._log)
        loop = asyncio.get_running_loop()
        state = self.server_state
        backlog = self._settings.backlog
        introduced = self._settings.proxy_protocol
        secured = None if self._tls is None else self._secured(self._tls)
        for sock in self._sockets:
            name = listeners.listener_name(sock)

            def accept(name: str = name) -> asyncio.BaseProtocol:
                if custom is not None:
                    served = custom()
                    return served if secured is None else secured(served, name)
                connection = Connection(state, name)
                handshake = None if secured is None else secured(connection, name)
                if not introduced:
                    return handshake or connection
                return ProxyHeader(state, connection, self._reporter.proxy_protocol_failed, handshake)

            if sock.family.name == "AF_UNIX":
                server = await self._listen_unix(accept, sock)
            else:
                server = await loop.create_server(accept, sock=sock, backlog=backlog)
            self.servers.append(server)

    async def _listen_unix(self, accept: Callable[[], asyncio.BaseProtocol], sock: socket.socket) -> Any:
        """Listen on a socket whose path stays when the listener closes: others may be listening on it."""
        loop = asyncio.get_running_loop()
        backlog = self._settings.backlog
        if sys.version_info >= (3, 13):  # which else removes the path
            keep: dict[str, Any] = {"cleanup_socket": False}
            with suppress(TypeError):  # an older uvloop has no such argument, and removes nothing
                return await loop.create_unix_server(accept, sock=sock, backlog=backlog, **keep)
        return await loop.create_unix_server(accept, sock=sock, backlog=backlog)

    def _secured(self, tls: TLS) -> Callable[[asyncio.BaseProtocol, str], asyncio.BaseProtocol]:
        """Return what puts a TLS handshake before the protocol of a new connection."""
        from obsserve.server.handshake import Handshake  # noqa: PLC0415 - only for those who serve TLS

        state, failed = self.server_state, self._observation.handshake_failed
        return lambda protocol, listener: Handshake(state, tls, listener, protocol, failed)

    def _announce(self) -> None:
        scheme = "https" if self._tls is not None else "http"
        addresses = [listeners.describe(sock, scheme) for sock in self._sockets]
        for where in addresses:
            self._log.info(
                "server.start", message=f"Serving on {where} (press CTRL+C to quit)", address=where
            )
        if self._observation.metrics_url is not None:
            self._log.info(
                "metrics.start",
                message=f"Metrics on {self._observation.metrics_url}",
                address=self._observation.metrics_url,
            )
        if self.service_manager is not None:
            self.service_manager.ready(f"Serving on {', '.join(addresses)}")

    # --- serving -----------------------------------------------------------------------------

    async def main_loop(self) -> None:
        """Wait until the server is told to stop."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864000
            await asyncio.sleep(INTERVAL)

    async def on_tick(self, counter: int) -> bool:  # noqa: ARG002 - overridden by users who count
        """Return whether to stop; called ten times a second, and made to be overridden."""
        notify = self.config.callback_notify
        if notify is not None and time.time() - self.last_notified > self.config.timeout_notify:
            self.last_notified = time.time()
            await notify()
        return self.should_exit

    def _tick(self, now: float) -> None:
        state = self.server_state
        for connection in tuple(state.connections):
            connection.sweep(now)
        state.admission.tick(now)
        if self._resident_bytes is not None:
            lag, self._ticked_at = now - (self._ticked_at or now) - INTERVAL, now
            state.admission.watch(now, lag=lag, memory=self._resident_bytes())
        self._observation.tick(now)
        if self.service_manager is not None:
            self.service_manager.sign_of_life(now)

    def _each_second(self, second: int) -> None:
        self.server_state.set_date(http_date(second))
        self._observation.each_second()
        if self._acceptance is not None:
            self._acceptance.check()
        if self._tls is not None:
            self._tls.check()

    # --- stopping ----------------------------------------------------------------------------

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: accept nothing more, let what is running finish within the time-out, stop the application.

        Args:
            sockets: closed too, if given.
        """
        if not self.started:
            return  # and nothing is held any more
        timeout = self._settings.timeout_graceful_shutdown
        deadline = perf_counter() + timeout if timeout is not None else None
        self._observation.draining()
        if self.service_manager is not None:
            self.service_manager.stopping()
        if self._settings.shutdown_delay:
            await self._delay_shutdown(perf_counter() + self._settings.shutdown_delay)
        self._log.info(
            "server.drain", message="Shutting down: waiting for running requests", timeout_seconds=timeout
        )
        state = self.server_state
        state.drain_started = perf_counter()
        state.draining = True
        for connection in tuple(state.connections):
            if connection.successor is not None:
                connection.successor.drain()
        for server in self.servers:
            server.close()
        for sock in (*self._sockets, *(sockets or ())):
            sock.close()
        await Drain(
            state, self._log, deadline=deadline, budget=timeout, hurried=lambda: self.force_exit
        ).run()
        if not self.force_exit:
            await self._stop_application(_remaining(deadline))
        self._ticker.stop()
        self._log.info("server.stop", message="Stopped", force_exit=self.force_exit)
        if self._driven_by_hand:
            self._release()

    async def _delay_shutdown(self, end: float) -> None:
        """Serve on while those who route requests here notice that the server is not ready any more."""
        seconds = self._settings.shutdown_delay
        if self.delays_shutdown:
            self._log.info("server.leave", message="Not ready any more; still serving", delay_seconds=seconds)
        while self.delays_shutdown and not self.force_exit and perf_counter() < end:  # noqa: ASYNC110 - set by signals
            await asyncio.sleep(INTERVAL / 2)

    async def _stop_application(self, seconds: float | None) -> None:
        began = perf_counter()
        stopped = await self.lifespan.shutdown(seconds)
        self._observation.lifespan_finished(
            "shutdown", perf_counter() - began, supported=self.lifespan.supported, failed=not stopped
        )

    def _startup_failed(self) -> None:
        """Nothing by default; of several workers that fail alike, one tells why."""

    def _report_startup(self, failure: LifespanFailedError) -> None:
        said = str(failure).rstrip(".")
        message = f"{said[:1].upper()}{said[1:]}. The server stops"
        self._log.error("lifespan.failed", message=message, exc_info=failure.cause)

    def _report_lifespan(self, message: str, cause: BaseException | None) -> None:
        self._log.error("lifespan.failed", message=message, exc_info=cause)

    def _release(self) -> None:
        """Give back what the process holds, however serving ended."""
        if self._acceptance is not None:
            self._acceptance.stop()
        for sock in self._sockets:
            sock.close()
        if self._unix_path is not None:
            self._unix_path.remove()
        self._observation.stop(LAST_MOMENT if self.started else FIRST_EXPORT)

    # --- signals -----------------------------------------------------------------------------

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while serving; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any]]
        handlers = dict.fromkeys(HANDLED_SIGNALS, self.handle_exit)
        if hasattr(signal, "SIGUSR1"):
            # Also without a file to reopen: what a rotation sends to all servers must not end this one.
            handlers[signal.SIGUSR1] = self.handle_reopen
            self._former_reopen = signal.getsignal(signal.SIGUSR1)  # a program around us reopens its own
        original = {sig: signal.signal(sig, handler) for sig, handler in handlers.items()}
        try:
            yield
        finally:
            for sig, handler in original.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's form
        """Stop gracefully; a second SIGINT stops at once, while SIGTERM may come as often as it likes."""
        self._captured.append(sig)
        if self.last_resort is not None:
            self.last_resort.arm()
        if sig == signal.SIGINT:
            self.delays_shutdown = False  # somebody waits at a terminal
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True

    def abandon(self) -> None:
        """End what is open, and write what waits, from another thread: the event loop is blocked for good."""
        for connection in tuple(self.server_state.connections):
            connection.abandon(catalogue.WORKER_SHUTDOWN)
        self._observation.stop(LAST_MOMENT)

    def handle_reopen(self, sig: int, frame: FrameType | None) -> None:
        """Open the access log's file anew, which somebody has renamed; without one, say so."""
        if hasattr(self, "_observation"):  # else it is opened later
            self._observation.reopen_logs()
        if callable(self._former_reopen):
            self._former_reopen(sig, frame)


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - perf_counter(), LAST_MOMENT)
