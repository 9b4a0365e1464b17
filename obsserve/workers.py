"""gunicorn's worker classes: `gunicorn -k obsserve.workers.ObsserveWorker app:app`.

An option comes from the first of: CONFIG_KWARGS of a subclass, a setting of gunicorn that somebody gave, the
environment (OBSSERVE_...), the configuration file, gunicorn's defaults. The arbiter owns sockets and processes;
a worker beats its heart from the serving loop itself, from start-up to the end of the drain, so that
gunicorn's `timeout` kills a worker whose loop is blocked and no other. Metrics of several workers need one
process that reads all of them: `obsserve.gunicorn` makes it the arbiter.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from obsserve import options
from obsserve.errors import ConfigError, Problem, StartupError
from obsserve.resource import SERVICE_NAME, resource_attributes
from obsserve.server.channel import WorkerChannel
from obsserve.server.seat import Seat
from obsserve.server.server import Server
from obsserve.server.workerlink import WorkerLink
from obsserve.settings import OPTIONS

if TYPE_CHECKING:
    import asyncio
    import socket
    from types import FrameType

    from obsserve.config import Config
    from obsserve.telemetry.cells import Cells

# What is left of gunicorn's graceful_timeout for the last log lines and spans: then it sends SIGKILL.
LAST_SECONDS: Final = 3.0

_SAME_MEANING: Final = {
    "keepalive": "timeout_keep_alive",
    "backlog": "backlog",
    "forwarded_allow_ips": "forwarded_allow_ips",
    "loglevel": "log_level",
    "root_path": "root_path",
    "asgi_lifespan": "lifespan",
}
_ONLY_IF_GIVEN: Final = {
    "limit_request_line": "limit_request_line",
    "limit_request_fields": "limit_request_header_count",
    "access_log_format": "access_log_format",
    "keyfile": "ssl_keyfile",
    "certfile": "ssl_certfile",
    "ca_certs": "ssl_ca_certs",
    "cert_reqs": "ssl_cert_reqs",
    "ciphers": "ssl_ciphers",
}
_NOT_OF_A_WORKER: Final = ("app", "host", "port", "uds", "fd", "workers", "reload")

# One byte, taken by the first worker that cannot start: it tells why, the others only leave.
_failures: list[int] = []


def worker_config(
    cfg: Any, given: dict[str, Any], app: Any = "gunicorn:app", uri: str | None = None
) -> Config:
    """Return the options of a worker.

    Args:
        cfg: gunicorn's configuration.
        given: CONFIG_KWARGS of the worker class.
        app: the application.
        uri: where gunicorn has it from, after which the service is named if nobody names it.

    Raises:
        ConfigError: with everything that is wrong.
    """
    resolution = options.resolve({}, environ=os.environ)
    values, origins = resolution.values, resolution.origins
    for name in _NOT_OF_A_WORKER:
        values.pop(name, None)
    for name, option in {**_SAME_MEANING, **_ONLY_IF_GIVEN}.items():
        setting = cfg.settings.get(name)
        if setting is None or option not in OPTIONS:
            continue
        is_given = setting.get() != setting.default
        if is_given or (name in _SAME_MEANING and option not in values):
            values[option], origins[option] = _value(setting.get()), f"gunicorn's {name}"
    if cfg.is_ssl and "ssl_certfile" not in OPTIONS:
        raise ConfigError(
            [
                Problem(
                    "certfile", "this version does not speak TLS", "let a proxy do it", "gunicorn's certfile"
                )
            ]
        )
    values["access_log"] = cfg.accesslog is not None
    budget = cfg.graceful_timeout - min(LAST_SECONDS, cfg.graceful_timeout / 4)
    values["timeout_graceful_shutdown"] = budget
    if uri and not resource_attributes().get(SERVICE_NAME):
        values.setdefault("service_name", uri)
    values.update(given, app=app)
    return resolution.config()


def _value(value: Any) -> Any:
    return ",".join(value) if isinstance(value, (list, tuple)) else value


class ObsserveWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """Serves ASGI applications under gunicorn.

    A subclass may set CONFIG_KWARGS, options by name, as with uvicorn's worker.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {}

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # Made by the arbiter, before the fork, if it shows metrics.
        self.cells: Cells | None = None
        self.channel_socket: socket.socket | None = None
        self.slot = max(self.age - 1, 0)
        self.instance = str(uuid.uuid4())
        if not _failures:
            reading, writing = os.pipe()
            os.write(writing, b"1")
            os.set_blocking(reading, False)
            _failures.append(reading)

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Tell of what is wrong, once, before there are workers; gunicorn's arbiter calls it."""
        try:
            settings = worker_config(cfg, cls.CONFIG_KWARGS).settings
        except ConfigError as error:
            sys.stderr.write(f"obsserve: error: {error}\n")
            sys.exit(error.exit_code)
        for hook in ("pre_request", "post_request"):
            if cfg.settings[hook].get() != cfg.settings[hook].default:
                log.warning("obsserve does not call gunicorn's %s", hook)
        if "obsserve.gunicorn" not in sys.modules:
            wanted = settings.metrics_port is not None or settings.otlp_metrics
            say = log.warning if wanted else log.info
            say(
                "No metrics: for those of all workers in one place put `from obsserve.gunicorn import *` into "
                "gunicorn.conf.py and give OBSSERVE_METRICS_PORT or OBSSERVE_OTLP_METRICS"
            )

    def init_signals(self) -> None:
        """Leave signals to the server, but for those that only gunicorn knows."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGWINCH, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.signal(signal.SIGABRT, self.handle_abort)
        signal.siginterrupt(signal.SIGUSR1, False)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """Reopen log files."""
        super().handle_usr1(sig, frame)
        if self._access_fd is not None:
            fresh = _opened(self.cfg.accesslog)
            os.dup2(fresh, self._access_fd)  # the writer thread goes on with the same number
            os.close(fresh)

    def load_wsgi(self) -> None:
        """Import the application; of several workers that cannot, one says why."""
        try:
            self.wsgi = self.app.wsgi()
        except Exception:
            if self.cfg.reload:
                raise
            self._give_up_unless_first()
            raise

    def run(self) -> None:
        """Serve until told to stop."""
        accesslog = self.cfg.accesslog
        self._access_fd = None if accesslog in (None, "-") else _opened(accesslog)
        try:
            config = worker_config(
                self.cfg, self.CONFIG_KWARGS, self.wsgi, getattr(self.app, "app_uri", None)
            )
            if self.cells is None:
                config.metrics_port = None
            server = _WorkerServer(config, self)
            server.seat = Seat(self.cells, self.slot, self.instance, self._access_fd)
            signal.signal(signal.SIGQUIT, server.handle_exit)
            try:
                server.run(sockets=[listener.sock for listener in self.sockets])
            finally:
                server.part()
        except (ConfigError, StartupError) as error:
            self._give_up_unless_first()
            sys.stderr.write(f"{getattr(error, 'traceback', '')}obsserve: error: {error}\n")
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        if not server.started and not server.told_to_stop:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    _access_fd: int | None = None

    @staticmethod
    def _give_up_unless_first() -> None:
        """Leave in silence when another worker has told why none can start; the arbiter stops by itself.

        gunicorn halts at the first worker that exits with 3, and fails itself if a second one does.
        """
        try:
            os.read(_failures[0], 1)
        except BlockingIOError:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT})
            signal.sigtimedwait({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT}, 10)
            sys.exit(0)


class ObsserveH11Worker(ObsserveWorker):
    """The same with the parser h11 and asyncio's own event loop, as uvicorn's class of that name."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "asyncio", "http": "h11"}


class _WorkerServer(Server):
    """The server of one worker: it beats, counts towards max_requests, and leaves when the arbiter is gone."""

    def __init__(self, config: Config, worker: ObsserveWorker) -> None:
        super().__init__(config)
        self._worker_process = worker
        self.told_to_stop = False
        self._link: WorkerLink | None = None
        if worker.cells is not None and worker.channel_socket is not None:
            channel = WorkerChannel(worker.channel_socket, lambda: None)
            self._link = WorkerLink(
                channel,
                worker.cells,
                worker.slot,
                config.settings,
                lambda: getattr(self, "server_state", None),
            )
            channel.start()
            self._link.start()

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        import asyncio  # noqa: PLC0415

        self._beat(asyncio.get_running_loop())
        await super()._serve(sockets)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._worker_process.notify()
        interval = self._worker_process.timeout / 2 or 1.0
        loop.call_later(min(interval, 1.0), self._beat, loop)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and let the arbiter know."""
        await super().startup(sockets)
        if self.started and self._link is not None:
            self._link.publish(self.server_state)
            self._link.channel.tell("ready")

    def _startup_failed(self) -> None:
        self._worker_process._give_up_unless_first()  # noqa: SLF001 - two halves of one thing

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop."""
        worker = self._worker_process
        if self._link is not None:
            self._link.publish(self.server_state)
        if self.server_state.total_requests >= worker.max_requests:
            if self._link is not None and not self.should_exit:
                self._link.channel.tell("recycle", reason="max_requests")
            self.should_exit = True
        elif worker.ppid != os.getppid():
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and let the arbiter know."""
        if self._link is not None:
            self._link.channel.tell("draining")
        await super().shutdown(sockets)
        if self._link is not None:
            self._link.publish(self.server_state)

    def part(self) -> None:
        """Tell the arbiter the last of the application's own metrics."""
        if self._link is not None:
            self._link.finish()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully: gunicorn sends SIGQUIT after the SIGINT that a terminal sends to everybody."""
        self.told_to_stop = True
        if sig == signal.SIGQUIT:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
