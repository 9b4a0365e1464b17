"""A worker process: serves one slot, and tells the main process how it is doing.

Signals: SIGINT and SIGHUP are the main process's business, because a terminal sends them to the whole group;
SIGTERM drains, however often it comes; SIGUSR1 opens log files anew. The main process drains by message, and
so does its end.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from obsserve.errors import ObsserveError, StartupError
from obsserve.server.channel import WorkerChannel
from obsserve.server.latesignals import HELD_SIGNALS, ignore_at_exit
from obsserve.server.seat import Seat
from obsserve.server.server import Server
from obsserve.server.workerlink import WorkerLink
from obsserve.telemetry.cells import Cells

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from obsserve.asgi.lifespan import LifespanFailedError
    from obsserve.config import Config

# Writes the stack; a number that nobody else is likely to use.
STACK_SIGNAL: Final = getattr(signal, "SIGRTMAX", 0) - 3


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker process is given.

    Args:
        config: the options.
        sockets: the bound sockets to listen on.
        channel: its end of the channel.
        cells: something whose `detach()` returns the descriptor of its region.
        slot: its number, from 0.
        service_instance_id: one for all workers of a server.
        stacks: as `cells`, of the file that takes its stack; None where there is none.
        missing_streams: names in `sys` of the standard streams that the main process was started without.
    """

    config: Config
    sockets: list[socket.socket]
    channel: socket.socket
    cells: Any
    slot: int
    service_instance_id: str
    stacks: Any = None
    missing_streams: tuple[str, ...] = ()


def serve_post(post: Post) -> None:
    """Serve until told to stop; the whole of a worker process.

    Raises:
        SystemExit: with 3 if the application cannot start; the main process has been told why.
    """
    for name in post.missing_streams:
        setattr(sys, name, None)  # as in the main process; what is open in their place is nobody's
    server = WorkerServer(post)
    ignore_at_exit()
    handlers = {"SIGTERM": server.terminate, "SIGUSR1": server.handle_reopen}
    for sig in HELD_SIGNALS:
        signal.signal(sig, handlers.get(sig.name, signal.SIG_IGN))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
    if post.stacks is not None:
        # Without the interpreter's help, so that it works while an extension holds its lock.
        faulthandler.register(STACK_SIGNAL, file=post.stacks.detach(), all_threads=True)
    server.channel.start()
    failure = server.serve_slot()
    if failure is not None:
        server.channel.send("failed", message=str(failure), traceback=_traceback_of(failure))
        sys.exit(StartupError.exit_code)


class WorkerServer(Server):
    """The server of one slot.

    Args:
        post: what the main process has given it.
    """

    def __init__(self, post: Post) -> None:
        super().__init__(post.config)
        cells = Cells.adopt(post.cells.detach())
        self.seat = Seat(cells, post.slot, post.service_instance_id)
        self.channel = WorkerChannel(post.channel, self._drain_now)
        self.channel.receivers["drain"] = lambda _: self._drain_now()
        self.channel.receivers["ping"] = self._answer
        self.channel.receivers["force"] = lambda _: self._force()
        self.channel.receivers["reopen"] = lambda _: self.handle_reopen(0, None)
        self._listening = post.sockets
        self._importing = True
        self._asked = False
        self._link = WorkerLink(
            self.channel, cells, post.slot, self.config.settings, lambda: getattr(self, "server_state", None)
        )

    def serve_slot(self) -> ObsserveError | None:
        """Import the application and serve it; return why it could not start."""
        try:
            self.config.configure_logging()
            self.config.load()
            self._importing = False
            if not self.should_exit:
                self._link.start()
                self.run(self._listening)
        except ObsserveError as error:
            return error
        finally:
            self._link.finish()
        return self.startup_failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            settings = self.config.settings
            jitter = random.randint(0, settings.limit_max_requests_jitter)  # noqa: S311 - spreads load
            limit = settings.limit_max_requests
            self._limit = None if limit is None else limit + jitter
            self._link.publish(self.server_state)
            self.channel.tell("ready")

    async def on_tick(self, counter: int) -> bool:
        self._link.publish(self.server_state)
        if self._limit is not None and not self._asked and self.server_state.total_requests >= self._limit:
            self._asked = True
            self.channel.tell("recycle", reason="max_requests")
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.channel.tell("draining")
        await super().shutdown(sockets)
        self._link.publish(self.server_state)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals as they were prepared before the application was imported."""
        yield

    def _announce(self) -> None:
        """Leave it to the main process."""

    def _report_startup(self, failure: LifespanFailedError) -> None:
        """Leave it to the main process, which tells it once for all workers."""

    def terminate(self, _sig: int, _frame: object) -> None:
        """Drain: the handler of SIGTERM."""
        if self._importing:  # and not sending anything else
            self.channel.send("draining")
        self._drain()

    def _drain(self) -> None:
        if self._importing:
            os._exit(0)  # nothing has begun that would have to be ended
        self.should_exit = True

    def _drain_now(self) -> None:
        """Drain without delay: the main process has waited, or there is a successor."""
        self.delays_shutdown = False
        self._drain()

    def _answer(self, _: dict[str, Any]) -> None:
        """Say that the process lives. On the channel's thread, so that a blocked loop is no dead process."""
        self.channel.send("pong")

    def _force(self) -> None:
        self.force_exit = True
        self._drain_now()


def _traceback_of(failure: ObsserveError) -> str:
    if isinstance(failure, StartupError) and failure.traceback:
        return failure.traceback
    cause = getattr(failure, "cause", None)
    return "" if cause is None else "".join(traceback.format_exception(cause))
