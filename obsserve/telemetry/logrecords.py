"""Access lines for those who handle log records themselves, with the standard library's logging.

Owns the records between the end of an exchange and the handlers of `obsserve.access`, and the thread that
calls them. Rules:
- A record has uvicorn's arguments, (client, method, path with query, HTTP version, status), which filters and
  formatters index, and `record.obsserve`, the whole record as the JSON line would have it.
- Handlers never run on the event loop: a slow one delays later records, not requests. When too many wait,
  the newest are dropped and counted.
- Filters and handlers run in the context that the request had, so that its context variables can be read.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from obsserve.telemetry.accessfields import AccessRecord, Record, level_of, printable, session_level
from obsserve.telemetry.logfields import field_policy
from obsserve.telemetry.logsink import NoCounters, line_format
from obsserve.telemetry.redact import redaction

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from obsserve.telemetry.accessextras import LineExtras
    from obsserve.telemetry.hooks import ExchangeHook, SessionHook
    from obsserve.telemetry.logsink import LogCounters, LogSettings
    from obsserve.telemetry.observer import ExchangeView, LoopLag, SessionView, WallClock
    from obsserve.telemetry.redact import Redaction

Arguments = tuple[str, str, str, str, int]

ACCESS_LOGGER: Final = "obsserve.access"
MESSAGE: Final = '%s - "%s %s HTTP/%s" %d'
# The status argument is a number for whoever compares it; what was really sent stands in record.obsserve.
CLIENT_WENT_AWAY: Final = 499  # nginx's
NO_RESPONSE: Final = 0
# Stands where the method does when a WebSocket that was open has closed.
SESSION_METHOD: Final = "WEBSOCKET"

# What a waiting record is taken to weigh, for the bound that --log-buffer-bytes sets.
_RECORD_BYTES: Final = 2048
_error_log = logging.getLogger("obsserve.error")
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def record_arguments(view: ExchangeView, policy: Redaction) -> Arguments:
    """Return the arguments of an exchange's record, in uvicorn's order."""
    status = view.status
    if status is None:
        status = CLIENT_WENT_AWAY if view.outcome == "client_disconnected" else NO_RESPONSE
    return (
        _client(view, policy),
        printable(view.method) or "-",
        _target(view, policy),
        view.http_version or "-",
        status,
    )


def session_arguments(session: SessionView, policy: Redaction) -> Arguments:
    """Return the arguments of a WebSocket session's record: its close code stands where the status does."""
    view = session.exchange
    return _client(view, policy), SESSION_METHOD, _target(view, policy), view.http_version, session.close_code


def _client(view: ExchangeView, policy: Redaction) -> str:
    client = policy.client(view.client)
    if client is None:
        return ""
    host, port = client
    return printable(host if port is None else f"{host}:{port}")


def _target(view: ExchangeView, policy: Redaction) -> str:
    path = view.raw_path.decode("utf-8", "backslashreplace")
    query = (
        policy.query.apply(view.query_string.decode("utf-8", "backslashreplace"))
        if view.query_string
        else None
    )
    return printable(f"{path}?{query}" if query else path) or "-"


class AccessRecords:
    """Observer that gives the handlers of `obsserve.access` a record for each exchange.

    All records have the level INFO, as uvicorn's: routing by level goes on as it was. How bad it was says
    `record.obsserve["level"]`.

    Args:
        settings: the query's policy, the buffer's size and the service's name.
        clock: the server's, refreshed by its ticker.
        lag: what is known of the event loop's lag.
        counters: told what became of the records; None when another observer counts the same exchanges.
        stdout: descriptor of standard output, which decides what `--log-query auto` means.
        service_instance_id: one for all workers of a server; made up when not given.
        worker: slot of this worker.
        extras: captured headers, and the record's weight.
    """

    def __init__(
        self,
        settings: LogSettings,
        *,
        clock: WallClock,
        lag: LoopLag,
        counters: LogCounters | None = None,
        stdout: int | None = None,
        service_instance_id: str | None = None,
        worker: int = 0,
        extras: LineExtras | None = None,
    ) -> None:
        self._clock = clock
        self._lag = lag
        self._counters: LogCounters = NoCounters() if counters is None else counters
        self._logger = logging.getLogger(ACCESS_LOGGER)
        service = {
            "service_name": settings.service_name,
            "service_instance_id": service_instance_id or str(uuid.uuid4()),
            "worker": worker,
            "process_pid": os.getpid(),
        }
        self._policy = redaction(settings, line_format(settings.log_format, stdout))
        shape = field_policy(settings, self._policy.address)
        self._record = AccessRecord(service, self._policy.query, extras, shape)
        self.capacity: Final = settings.log_buffer_bytes // _RECORD_BYTES
        self._queue: SimpleQueue[tuple[float, Arguments, Record, Context] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._fault_told = False
        # Each number has one writer: the first three the serving thread, the others the handlers' thread.
        self._offered = self._dropped = self._filtered_early = 0
        self._written = self._filtered = self._failed = 0
        self._told = {"written": 0, "filtered": 0, "failed": 0, "dropped": 0}

    def exchange_ended(self, view: ExchangeView) -> None:
        if self._wanted():
            lag = self._lag.max_between(view.began, view.ended)
            offset = self._clock.offset
            values = self._record.of(view, offset=offset, lag=lag)
            self._offer(offset + view.ended, record_arguments(view, self._policy), values)

    def session_ended(self, session: SessionView) -> None:
        if self._wanted():
            lag = self._lag.max_between(session.opened_at, session.closed_at)
            offset = self._clock.offset
            values = self._record.of_session(session, offset=offset, lag=lag)
            self._offer(offset + session.closed_at, session_arguments(session, self._policy), values)

    def _wanted(self) -> bool:
        """Return whether a record would get to somebody; count it if not."""
        if not self._logger.isEnabledFor(logging.INFO):
            self._filtered_early += 1
            return False
        if self._waiting() >= self.capacity or self._closed or not self._thread_runs():
            self._dropped += 1
            return False
        return True

    def _offer(self, created: float, arguments: Arguments, values: Record) -> None:
        self._offered += 1
        self._queue.put((created, arguments, values, copy_context()))

    def flush(self) -> None:
        """Tell the counters what has happened. The ticker calls this."""
        now = {
            "written": self._written,
            "filtered": self._filtered + self._filtered_early,
            "failed": self._failed,
            "dropped": self._dropped,
        }
        for result, count in now.items():
            new = count - self._told[result]
            if new:
                self._counters.add("access", result, new)  # type: ignore[arg-type]  # a Literal's words
        self._told = now

    def close(self, deadline_seconds: float) -> None:
        """Let the handlers have what waits, for at most so many seconds; what is left counts as dropped."""
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(max(deadline_seconds, 0.0))
        self._dropped += self._waiting()
        self.flush()

    def _waiting(self) -> int:
        return self._offered - self._written - self._filtered - self._failed

    def _thread_runs(self) -> bool:
        if self._thread is None:
            # A daemon: a handler that hangs cannot keep the process from ending.
            thread = threading.Thread(target=self._handle_all, name="obsserve-access-records", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread to be had
                return False
            self._thread = thread
        return True

    # --- the handlers' thread ----------------------------------------------------------------

    def _handle_all(self) -> None:
        while (entry := self._queue.get()) is not None:
            created, arguments, values, context = entry
            try:
                handled = context.run(self._handle, created, arguments, values)
            except Exception:  # noqa: BLE001  (whatever a filter or a handler of the user raises)
                self._failed += 1
                if not self._fault_told:
                    self._fault_told = True
                    _error_log.exception(
                        "A filter or handler of %s raised; it may do so again", ACCESS_LOGGER
                    )
                continue
            if handled:
                self._written += 1
            else:
                self._filtered += 1

    def _handle(self, created: float, arguments: Arguments, values: Record) -> bool:
        """Hand one record to the filters and handlers; return whether the logger let it through."""
        logger = self._logger
        record = logger.makeRecord(
            ACCESS_LOGGER, logging.INFO, "", 0, MESSAGE, arguments, None, extra={"obsserve": values}
        )
        record.relativeCreated += (created - record.created) * 1e3
        record.created = created
        record.msecs = int(created % 1.0 * 1e3) + 0.0
        if logger.disabled:
            return False
        passed: Any = logger.filter(record)
        if not passed:
            return False
        # Since Python 3.12 a filter may return another record.
        logger.callHandlers(passed if isinstance(passed, logging.LogRecord) else record)
        return True


class AccessGate:
    """Observer in front of the access line: asks the level and the filters of `obsserve.access` first.

    The line does not pass through logging, but people silence it with what they know: a level, or a filter
    for the health check's path. A filter runs where uvicorn runs it, on the event loop, and sees the same
    arguments.

    Args:
        line: the observer that writes the line.
        policy: what the filters may see.
        counters: told of each line that is filtered.
    """

    def __init__(self, line: Any, policy: Redaction, counters: LogCounters | None = None) -> None:
        self._write: ExchangeHook = line.exchange_ended
        self._write_session: SessionHook | None = getattr(line, "session_ended", None)
        self._policy = policy
        self._counters: LogCounters = NoCounters() if counters is None else counters
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._fault_told = False
        if self._write_session is not None:
            self.session_ended = self._session_ended

    @staticmethod
    def needed() -> bool:
        """Return whether anybody has given the logger a level, or a filter, that keeps lines back."""
        logger = logging.getLogger(ACCESS_LOGGER)
        return bool(logger.filters) or not logger.isEnabledFor(logging.INFO)

    def exchange_ended(self, view: ExchangeView) -> None:
        level = _LEVELS[level_of(view)]
        if self._logger.isEnabledFor(level) and self._passes(record_arguments, view):
            self._write(view)
        else:
            self._counters.add("access", "filtered")

    def _session_ended(self, session: SessionView) -> None:
        level = _LEVELS[session_level(session)]
        assert self._write_session is not None
        if self._logger.isEnabledFor(level) and self._passes(session_arguments, session):
            self._write_session(session)
        else:
            self._counters.add("access", "filtered")

    def _passes(self, arguments: Callable[[Any, Redaction], Arguments], view: Any) -> bool:
        if not self._logger.filters:
            return True
        record = self._logger.makeRecord(
            ACCESS_LOGGER, logging.INFO, "", 0, MESSAGE, arguments(view, self._policy), None
        )
        try:
            return bool(self._logger.filter(record))
        except Exception:  # noqa: BLE001  (a filter that fails must not lose lines)
            if not self._fault_told:
                self._fault_told = True
                _error_log.exception("A filter of %s raised; the line is written", ACCESS_LOGGER)
            return True
