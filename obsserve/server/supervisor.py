"""The main process of several workers, or of one that is looked after: starts, replaces and ends them.

Owns the bound sockets and the slots; never imports the application. Everything is an event: a message, a
death, a signal, a timer. Rules:
- A replacement serves before the worker that it replaces drains; a slot has one worker that is meant to stay.
- A worker that dies by itself has a successor at once; one that keeps dying soon, later and later. When
  nothing serves any more and the successors keep failing, the server stops with exit code 3; with `--reload`
  it waits for a change instead.
- Only this process counts interrupts: the second one ends everything without waiting.

    starting ──all workers ready──▶ serving ──signal──▶ draining ──no worker left, or time is up──▶ stopped
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from contextlib import suppress
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Final

from obsserve.errors import StartupError
from obsserve.resource import SERVICE_INSTANCE_ID, resource_attributes
from obsserve.server import listeners
from obsserve.server.fleet import Fleet
from obsserve.server.ownlogs import OwnLogs
from obsserve.server.servicemanager import ServiceManager
from obsserve.server.slotsockets import SlotSockets
from obsserve.server.vitals import STACK_WAIT, Vitals
from obsserve.server.workerlog import WorkerLog
from obsserve.server.workerprocess import WorkerProcess
from obsserve.telemetry.logging import server_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from obsserve.config import Config

# A worker that lived for less than this has died soon, seconds (granian's and systemd's habit: 10 s).
SOON: Final = 10.0
# So many soon deaths of a slot in a row are a crash loop.
CRASH_LOOP: Final = 5
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
# What a worker gets beyond its own time to drain before it is killed, seconds.
LAST_MOMENT: Final = 3.0


class Supervisor:
    """Serves with worker processes.

    Args:
        config: the options; the application must be an import string.
        watchers: coroutine functions that run while the server serves, and may call `replace_workers`.
    """

    def __init__(
        self, config: Config, watchers: tuple[Callable[[Supervisor], Awaitable[None]], ...] = ()
    ) -> None:
        self.config = config
        self.settings = config.settings
        self.log = server_logger()
        self._tell = WorkerLog(self.log)
        self.slots: dict[int, WorkerProcess] = {}
        self.receivers: dict[str, Callable[[WorkerProcess, dict[str, Any]], None]] = {}
        self._watchers = watchers
        self._recycling = asyncio.Lock()
        self._instance = resource_attributes().get(SERVICE_INSTANCE_ID) or str(uuid.uuid4())
        self._service_manager = ServiceManager(os.environ)
        self._replacing: dict[int, asyncio.Event] = {}  # by slot, with the end of the replacement
        self._soon: dict[int, int] = {}
        self._rolling: asyncio.Task[Any] | None = None
        self._rolls_wanted = 0
        self._keeps_waiting = config.settings.reload
        self._failure: StartupError | None = None
        self._interrupted = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            StartupError: nothing can be served: an address is taken, or the application does not start.
        """
        if not isinstance(self.settings.app, str):
            raise StartupError("Give the application as module:attribute: its workers have to import it.")
        self._own_logs = OwnLogs(self.settings, self._instance, self.log)
        self._watchers = (*self._watchers, Vitals(self.settings).watch, self._own_logs.watch)
        if self.settings.reload:
            from obsserve.server.reload import Reloader  # noqa: PLC0415 - most servers do not

            self._watchers = (*self._watchers, Reloader(self.settings).watch)
            if str(self.config.workers) not in ("1", "None"):
                self.log.warning(
                    "server.warning", message='"workers" flag is ignored when reloading is enabled.'
                )
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        finally:
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
        for slot in sorted(self.slots):
            if self.stopping:
                return False
            if slot in self.slots and not await self._replace(slot, reason):
                return False
        return True

    def reload(self) -> None:
        """Replace all workers because what they have imported has changed, by ones that import it anew."""
        for worker in tuple(self.fleet.workers):
            if worker.state == "starting":
                worker.retire("reload")
                worker.kill()
            elif worker.state == "draining":
                worker.force()
        self._roll()

    def recycle(self, worker: WorkerProcess, reason: str, **fields: Any) -> None:
        """Replace one worker, after those that are being replaced.

        Args:
            worker: ignored if it is being replaced already.
            reason: a word of `obsserve_worker_restarts_total`.
            fields: what the log says besides.
        """
        if worker.recycled or self.stopping or self.slots.get(worker.slot) is not worker:
            return
        worker.recycled = True
        self._tell.to_be_replaced(worker, reason, fields)
        self._soon_run(self._recycle(worker, reason))

    def end_unresponsive(self, worker: WorkerProcess, what: str) -> None:
        """Kill a worker that does not do what it should, but log its stack first.

        Args:
            worker: which.
            what: for the log, after its name.
        """
        if worker.killed_for is None:
            worker.killed_for = "unresponsive"
            self._soon_run(self._end_unresponsive(worker, what))

    # --- from start to end -------------------------------------------------------------------

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._served = asyncio.Event()  # there has been a ready worker
        self._hurried = asyncio.Event()  # somebody waits at a terminal: no delay
        self._sockets = SlotSockets(self.settings)
        unix_path = listeners.bound_path(self.settings)
        try:
            factory = self.config.get_loop_factory()
            loop_name = getattr(factory, "__module__", "asyncio").partition(".")[0]
            self.fleet: Fleet[WorkerProcess] = Fleet(
                self.settings, loop_name, self._sockets.first, self._instance, self._own_logs.readers
            )
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
            for slot in range(self.settings.workers):
                self.slots[slot] = self._start(slot)
            for watcher in self._watchers:
                self._soon_run(self._watch(watcher))
            ready = [worker.settled.wait() for worker in self.slots.values()]
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
                workers=len(self.slots),
                startup_seconds=round(seconds, 3),
            )
        url = self.fleet.metrics_url
        if url is not None:
            self.log.info("metrics.start", message=f"Metrics on {url}", address=url)
        self._service_manager.ready(self._status())
        self._soon_run(self._service_manager.feed_watchdog(self._is_alive))

    def _status(self) -> str:
        return f"Serving on {', '.join(map(listeners.describe, self._sockets.first))} with {self._count()}"

    def _count(self) -> str:
        return "1 worker" if len(self.slots) == 1 else f"{len(self.slots)} workers"

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
            if self._interrupted:
                worker.force()
        if workers:
            everyone = asyncio.gather(*(worker.gone.wait() for worker in workers))
            try:
                left = None if timeout is None else began + timeout - perf_counter() + LAST_MOMENT
                await asyncio.wait_for(everyone, left)
            except TimeoutError:
                await self._kill_rest(workers)
        self.log.info("server.stop", message="Stopped")

    async def _kill_rest(self, workers: tuple[WorkerProcess, ...]) -> None:
        for worker in workers:
            if not worker.gone.is_set():
                self._kill(worker)
        await asyncio.gather(*(worker.gone.wait() for worker in workers))

    def _kill(self, worker: WorkerProcess) -> None:
        self._tell.killed_late(worker)
        worker.kill()

    # --- one worker --------------------------------------------------------------------------

    def _start(self, slot: int) -> WorkerProcess:
        worker = WorkerProcess(self.config, slot, self._sockets.of(slot), self._instance, self._receive)
        self.fleet.add(worker)
        return worker

    async def _replace(self, slot: int, reason: str) -> bool:
        """Start a slot's next worker and, when it serves, let the present one drain."""
        while slot in self._replacing:
            await self._replacing[slot].wait()
        self._replacing[slot] = replaced = asyncio.Event()
        successor = self._start(slot)
        try:
            await successor.settled.wait()
        finally:
            del self._replacing[slot]
            replaced.set()
        former = self.slots.get(slot)
        if successor.state != "ready":
            if (
                former is not None
                and former.state == "gone"
                and not self.stopping
                and not self._keeps_waiting
            ):
                self._respawn(slot)
            return False
        self.slots[slot] = successor
        if former is not None and former.state in ("starting", "ready"):
            self.fleet.restarts[reason] += 1
            self.fleet.regions.retire(former)
            former.retire(reason)
            self._soon_run(self._see_off(former))
        return True

    async def _recycle(self, worker: WorkerProcess, reason: str) -> None:
        """Replace it, one worker at a time, so that the machine never holds twice as many."""
        slot = worker.slot
        while self.slots.get(slot) is worker and worker.state == "ready" and not self.stopping:
            async with self._recycling:
                while slot in self._replacing:
                    await self._replacing[slot].wait()
                if self.slots.get(slot) is not worker or await self._replace(slot, reason):
                    return
            await asyncio.sleep(LONGEST_PAUSE)  # its successor cannot start; it serves on

    async def _end_unresponsive(self, worker: WorkerProcess, what: str) -> None:
        worker.ask_for_stack()
        await asyncio.sleep(STACK_WAIT)
        self._tell.killed(worker, what)
        worker.kill()

    async def _see_off(self, worker: WorkerProcess) -> None:
        """Kill a worker that was told to end and does not."""
        timeout = self.settings.timeout_graceful_shutdown
        if timeout is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(worker.gone.wait(), timeout + LAST_MOMENT)
                return
            self._kill(worker)

    def _respawn(self, slot: int) -> None:
        """Give a slot a worker again, after a pause if it keeps losing them; or give up."""
        count = self._soon.get(slot, 0)
        if count >= CRASH_LOOP and not self.fleet.ready():
            if self._keeps_waiting:
                self._tell_wait()
                return
            self._fail(f"The workers keep dying, {count} times in a row.")
            return
        self._soon_run(
            self._respawn_after(
                slot, min(FIRST_PAUSE * 2 ** (count - 2), LONGEST_PAUSE) if count > 1 else 0.0
            )
        )

    async def _respawn_after(self, slot: int, pause: float) -> None:
        await asyncio.sleep(pause)
        if not self.stopping and slot in self.slots and self.slots[slot].state == "gone":
            self.slots[slot] = self._start(slot)

    def _fail(self, message: str, traceback: str = "") -> None:
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
        elif kind == "draining" and worker.state == "ready" and not self.stopping:
            # By SIGTERM to it alone; if the whole group got one, ours is on its way.
            worker.retired_for = "signal"
            worker.state = "draining"
            self._soon_run(self._see_off(worker))
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
        is_current = self.slots.get(worker.slot) is worker
        if not expected or (is_current and worker.retired_for == "signal"):
            self.fleet.restarts[cause] += 1
            lived = time() - worker.ready_at if worker.ready_at else 0.0
            self._soon[worker.slot] = 1 if lived > SOON else self._soon.get(worker.slot, 0) + 1
        if self._keeps_waiting and not worker.ready_at:
            if not expected:
                self._tell_wait()
        elif not self.fleet.state.started and cause == "startup_failed":
            self._fail(*(worker.failure or (f"Worker {worker.slot} ended before it served.",)))
        elif is_current and worker.slot not in self._replacing:
            self._respawn(worker.slot)

    def _tell_wait(self) -> None:
        serving = "The code of before goes on serving" if self.fleet.ready() else "Nothing is served"
        self.log.warning("reload.wait", message=f"{serving}; waiting for the next change")

    # --- signals -----------------------------------------------------------------------------

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name, act in (
            ("SIGTERM", self._stop.set),
            ("SIGINT", self._interrupt),
            ("SIGHUP", self._roll),
            ("SIGUSR1", self._reopen_logs),
            ("SIGTTIN", lambda: self._resize(1)),
            ("SIGTTOU", lambda: self._resize(-1)),
        ):
            if hasattr(signal, name):
                loop.add_signal_handler(getattr(signal, name), act)

    def _interrupt(self) -> None:
        self._hurried.set()
        if not self.stopping:
            self._stop.set()
            return
        self._interrupted = True
        for worker in tuple(self.fleet.workers):
            worker.force()

    def _reopen_logs(self) -> None:
        for worker in tuple(self.fleet.workers):  # also one that drains still writes
            worker.reopen_logs()

    def _roll(self) -> None:
        """Replace all workers; asked for again meanwhile, once more afterwards."""
        self._rolls_wanted = min(self._rolls_wanted + 1, 2)
        if not self.stopping and (self._rolling is None or self._rolling.done()):
            self._rolling = self._soon_run(self._roll_all())

    async def _roll_all(self) -> None:
        while self._rolls_wanted:
            if not self._keeps_waiting:
                self.log.info("server.reload", message="Replacing the workers one by one")
            if self.fleet.state.started:
                self._service_manager.reloading()
            result = "success" if await self.replace_workers() else "failure"
            self._rolls_wanted -= 1
            if self._rolls_wanted and self._keeps_waiting:
                continue  # a later edit has overtaken this one
            self.fleet.reloaded(result)
            if self.fleet.state.started and not self.stopping:
                self._service_manager.ready(self._status())
            if result == "failure" and not self._keeps_waiting:
                self.log.error("server.reload", message="The workers were not replaced", result=result)

    def _resize(self, difference: int) -> None:
        wanted = max(self.fleet.desired + difference, 1)
        if self.stopping or not self.fleet.state.started or wanted == self.fleet.desired:
            return
        self.fleet.desired = wanted
        if difference > 0:
            slot = next(slot for slot in range(wanted) if slot not in self.slots)
            self.slots[slot] = self._start(slot)
        else:
            self._soon_run(self._remove(self.slots.pop(max(self.slots))))

    async def _remove(self, worker: WorkerProcess) -> None:
        """Let a worker whose slot is given up drain, when others listen where it does."""
        if not self._sockets.are_shared:
            self._sockets.give_up(worker.slot)
            if not await self._replace(0, "reload"):
                self._sockets.of(worker.slot)  # nobody took over: it stays
                self.slots[worker.slot] = worker
                self.fleet.desired += 1
                return
        self.fleet.regions.retire(worker)
        worker.retire("shutdown")
        await self._see_off(worker)

    async def _watch(self, watcher: Callable[[Supervisor], Awaitable[None]]) -> None:
        try:
            await watcher(self)
        except Exception:  # serving goes on without it
            self.log.exception("server.fault", message="A part of the main process has failed")

    # --- odds and ends -----------------------------------------------------------------------

    def _soon_run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _unless_stopped(self, work: asyncio.Future[Any]) -> None:
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        for future in (work, stopped):
            future.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)
