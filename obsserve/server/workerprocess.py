"""One worker process, as the main process sees it.

Owns the process, its channel and the reader of its region. Its death is an event: a pidfd becomes readable,
or, where there are none, a thread that waits for it says so.

    starting ──"ready"──▶ ready ──retire()──▶ draining ──▶ gone
        └────────────────── dies ─────────────────────────▶ gone
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing import connection, reduction, resource_tracker
from typing import TYPE_CHECKING, Any, Final

from obsserve.server.channel import MainChannel
from obsserve.server.latesignals import HELD_SIGNALS, held
from obsserve.server.worker import STACK_SIGNAL, Post, serve_post
from obsserve.server.workerlink import last_heartbeat
from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.metrics import rows_for
from obsserve.telemetry.runtime import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.config import Config
    from obsserve.server.member import State

# The most that is read of a stack, bytes; faulthandler shows a hundred frames of each thread.
STACK_LIMIT: Final = 8192

_FAULTS: Final = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
    if hasattr(signal, name)
)


class WorkerProcess:
    """A worker from its start to its end.

    Args:
        config: the options.
        slot: its number.
        sockets: the bound sockets to listen on.
        service_instance_id: one for all workers.
        receive: called with the worker and each message that is not about its own state.

    Raises:
        OSError: the system does not let us start a process.
    """

    def __init__(
        self,
        config: Config,
        slot: int,
        sockets: list[socket.socket],
        service_instance_id: str,
        receive: Callable[[WorkerProcess, dict[str, Any]], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.slot = slot
        self.state: State = "starting"
        self.began = time.time()
        self.ready_at = 0.0
        self.retired_for: str | None = None
        self.killed_for: str | None = None
        self.recycled = False
        self.resident = 0  # bytes of memory when last looked at, first when it is ready
        self.failure: tuple[str, str] | None = None  # message and traceback
        self.settled = asyncio.Event()  # it is ready, or it is gone
        self.gone = asyncio.Event()
        self._receive = receive
        self._stacks: int | None = None
        with ExitStack() as undone:
            self._begin(config, sockets, service_instance_id, undone)
            undone.pop_all()
        self.exit_code: int | None = None  # None while it lives; negative for a signal
        self._reading = asyncio.get_running_loop().create_task(self.channel.read())
        self._watch()

    def _begin(
        self, config: Config, sockets: list[socket.socket], service_instance_id: str, undone: ExitStack
    ) -> None:
        """Start the process; what `undone` holds is given back if that fails."""
        ours, theirs = socket.socketpair()
        undone.callback(ours.close)
        ours.setblocking(False)
        self.channel = MainChannel(ours, self._message)
        settings = config.settings
        cells = None
        try:
            cells = Cells.create(rows_for(settings.metrics_max_series, body_sizes=settings.has_body_sizes))
            self.reader = cells.reader()
            undone.callback(self.reader.close)
            self._oom_kills = oom_kills()
            if hasattr(os, "memfd_create"):
                self._stacks = os.memfd_create("obsserve-stacks", os.MFD_CLOEXEC)
                undone.callback(os.close, self._stacks)
            self._launch(config, sockets, theirs, cells, service_instance_id)
        finally:
            theirs.close()
            if cells is not None:
                cells.close()

    def _launch(
        self,
        config: Config,
        sockets: list[socket.socket],
        channel: socket.socket,
        cells: Cells,
        service_instance_id: str,
    ) -> None:
        stacks = None if self._stacks is None else _Descriptor(self._stacks)
        post = Post(
            config,
            sockets,
            channel,
            _Descriptor(cells.fileno()),
            self.slot,
            service_instance_id,
            stacks,
            tuple(name for name in ("stdout", "stderr") if getattr(sys, name) is None),
        )
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve_post, args=(post,), name=f"obsserve-worker-{self.slot}"
        )
        # It lets SIGINT and SIGTERM through when it starts its own process; then not while they are held back.
        resource_tracker.ensure_running()
        with held(HELD_SIGNALS):
            self._process.start()
        self.pid = self._process.pid or 0

    def heartbeat(self) -> float:
        """Return when its event loop last turned, unix time; 0.0 before it did."""
        return last_heartbeat(self.reader)

    def post(self, type: str, **fields: Any) -> None:  # noqa: A002 - the word of the message
        """Send it a message, from any thread: the channel belongs to the loop."""
        self._loop.call_soon_threadsafe(partial(self.channel.send, type, **fields))

    def retire(self, reason: str) -> None:
        """Let it finish what it has begun, and end.

        Args:
            reason: why, a word of `obsserve_worker_restarts_total` or `shutdown`.
        """
        self.retired_for = self.retired_for or reason
        if self.state != "gone":
            self.state = "draining"
            self.channel.send("drain")

    def force(self) -> None:
        """Let it end without waiting for running requests."""
        self.retired_for = self.retired_for or "shutdown"
        self.channel.send("force")

    def ask_for_stack(self) -> None:
        """Have it write where it is; also while it holds the interpreter's lock."""
        if self._stacks is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, STACK_SIGNAL)

    def stack(self) -> str:
        """Return what it has written of where it is; empty if nothing."""
        if self._stacks is None:
            return ""
        return os.pread(self._stacks, STACK_LIMIT, 0).decode(errors="replace")

    def active_requests(self) -> int:
        """Return how many requests it has begun and not ended, as far as it has told."""
        rows = self.reader.rows()
        return int(sum(row.values[0] for row in rows if row.metric == catalogue.WORKER_ACTIVE_REQUESTS.name))

    def reopen_logs(self) -> None:
        """Let it open its log file anew."""
        self.channel.send("reopen")

    def kill(self) -> None:
        """End it now; what it was doing is lost."""
        if self.exit_code is None:
            self._process.kill()

    def cause(self) -> str:
        """Return why it is gone, a word of `obsserve_worker_restarts_total`."""
        code = self.exit_code or 0
        if self.killed_for is not None:
            return self.killed_for
        if self.retired_for is not None:
            return self.retired_for
        if not self.ready_at and code >= 0:
            return "startup_failed"
        if code == -signal.SIGKILL and oom_kills() > self._oom_kills:
            return "oom_kill"
        if code < 0:
            return "crash" if -code in _FAULTS else "signal"
        return "crash" if code == 1 else "exit_code"

    # --- events ------------------------------------------------------------------------------

    def _message(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ready":
            if self.state != "starting":
                return  # it was told to end meanwhile
            self.state = "ready"
            self.ready_at = time.time()
            self.resident = resident_bytes(self.pid)  # before its first request
            self.settled.set()
        elif kind == "failed":
            self.failure = str(message["message"]), str(message["traceback"])
        self._receive(self, message)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or an old one
            threading.Thread(target=self._wait, args=(loop,), daemon=True).start()
            return

        def died() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._died()

        loop.add_reader(descriptor, died)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        connection.wait([self._process.sentinel])
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._died)

    def _died(self) -> None:
        self._process.join()
        self.exit_code = self._process.exitcode
        self._process.close()  # its descriptors are not left to the collector
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        # What it said last is read before it is judged; a child of its own may hold the channel open.
        await asyncio.wait([self._reading], timeout=1.0)
        self._reading.cancel()
        self.state = "gone"
        self.settled.set()
        self.gone.set()
        self._receive(self, {"type": "gone"})
        if self._stacks is not None:
            os.close(self._stacks)
            self._stacks = None


class _Descriptor:
    """A descriptor on its way to a child; pickled while the child is started, as sockets are."""

    def __init__(self, file: int) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self._file),)


def _received(duplicate: Any) -> Any:
    return duplicate


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, 0 where it does not say."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        with suppress(OSError), open(path, encoding="ascii") as file:  # noqa: PTH123 - at each start and end
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0
