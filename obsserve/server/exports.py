"""What a process sends to a collector, made from the options; with nothing to send nothing of it is imported."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from obsserve.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.settings import Settings
    from obsserve.telemetry.carrierprocess import ProcessCarrier
    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.lateexposition import LateExposition
    from obsserve.telemetry.logexport import LogExport, LogExportConfiguration
    from obsserve.telemetry.metricexport import MetricCarrier, MetricExport, MetricExportConfiguration
    from obsserve.telemetry.traceconfig import TracingConfiguration


def tracing_of(settings: Settings) -> TracingConfiguration | None:
    """Return how to trace, None when tracing is off; then nothing of OpenTelemetry is imported.

    Raises:
        StartupError: tracing is asked for and cannot be done.
    """
    if settings.otlp_endpoint is None and not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from obsserve.telemetry.traceconfig import tracing_configuration  # noqa: PLC0415

    return tracing_configuration(settings)


def log_export_of(settings: Settings) -> LogExportConfiguration | None:
    """Return how to export log lines, None when they are not.

    Raises:
        StartupError: it is asked for and cannot be done.
    """
    if not settings.otlp_logs and "OTEL_LOGS_EXPORTER" not in os.environ:
        return None
    from obsserve.telemetry.logexport import log_export_configuration  # noqa: PLC0415

    return log_export_configuration(settings)


def metric_export_of(settings: Settings) -> MetricExportConfiguration | None:
    """Return how to push metrics, None when they are not.

    Raises:
        StartupError: it is asked for and cannot be done.
    """
    if not settings.otlp_metrics and "OTEL_METRICS_EXPORTER" not in os.environ:
        return None
    from obsserve.telemetry.metricexport import metric_export_configuration  # noqa: PLC0415

    return metric_export_configuration(settings)


def metric_export(
    configuration: MetricExportConfiguration,
    source: LateExposition,
    *,
    service_instance_id: str,
    worker: int | None,
    region: Cells,
    report: Callable[[str, str], None],
    since: int | None = None,
    forks: bool = False,
) -> MetricExport:
    """Return what pushes a server's metrics when it is started.

    Args:
        configuration: where to and how.
        source: what is pushed.
        service_instance_id: one for all processes of a server.
        worker: the slot of the process, None for the main process.
        region: the cells to count in.
        report: takes event and message for the server's log; called from any thread.
        since: when the server began to count, nanoseconds since the epoch; None for when its process began.
        forks: whether children of the process, forked, go on to use what exports.
    """
    from obsserve.telemetry.metricexport import MetricExport  # noqa: PLC0415
    from obsserve.telemetry.otlp_encode import RequestFrame  # noqa: PLC0415
    from obsserve.telemetry.runtime import process_start  # noqa: PLC0415
    from obsserve.telemetry.spanqueue import METRIC_SENDER  # noqa: PLC0415
    from obsserve.telemetry.traceconfig import resource  # noqa: PLC0415

    attributes = resource(
        configuration.service_name,
        service_instance_id=service_instance_id,
        worker=worker,
        version=__version__,
    )
    frame = RequestFrame(attributes, "obsserve", __version__)

    def carrier() -> MetricCarrier:
        if apart is not None:
            return apart.begin()
        from obsserve.telemetry.otlp import make_metric_carrier, silence_exporters  # noqa: PLC0415 - imports a lot

        silence_exporters(METRIC_SENDER)
        return make_metric_carrier(configuration, frame)

    apart: ProcessCarrier | None = None
    if forks:
        from obsserve.telemetry import carrierprocess  # noqa: PLC0415

        apart = carrierprocess.ProcessCarrier(configuration, frame)
    found = process_start()
    process_since = time.time_ns() if found is None else int(found * 1e9)
    return MetricExport(
        configuration,
        source,
        carrier,
        region=region,
        report=report,
        since=process_since if since is None else since,
        process_since=process_since,
        abandon=(lambda: None) if apart is None else apart.abandon,
    )


def start_log_export(
    configuration: LogExportConfiguration,
    service_instance_id: str,
    worker: int | None,
    region: Cells,
    report: Callable[[str, str], None],
) -> LogExport:
    """Begin to export this process's log lines.

    Args:
        configuration: where to and how.
        service_instance_id: one for all processes of a server.
        worker: its slot, None for the main process.
        region: the cells to count in.
        report: takes event and message for the server's log; called from any thread.
    """
    from obsserve.telemetry.logexport import LogExport  # noqa: PLC0415
    from obsserve.telemetry.traceconfig import resource  # noqa: PLC0415

    export = LogExport(
        configuration,
        resource=resource(
            configuration.service_name,
            service_instance_id=service_instance_id,
            worker=worker,
            version=__version__,
        ),
        version=__version__,
        region=region,
        report=report,
    )
    export.start()
    return export
