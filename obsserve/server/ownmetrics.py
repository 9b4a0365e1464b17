"""Where one process that serves alone shows its figures: the metrics port, pushes over OTLP, or both.

Owns the admin listener and the export. It reads this process's cells as another process would. With several
workers the main process does this (`fleet.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from obsserve.admin.app import AdminState
from obsserve.admin.server import AdminServer
from obsserve.server import exports
from obsserve.server.inspection import ProcessInspection
from obsserve.server.listeners import listener_name
from obsserve.telemetry import runtime
from obsserve.telemetry.cells import CellsReader
from obsserve.telemetry.lateexposition import LateExposition
from obsserve.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from obsserve.http.state import ServerState
    from obsserve.settings import Settings
    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.exposition import Exposition
    from obsserve.telemetry.metricexport import MetricExport, MetricExportConfiguration


class OwnMetrics:
    """What this process shows.

    Args:
        settings: the options.
        cells: what it counts in.
        service_instance_id: as in its logs and spans.
        parser: the name of the HTTP parser.
        export: how to push, None for not at all.
        report: takes event and message for the server's log; called from any thread.
        since: when it began to count, nanoseconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        cells: Cells,
        *,
        service_instance_id: str,
        parser: str,
        export: MetricExportConfiguration | None,
        report: Callable[[str, str], None],
        since: int,
    ) -> None:
        self._since = since
        self._settings = settings
        self._cells = cells
        self._instance = service_instance_id
        self._parser = parser
        self._configuration = export
        self._report = report
        self._server_state: ServerState | None = None
        self._listening: list[tuple[str, socket.socket]] = []
        self._admin: AdminServer | None = None
        self._export: MetricExport | None = None
        self.state = AdminState(
            livez_max_stall=settings.livez_max_stall,
            ready_max_stall=settings.ready_max_stall,
            terminating_status=settings.terminating_status,
        )

    def bind(self) -> None:
        """Bind the metrics port, if there is to be one.

        Raises:
            StartupError: it is in use.
        """
        settings, state = self._settings, self.state
        reader = CellsReader.attach(self._cells.fileno())
        loop = asyncio.get_running_loop()
        build = runtime.build_info(__version__, type(loop).__module__.partition(".")[0], self._parser)
        sources = (
            runtime.ProcessFigures(),
            runtime.python_info,
            lambda: build,
            runtime.readiness(lambda: not state.unready_reasons()),
            lambda: runtime.listener_backlogs(self._listening),
        )
        resource = runtime.target_resource(settings.service_name, self._instance, __version__)

        def exposition() -> Exposition:
            from obsserve.telemetry.exposition import Exposition  # noqa: PLC0415 - see LateExposition

            return Exposition([reader], sources, resource=resource)

        late = LateExposition(exposition)
        if settings.metrics_port is not None:
            inspection = ProcessInspection(settings, lambda: self._server_state, 0)
            self._admin = AdminServer(
                settings.metrics_host, settings.metrics_port, state, late, inspection=inspection
            )
            self._admin.bind()
        if self._configuration is not None:
            self._export = exports.metric_export(
                self._configuration,
                late,
                service_instance_id=self._instance,
                worker=0,
                region=self._cells,
                report=self._report,
                since=self._since,
            )

    def start(self) -> None:
        """Answer on the metrics port, and begin to push."""
        if self._admin is not None:
            self._admin.start()
        if self._export is not None:
            self._export.start()

    def serving(self, state: ServerState, sockets: Sequence[socket.socket]) -> None:
        """Take note that the application is served from now on.

        Args:
            state: what all connections share.
            sockets: the listening sockets.
        """
        self._server_state = state
        self._listening = [(listener_name(sock), sock) for sock in sockets]
        self.state.started = True

    def stop(self, timeout: float) -> None:
        """Push for the last time, and close the port.

        Args:
            timeout: seconds that the last push may take.
        """
        if self._export is not None:
            self._export.shutdown(timeout)
        if self._admin is not None:
            self._admin.stop()

    @property
    def url(self) -> str | None:
        """Where the metrics are, None without a port."""
        if self._admin is None:
            return None
        host, port = self._admin.address
        return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
