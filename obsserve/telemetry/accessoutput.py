"""What becomes of the access log: the server's own line, records for handlers, or both.

Decided when the application has started, because that is where people add handlers and filters, and again in the
second after they have changed the logger later:

| who asked | line | records |
|---|---|---|
| nobody | yes | no |
| a handler on `obsserve.access` | yes | yes, as uvicorn's own handler goes on beside it |
| `--log-config`, or none of it | no | yes, if the logger has any handler |
| `--no-access-log` | no | no |

With `--otlp-logs` a second line goes to the export, whatever the first looks like.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, cast

from obsserve.logconfig import BUILT_IN
from obsserve.telemetry.accessextras import ExtendedAccessLog, LineExtras
from obsserve.telemetry.accesslog import AccessLog
from obsserve.telemetry.logpolicy import SelectedAccess, Selection
from obsserve.telemetry.logrecords import ACCESS_LOGGER, AccessGate, AccessRecords
from obsserve.telemetry.logsink import NOWHERE, LogSettings, LogSink, NoCounters, line_format
from obsserve.telemetry.redact import redaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.telemetry.logfile import LogFile
    from obsserve.telemetry.logformats import FormattedAccessLog
    from obsserve.telemetry.logsink import LineSink, LogCounters
    from obsserve.telemetry.observer import LoopLag, WallClock
    from obsserve.telemetry.selfcost import Deferred

    Line = AccessLog | FormattedAccessLog


class AccessSettings(LogSettings, Protocol):
    """What decides where access lines go."""

    @property
    def access_log(self) -> bool: ...
    @property
    def access_log_format(self) -> str | None: ...
    @property
    def log_config(self) -> Any: ...
    @property
    def access_log_exclude(self) -> tuple[str, ...]: ...
    @property
    def log_sample_ratio(self) -> float: ...
    @property
    def log_sample_path(self) -> tuple[Any, ...]: ...
    @property
    def log_slow(self) -> float | None: ...
    @property
    def log_request_header(self) -> tuple[str, ...]: ...
    @property
    def log_response_header(self) -> tuple[str, ...]: ...


class AccessOutput:
    """The observers of the access log, and what keeps them going.

    Args:
        settings: the options.
        stdout: descriptor of standard output, None when there is none.
        clock: the server's, refreshed by its ticker.
        lag: what is known of the event loop's lag.
        counters: told what became of lines and records.
        service_instance_id: one for all workers of a server; made up when not given.
        worker: slot of this worker.
        file: where lines go instead of standard output.
        export: takes lines too, as JSON.
    """

    def __init__(
        self,
        settings: AccessSettings,
        *,
        stdout: int | None,
        clock: WallClock,
        lag: LoopLag,
        counters: LogCounters | None = None,
        service_instance_id: str | None = None,
        worker: int = 0,
        file: LogFile | None = None,
        export: LineSink | None = None,
    ) -> None:
        self.observers: list[object] = []
        self._file = file
        self._sink: LogSink | None = None
        self._parts: list[Line | AccessRecords] = []
        self._settings = settings
        self._counters = counters
        self._line: Line | None = None
        self._exported: Line | None = None
        self._records: AccessRecords | None = None
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._asked: object = None
        self._own = settings.log_config == BUILT_IN
        if not settings.access_log:
            return
        self._service: _Service = {
            "clock": clock,
            "lag": lag,
            "service_instance_id": service_instance_id or str(uuid.uuid4()),
            "worker": worker,
        }
        self._stdout = stdout
        self._fd = fd = stdout if file is None else file.fd
        self._extras = extras = _extras(settings, fd)
        if self._own:
            # Never a number that is only usual: a socket may have it.
            self._sink = LogSink(
                NOWHERE if fd is None else fd,
                capacity_bytes=settings.log_buffer_bytes,
                counters=counters,
                own_file=file is not None,
            )
            self._line = _line(settings, self._sink, counters, self._service, extras)
            self._parts.append(self._line)
        if export is not None:
            # It is told nothing of what is filtered or cut: the other line is.
            self._exported = _line(_as_json(settings), export, None, self._service, extras)
            self._parts.append(self._exported)
        self.follow()

    def follow(self) -> bool:
        """Decide anew if somebody has changed the logger's handlers, filters or level.

        Returns:
            Whether `observers` are others now.
        """
        logger = self._logger
        handled = bool(logger.handlers if self._own else logger.hasHandlers())
        asked = (handled, bool(logger.filters), logger.isEnabledFor(logging.INFO))
        if asked == self._asked or not self._settings.access_log:
            return False
        self._asked = asked
        self.observers = self._arranged(handled=handled)
        return True

    def _arranged(self, *, handled: bool) -> list[object]:
        settings, counters = self._settings, self._counters
        observers: list[object] = []
        if self._line is not None:
            observers.append(_gated(self._line, settings, self._fd, counters))
        if self._exported is not None:
            observers.append(_gated(self._exported, _as_json(settings), None, None))
        if handled:
            if self._records is None:
                # Each exchange is counted once.
                told = None if self._own else counters
                self._records = AccessRecords(
                    settings, stdout=self._stdout, counters=told, extras=self._extras, **self._service
                )
                self._parts.append(self._records)
            observers.append(self._records)
        if observers and self._extras is not None and Selection.needed(settings):
            told = NoCounters() if counters is None else counters
            selection = Selection(settings)
            return [SelectedAccess(selection, observers, extras=self._extras, counters=told)]
        return observers

    @property
    def deferred(self) -> list[Deferred]:
        """What renders the lines of several exchanges together."""
        return [part for part in self._parts if isinstance(part, AccessLog)]

    def flush(self) -> None:
        """Hand over what is rendered, and tell the counters. The ticker calls this."""
        for part in self._parts:
            part.flush()

    def reopen(self, done: Callable[[OSError | None], None]) -> None:
        """Open the file anew, after it was renamed; from any thread, and from a signal handler.

        Args:
            done: called on another thread with what went wrong.
        """
        if self._file is not None:
            self._file.reopen(lambda error: self._reopened(error, done))

    def _reopened(self, error: OSError | None, done: Callable[[OSError | None], None]) -> None:
        if self._sink is not None:
            self._sink.reopened(error)
        done(error)

    def close(self, deadline_seconds: float) -> None:
        """Let everything be written, for at most so many seconds."""
        for part in self._parts:
            part.close(deadline_seconds)
        if self._file is not None and not (self._sink is not None and self._sink.writing):
            self._file.close()


class _JsonSettings:
    """Settings for lines that programs read, whatever people at a terminal get."""

    log_format: Final = "json"
    access_log_format: Final = None

    def __init__(self, settings: AccessSettings) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)


def _as_json(settings: AccessSettings) -> AccessSettings:
    return cast("AccessSettings", _JsonSettings(settings))


class _Service(TypedDict):
    clock: WallClock
    lag: LoopLag
    service_instance_id: str
    worker: int


def _extras(settings: AccessSettings, fd: int | None) -> LineExtras | None:
    """Return what lines hold beyond their own fields, None when that is nothing."""
    wanted = settings.log_request_header, settings.log_response_header
    if not any(wanted) and not Selection.needed(settings):
        return None
    return LineExtras(*wanted, redaction(settings, line_format(settings.log_format, fd)).headers)


def _line(
    settings: AccessSettings,
    sink: LineSink,
    counters: LogCounters | None,
    service: _Service,
    extras: LineExtras | None,
) -> Line:
    if settings.access_log_format is None:
        if extras is not None:
            return ExtendedAccessLog(sink, settings, extras=extras, counters=counters, **service)
        return AccessLog(sink, settings, counters=counters, **service)
    from obsserve.telemetry.logformats import FormattedAccessLog  # noqa: PLC0415  (for those who ask for it)

    text = settings.access_log_format
    assert isinstance(sink, LogSink)
    return FormattedAccessLog(sink, settings, text, clock=service["clock"], counters=counters)


def _gated(
    line: Line, settings: AccessSettings, fd: int | None, counters: LogCounters | None
) -> AccessGate | Line:
    """Put the gate in front of the line, if anybody keeps lines back."""
    if not AccessGate.needed():
        return line
    shown_as = line_format(settings.log_format, fd)
    return AccessGate(line, redaction(settings, shown_as), counters)
