"""What becomes of the main process's own log lines: counted like the workers', and exported if that is asked for.

Owns a small region of cells for all that the main process counts, which the metrics port reads like a worker's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from obsserve.server import exports
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.logging import server_sink
from obsserve.telemetry.logmetrics import LogCounters

if TYPE_CHECKING:
    from obsserve.server.supervisor import Supervisor
    from obsserve.settings import Settings
    from obsserve.telemetry.logexport import LogExport

INTERVAL: Final = 0.5  # seconds
_ROWS: Final = 128
# What the last lines may take to be exported, seconds.
_LAST_LINES: Final = 1.0


class OwnLogs:
    """The main process's lines.

    Args:
        settings: the options.
        service_instance_id: one for all processes of the server.
        log: the server's logger.
    """

    def __init__(self, settings: Settings, service_instance_id: str, log: Any) -> None:
        self._log = log
        self.cells = cells = Cells.create(_ROWS, exemplars=0)
        self.readers = [cells.reader()]
        sink = server_sink()
        if sink is not None:
            sink.counters = LogCounters(cells, "main")
        configuration = exports.log_export_of(settings)
        self._export: LogExport | None = None
        if configuration is not None:
            self._export = exports.start_log_export(
                configuration, service_instance_id, None, cells, self.report
            )

    async def watch(self, _supervisor: Supervisor) -> None:
        """Keep the figures fresh, until cancelled."""
        while True:
            self._flush()
            await asyncio.sleep(INTERVAL)

    def stop(self) -> None:
        """Export the last lines."""
        if self._export is not None:
            self._export.shutdown(_LAST_LINES)

    def _flush(self) -> None:
        sink = server_sink()
        if sink is not None:
            sink.flush()
        if self._export is not None:
            self._export.follow()
            self._export.flush()

    def report(self, event: str, message: str) -> None:
        """Tell the server's log how an export goes; from any thread."""
        say = self._log.info if event == "telemetry.export_recovered" else self._log.warning
        say(event, message=message)
