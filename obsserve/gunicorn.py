"""Hooks for gunicorn.conf.py: `from obsserve.gunicorn import *`, and the arbiter serves the metrics port.

Owns, in the arbiter: the metrics port, one region of cells for each worker, and what workers that are gone had
counted. A region is nameless memory made before the fork, so nothing is left behind however a process ends.
The port is OBSSERVE_METRICS_PORT (also by `raw_env`), a key of the configuration file, or of CONFIG_KWARGS.
Whoever has hooks of their own calls these from them.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

from obsserve.admin.app import AdminState
from obsserve.admin.server import AdminServer
from obsserve.errors import StartupError
from obsserve.telemetry import catalogue, runtime
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.exposition import Exposition
from obsserve.telemetry.metrics import rows_for
from obsserve.telemetry.regions import Regions
from obsserve.version import __version__
from obsserve.workers import DRAINING, READY, STARTING, worker_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obsserve.settings import Settings
    from obsserve.telemetry.cells import Labels, Row

__all__ = ["child_exit", "on_exit", "on_starting", "post_fork", "pre_fork"]

_STATES = {STARTING: "starting", READY: "ready", DRAINING: "draining"}
_REASONS = ("crash", "max_requests", "unresponsive", "reload")


class _State(AdminState):
    """What the probes answer from: the workers' own words."""

    def __init__(self, fleet: _Fleet) -> None:
        self._fleet = fleet
        super().__init__()

    @property
    def started(self) -> bool:
        return self._fleet.has_started()

    @started.setter
    def started(self, value: bool) -> None:
        """Nobody tells: the workers are asked."""

    def unready_reasons(self) -> list[str]:
        if self.draining:
            return ["draining"]
        if not self._fleet.has_started():
            return ["starting"]
        return [] if self._fleet.count("ready") else ["no_ready_workers"]


class _ArbiterRegions(Regions):
    """The regions by worker; which of them drain, they say themselves."""

    def rows(self) -> tuple[list[Row], list[Row]]:
        """Return the rows, without the gauges of workers that drain."""
        for worker in self.keys():
            if worker.life[0] == DRAINING:
                self.retire(worker)
        return super().rows()


class _Fleet:
    """The workers of one arbiter, as far as metrics go."""

    def __init__(self, arbiter: Any, settings: Settings) -> None:
        assert settings.metrics_port is not None
        self._arbiter = arbiter
        self._settings = settings
        self._instance = str(uuid.uuid4())
        self._workers: set[Any] = set()
        self._regions = _ArbiterRegions()
        self._restarts = dict.fromkeys(_REASONS, 0)
        self._started = False
        self.stopping = False
        build = runtime.build_info(__version__, settings.loop, str(settings.http))
        self._state = _State(self)
        sources = (
            runtime.ProcessFigures("main"),
            runtime.python_info,
            lambda: build,
            runtime.readiness(lambda: not self._state.unready_reasons()),
            self._figures,
        )
        exposition = Exposition(self._regions, sources)
        self.admin = AdminServer(settings.metrics_host, settings.metrics_port, self._state, exposition)
        lock = exposition.lock
        # No fork while a scrape holds the locks that a child would inherit: it takes all others under this one.
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)

    def add(self, worker: Any) -> None:
        occupied = [known.slot for known in self._workers]
        worker.slot = min(
            range(max(self._arbiter.num_workers, 1)), key=lambda slot: (occupied.count(slot), slot)
        )
        worker.instance = self._instance
        settings = self._settings
        worker.cells = Cells.create(rows_for(settings.metrics_max_series, body_sizes=settings.has_body_sizes))
        self._workers.add(worker)
        self._regions.add(worker, worker.cells.reader())

    def remove(self, worker: Any) -> None:
        if worker not in self._workers:
            return
        self._workers.discard(worker)
        self._regions.fold(worker)
        worker.cells.close()
        if not self.stopping:
            self._restarts[self._reason(worker)] += 1

    def forget(self) -> None:
        """In a worker: let go of what is the arbiter's."""
        self.admin.abandon()

    def stop(self) -> None:
        self.stopping = True
        self._state.draining = True
        self.admin.stop()

    def has_started(self) -> bool:
        self._started = self._started or self.count("ready") > 0
        return self._started

    def count(self, state: str) -> int:
        return sum(_STATES[worker.life[0]] == state for worker in tuple(self._workers))

    @staticmethod
    def _reason(worker: Any) -> str:
        if worker.aborted:
            return "unresponsive"
        if worker.life[1]:
            return "max_requests"
        return "reload" if worker.life[0] == DRAINING else "crash"

    def _figures(self) -> Iterator[tuple[str, Labels, float]]:
        figures: list[tuple[str, Labels, float]] = [
            ("obsserve_workers_desired", (), float(self._arbiter.num_workers)),
            *(("obsserve_workers", (state,), float(self.count(state))) for state in _STATES.values()),
            *(
                ("obsserve_worker_restarts_total", (reason,), float(count))
                for reason, count in self._restarts.items()
            ),
        ]
        for worker in tuple(self._workers):
            if isinstance(worker.pid, int) and worker.life[0] != DRAINING:
                figures += runtime.ProcessFigures(str(worker.slot), worker.pid)()
        yield from (figure for figure in figures if figure[0] in catalogue.METRICS)


_fleets: list[_Fleet] = []


def on_starting(server: Any) -> None:
    """Take the metrics port; without one there is nothing to do."""
    given = getattr(server.worker_class, "CONFIG_KWARGS", None)
    if given is None:
        return  # another kind of worker
    try:
        settings = worker_config(server.cfg, given).settings
    except Exception:  # noqa: BLE001 - check_config, which comes next, tells what is wrong
        return
    if settings.metrics_port is None:
        server.log.info("No metrics port: give OBSSERVE_METRICS_PORT")
        return
    fleet = _Fleet(server, settings)
    deadline = time.monotonic() + (60.0 if server.master_pid else 0.0)
    while True:
        try:
            fleet.admin.bind()
        except StartupError as error:
            # After SIGUSR2 the old arbiter has the port until it goes.
            if time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            sys.stderr.write(f"obsserve: error: {error}\n")
            sys.exit(error.exit_code)
        break
    fleet.admin.start()
    _fleets.append(fleet)
    host, port = fleet.admin.address
    server.log.info("Metrics on http://%s:%s/metrics", f"[{host}]" if ":" in host else host, port)


def pre_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's form
    """Make the region that the worker will count in."""
    if _fleets:
        _fleets[-1].add(worker)


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's form
    """Let go of what is the arbiter's; called in the worker."""
    for fleet in _fleets:
        fleet.forget()


def child_exit(server: Any, worker: Any) -> None:
    """Keep what a worker that is gone had counted."""
    if _fleets:
        if not server.LISTENERS:
            _fleets[-1].stopping = True
        _fleets[-1].remove(worker)


def on_exit(server: Any) -> None:  # noqa: ARG001 - gunicorn's form
    """Close the metrics port."""
    for fleet in _fleets:
        fleet.stop()
