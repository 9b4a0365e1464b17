"""What becomes of the access log: the server's own line, records for handlers, or both.

Decided once, when the application has started, because that is where people add handlers and filters:

| who asked | line | records |
|---|---|---|
| nobody | yes | no |
| a handler on `obsserve.access` | yes | yes, as uvicorn's own handler goes on beside it |
| `--log-config`, or none of it | no | yes, if the logger has any handler |
| `--no-access-log` | no | no |
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from obsserve.logconfig import BUILT_IN
from obsserve.telemetry.accesslog import AccessLog
from obsserve.telemetry.logrecords import ACCESS_LOGGER, AccessGate, AccessRecords
from obsserve.telemetry.logsink import LogSettings, LogSink, line_format
from obsserve.telemetry.redact import query_policy

if TYPE_CHECKING:
    from obsserve.telemetry.accesslog import LoopLag, WallClock
    from obsserve.telemetry.logformats import FormattedAccessLog
    from obsserve.telemetry.logsink import LogCounters

    Line = AccessLog | FormattedAccessLog

STDOUT: Final = 1


class AccessSettings(LogSettings, Protocol):
    """What decides where access lines go."""

    @property
    def access_log(self) -> bool: ...
    @property
    def access_log_format(self) -> str | None: ...
    @property
    def log_config(self) -> Any: ...


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
    ) -> None:
        self.observers: list[object] = []
        self._parts: list[Line | AccessRecords] = []
        if not settings.access_log:
            return
        service: _Service = {
            "clock": clock,
            "lag": lag,
            "service_instance_id": service_instance_id or str(uuid.uuid4()),
            "worker": worker,
        }
        logger = logging.getLogger(ACCESS_LOGGER)
        own = settings.log_config == BUILT_IN
        if own:
            line = _line(settings, STDOUT if stdout is None else stdout, counters, service)
            self._parts.append(line)
            self.observers.append(_gated(line, settings, stdout, counters))
        if logger.handlers if own else logger.hasHandlers():
            # Each exchange is counted once.
            records = AccessRecords(settings, stdout=stdout, counters=None if own else counters, **service)
            self._parts.append(records)
            self.observers.append(records)

    def flush(self) -> None:
        """Hand over what is rendered, and tell the counters. The ticker calls this."""
        for part in self._parts:
            part.flush()

    def close(self, deadline_seconds: float) -> None:
        """Let everything be written, for at most so many seconds."""
        for part in self._parts:
            part.close(deadline_seconds)


class _Service(TypedDict):
    clock: WallClock
    lag: LoopLag
    service_instance_id: str
    worker: int


def _line(settings: AccessSettings, fd: int, counters: LogCounters | None, service: _Service) -> Line:
    sink = LogSink(fd, capacity_bytes=settings.log_buffer_bytes, counters=counters)
    if settings.access_log_format is None:
        return AccessLog(sink, settings, counters=counters, **service)
    from obsserve.telemetry.logformats import FormattedAccessLog  # noqa: PLC0415  (for those who ask for it)

    text = settings.access_log_format
    return FormattedAccessLog(sink, settings, text, clock=service["clock"], counters=counters)


def _gated(
    line: Line, settings: AccessSettings, stdout: int | None, counters: LogCounters | None
) -> AccessGate | Line:
    """Put the gate in front of the line, if anybody keeps lines back."""
    if not AccessGate.needed():
        return line
    shown_as = line_format(settings.log_format, stdout)
    return AccessGate(line, query_policy(settings.log_query, shown_as, settings.log_query_allow), counters)
