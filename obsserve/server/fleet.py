"""What the main process shows of its workers: the metrics port, the probes, pushes, the figures about processes.

Owns the regions, the admin listener and the export of metrics. It reads the workers' memory; no code of theirs
runs for a scrape. The main process is ours, or gunicorn's arbiter: whoever it is adds and removes the workers.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from obsserve.admin.app import AdminState
from obsserve.admin.server import AdminServer
from obsserve.http.parser import parser_class
from obsserve.server import exports, inspection
from obsserve.server.fleetinspection import FleetInspection
from obsserve.server.listeners import listener_name
from obsserve.telemetry import appsnapshots, catalogue, runtime
from obsserve.telemetry.appsnapshots import SnapshotCollector
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.lateexposition import LateExposition
from obsserve.telemetry.regions import Regions
from obsserve.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from obsserve.server.member import Member
    from obsserve.settings import Settings
    from obsserve.telemetry.cells import CellsReader
    from obsserve.telemetry.exposition import Exposition
    from obsserve.telemetry.metricexport import MetricExport
    from obsserve.telemetry.runtime import Sample

# For what the export counts of itself.
_ROWS: Final = 128
# What the last push may take, seconds.
_LAST_PUSH: Final = 1.0

M = TypeVar("M", bound="Member")


class FleetState(AdminState):
    """The probes' view: ready when as many workers are as have to be."""

    fleet: Fleet[Any]

    def stalled_for(self) -> float:
        """Return for how long the liveliest of the ready workers has been blocked, seconds."""
        return min((self.fleet.silent_for(worker) for worker in self.fleet.ready()), default=0.0)

    def unready_reasons(self) -> list[str]:
        """Return why the server is not ready; empty when it is."""
        reasons = super().unready_reasons()
        if self.started and len(self.fleet.responsive()) < self.fleet.ready_min_workers:
            # Those that are blocked have their own reason, which is there when all of them are.
            short = len(self.fleet.ready()) < self.fleet.ready_min_workers
            reason = "no_ready_workers" if short else "unresponsive"
            if reason not in reasons:
                reasons.append(reason)
        return reasons


class Fleet(Generic[M]):
    """The workers as the metrics port shows them.

    `answers` are the types of messages that `received` takes.

    Args:
        settings: the options.
        loop: the name of the workers' event loop.
        sockets: the bound sockets, as far as there are any yet.
        service_instance_id: one for all workers.
        report: takes event and message of the export for the server's log; called from any thread.
        own: what the main process itself counts.
        forks: whether the main process forks its workers.

    Raises:
        StartupError: the metrics port cannot be had, or metrics cannot be pushed as is asked for.
    """

    answers: Final = (appsnapshots.MESSAGE, inspection.FOUND)

    def __init__(
        self,
        settings: Settings,
        loop: str,
        sockets: Sequence[socket.socket],
        service_instance_id: str,
        *,
        report: Callable[[str, str], None],
        own: Sequence[CellsReader] = (),
        forks: bool = False,
    ) -> None:
        self.workers: set[M] = set()
        self.desired = settings.workers
        pushed = exports.metric_export_of(settings)
        cells = None if pushed is None else Cells.create(_ROWS, exemplars=0)
        self.regions = Regions(
            own if cells is None else (*own, cells.reader()), drains=lambda worker: worker.state == "draining"
        )
        self.app_metrics = SnapshotCollector(self._asks)
        self.inspection = FleetInspection(settings, lambda: tuple(self.workers))
        self.restarts = dict.fromkeys(catalogue.RESTART_REASONS, 0)
        self.reloads = dict.fromkeys(catalogue.RELOAD_RESULTS, 0)
        self._reloaded_at = time.time()
        self._reload_successful = True
        self.ready_min_workers = settings.ready_min_workers
        self._max_stall = settings.ready_max_stall
        self._cpu: dict[M, float] = {}
        self._cpu_base: dict[str, float] = {}
        self.state = state = FleetState(
            livez_max_stall=settings.livez_max_stall,
            ready_max_stall=settings.ready_max_stall,
            terminating_status=settings.terminating_status,
        )
        state.fleet = self
        self.listen(sockets)
        parser = parser_class(settings.http).__name__.removesuffix("Parser").lower()
        build = runtime.build_info(__version__, loop, parser)
        sources = (
            runtime.ProcessFigures("main"),
            self._processes,
            self._figures,
            self._snapshot_ages,
            runtime.python_info,
            lambda: build,
            runtime.readiness(state.is_ready),
            lambda: runtime.listener_backlogs(self._listening),
        )
        self._admin: AdminServer | None = None
        self._export: MetricExport | None = None
        resource = runtime.target_resource(settings.service_name, service_instance_id, __version__)

        def exposition() -> Exposition:
            from obsserve.telemetry.exposition import Exposition  # noqa: PLC0415 - see LateExposition

            return Exposition(self.regions, sources, app=self.app_metrics.collect, resource=resource)

        late = LateExposition(exposition)
        self.scraping = late.lock
        if settings.metrics_port is not None:
            self._admin = AdminServer(
                settings.metrics_host,
                settings.metrics_port,
                state,
                late,
                inspection=self.inspection,
            )
            self._admin.bind()
        if pushed is not None and cells is not None:
            self._export = exports.metric_export(
                pushed,
                late,
                service_instance_id=service_instance_id,
                worker=None,
                region=cells,
                report=report,
                forks=forks,
            )

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Show the backlogs of these sockets from now on."""
        self._listening = [(listener_name(sock), sock) for sock in sockets]

    def start(self) -> None:
        """Serve the metrics port, and begin to push."""
        if self._admin is not None:
            self._admin.start()
        if self._export is not None:
            self._export.start()

    def stop(self) -> None:
        """Push for the last time, and close the metrics port."""
        if self._export is not None:
            self._export.shutdown(_LAST_PUSH)
        if self._admin is not None:
            self._admin.stop()

    def abandon(self) -> None:
        """In a forked child: let go of the metrics port and of the export, which stay the parent's."""
        if self._admin is not None:
            self._admin.abandon()
        if self._export is not None:
            self._export.abandon()

    @property
    def metrics_url(self) -> str | None:
        """Where the metrics are, None when they are off."""
        if self._admin is None:
            return None
        host, port = self._admin.address
        return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"

    # --- workers come and go -----------------------------------------------------------------

    def add(self, worker: M) -> None:
        """Take a worker in that has just been started."""
        self.workers.add(worker)
        self.regions.add(worker, worker.reader)

    def remove(self, worker: M) -> None:
        """Keep what a worker that is gone had counted."""
        self.workers.discard(worker)
        slot = str(worker.slot)
        self._cpu_base[slot] = self._cpu_base.get(slot, 0.0) + self._cpu.pop(worker, 0.0)
        self.regions.fold(worker)
        self.app_metrics.fold(worker)

    def received(self, worker: M, message: dict[str, Any]) -> bool:
        """Take what a worker answers; return whether it was an answer to this. Can be called on any thread."""
        if message["type"] == appsnapshots.MESSAGE:
            self.app_metrics.received(worker, str(worker.slot), message)
        elif message["type"] == inspection.FOUND:
            self.inspection.received(worker, message)
        else:
            return False
        return True

    def reloaded(self, result: str) -> None:
        """Count a replacement of all workers, by result."""
        self.reloads[result] += 1
        self._reload_successful = result == "success"
        if self._reload_successful:
            self._reloaded_at = time.time()

    def ready(self) -> list[M]:
        """Return the workers that serve."""
        return [worker for worker in tuple(self.workers) if worker.state == "ready"]

    def responsive(self) -> list[M]:
        """Return the workers that serve, and whose event loops turn."""
        return [worker for worker in self.ready() if self.silent_for(worker) <= self._max_stall]

    def silent_for(self, worker: M) -> float:
        """Return the seconds since the worker's event loop last turned."""
        return max(time.time() - (worker.heartbeat() or worker.ready_at), 0.0)

    # --- the application's own metrics ---------------------------------------------------------

    def _asks(self) -> dict[Hashable, Callable[[int], Any]]:
        serving = [worker for worker in tuple(self.workers) if worker.state in ("ready", "draining")]
        return {worker: partial(self._ask, worker) for worker in serving}

    def _ask(self, worker: M, number: int) -> None:
        worker.post(appsnapshots.MESSAGE, number=number)

    def _snapshot_ages(self) -> Iterator[Sample]:
        for slot, age in self.app_metrics.ages():
            yield catalogue.SNAPSHOT_AGE.name, (slot,), age

    # --- figures -----------------------------------------------------------------------------

    def _processes(self) -> Iterator[Sample]:
        cpu = dict(self._cpu_base)
        began: dict[str, float] = {}
        for worker in tuple(self.workers):
            slot = str(worker.slot)
            for name, labels, value in runtime.ProcessFigures(slot, worker.pid)():
                if name == catalogue.PROCESS_CPU.name:
                    # The last that was seen is what stays when the process is gone: nothing goes backwards.
                    self._cpu[worker] = value
                elif worker.state == "draining":
                    continue
                elif name == catalogue.PROCESS_START.name:
                    # While a successor starts its slot has two processes: memory and files add up, times do not.
                    began[slot] = max(value, began.get(slot, 0.0))
                else:
                    yield name, labels, value
            cpu[slot] = cpu.get(slot, 0.0) + self._cpu.get(worker, 0.0)
        for slot, time_of_start in began.items():
            yield catalogue.PROCESS_START.name, (slot,), time_of_start
        for slot, seconds in cpu.items():
            yield catalogue.PROCESS_CPU.name, (slot,), seconds

    def _figures(self) -> Iterator[Sample]:
        states = dict.fromkeys(catalogue.WORKER_STATES, 0)
        for worker in tuple(self.workers):
            silent = worker.state == "ready" and self.silent_for(worker) > self._max_stall
            state: str = "unresponsive" if silent else worker.state
            if state in states:
                states[state] += 1
            if worker.state == "ready":
                yield catalogue.WORKER_PID.name, (str(worker.slot),), float(worker.pid)
                yield catalogue.WORKER_START.name, (str(worker.slot),), worker.began
        yield catalogue.WORKERS_DESIRED.name, (), float(self.desired)
        for state, count in states.items():
            yield catalogue.WORKERS.name, (state,), float(count)
        for reason, count in self.restarts.items():
            yield catalogue.WORKER_RESTARTS.name, (reason,), float(count)
        for result, count in self.reloads.items():
            yield catalogue.CONFIG_RELOADS.name, (result,), float(count)
        yield catalogue.CONFIG_RELOAD_SUCCESSFUL.name, (), float(self._reload_successful)
        yield catalogue.CONFIG_RELOAD_SUCCESS_TIME.name, (), self._reloaded_at
