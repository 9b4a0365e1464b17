"""Metrics over OTLP: everything that the metrics port would show, pushed from time to time.

Owns the thread that reads, encodes and pushes. Rules:
- It reads what a scrape reads, in the process that would serve the metrics port; no serving loop takes part.
- Everything is cumulative, so a push that fails costs a point in time and no count. What did not arrive is counted
  (`otel_sdk_exporter_metric_data_point_exported_total`). After three failures in a row pushes pause, as spans do.
- The last push is made at the end, within the time that is given for it.
- Nothing of OpenTelemetry is imported before the thread runs.

    waiting ──interval──▶ pushing ──▶ waiting ──shutdown()──▶ pushing for the last time ──▶ stopped
                                                                 └──deadline──▶ abandoned
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from obsserve.telemetry.catalogue import COMPLETE, OTHER, error_type_of
from obsserve.telemetry.otlp_metrics import Encoded, Moment, encode_reading
from obsserve.telemetry.otlpdestination import destination_of, is_exported, number_of
from obsserve.telemetry.spanfigures import Delivery, MetricExportFigures
from obsserve.telemetry.spanqueue import EXPORT_FAILED, HEAD_START, LAST_ATTEMPT, METRIC_SENDER, Health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.exposition import Reading
    from obsserve.telemetry.otlpdestination import Protocols


# The specification's defaults.
_INTERVAL_MILLIS: Final = 60_000
_TIMEOUT_MILLIS: Final = 30_000
_EXPORTER_TIMEOUT: Final = 10.0  # seconds
# A quarter of what gRPC servers take by default.
_REQUEST_BYTES: Final = 1024 * 1024


class MetricExportSettings(Protocol):
    """The options that this reads."""

    @property
    def otlp_metrics(self) -> bool: ...
    @property
    def otlp_endpoint(self) -> str | None: ...
    @property
    def otlp_protocol(self) -> str | None: ...
    @property
    def service_name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricExportConfiguration:
    """How to push.

    Args:
        endpoint: for the exporter; None lets it read its own variables.
        destination: the same for people, always there.
        protocol: how OTLP is spoken.
        service_name: of the resource.
        interval: seconds from one push to the next.
        timeout: seconds that a push may take.
        request_timeout: seconds that one of its requests may take, retries included.
        notes: what was not understood, for the server's log.
    """

    endpoint: str | None
    destination: str
    protocol: Protocols
    service_name: str
    interval: float = _INTERVAL_MILLIS / 1e3
    timeout: float = _TIMEOUT_MILLIS / 1e3
    request_timeout: float = _EXPORTER_TIMEOUT
    notes: tuple[str, ...] = ()


def metric_export_configuration(
    settings: MetricExportSettings, environ: Mapping[str, str] = os.environ
) -> MetricExportConfiguration | None:
    """Return how to push metrics, None when they are not pushed.

    Args:
        settings: the options.
        environ: the environment: OTEL_METRICS_EXPORTER, OTEL_METRIC_EXPORT_* and OTEL_EXPORTER_OTLP_*.

    Raises:
        StartupError: it is asked for and cannot be done.
    """
    if not is_exported("METRICS", environ, wanted=settings.otlp_metrics):
        return None
    destination = destination_of("METRICS", settings, environ)
    notes: list[str] = []
    timeout = number_of(environ, "OTEL_METRIC_EXPORT_TIMEOUT", _TIMEOUT_MILLIS, notes) / 1e3
    wanted = environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip()
    if wanted and wanted.lower() != "cumulative":
        notes.append(
            f"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE={wanted!r}: metrics are pushed as cumulative; "
            "a collector can make deltas of them (cumulativetodelta)"
        )
    aggregation = environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip()
    if aggregation and aggregation.lower() != "explicit_bucket_histogram":
        notes.append(
            f"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION={aggregation!r}: histograms are pushed with "
            "explicit buckets, as they are counted"
        )
    return MetricExportConfiguration(
        **destination._asdict(),
        service_name=settings.service_name,
        interval=number_of(environ, "OTEL_METRIC_EXPORT_INTERVAL", _INTERVAL_MILLIS, notes) / 1e3,
        timeout=timeout,
        request_timeout=min(_exporter_timeout(environ, notes), timeout),
        notes=tuple(notes),
    )


def _exporter_timeout(environ: Mapping[str, str], notes: list[str]) -> float:
    """Return what the exporter would take for its time-out: seconds, as the Python exporters read their variables."""
    for name in ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if 0.0 < seconds < threading.TIMEOUT_MAX:
            return seconds
        notes.append(f"{name}={text!r} is no number of seconds; {_EXPORTER_TIMEOUT:g} is used")
        break
    return _EXPORTER_TIMEOUT


class Source(Protocol):
    """Where the figures come from."""

    def read(self) -> Reading: ...

    def count_failures(self, failures: int) -> None: ...


class Deliverer(Protocol):
    """Takes encoded metrics to a collector, with its own retries."""

    def deliver(self, spans: Sequence[bytes], size: int | None = None) -> Delivery:
        """Send them; `size` is how many points they have."""
        ...


class MetricCarrier(Deliverer, Protocol):
    """The same, until it is shut down."""

    def shutdown(self) -> None:
        """Give up whatever is under way; called from another thread than `deliver`."""
        ...


class MetricExport:
    """The pushes of one server.

    Args:
        configuration: where to and how.
        source: what is pushed.
        make_carrier: makes the carrier, in the thread that pushes.
        region: the cells to count in.
        report: takes event and message for the server's log; called from any thread.
        since: when the server began to count, nanoseconds since the epoch.
        process_since: when its process began, likewise.
        abandon: lets go, in a forked child, of what the carrier holds.
    """

    def __init__(
        self,
        configuration: MetricExportConfiguration,
        source: Source,
        make_carrier: Callable[[], MetricCarrier],
        *,
        region: Cells,
        report: Callable[[str, str], None],
        since: int,
        process_since: int,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self.abandon = abandon
        self._interval = configuration.interval
        self._timeout = configuration.timeout
        self._destination = configuration.destination
        self._source = source
        self._make_carrier = make_carrier
        self._figures = MetricExportFigures(region)
        self._since = since
        self._process_since = min(since, process_since)
        self._report = report
        self._health = Health(report, "metric data points")
        self._carrier: MetricCarrier | None = None
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._sending = 0
        self._thread = threading.Thread(target=self._run, name=METRIC_SENDER, daemon=True)
        for note in configuration.notes:
            report("telemetry.metric_option", note)

    def start(self) -> None:
        """Begin to push, the first time when the interval has passed."""
        self._thread.start()

    def shutdown(self, timeout: float) -> bool:
        """Push for the last time and stop, within so many seconds; return whether that was done."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(min(timeout, LAST_ATTEMPT) if self._health.pause_left() else timeout)
        if self._thread.is_alive():
            self._abandoned.set()
            self._figures.abandoned(self._sending)
            self._report(
                EXPORT_FAILED,
                f"the shutdown could not wait for the last push of metrics to {self._destination}",
            )
        if self._carrier is not None:
            self._carrier.shutdown()
        return not self._abandoned.is_set()

    # --- The thread --------------------------------------------------------------------------

    def _run(self) -> None:
        due = monotonic() + self._interval
        try:
            # Importing an exporter takes long, and the first response need not wait for it.
            self._stopping.wait(HEAD_START)
            self._carrier = carrier = self._make_carrier()
            while not self._abandoned.is_set():
                last = self._stopping.wait(max(due - monotonic(), self._health.pause_left(), 0.0))
                if self._abandoned.is_set():
                    return
                self._push(carrier)
                if last:
                    return
                # A push that took longer than the interval is not made up for.
                due = max(due + self._interval, monotonic())
        except Exception as fault:  # noqa: BLE001 - the thread must not die without a word
            if not self._abandoned.is_set():
                self._health.failed(f"{type(fault).__name__}: {fault}; no more metrics are pushed", 0)

    def _push(self, carrier: MetricCarrier) -> None:
        metrics = self._collect()
        if metrics is None or self._abandoned.is_set():
            return
        self._sending = points = sum(metric.points for metric in metrics)
        self._figures.began(points)
        began = perf_counter()
        delivery, lost = self._deliver(carrier, metrics, points)
        if self._abandoned.is_set():
            return
        self._sending = 0
        self._figures.ended(points, delivery, lost, perf_counter() - began)
        if delivery.error_type is None:
            self._health.succeeded()
        else:
            self._health.failed(delivery.message, lost)

    def _collect(self) -> list[Encoded] | None:
        began = perf_counter()
        try:
            reading = self._source.read()
            moment = Moment(self._since, self._process_since, time.time_ns())
            metrics, failures = encode_reading(reading, moment)
            if failures:
                self._source.count_failures(failures)
        except Exception as fault:  # noqa: BLE001 - the next push may do better
            name = error_type_of(COMPLETE, None, fault) or OTHER
            self._figures.collected(perf_counter() - began, name)
            self._health.failed(f"the metrics cannot be collected: {name}: {fault}", 0)
            return None
        self._figures.collected(perf_counter() - began)
        return metrics

    def _deliver(
        self, carrier: MetricCarrier, metrics: Sequence[Encoded], points: int
    ) -> tuple[Delivery, int]:
        """Return what became of a push, and how many of its points did not arrive."""
        end = monotonic() + self._timeout
        left, rejected = points, 0
        for request in _requests(metrics):
            if monotonic() >= end:
                delivery = Delivery("timeout", f"{self._destination}: not done in {self._timeout:g} s")
            else:
                size = sum(metric.points for metric in request)
                delivery = guarded_delivery(carrier, [metric.content for metric in request], size)
            if delivery.error_type is not None:
                return delivery._replace(rejected=rejected), left
            left -= size
            rejected += delivery.rejected
        return Delivery(rejected=rejected), 0


def _requests(metrics: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Cut a push into requests that every collector takes."""
    request: list[Encoded] = []
    size = 0
    for metric in metrics:
        if request and size + len(metric.content) > _REQUEST_BYTES:
            yield request
            request, size = [], 0
        request.append(metric)
        size += len(metric.content)
    if request:
        yield request


def guarded_delivery(carrier: Deliverer, metrics: Sequence[bytes], size: int) -> Delivery:
    """Have a carrier deliver metrics; return whatever comes of it.

    Args:
        carrier: to use.
        metrics: of one request.
        size: how many points they have.
    """
    try:
        return carrier.deliver(metrics, size)
    except Exception as fault:  # noqa: BLE001 - whatever an exporter does, the next push is tried
        name = error_type_of(COMPLETE, None, fault) or OTHER
        return Delivery(name, f"{name}: {fault}")
