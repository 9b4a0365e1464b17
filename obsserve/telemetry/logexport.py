"""Log lines over OTLP, besides where they go otherwise: access lines, the server's and the application's.

Owns the queue, its sender and the handlers that feed it. Rules:
- What is exported is a line, redacted, hashed, filtered and sampled as on standard output; a record's attributes
  are made of it in the sender's thread. The request path only renders the line and puts it into the queue.
- The queue is bounded, and what finds no room, or is lost on the way, is counted (`otel_sdk_*_log_*`). Of a queue
  that is nearly full the last eighth is for warnings and errors.
- What the sender's own thread logs is never exported: an export that fails must not feed the next one.
- Nothing of OpenTelemetry is imported before the sender's thread runs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from obsserve.telemetry.logging import line_handler
from obsserve.telemetry.logsink import LINE_LIMIT, NOWHERE
from obsserve.telemetry.otlp_encode import RequestFrame
from obsserve.telemetry.otlp_logs import encode_log
from obsserve.telemetry.otlpdestination import destination_of, is_exported, number_of
from obsserve.telemetry.spanfigures import LogExportFigures
from obsserve.telemetry.spanqueue import METRIC_SENDER, SpanQueue
from obsserve.telemetry.spanqueue import SENDER as SPAN_SENDER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.logsink import Lines, Stream
    from obsserve.telemetry.otlpdestination import Protocols
    from obsserve.telemetry.spanfigures import Delivery
    from obsserve.telemetry.spanqueue import Carrier

SENDER: Final = "obsserve-log-export"  # the thread's name
_EXPORTERS: Final = (SENDER, SPAN_SENDER, METRIC_SENDER)

# The specification's defaults.
_QUEUE_SIZE: Final = 2048
_BATCH_SIZE: Final = 512
_SCHEDULE_DELAY_MILLIS: Final = 1000


class LogExportSettings(Protocol):
    """The options that this reads."""

    @property
    def otlp_logs(self) -> bool: ...
    @property
    def otlp_endpoint(self) -> str | None: ...
    @property
    def otlp_protocol(self) -> str | None: ...
    @property
    def service_name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogExportConfiguration:
    """How to export.

    Args:
        endpoint: for the exporter; None lets it read its own variables.
        destination: the same for people, always there.
        protocol: how OTLP is spoken.
        service_name: of the lines.
        queue_size: how many lines may wait.
        batch_size: how many are exported at once.
        schedule_delay: seconds after which fewer are exported too.
        notes: what was not understood, for the server's log.
    """

    endpoint: str | None
    destination: str
    protocol: Protocols
    service_name: str
    queue_size: int = _QUEUE_SIZE
    batch_size: int = _BATCH_SIZE
    schedule_delay: float = _SCHEDULE_DELAY_MILLIS / 1e3
    notes: tuple[str, ...] = ()


def log_export_configuration(
    settings: LogExportSettings, environ: Mapping[str, str] = os.environ
) -> LogExportConfiguration | None:
    """Return how to export log lines, None when they are not exported.

    Args:
        settings: the options.
        environ: the environment: OTEL_LOGS_EXPORTER, OTEL_EXPORTER_OTLP_* and OTEL_BLRP_*.

    Raises:
        StartupError: it is asked for and cannot be done.
    """
    if not is_exported("LOGS", environ, wanted=settings.otlp_logs):
        return None
    destination = destination_of("LOGS", settings, environ)
    notes: list[str] = []
    queue_size = number_of(environ, "OTEL_BLRP_MAX_QUEUE_SIZE", _QUEUE_SIZE, notes)
    batch_size = number_of(environ, "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", _BATCH_SIZE, notes)
    delay = number_of(environ, "OTEL_BLRP_SCHEDULE_DELAY", _SCHEDULE_DELAY_MILLIS, notes)
    return LogExportConfiguration(
        **destination._asdict(),
        service_name=settings.service_name,
        queue_size=queue_size,
        batch_size=min(batch_size, queue_size),
        schedule_delay=delay / 1e3,
        notes=tuple(notes),
    )


class LogExport:
    """The export of one process's log lines.

    Args:
        configuration: where to and how.
        resource: the resource's attributes.
        version: of this server.
        region: the cells to count in.
        report: takes event and message for the server's log; called from any thread.
    """

    def __init__(
        self,
        configuration: LogExportConfiguration,
        *,
        resource: Mapping[str, Any],
        version: str,
        region: Cells,
        report: Callable[[str, str], None],
    ) -> None:
        self._frame = RequestFrame(resource, "obsserve", version)
        self._configuration = configuration
        for note in configuration.notes:
            report("telemetry.log_option", note)
        self._queue = SpanQueue(
            self._carrier,
            LogExportFigures(region),
            report,
            capacity=configuration.queue_size,
            batch_size=configuration.batch_size,
            schedule_delay=configuration.schedule_delay,
            noun="log records",
            sender=SENDER,
        )
        self.sink = ExportSink(self._queue, configuration.queue_size)
        handler = line_handler(self.sink, configuration.service_name)
        self._of_server = _Handler(handler)
        self._of_app = _RootHandler(handler)
        self._follows_app = False

    def start(self) -> None:
        """Begin to export, the server's own lines first."""
        self._queue.start()
        self.follow()

    def take_app(self) -> None:
        """Take the application's lines too, from now on.

        When it has started: `logging.basicConfig` does nothing when there is a handler already.
        """
        self._follows_app = True
        self.follow()

    def follow(self) -> None:
        """Put the handlers where they belong, if somebody has configured logging since."""
        wanted = [("obsserve", self._of_server)]
        if self._follows_app:
            wanted.append(("", self._of_app))
        for name, handler in wanted:
            logger = logging.getLogger(name)
            if handler not in logger.handlers:
                logger.addHandler(handler)

    def flush(self) -> None:
        """Tell the figures what has happened. The ticker calls this."""
        self.sink.flush()

    def shutdown(self, timeout: float) -> None:
        """Export what waits, within so many seconds; what is left is counted as lost."""
        logging.getLogger("obsserve").removeHandler(self._of_server)
        logging.getLogger().removeHandler(self._of_app)
        self.sink.flush()
        self._queue.shutdown(timeout)

    def _carrier(self) -> Carrier:
        from obsserve.telemetry.otlp import make_log_carrier, silence_exporters  # noqa: PLC0415 - imports a lot

        configuration = self._configuration
        silence_exporters(SENDER)
        return _LineCarrier(
            make_log_carrier(
                configuration.protocol, configuration.endpoint, configuration.destination, self._frame
            )
        )


class ExportSink:
    """Takes lines from any thread, never blocks and never raises.

    Args:
        queue: where they wait.
        capacity: of the queue.
    """

    fd: Final = NOWHERE
    line_limit: Final = LINE_LIMIT

    def __init__(self, queue: SpanQueue, capacity: int) -> None:
        self._queue = queue
        self._reserve = capacity // 8
        # Re-entrant, because a signal handler may log while its thread holds the lock.
        self._lock = threading.RLock()
        self._refused = 0

    def offer(
        self,
        lines: Lines,
        stream: Stream = "access",  # noqa: ARG002 - each line says it
        important: Collection[int] = (),
        count: int | None = None,  # noqa: ARG002
    ) -> None:
        """Take lines; those that do not fit are counted."""
        queue = self._queue
        waiting = queue.spans
        with self._lock:
            for number, line in enumerate(bytes(lines).split(b"\n"), 1):
                if not line:
                    continue
                left = queue.room - len(waiting)
                if left > self._reserve or (left > 0 and number in important):
                    waiting.append(line)
                else:
                    self._refused += 1
        if len(waiting) >= queue.wake_at:
            queue.wake_sender()

    def flush(self) -> None:
        """Tell the figures; the serving thread calls this."""
        with self._lock:
            refused, self._refused = self._refused, 0
        if refused:
            self._queue.refuse(refused)
        self._queue.tick()

    def close(self, deadline_seconds: float) -> None:  # noqa: ARG002 - the access log's word
        """Nothing: the export outlives the access log, for the last lines of the server."""
        self.flush()


class _LineCarrier:
    """Makes records of lines, in the sender's thread."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def deliver(self, lines: Sequence[bytes]) -> Delivery:
        now = time.time_ns()
        return self._carrier.deliver([encode_log(line, now) for line in lines])

    def shutdown(self) -> None:
        self._carrier.shutdown()


class _Handler(logging.Handler):
    """Gives a handler all records but those that come of exporting."""

    def __init__(self, lines: logging.Handler) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread().name not in _EXPORTERS:
            self._lines.emit(record)


class _RootHandler(_Handler):
    """The same at the root, where a handler has a side effect: Python prints no warning by itself any more."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "obsserve" or record.name.startswith("obsserve."):
            return  # exported already
        super().emit(record)
        resort = logging.lastResort
        if resort is not None and record.levelno >= resort.level and self._is_alone(record.name):
            resort.handle(record)

    def _is_alone(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True
