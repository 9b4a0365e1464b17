"""A worker's end of the channel to the process that serves the metrics port: what it answers, and what it publishes.

The same under our main process and under gunicorn's arbiter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from obsserve.server import inspection
from obsserve.server.inspection import ProcessInspection
from obsserve.telemetry import appsnapshots, catalogue
from obsserve.telemetry.appsnapshots import SnapshotSender
from obsserve.telemetry.cells import Family
from obsserve.telemetry.logging import set_server_level

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.http.state import ServerState
    from obsserve.server.channel import WorkerChannel
    from obsserve.settings import Settings
    from obsserve.telemetry.cells import Cells, CellsReader

# Its row is the first of a worker's region, so that the main process finds it without reading the others.
HEARTBEAT_SLOT: Final = 0
# What the last snapshot of the application's metrics may take, seconds: its collectors may block.
LAST_SNAPSHOT: Final = 1.0


def last_heartbeat(reader: CellsReader) -> float:
    """Return when a worker's event loop last turned, unix time; 0.0 before it did, and when its region is let go."""
    try:
        return reader.value(HEARTBEAT_SLOT)
    except ValueError:
        return 0.0


class WorkerLink:
    """One worker's.

    Args:
        channel: to the process that serves the metrics port.
        cells: the worker's region, with nothing in it yet.
        slot: its number, from 0.
        settings: the options.
        state: returns what its connections share, None before it serves.
    """

    def __init__(
        self,
        channel: WorkerChannel,
        cells: Cells,
        slot: int,
        settings: Settings,
        state: Callable[[], ServerState | None],
    ) -> None:
        self.channel = channel
        label = (str(slot),)
        self._slots = cells.slots
        self._heartbeat = Family(cells, catalogue.WORKER_HEARTBEAT).row(*label)
        assert self._heartbeat == HEARTBEAT_SLOT
        self._ended = Family(cells, catalogue.WORKER_REQUESTS).row(*label)
        self._active = Family(cells, catalogue.WORKER_ACTIVE_REQUESTS).row(*label)
        self._open = Family(cells, catalogue.WORKER_CONNECTIONS_OPEN).row(*label)
        errors = Family(cells, catalogue.SNAPSHOT_ERRORS)
        self._snapshots = SnapshotSender(
            lambda **fields: channel.send(appsnapshots.MESSAGE, **fields), lambda: errors.add(1.0)
        )
        self._inspection = ProcessInspection(settings, state, slot)
        channel.receivers[appsnapshots.MESSAGE] = self._snapshots.asked
        channel.receivers[inspection.ASK] = self._inspected
        channel.receivers[inspection.LEVEL] = lambda message: set_server_level(int(message["level"]))

    def start(self) -> None:
        """Begin to answer about the application's own metrics: when it has been imported."""
        self._snapshots.start()

    def finish(self) -> None:
        """Send what has changed of them, the last time."""
        self._snapshots.finish(LAST_SNAPSHOT)

    def publish(self, state: ServerState) -> None:
        """Tell of the loop's pulse and of the load. Once a tick, so that a blocked loop shows."""
        slots = self._slots
        slots[self._heartbeat] = time.time()
        slots[self._ended] = state.total_requests - state.active
        slots[self._active] = state.active
        slots[self._open] = len(state.connections)
        self.channel.send_told()

    def _inspected(self, message: dict[str, Any]) -> None:
        found = self._inspection.answer(message)
        self.channel.send(inspection.FOUND, number=message["number"], found=found)
