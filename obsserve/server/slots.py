"""Which worker is meant to serve each slot: replaces them, gives them successors, adds and takes away slots.

Owned by the main process, on its event loop. Rules:
- A slot has one worker that is meant to stay, which may be gone for a moment, and at most one that is to succeed it.
- A replacement serves before the worker that it replaces drains. A worker that got SIGTERM itself has a successor
  while it drains.
- A worker that dies by itself has a successor at once; one that keeps dying soon, later and later. When nothing
  serves any more and the successors keep failing, the server stops; with `--reload` it waits for a change.
- A process that the system does not let us start is a worker that died soon, never the end of a slot.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from obsserve.server.fleet import Fleet
    from obsserve.server.slotsockets import SlotSockets
    from obsserve.server.workerlog import WorkerLog
    from obsserve.server.workerprocess import WorkerProcess
    from obsserve.settings import Settings

# A worker that lived for less than this has died soon, seconds (granian's and systemd's habit: 10 s).
SOON: Final = 10.0
# So many soon deaths of a slot in a row are a crash loop.
CRASH_LOOP: Final = 5
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
# What a worker gets beyond its own time to drain before it is killed, seconds.
LAST_MOMENT: Final = 3.0
# Who signals the whole group signals the main process, too; so long is waited for that, seconds.
SAME_SIGNAL: Final = 0.2


class MainProcess(Protocol):
    """What the slots need of the process that they are in."""

    settings: Settings
    fleet: Fleet[WorkerProcess]

    @property
    def stopping(self) -> bool:
        """Whether the server has begun to stop."""

    def start_worker(self, slot: int) -> WorkerProcess:
        """Start a process for a slot; `OSError` when the system does not let us."""

    def run_soon(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something until it ends, or the server stops."""

    def fail(self, message: str, traceback: str = "") -> None:
        """Stop the server: it cannot serve."""


class Slots:
    """The slots of a server.

    Args:
        main: the main process.
        sockets: what the workers listen on.
        tell: writes of workers.
        tell_wait: called when nothing but a change of the source can help.
    """

    def __init__(
        self, main: MainProcess, sockets: SlotSockets, tell: WorkerLog, tell_wait: Callable[[], None]
    ) -> None:
        self.present: dict[int, WorkerProcess] = {}
        self.replaced = 0  # of all workers, when they were last replaced
        self._main = main
        self._fleet = main.fleet
        self._sockets = sockets
        self._tell = tell
        self._tell_wait = tell_wait
        self._keeps_waiting = main.settings.reload
        self._recycling = asyncio.Lock()
        self._replacing: dict[int, asyncio.Event] = {}  # by slot, with the end of the replacement
        self._soon: dict[int, int] = {}

    def fill(self) -> list[WorkerProcess]:
        """Start the first workers.

        Raises:
            StartupError: the system does not let us.
        """
        for slot in range(self._main.settings.workers):
            try:
                self.present[slot] = self._main.start_worker(slot)
            except OSError as error:
                raise StartupError(f"A worker process cannot be started: {_reason(error)}.") from None
        return list(self.present.values())

    # --- replacements ------------------------------------------------------------------------

    async def replace_all(self, reason: str) -> bool:
        """Replace all workers, one after the other, each replacement serving first.

        Args:
            reason: a word of `obsserve_worker_restarts_total`.

        Returns:
            Whether all were replaced; when a replacement cannot start, the rest stays as it is.
        """
        self.replaced = 0
        for slot in sorted(self.present):
            if self._main.stopping:
                return False
            if slot in self.present:
                if not await self._replace(slot, reason):
                    return False
                self.replaced += 1
        return True

    def recycle(self, worker: WorkerProcess, reason: str, fields: dict[str, Any]) -> None:
        """Replace one worker, after those that are being replaced.

        Args:
            worker: ignored if it is being replaced already.
            reason: a word of `obsserve_worker_restarts_total`.
            fields: what the log says besides.
        """
        if worker.recycled or self._main.stopping or self.present.get(worker.slot) is not worker:
            return
        worker.recycled = True
        self._tell.to_be_replaced(worker, reason, fields)
        self._main.run_soon(self._recycle(worker, reason))

    def signalled(self, worker: WorkerProcess) -> None:
        """Give a successor to a worker that got SIGTERM itself, and says that it drains or ends."""
        if worker.retired_for is not None or self._main.stopping:
            return
        worker.retired_for = "signal"
        if worker.state == "ready":
            worker.state = "draining"
            self._main.run_soon(self._succeed(worker))
            self._main.run_soon(self.see_off(worker))

    async def see_off(self, worker: WorkerProcess) -> None:
        """Kill a worker that was told to end and does not."""
        timeout = self._main.settings.timeout_graceful_shutdown
        if timeout is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(worker.gone.wait(), timeout + LAST_MOMENT)
                return
            self._tell.killed_late(worker)
            worker.kill()

    async def _replace(self, slot: int, reason: str) -> bool:
        """Start a slot's next worker and, when it serves, let the present one drain."""
        while slot in self._replacing:
            await self._replacing[slot].wait()
        if slot not in self.present:
            return True  # given up meanwhile
        self._replacing[slot] = replaced = asyncio.Event()
        successor = None
        try:
            successor = self._started(slot)
            if successor is not None:
                await successor.settled.wait()
        finally:
            del self._replacing[slot]
            replaced.set()
        former = self.present.get(slot)
        if successor is None or successor.state != "ready":
            gone = former is not None and former.state == "gone"
            if gone and not self._main.stopping and not self._keeps_waiting:
                self._respawn(slot)
            return False
        if former is None:  # the slot was given up while its next worker was starting
            self._leave(successor, "shutdown")
            return True
        self.present[slot] = successor
        if former.state in ("starting", "ready"):
            self._fleet.restarts[reason] += 1
            self._leave(former, reason)
        elif former.state == "draining" and former.retired_for == "signal":
            self._fleet.restarts["signal"] += 1
            self._fleet.regions.retire(former)
        return True

    def _leave(self, worker: WorkerProcess, reason: str) -> None:
        if worker.state == "gone":
            return
        self._fleet.regions.retire(worker)
        worker.retire(reason)
        self._main.run_soon(self.see_off(worker))

    async def _recycle(self, worker: WorkerProcess, reason: str) -> None:
        """Replace it, one worker at a time, so that the machine never holds twice as many."""
        slot = worker.slot
        while self.present.get(slot) is worker and worker.state == "ready" and not self._main.stopping:
            async with self._recycling:
                while slot in self._replacing:
                    await self._replacing[slot].wait()
                if self.present.get(slot) is not worker or await self._replace(slot, reason):
                    return
            await asyncio.sleep(LONGEST_PAUSE)  # its successor cannot start; it serves on

    async def _succeed(self, worker: WorkerProcess) -> None:
        await asyncio.sleep(SAME_SIGNAL)
        if self.present.get(worker.slot) is worker and worker.state == "draining":
            await self._replace(worker.slot, "signal")

    # --- ends that nobody asked for ------------------------------------------------------------

    def lost(self, worker: WorkerProcess, cause: str) -> None:
        """Give a slot whose worker is gone another one.

        Args:
            worker: one that is gone, told to or not.
            cause: a word of `obsserve_worker_restarts_total`, or `shutdown`.
        """
        expected = worker.retired_for is not None
        is_present = self.present.get(worker.slot) is worker
        if not expected or (is_present and worker.retired_for == "signal"):
            self._fleet.restarts[cause] += 1
            lived = time() - worker.ready_at if worker.ready_at else 0.0
            self._soon[worker.slot] = 1 if lived > SOON else self._soon.get(worker.slot, 0) + 1
        if self._keeps_waiting and not worker.ready_at:
            if not expected:
                self._tell_wait()
        elif not self._fleet.state.started and cause == "startup_failed":
            self._main.fail(*(worker.failure or (f"Worker {worker.slot} ended before it served.",)))
        elif is_present and worker.slot not in self._replacing:
            self._respawn(worker.slot)

    def _respawn(self, slot: int) -> None:
        """Give a slot a worker again, after a pause if it keeps losing them; or give up."""
        count = self._soon.get(slot, 0)
        if count >= CRASH_LOOP and not self._fleet.ready():
            if self._keeps_waiting:
                self._tell_wait()
                return
            self._main.fail(f"The workers keep dying, {count} times in a row.")
            return
        pause = min(FIRST_PAUSE * 2 ** (count - 2), LONGEST_PAUSE) if count > 1 else 0.0
        self._main.run_soon(self._respawn_after(slot, pause))

    async def _respawn_after(self, slot: int, pause: float) -> None:
        await asyncio.sleep(pause)
        former = self.present.get(slot)
        if self._main.stopping or former is None or former.state != "gone" or slot in self._replacing:
            return
        successor = self._started(slot)
        if successor is None:
            self._respawn(slot)
        else:
            self.present[slot] = successor

    def _started(self, slot: int) -> WorkerProcess | None:
        """Start a worker, or say why the system does not let us."""
        try:
            return self._main.start_worker(slot)
        except (OSError, StartupError) as error:
            self._soon[slot] = self._soon.get(slot, 0) + 1
            self._tell.not_started(slot, _reason(error))
            return None

    # --- more and fewer ----------------------------------------------------------------------

    def resize(self, difference: int) -> None:
        """Add a slot or take one away; the last one stays.

        Args:
            difference: 1 or -1.
        """
        wanted = max(self._fleet.desired + difference, 1)
        if self._main.stopping or not self._fleet.state.started or wanted == self._fleet.desired:
            return
        if difference > 0:
            slot = next(slot for slot in range(wanted) if slot not in self.present)
            added = self._started(slot)
            if added is None:
                return
            self.present[slot] = added
        else:
            self._main.run_soon(self._remove(self.present.pop(max(self.present))))
        self._fleet.desired = wanted

    async def _remove(self, worker: WorkerProcess) -> None:
        """Let a worker whose slot is given up drain, when others listen where it does."""
        slot = worker.slot
        if not self._sockets.are_shared:
            self._sockets.give_up(slot)
            if not await self._replace(0, "reload") and slot not in self.present and not self._main.stopping:
                self._sockets.of(slot)  # nobody took over: it stays
                self.present[slot] = worker
                self._fleet.desired += 1
                if worker.state == "gone":
                    self._respawn(slot)
                return
        self._leave(worker, "shutdown")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
