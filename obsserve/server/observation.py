"""The telemetry of one serving process, put together from the options and kept going by the ticker.

Owns the cells, the observers, the log sink, the watchdog, and what shows the metrics. With a signal turned off
its part is not made, and its cost is one branch.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from obsserve.http.forwarded import TrustedPeers
from obsserve.http.parser import parser_class
from obsserve.logconfig import BUILT_IN
from obsserve.resource import SERVICE_INSTANCE_ID, resource_attributes
from obsserve.server import exports
from obsserve.server.ticker import Clock
from obsserve.telemetry.hooks import Hooks
from obsserve.telemetry.logging import server_sink
from obsserve.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from obsserve.http.state import ServerState
    from obsserve.server.ownmetrics import OwnMetrics
    from obsserve.server.seat import Seat
    from obsserve.settings import Settings
    from obsserve.telemetry.accessoutput import AccessOutput
    from obsserve.telemetry.correlation import Correlation
    from obsserve.telemetry.logexport import LogExport
    from obsserve.telemetry.logfile import LogFile
    from obsserve.telemetry.logmetrics import LogCounters
    from obsserve.telemetry.metrics import Metrics
    from obsserve.telemetry.observer import Address
    from obsserve.telemetry.providertracing import ProviderTracing
    from obsserve.telemetry.runtime import GCWatch, LoopLag, StallWatchdog
    from obsserve.telemetry.selfcost import SelfCost
    from obsserve.telemetry.tlsmetrics import TLSMetrics
    from obsserve.telemetry.traceconfig import ExemplarFilter, TracingConfiguration
    from obsserve.telemetry.tracing import Tracing


class Observation:
    """Everything that watches a serving process.

    Args:
        settings: the options.
        log: the server's logger.
        seat: what another process that looks after this one has given it; that one serves the metrics port.
    """

    def __init__(self, settings: Settings, log: Any, seat: Seat | None = None) -> None:
        self._since = time.time_ns()
        self._settings = settings
        self._seat = seat
        self._worker = 0 if seat is None else seat.worker
        self._log = log
        self._parser = parser_class(settings.http).__name__.removesuffix("Parser").lower()
        self._clock = Clock()
        self._state: ServerState | None = None
        self._counters: LogCounters | None = None
        self.metrics: Metrics | None = None
        self._lag: LoopLag | None = None
        self._gc: GCWatch | None = None
        self._watchdog: StallWatchdog | None = None
        self._shown: OwnMetrics | None = None
        self._access: AccessOutput | None = None
        self._self_cost: SelfCost | None = None
        self._hooks: Hooks
        self._signals: dict[object, str] = {}  # by observer, whose time it takes
        # An operator that injects one, as OpenTelemetry's for Kubernetes does, has its reasons.
        own = seat.service_instance_id if seat is not None else str(uuid.uuid4())
        self._instance = resource_attributes().get(SERVICE_INSTANCE_ID) or own
        self._tls: TLSMetrics | None = None
        self._handshakes_told: dict[str, float] = {}
        self._log_file = self._open_log_file()
        tracing, exported = exports.tracing_of(settings), exports.log_export_of(settings)
        self._pushed = exports.metric_export_of(settings)
        # Without a region of the process that shows them nobody would see what is counted.
        nobody = seat is not None and seat.cells is None
        counts = not nobody and (settings.metrics_port is not None or self._pushed is not None)
        if counts or settings.access_log or tracing or exported:
            self._make_cells()
        self._log_export: LogExport | None = None
        if exported is not None:
            self._log_export = exports.start_log_export(
                exported, self._instance, self._worker, self._cells, self._report_export
            )
        if counts:
            self._make_metrics("always_off" if tracing is None else tracing.exemplars)
        self._tracing = None if tracing is None else self._start_tracing(tracing)

    def observers(self, *, app_configures_structlog: bool = False) -> Hooks:
        """Return the compiled observers; called when the application has started.

        Only then it is known what it has made of logging.

        Args:
            app_configures_structlog: its lines then get ids only as bound context variables.
        """
        settings = self._settings
        observers: list[object] = []
        if self._tracing is not None:
            observers.append(self._tracing)
            if settings.trace_websocket_messages:
                observers.append(self._tracing.message_spans())
        if settings.access_log or self._tracing is not None:
            observers.append(self._make_correlation(bind_structlog=app_configures_structlog))
        if self.metrics is not None:
            observers.append(self.metrics)
        if settings.access_log:
            observers += self._make_access_log()
        if self._log_export is not None:
            self._log_export.take_app()
        self._hooks = hooks = Hooks(observers, self._report_fault)
        if self.metrics is not None:
            self._self_cost = self._make_self_cost(self.metrics, hooks, observers)
        return hooks

    # --- making ------------------------------------------------------------------------------

    def _make_cells(self) -> None:
        from obsserve.telemetry.cells import Cells  # noqa: PLC0415 - only what is turned on is imported
        from obsserve.telemetry.logmetrics import LogCounters  # noqa: PLC0415
        from obsserve.telemetry.metrics import rows_for  # noqa: PLC0415
        from obsserve.telemetry.runtime import LoopLag  # noqa: PLC0415

        given = self._seat.cells if self._seat is not None else None
        rows = rows_for(self._settings.metrics_max_series, body_sizes=self._settings.has_body_sizes)
        self._cells = given or Cells.create(rows)
        self._lag = LoopLag(self._cells, str(self._worker))
        self._counters = LogCounters(self._cells, str(self._worker))
        sink = server_sink()
        if sink is not None:
            sink.counters = self._counters

    def _make_metrics(self, exemplars: ExemplarFilter) -> None:
        from obsserve.telemetry.metrics import Metrics, known_methods  # noqa: PLC0415
        from obsserve.telemetry.runtime import GCWatch, StallWatchdog, open_files_limit  # noqa: PLC0415

        settings = self._settings
        self.metrics = metrics = Metrics(
            self._cells,
            max_series=settings.metrics_max_series,
            body_sizes=settings.has_body_sizes,
            routes=settings.metrics_profile != "minimal",
            known_methods=known_methods(os.environ),
            exemplars=exemplars,
            worker=str(self._worker),
        )
        for limit, value in (
            ("concurrency", settings.limit_concurrency),
            ("queue", settings.limit_queue),
            ("connections", settings.limit_connections),
            ("backlog", settings.backlog),
            ("fds", open_files_limit()),
            ("header_bytes", settings.limit_request_headers),
            ("body_bytes", settings.limit_request_body),
        ):
            # What is not a worker's own share is told by one of them: workers are summed.
            if value is not None and (limit in ("concurrency", "queue", "connections") or self._worker == 0):
                metrics.set_limit(limit, value)
        self._gc = GCWatch(self._cells, str(self._worker))
        lag = self._lag
        assert lag is not None
        self._watchdog = StallWatchdog(
            self._cells,
            lambda: lag.heartbeat,
            self._report_stall,
            self._open_requests,
            worker=str(self._worker),
        )

    def _start_tracing(self, configuration: TracingConfiguration) -> Tracing | ProviderTracing:
        from obsserve.telemetry.traceconfig import resource  # noqa: PLC0415
        from obsserve.telemetry.tracing import start_tracing  # noqa: PLC0415

        assert self._lag is not None
        settings = self._settings
        return start_tracing(
            configuration,
            resource=resource(
                configuration.service_name,
                service_instance_id=self._instance,
                worker=self._worker,
                version=__version__,
            ),
            version=__version__,
            region=self._cells if self.metrics is not None else None,
            clock=self._clock,
            lag=self._lag,
            trusted=TrustedPeers(settings.forwarded_allow_ips),
            report=self._report_export,
        )

    def _open_log_file(self) -> LogFile | None:
        settings = self._settings
        if not settings.access_log or settings.access_log_file is None:
            return None
        if settings.log_config != BUILT_IN:
            self._log.warning(
                "log.file_ignored",
                message=f"Access lines do not go to {settings.access_log_file}: with log_config its handlers say "
                "where they go. Leave one of the two out",
                file=settings.access_log_file,
            )
            return None
        from obsserve.telemetry.logfile import LogFile  # noqa: PLC0415

        return LogFile(settings.access_log_file)

    def _make_correlation(self, *, bind_structlog: bool) -> Correlation:
        from obsserve.telemetry.correlation import Correlation  # noqa: PLC0415

        return Correlation(bind_structlog=bind_structlog)

    def _make_access_log(self) -> list[object]:
        from obsserve.telemetry.accessoutput import AccessOutput  # noqa: PLC0415
        from obsserve.telemetry.logsink import stdout_descriptor  # noqa: PLC0415

        assert self._lag is not None
        lines_to = None if self._seat is None else self._seat.access_log_fd
        self._access = AccessOutput(
            self._settings,
            stdout=stdout_descriptor() if lines_to is None else lines_to,
            clock=self._clock,
            lag=self._lag,
            counters=self._counters,
            service_instance_id=self._instance,
            worker=self._worker,
            file=self._log_file,
            export=None if self._log_export is None else self._log_export.sink,
        )
        return self._access.observers

    def _follow_logger(self) -> None:
        """Let handlers, filters and levels count that somebody has given the access logger since."""
        if self._access is None:
            return
        before = self._access.observers
        if self._access.follow():
            self._signals.update(dict.fromkeys(self._access.observers, "access_log"))
            self._hooks.replace(before, self._access.observers)

    def _make_self_cost(self, metrics: Metrics, hooks: Hooks, observers: list[object]) -> SelfCost:
        from obsserve.telemetry.selfcost import SelfCost  # noqa: PLC0415

        self._signals.update(dict.fromkeys(observers, "access_log"))
        self._signals[metrics] = "metrics"
        if self._tracing is not None:
            self._signals[self._tracing] = "tracing"
        deferred = () if self._access is None else self._access.deferred
        return SelfCost(self._cells, hooks, self._signals, metrics.begun, deferred)

    # --- running -----------------------------------------------------------------------------

    def bind(self) -> None:
        """Bind the metrics port, unless it is another process's business to show the metrics.

        Raises:
            StartupError: it is in use.
        """
        if self.metrics is None or self._seat is not None:
            return
        from obsserve.server.ownmetrics import OwnMetrics  # noqa: PLC0415 - only what is turned on is imported

        self._shown = OwnMetrics(
            self._settings,
            self._cells,
            service_instance_id=self._instance,
            parser=self._parser,
            export=self._pushed,
            report=self._report_export,
            since=self._since,
        )
        self._shown.bind()

    def start(self) -> None:
        """Begin to watch the loop of the calling thread, and to show what is counted."""
        if self._gc is not None:
            self._gc.install()
        if self._watchdog is not None:
            self._watchdog.start()
        if self._shown is not None:
            self._shown.start()

    def serving(self, state: ServerState, sockets: Sequence[socket.socket]) -> None:
        """Take note that the application is served from now on.

        Args:
            state: what all connections share.
            sockets: the listening sockets.
        """
        self._state = state
        if self._shown is not None:
            self._shown.serving(state, sockets)

    def draining(self) -> None:
        """Take note that the server has begun to stop."""
        if self._shown is not None:
            self._shown.state.draining = True

    def tick(self, now: float) -> None:
        """Do what is due ten times a second."""
        if self._lag is not None:
            self._lag.tick(now)
        if self._shown is not None:
            self._shown.state.heartbeat = now
        began = thread_time()
        if self._access is not None:
            self._access.flush()
        if self._log_export is not None:
            self._log_export.flush()
        flushed = thread_time()
        if self._tracing is not None:
            self._tracing.tick()
        if self._self_cost is not None:
            self._self_cost.spent(flushed - began, "access_log")
            self._self_cost.spent(thread_time() - flushed, "tracing")
            self._self_cost.tick()
        sink = server_sink()
        if sink is not None:
            sink.flush()

    def each_second(self) -> None:
        """Do what is due once a second."""
        self._clock.refresh()
        self._follow_logger()
        if self._log_export is not None:
            self._log_export.follow()
        if self.metrics is not None and self._state is not None:
            began = thread_time()
            self.metrics.sample(self._state.connections, queued=self._state.admission.waiting)
            if self._lag is not None:
                self._lag.count_tasks(asyncio.get_running_loop())
            if self._self_cost is not None:
                self._self_cost.spent(thread_time() - began, "metrics")

    def lifespan_finished(
        self,
        phase: str,
        seconds: float,
        *,
        supported: bool,
        failed: bool = False,
        exception: BaseException | None = None,
    ) -> None:
        """Count a phase of the lifespan, and make its span.

        Args:
            phase: startup or shutdown.
            seconds: how long it took.
            supported: whether the application has a lifespan; without one there is no span.
            failed: whether the application did not get through it.
            exception: what it raised, if it did.
        """
        if self.metrics is not None:
            self.metrics.lifespan_finished(phase, seconds, failed=failed, exception=exception)
        if supported and self._tracing is not None:
            self._tracing.lifespan_finished(phase, seconds, failed=failed, exception=exception)

    def stop(self, timeout: float) -> None:
        """Stop watching, and write and export what still waits.

        Args:
            timeout: seconds that spans, log lines, their export and the last push of metrics may take, each.
        """
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._gc is not None:
            self._gc.remove()
        if self._tracing is not None:
            self._tracing.shutdown(timeout)
        if self._access is not None:
            self._access.close(timeout)
        if self._log_export is not None:
            self._log_export.shutdown(timeout)
        if self._shown is not None:
            self._shown.stop(timeout)

    @property
    def traces(self) -> bool:
        """Whether spans are made."""
        return self._tracing is not None

    @property
    def metrics_url(self) -> str | None:
        """Where the metrics are, None when they are off."""
        return None if self._shown is None else self._shown.url

    # --- TLS ---------------------------------------------------------------------------------

    def certificate_loaded(self, result: str | None, expiry: float | None) -> None:
        """Take note of a certificate that is served from now on; see `TLSMetrics.loaded`."""
        if self.metrics is None:
            return
        if self._tls is None:
            from obsserve.telemetry.tlsmetrics import TLSMetrics  # noqa: PLC0415 - only what is on is imported

            self._tls = TLSMetrics(self._cells, str(self._worker))
        self._tls.loaded(result, expiry)

    def handshake_failed(self, reason: str, peer: Address | None, fault: BaseException) -> None:
        """Count a TLS handshake that failed, and tell of it: each reason once a minute at most."""
        if self._tls is not None:
            self._tls.handshake_failed(reason)
        now = perf_counter()
        if now - self._handshakes_told.get(reason, -60.0) < 60.0:
            return
        self._handshakes_told[reason] = now
        self._log.info(
            "tls.handshake_failed",
            message=f"A TLS handshake failed: {reason} ({str(fault) or type(fault).__name__}). "
            "Each reason is told once a minute; obsserve_tls_handshake_failures_total counts all",
            reason=reason,
            network_peer_address=peer[0] if peer is not None else None,
        )

    def accept_failed(self, error: str) -> None:
        """Count a second in which connections were not accepted; `error` is the errno's name."""
        if self.metrics is not None:
            self.metrics.accept_error(error)

    def reopen_logs(self) -> None:
        """Open the access log's file anew; from any thread, and from a signal handler."""
        if self._log_file is None:
            self._log.info("log.reopen", message="There is no log file of the server's to open anew")
        elif self._access is not None:
            self._access.reopen(self._report_reopened)
        else:  # the application has not started yet
            self._log_file.reopen(self._report_reopened)

    # --- reports -----------------------------------------------------------------------------

    def _report_fault(self, observer: object, hook: str, fault: BaseException) -> None:
        self._log.error(
            "telemetry.fault",
            message=f"{type(observer).__name__}.{hook} raised and is turned off; requests are not affected",
            exc_info=fault,
        )

    def _report_export(self, event: str, message: str) -> None:
        say = self._log.info if event == "telemetry.export_recovered" else self._log.warning
        say(event, message=message)

    def _report_reopened(self, error: OSError | None) -> None:
        path = self._settings.access_log_file
        if error is None:
            self._log.info("log.reopen", message=f"Access lines go to {path} anew", file=path)
            return
        self._log.error(
            "log.reopen",
            message=f"Cannot open {path} anew: {error.strerror}; access lines go on to where they went",
            file=path,
        )

    def _report_stall(self, seconds: float, stack: str, requests: Sequence[Any]) -> None:
        self._log.warning(
            "loop.stall",
            message=f"The event loop has been blocked for {seconds:.1f} s; the stack says by what",
            stack=stack,
            requests=list(requests),
        )

    def _open_requests(self) -> list[str]:
        state = self._state
        if state is None:
            return []
        now = perf_counter()
        return [
            f"{exchange.method} {exchange.raw_path.decode('latin-1')} for {now - exchange.began:.1f} s"
            for connection in tuple(state.connections)
            if (exchange := connection.open_exchange) is not None
        ]
