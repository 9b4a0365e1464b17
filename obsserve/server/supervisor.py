"""The main process of several workers, or of one that is looked after: starts, replaces and ends them.

Owns the bound sockets and the slots (`slots.py`); never imports the application. Everything is an event: a
message, a death, a signal, a timer. Rules:
- When nothing can be served the server stops with exit code 3; with `--reload` it waits for a change instead.
- Only this process counts interrupts: the second one ends everything without waiting.

    starting ──all workers ready──▶ serving ──signal──▶ draining ──no worker left, or time is up──▶ stopped
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from obsserve.contradictions import tell_doubts
from obsserve.errors import StartupError
from obsserve.resource import SERVICE_INSTANCE_ID, resource_attributes
from obsserve.server import latesignals, listeners
from obsserve.server.fleet import Fleet
from obsserve.server.ownlogs import OwnLogs
from obsserve.server.reloadspans import Reload, ReloadSpans
from obsserve.server.servicemanager import ServiceManager
from obsserve.server.slots import LAST_MOMENT, Slots
from obsserve.server.slotsockets import SlotSockets
from obsserve.server.vitals import STACK_WAIT, Vitals
from obsserve.server.workerlog import WorkerLog
from obsserve.server.workerprocess import WorkerProcess
from obsserve.telemetry.logging import server_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from obsserve.config import Config


class Supervisor:
    """Serves with worker processes.

    Args:
        config: the options; the application must be an import string.
        watchers: coroutine functions that run while the server serves, and may call `replace_workers`.
    """

    def __init__(
        self, config: Config, watchers: tuple[Callable[[Supervisor], Coroutine[Any, Any, None]], ...] = ()
    ) -> None:
        self.config = config
        self.settings = config.settings
        self.log = server_logger()
        self._tell = WorkerLog(self.log)
        self.receivers: dict[str, Callable[[WorkerProcess, dict[str, Any]], None]] = {}
        self._watchers = watchers
        self._instance = resource_attributes().get(SERVICE_INSTANCE_ID) or str(uuid.uuid4())
        self._service_manager = ServiceManager(os.environ)
        self._rolling: asyncio.Task[Any] | None = None
        self._reloads: list[Reload] = []  # the one that is under way, and one that is to follow
        self._keeps_waiting = config.settings.reload
        self._failure: StartupError | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, *, process_ends: bool = False) -> None:
        """Serve until told to stop.

        Args:
            process_ends: nothing comes afterwards, so signals that come late are ignored.

        Raises:
            StartupError: nothing can be served: an address is taken, or the application does not start.
        """
        if not isinstance(self.settings.app, str):
            raise StartupError("Give the application as module:attribute: its workers have to import it.")
        self._own_logs = own = OwnLogs(self.settings, self._instance, self.log)
        self._reload_spans = ReloadSpans(self.settings, self._instance, own.cells, own.report)
        self._watchers = (*self._watchers, Vitals(self.settings).watch, self._own_logs.watch)
        if self.settings.reload:
            from obsserve.server.reload import Reloader  # noqa: PLC0415 - most servers do not

            self._watchers = (*self._watchers, Reloader(self.settings).watch)
            if str(self.config.workers) not in ("1", "None"):
                ignored = '"workers" flag is ignored when reloading is enabled.'
                self.log.warning("server.warning", message=ignored)
        tell_doubts(self.settings, self.log)
        try:
            with asyncio.Runner(loop_factory=latesignals.Loop) as runner:
                try:
                    runner.run(self._serve())
                finally:
                    if process_ends:
                        latesignals.ignore()
        finally:
            self._reload_spans.stop()
            self._own_logs.stop()
        if self._failure is not None:
            raise self._failure

    @property
    def stopping(self) -> bool:
        """Whether the server has begun to stop."""
        return self._stop.is_set()

    async def replace_workers(self, reason: str = "reload") -> bool:
        """Replace all workers, one after the other, each replacement serving first.

        Args:
            reason: a word of `obsserve_worker_restarts_total`.

        Returns:
            Whether all were replaced; when a replacement cannot start, the rest stays as it is.
        """
        return await self.slots.replace_all(reason)

    def reload(self, files: Sequence[str] = ()) -> None:
        """Replace all workers because what they have imported has changed, by ones that import it anew.

        Args:
            files: what has changed, for the span.
        """
        for worker in tuple(self.fleet.workers):
            if worker.state == "starting":
                worker.retire("reload")
                worker.kill()
            elif worker.state == "draining":
                worker.force()
        self._roll(Reload("change", files))

    def recycle(self, worker: WorkerProcess, reason: str, **fields: Any) -> None:
        """Replace one worker, after those that are being replaced.

        Args:
            worker: ignored if it is being replaced already.
            reason: a word of `obsserve_worker_restarts_total`.
            fields: what the log says besides.
        """
        self.slots.recycle(worker, reason, fields)

    def end_unresponsive(self, worker: WorkerProcess, what: str) -> None:
        """Kill a worker that does not do what it should, but log its stack first.

        Args:
            worker: which.
            what: for the log, after its name.
        """
        if worker.killed_for is None:
            worker.killed_for = "unresponsive"
            self.run_soon(self._end_unresponsive(worker, what))

    # --- from start to end -------------------------------------------------------------------

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._served = asyncio.Event()  # there has been a ready worker
        self._hurried = asyncio.Event()  # somebody waits at a terminal: no delay
        self._forced = asyncio.Event()  # and does not want to wait
        self._sockets = SlotSockets(self.settings)
        unix_path = listeners.bound_path(self.settings)
        try:
            factory = self.config.get_loop_factory()
            loop_name = getattr(factory, "__module__", "asyncio").partition(".")[0]
            self.fleet: Fleet[WorkerProcess] = Fleet(
                self.settings,
                loop_name,
                self._sockets.first,
                self._instance,
                report=self._own_logs.report,
                own=self._own_logs.readers,
            )
            self.slots = Slots(self, self._sockets, self._tell, self._tell_wait)
            self.fleet.start()
            try:
                await self._serve_with_fleet()
            finally:
                self.fleet.stop()
        finally:
            self._sockets.close()
            if unix_path is not None:
                unix_path.remove()

    async def _serve_with_fleet(self) -> None:
        self._take_signals()
        began = perf_counter()
        try:
            ready = [worker.settled.wait() for worker in self.slots.fill()]
            for watcher in self._watchers:
                self.run_soon(watcher(self))
            await self._unless_stopped(asyncio.gather(*ready))
            await self._unless_stopped(asyncio.ensure_future(self._served.wait()))
            if not self.stopping:
                self._announce(perf_counter() - began)
                await self._stop.wait()
        finally:
            await self._drain()

    def _announce(self, seconds: float) -> None:
        self.fleet.state.started = True
        for sock in self._sockets.first:
            where = listeners.describe(sock, "https" if self.config.is_ssl else "http")
            self.log.info(
                "server.start",
                message=f"Serving on {where} with {self._count()} (press CTRL+C to quit)",
                address=where,
                workers=len(self.slots.present),
                startup_seconds=round(seconds, 3),
            )
        url = self.fleet.metrics_url
        if url is not None:
            self.log.info("metrics.start", message=f"Metrics on {url}", address=url)
        self._service_manager.ready(self._status())
        self.run_soon(self._service_manager.feed_watchdog(self._is_alive))

    def _status(self) -> str:
        return f"Serving on {', '.join(map(listeners.describe, self._sockets.first))} with {self._count()}"

    def _count(self) -> str:
        return "1 worker" if len(self.slots.present) == 1 else f"{len(self.slots.present)} workers"

    def _is_alive(self) -> bool:
        """Whether the service manager's watchdog is to be fed: not while every worker's loop is blocked."""
        period = self._service_manager.watchdog_period
        return period is None or self.fleet.state.stalled_for() < period / 2

    async def _drain(self) -> None:
        """End all workers within the time-out; kill what does not end."""
        self._stop.set()
        self.fleet.state.draining = True
        self._service_manager.stopping()
        began = perf_counter()
        if self.settings.shutdown_delay and self.fleet.ready() and not self._hurried.is_set():
            seconds = self.settings.shutdown_delay
            self.log.info("server.leave", message="Not ready any more; still serving", delay_seconds=seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), seconds)
        for task in tuple(self._tasks):
            task.cancel()
        workers = tuple(self.fleet.workers)
        timeout = self.settings.timeout_graceful_shutdown
        self.log.info("server.drain", message="Shutting down: the workers drain", timeout_seconds=timeout)
        self._sockets.close()  # who comes now is refused, not left waiting
        for worker in workers:
            worker.retire("shutdown")
            if self._forced.is_set():
                worker.force()
        left = None if timeout is None else began + timeout - perf_counter() + LAST_MOMENT
        await self._see_off(workers, left)
        self.log.info("server.stop", message="Stopped")

    async def _see_off(self, workers: tuple[WorkerProcess, ...], seconds: float | None) -> None:
        """Wait until they are gone; kill those that take too long, sooner when somebody is in a hurry."""
        everyone: asyncio.Future[Any] = asyncio.gather(*(worker.gone.wait() for worker in workers))
        hurry: asyncio.Future[Any] = asyncio.ensure_future(self._forced.wait())
        await asyncio.wait([everyone, hurry], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            await asyncio.wait([everyone], timeout=LAST_MOMENT)
        hurry.cancel()
        for worker in workers:
            if not worker.gone.is_set():
                self._tell.killed_late(worker)
                worker.kill()
        await everyone

    # --- one worker --------------------------------------------------------------------------

    def start_worker(self, slot: int) -> WorkerProcess:
        """Start a process for a slot.

        Args:
            slot: its number.

        Raises:
            OSError: the system does not let us.
            StartupError: the slot's address has meanwhile been taken by somebody else.
        """
        worker = WorkerProcess(self.config, slot, self._sockets.of(slot), self._instance, self._receive)
        self.fleet.add(worker)
        return worker

    async def _end_unresponsive(self, worker: WorkerProcess, what: str) -> None:
        worker.ask_for_stack()
        await asyncio.sleep(STACK_WAIT)
        if worker.state == "gone":
            return
        self._tell.killed(worker, what)
        worker.kill()

    def fail(self, message: str, traceback: str = "") -> None:
        """Stop with exit code 3: nothing can be served.

        Args:
            message: one line that says why.
            traceback: of the application, if it is its fault.
        """
        if self._failure is None:
            self._failure = StartupError(message, traceback)
        self._stop.set()

    # --- what workers say --------------------------------------------------------------------

    def _receive(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ready":
            self._served.set()
            self._tell.ready(worker)
        elif self.fleet.received(worker, message):
            pass
        elif kind == "recycle":
            self.recycle(worker, message["reason"])
        elif kind == "draining":
            self.slots.signalled(worker)
        elif kind == "gone":
            self._gone(worker)
        elif (receiver := self.receivers.get(kind)) is not None:
            receiver(worker, message)

    def _gone(self, worker: WorkerProcess) -> None:
        cause = worker.cause()
        expected = worker.retired_for is not None
        if expected:
            self._tell.stopped(worker, cause)
        elif self.fleet.state.started or worker.failure is None or self._keeps_waiting:
            self._tell.died(worker, cause)  # else the server's own last line will tell it
        self.fleet.remove(worker)
        if self.stopping:
            return
        self.slots.lost(worker, cause)

    def _tell_wait(self) -> None:
        serving = "The code of before goes on serving" if self.fleet.ready() else "Nothing is served"
        self.log.warning("reload.wait", message=f"{serving}; waiting for the next change")

    # --- signals -----------------------------------------------------------------------------

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name, act in (
            ("SIGTERM", self._stop.set),
            ("SIGINT", self._interrupt),
            ("SIGHUP", lambda: self._roll(Reload("signal"))),
            ("SIGUSR1", self._reopen_logs),
            ("SIGTTIN", lambda: self.slots.resize(1)),
            ("SIGTTOU", lambda: self.slots.resize(-1)),
        ):
            if hasattr(signal, name):
                loop.add_signal_handler(getattr(signal, name), act)

    def _interrupt(self) -> None:
        self._hurried.set()
        if not self.stopping:
            self._stop.set()
            return
        self._forced.set()
        for worker in tuple(self.fleet.workers):
            worker.force()

    def _reopen_logs(self) -> None:
        for worker in tuple(self.fleet.workers):  # also one that drains still writes
            worker.reopen_logs()

    def _roll(self, reload: Reload) -> None:
        """Replace all workers; asked for again meanwhile, once more afterwards."""
        if len(self._reloads) < 2:
            self._reloads.append(reload)
        else:
            self._reloads[1].join(reload)
        if not self.stopping and (self._rolling is None or self._rolling.done()):
            self._rolling = self.run_soon(self._roll_all())

    async def _roll_all(self) -> None:
        while self._reloads:
            reload = self._reloads[0]
            if not self._keeps_waiting:
                self.log.info("server.reload", message="Replacing the workers one by one")
            if self.fleet.state.started:
                self._service_manager.reloading()
            workers = len(self.slots.present)
            try:
                done = await self.replace_workers()
            except asyncio.CancelledError:
                self._tell_span(reload, workers, "shutdown")
                raise
            del self._reloads[0]
            if self._reloads and self._keeps_waiting:
                self._reloads[0].overtake(reload)  # by a later edit
                continue
            self.fleet.reloaded("success" if done else "failure")
            failure = "shutdown" if self.stopping else "startup_failed"
            self._tell_span(reload, workers, None if done else failure)
            if self.fleet.state.started and not self.stopping:
                self._service_manager.ready(self._status())
            if not done and not self._keeps_waiting:
                self.log.error("server.reload", message="The workers were not replaced", result="failure")

    def _tell_span(self, reload: Reload, workers: int, error_type: str | None) -> None:
        self._reload_spans.ended(reload, workers=workers, replaced=self.slots.replaced, error_type=error_type)

    # --- odds and ends -----------------------------------------------------------------------

    def run_soon(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something until it ends, or the server stops.

        Args:
            work: if it fails, that is told, and serving goes on without it.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self.log.error("server.fault", message="A part of the main process has failed", exc_info=fault)

    async def _unless_stopped(self, work: asyncio.Future[Any]) -> None:
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        for future in (work, stopped):
            future.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)
