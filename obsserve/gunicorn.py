"""Hooks for gunicorn.conf.py: `from obsserve.gunicorn import *`, and the arbiter serves the metrics port, or pushes.

Owns, in the arbiter, what our own main process owns: the fleet, with a region of cells and a channel for each
worker, and what workers that are gone had counted. A region is nameless memory made before the fork, so nothing is
left behind however a process ends. The arbiter has no event loop: a thread reads each channel.
The port is OBSSERVE_METRICS_PORT (also by `raw_env`), a key of the configuration file, or of CONFIG_KWARGS;
OBSSERVE_OTLP_METRICS pushes, by a process of its own (`carrierprocess.py`): the arbiter forks.
Whoever has hooks of their own calls these from them.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, NoReturn

from obsserve.errors import StartupError
from obsserve.resource import SERVICE_INSTANCE_ID, resource_attributes
from obsserve.server import exports
from obsserve.server.channel import WorkerChannel
from obsserve.server.fleet import Fleet
from obsserve.server.workerlink import last_heartbeat
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.metrics import rows_for
from obsserve.workers import worker_config

if TYPE_CHECKING:
    from obsserve.config import Config
    from obsserve.server.member import State

__all__ = ["child_exit", "nworkers_changed", "on_exit", "on_starting", "post_fork", "pre_fork"]

# How long a dead worker's last words are waited for, seconds: a child of its own may hold its channel open.
_LAST_WORDS: Final = 1.0


class _Member:
    """One worker of the arbiter's."""

    def __init__(self, fleet: Fleet[_Member], worker: Any, slot: int, cells: Cells) -> None:
        self._fleet = fleet
        self._worker = worker
        self._cells = cells
        self.slot = slot
        self.state: State = "starting"
        self.began = time.time()
        self.ready_at = 0.0
        self.recycled = False
        self.reader = cells.reader()
        ours, self._theirs = socket.socketpair()
        # A worker that is stopped does not hold up the metrics port.
        self.channel = WorkerChannel(ours, self._lost, patient=False)
        for kind in ("ready", "draining", "recycle"):
            self.channel.receivers[kind] = self._moved
        for kind in fleet.answers:
            self.channel.receivers[kind] = self._answered
        worker.slot, worker.cells, worker.channel_socket = slot, cells, self._theirs

    @property
    def pid(self) -> int:
        pid = self._worker.pid
        return pid if isinstance(pid, int) else 0

    def heartbeat(self) -> float:
        return last_heartbeat(self.reader)

    def post(self, type: str, **fields: Any) -> None:  # noqa: A002 - the word of the message
        self.channel.send(type, **fields)

    def forked(self) -> None:
        """In the arbiter, when it has its process: the other end of the channel is that one's alone."""
        self._theirs.close()
        self.channel.start()

    def cause(self) -> str:
        """Return why it is gone, a word of `obsserve_worker_restarts_total`."""
        if self._worker.aborted:
            return "unresponsive"
        if self.recycled:
            return "max_requests"
        return "reload" if self.state == "draining" else "crash"

    def end(self) -> None:
        """Take in its last words; it is gone."""
        self.channel.join(_LAST_WORDS)
        cause, self.state = self.cause(), "gone"
        self._fleet.remove(self)
        self._cells.close()
        if not self._fleet.state.draining:
            self._fleet.restarts[cause] += 1

    def _moved(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ready":
            self.state, self.ready_at = "ready", time.time()
            self._fleet.state.started = True
        elif kind == "draining":
            self.state = "draining"
        else:
            self.recycled = True

    def _answered(self, message: dict[str, Any]) -> None:
        self._fleet.received(self, message)

    def _lost(self) -> None:
        """Nothing: gunicorn tells when it is gone."""


class _Arbiter:
    """The metrics of one arbiter: shown on the port, pushed, or both.

    Args:
        server: gunicorn's arbiter.
        config: the options.

    Raises:
        StartupError: the metrics port cannot be had, or metrics cannot be pushed as is asked for.
    """

    def __init__(self, server: Any, config: Config) -> None:
        self._server = server
        self._settings = settings = config.settings
        self._instance = resource_attributes().get(SERVICE_INSTANCE_ID) or str(uuid.uuid4())
        self._members: dict[Any, _Member] = {}
        self._unborn: _Member | None = None
        loop_name = getattr(config.get_loop_factory(), "__module__", "asyncio").partition(".")[0]
        self.fleet: Fleet[_Member] = Fleet(
            settings, loop_name, (), self._instance, report=self._report, forks=True
        )
        self.fleet.desired = server.num_workers

    def start(self) -> None:
        """Serve the metrics port, and begin to push."""
        self.fleet.start()
        # No fork while a scrape holds the locks that a child would inherit: it takes all others under this one.
        lock = self.fleet.scraping
        os.register_at_fork(before=lock.acquire, after_in_parent=self._forked, after_in_child=lock.release)

    def add(self, worker: Any) -> None:
        """Prepare for a worker that is about to be forked."""
        self.fleet.listen([listener.sock for listener in self._server.LISTENERS])
        occupied = [member.slot for member in self._members.values()]
        slots = range(max(self._server.num_workers, 1))
        slot = min(slots, key=lambda slot: (occupied.count(slot), slot))
        settings = self._settings
        cells = Cells.create(rows_for(settings.metrics_max_series, body_sizes=settings.has_body_sizes))
        worker.instance = self._instance
        self._unborn = self._members[worker] = _Member(self.fleet, worker, slot, cells)
        self.fleet.add(self._unborn)

    def remove(self, worker: Any) -> None:
        """Keep what a worker that is gone had counted."""
        member = self._members.pop(worker, None)
        if member is not None:
            member.end()

    def forget(self) -> None:
        """In a worker: let go of what is the arbiter's."""
        self.fleet.abandon()
        for member in self._members.values():
            member.channel.abandon()

    def stop(self) -> None:
        """Push for the last time, and close the metrics port."""
        self.fleet.state.draining = True
        self.fleet.stop()

    def _report(self, event: str, message: str) -> None:
        say = self._server.log.info if event == "telemetry.export_recovered" else self._server.log.warning
        say("%s: %s", event, message)

    def _forked(self) -> None:
        self.fleet.scraping.release()
        if self._unborn is not None:
            member, self._unborn = self._unborn, None
            member.forked()


_arbiters: list[_Arbiter] = []


def on_starting(server: Any) -> None:
    """Take the metrics port, and push metrics if that is asked for; without either there is nothing to do."""
    given = getattr(server.worker_class, "CONFIG_KWARGS", None)
    if given is None:
        return  # another kind of worker
    try:
        config = worker_config(server.cfg, given, uri=getattr(server.app, "app_uri", None))
        settings = config.settings
    except Exception:  # noqa: BLE001 - check_config, which comes next, tells what is wrong
        return
    try:
        pushed = exports.metric_export_of(settings)
    except StartupError as error:
        _refuse(error)
    if settings.metrics_port is None and pushed is None:
        server.log.info("No metrics: give OBSSERVE_METRICS_PORT or OBSSERVE_OTLP_METRICS")
        return
    deadline = time.monotonic() + (60.0 if server.master_pid else 0.0)
    while True:
        try:
            arbiter = _Arbiter(server, config)
        except StartupError as error:
            # After SIGUSR2 the old arbiter has the port until it goes.
            if time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            _refuse(error)
        break
    arbiter.start()
    _arbiters.append(arbiter)
    if arbiter.fleet.metrics_url is not None:
        server.log.info("Metrics on %s", arbiter.fleet.metrics_url)
    if pushed is not None:
        server.log.info("Metrics are pushed to %s", pushed.destination)


def _refuse(error: StartupError) -> NoReturn:
    sys.stderr.write(f"obsserve: error: {error}\n")
    sys.exit(error.exit_code)


def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:  # noqa: ARG001 - gunicorn's form
    """Take note of how many workers there are to be."""
    if _arbiters:
        _arbiters[-1].fleet.desired = new_value


def pre_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's form
    """Make the region that the worker will count in, and its channel."""
    if _arbiters:
        _arbiters[-1].add(worker)


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's form
    """Let go of what is the arbiter's; called in the worker."""
    for arbiter in _arbiters:
        arbiter.forget()


def child_exit(server: Any, worker: Any) -> None:
    """Keep what a worker that is gone had counted."""
    if _arbiters:
        if not server.LISTENERS:
            _arbiters[-1].fleet.state.draining = True
        _arbiters[-1].remove(worker)


def on_exit(server: Any) -> None:  # noqa: ARG001 - gunicorn's form
    """Close the metrics port."""
    for arbiter in _arbiters:
        arbiter.stop()
