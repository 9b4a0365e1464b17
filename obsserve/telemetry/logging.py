"""Server and application logs: structlog's set-up, the standard library's bridge, standard error.

Owns the handler on the logger `obsserve` and the sink behind it. Rules:
- Standard output carries access lines only; everything here goes to standard error, as JSON lines or,
  on a terminal, as readable ones.
- A line never blocks its caller and never raises into it: it goes through a `LogSink`, like the access log.
- The application's logging is its own. Its lines are touched only where they would otherwise be printed
  bare: see `configure_logging` and `adopt_structlog`.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from structlog.stdlib import ProcessorFormatter

from obsserve.telemetry.accessfields import painted, printable, timestamp
from obsserve.telemetry.catalogue import COMPLETE, LOG_MESSAGE_EVENT, error_type_of
from obsserve.telemetry.correlation import CorrelatedLogRecord
from obsserve.telemetry.logsink import (
    LINE_LIMIT,
    NOWHERE,
    LogSink,
    colors_wanted,
    descriptor_of,
    leads_to_pipe,
    line_format,
)
from obsserve.telemetry.plain import dumps, plain

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import TracebackType

    from obsserve.telemetry.logsink import LineSink, LogCounters, LogSettings, Stream

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

TRACE: Final = 5
LOGGERS: Final = ("obsserve", "obsserve.error", "obsserve.access", "obsserve.asgi")
# Where an application's structlog lines go when it has not configured structlog.
APP_LOGGER: Final = "obsserve.app"

_MESSAGE_CAP: Final = 1024
_STACK_CAP: Final = 8192
# How long the end of the process waits for its last lines.
_LAST_LINES_SECONDS: Final = 1.0
# The standard descriptors are the process's own, and stay what they are; others are somebody's.
_LAST_STANDARD: Final = 2
_ENVELOPE: Final = ("timestamp", "level", "event", "logger", "service_name", "process_pid")

_LEVEL_COLORS: Final = {"info": "32", "warning": "33", "error": "31", "critical": "31"}


class ServerLogger(structlog.stdlib.BoundLogger):
    """Logs events of the server: the first argument names the event, `message` says it to people."""

    def trace(self, event: str, **fields: Any) -> None:
        """Log below debug, as uvicorn's trace level."""
        if self._logger.isEnabledFor(TRACE):
            args, extra = self._process_event("trace", event, fields)
            self._logger.log(TRACE, *args, **extra)


class _State:
    """What this process has configured."""

    def __init__(self) -> None:
        self.handler: logging.Handler | None = None
        self.sink: LogSink | None = None
        self.level = logging.INFO


_state = _State()


def configure_logging(settings: LogSettings, counters: LogCounters | None = None) -> None:
    """Send the server's logs to standard error; may be called again, the last call counts.

    The loggers `obsserve.*` get the level and one handler, which replaces only one of an earlier call.
    The root logger is left alone, as uvicorn leaves it. What nobody handles, Python prints bare through
    `logging.lastResort`, warnings and above: exactly these lines get our form instead. So an application
    that configures logging, whenever it does, finds everything as it would without us.

    Args:
        settings: level, format, colours and the service's name.
        counters: where the figures about these lines go, see `server_sink`.
    """
    logging.addLevelName(TRACE, "TRACE")
    fd = descriptor_of(sys.stderr)
    sink = _sink_for(fd, settings, counters)
    handler = _handler_for(sink)
    wanted = line_format(settings.log_format, fd)
    if wanted == "console":
        renderer: Any = _Console(colored=colors_wanted(settings.use_colors, fd))
    else:
        renderer = _Json(LINE_LIMIT if sink is None else sink.line_limit)
    handler.setFormatter(_formatter(settings.service_name, renderer))

    _state.level = level_number(settings.log_level)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(_state.level)
    logger = logging.getLogger("obsserve")
    if _state.handler is not None:
        logger.removeHandler(_state.handler)
    logger.addHandler(handler)
    logger.propagate = False
    # The access line does not pass through logging; what is sent to its logger is for its own handlers.
    logging.getLogger("obsserve.access").propagate = False
    last_resort = _handler_for(sink)
    last_resort.setFormatter(handler.formatter)
    last_resort.setLevel(logging.WARNING)
    logging.lastResort = last_resort
    _state.handler = handler


def adopt_structlog() -> bool:
    """Give the application's structlog lines our form, if it has not configured structlog.

    To be called when the application has been imported. structlog left to itself prints to standard
    output, into the access lines. An application that configures it later replaces this.

    Returns:
        Whether structlog is ours now.
    """
    if structlog.is_configured():
        return False
    logging.getLogger(APP_LOGGER).setLevel(_state.level)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, ProcessorFormatter.wrap_for_formatter],
        # structlog knows the standard library's levels only.
        wrapper_class=structlog.make_filtering_bound_logger(min(_state.level // 10 * 10, logging.CRITICAL)),
        logger_factory=_app_logger,
        cache_logger_on_first_use=False,
    )
    return True


def server_logger() -> ServerLogger:
    """Return the logger for events of the server, `log.info("server.start", message="...", port=8000)`."""
    logger = structlog.wrap_logger(
        logging.getLogger("obsserve.error"),
        processors=[_as_record],
        wrapper_class=ServerLogger,
    )
    return cast("ServerLogger", logger.bind())


def set_server_level(level: int) -> None:
    """Have the loggers of the server log from this level on."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(level)


def line_handler(sink: LineSink, service_name: str) -> logging.Handler:
    """Return a handler that gives a sink the lines of records, in the same form as on standard error."""
    handler = _SinkHandler(sink)
    handler.setFormatter(_formatter(service_name, _Json(sink.line_limit)))
    return handler


def server_sink() -> LogSink | None:
    """Return the sink of the server's logs: give it counters, and flush it, to have them counted."""
    return _state.sink


def level_number(level: int | str) -> int:
    """Return a level's number; words as on the command line, `trace` included."""
    if isinstance(level, int):
        return int(level)
    return TRACE if level.lower() == "trace" else logging.getLevelNamesMapping()[level.upper()]


def _as_record(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a logging call: what is said to people, and the fields beside it.

    So any handler shows a sentence, and ours the whole event.
    """
    passed = {name: event.pop(name) for name in ("exc_info", "stack_info") if name in event}
    fields = dict(event)
    return {"msg": str(fields.get("message", fields["event"])), "extra": {"obsserve": fields}, **passed}


def _app_logger(*args: Any) -> logging.Logger:
    name = f"{APP_LOGGER}.{args[0]}" if args and isinstance(args[0], str) else APP_LOGGER
    return logging.getLogger(name)


# --- Where lines go -----------------------------------------------------------------------------


def _sink_for(fd: int | None, settings: LogSettings, counters: LogCounters | None) -> LogSink | None:
    """Return the sink on standard error: the one that there is, as long as it still fits."""
    if fd is None:
        if sys.stderr is not None and not getattr(sys.stderr, "closed", False):
            return None
        fd = NOWHERE
    old = _state.sink
    if old is not None and not old.closed and _fits(old, fd):
        if counters is not None:
            old.counters = counters
        return old
    if old is not None:
        old.close(_LAST_LINES_SECONDS)
    is_foreign = fd > _LAST_STANDARD
    if is_foreign:
        # Whoever put it there may close it, as test runners do; its number may be anybody's socket then.
        fd = os.dup(fd)
    _state.sink = LogSink(
        fd,
        capacity_bytes=settings.log_buffer_bytes,
        counters=counters,
        reports_queue=False,
        owns_fd=is_foreign,
    )
    return _state.sink


def _fits(sink: LogSink, fd: int) -> bool:
    """Return whether what a sink writes gets where this descriptor leads."""
    if min(fd, sink.fd) <= _LAST_STANDARD:
        return fd == sink.fd and sink.is_pipe == leads_to_pipe(fd)
    return os.path.sameopenfile(fd, sink.fd)


def _handler_for(sink: LogSink | None) -> logging.Handler:
    # A standard error without a descriptor is a test's or a notebook's, and is written to directly.
    return _StreamHandler(sys.stderr) if sink is None else _SinkHandler(sink)


def _close_sink() -> None:
    if _state.sink is not None:
        _state.sink.close(_LAST_LINES_SECONDS)


# The reason for which a server did not start is its last line: it must get out.
atexit.register(_close_sink)


def _formatter(service_name: str, renderer: Any) -> ProcessorFormatter:
    return ProcessorFormatter(
        processors=[_Envelope(service_name), renderer],
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
    )


class _SinkHandler(logging.Handler):
    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        text = _format(self, record)
        lines = f"{text}\n".encode("utf-8", "backslashreplace")
        important = range(1, lines.count(b"\n") + 1) if record.levelno >= logging.WARNING else ()
        self._sink.offer(lines, _stream_of(record.name), important)


class _StreamHandler(logging.StreamHandler[Any]):
    """For a standard error that is an object and no descriptor."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(f"{_format(self, record)}\n")
            self.stream.flush()
        except Exception:  # noqa: BLE001, S110 - a log that cannot be written must not stop what it tells of
            pass


def _format(handler: logging.Handler, record: logging.LogRecord) -> str:
    try:
        return handler.format(record)
    except Exception as fault:  # noqa: BLE001 - a wrong call of a logger still leaves a line
        said = f"{plain(record.msg)!r} (log call failed: {type(fault).__name__})"
        bare = logging.LogRecord(
            record.name, record.levelno, record.pathname, record.lineno, said, None, None
        )
        return handler.format(bare)


def _of_app(name: str) -> bool:
    return name != "obsserve" and (not name.startswith("obsserve.") or name.startswith(APP_LOGGER))


def _stream_of(name: str) -> Stream:
    return "app" if _of_app(name) else "server"


# --- What a line holds --------------------------------------------------------------------------


class _Envelope:
    """Turns what structlog or the standard library logged into the fields of a line, in their order."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        record: logging.LogRecord = event.pop("_record")
        event.pop("_from_structlog")
        exc_info = event.pop("exc_info", None) or record.exc_info
        stack = event.pop("stack_info", None) or record.stack_info
        said = event.pop("event", "")
        # An event of the server comes beside its sentence: see _as_record.
        fields: Any = event.pop("obsserve", None) if not _of_app(record.name) else None
        named = isinstance(fields, dict) and "event" in fields
        if named:
            event = dict(fields)
            said = event.pop("event")
        values: dict[str, Any] = {
            "timestamp": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": said if named else LOG_MESSAGE_EVENT,
            "logger": record.name.removeprefix(f"{APP_LOGGER}."),
            "service_name": self._service_name,
            "process_pid": os.getpid(),
            "message": event.pop("message", said) if named else str(said),
        }
        facts = record.facts() if isinstance(record, CorrelatedLogRecord) else {}
        for name, value in facts.items():
            values[name] = value
            if event.get(name) == value:  # as an attribute of the record it came by that way too
                del event[name]
        if named:
            for name, value in event.items():
                values.setdefault(name, value)
        elif event:
            # An object of its own, so that no field of the application can pass for one of the server.
            values["app"] = dict(event)
        if stack:
            values["stack"] = stack[-_STACK_CAP:] if isinstance(stack, str) else _stack_here()
        _put_exception(values, exc_info)
        return values


def _stack_here() -> str:
    return "".join(traceback.format_stack()[:-8])[-_STACK_CAP:]


def _put_exception(values: dict[str, Any], exc_info: Any) -> None:
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    else:
        error = (exc_info if isinstance(exc_info, tuple) else sys.exc_info())[1] if exc_info else None
    if error is None:
        return
    values["exception_type"] = error_type_of(COMPLETE, None, error)
    try:
        values["exception_message"] = str(error)[:_MESSAGE_CAP]
    except Exception as fault:  # noqa: BLE001 - whatever the application's __str__ does
        values["exception_message"] = f"(its text cannot be had: {type(fault).__name__})"
    # The end of a traceback is where it happened.
    values["exception_stacktrace"] = "".join(traceback.format_exception(error))[-_STACK_CAP:]


class _Json:
    """Renders one strict JSON object of ASCII characters, no longer than the sink lets lines be."""

    def __init__(self, limit: int) -> None:
        self._limit = limit - 1  # the newline

    def __call__(self, _logger: Any, _method: str, values: MutableMapping[str, Any]) -> str:
        shown = {str(name): plain(value) for name, value in values.items()}
        line = dumps(shown)
        cut: list[str] = []
        while len(line) > self._limit and (name := _longest(shown)) is not None:
            if name not in cut:
                cut.append(name)
            text = shown[name] if isinstance(shown[name], str) else dumps(shown[name])
            keep = len(text) - (len(line) - self._limit) - 64
            if keep < 32:
                # Not even without most of it: its text is escaped to much more than its length.
                keep = len(text) // 2
            shown[name] = text[-keep:] if name.endswith("stacktrace") and keep else text[:keep]
            shown["truncated"] = cut
            line = dumps(shown)
        return line


def _longest(values: dict[str, Any]) -> str | None:
    sizes = {
        name: len(dumps(value))
        for name, value in values.items()
        if name not in _ENVELOPE and name != "truncated"
    }
    longest = max(sizes, key=sizes.__getitem__, default=None)
    return longest if longest is not None and sizes[longest] > 2 else None


class _Console:
    """Renders a line for a terminal: time, level, message, what else there is, and the traceback below."""

    def __init__(self, *, colored: bool) -> None:
        self._colored = colored

    def __call__(self, _logger: Any, _method: str, values: MutableMapping[str, Any]) -> str:
        now = time.time()
        level = str(values["level"])
        shown = f"{level.upper():<7}"
        if self._colored and level in _LEVEL_COLORS:
            shown = painted(shown, _LEVEL_COLORS[level])
        clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now % 1.0 * 1e3):03d}"
        words = [clock, shown]
        if values["event"] == LOG_MESSAGE_EVENT:
            words.append(f"[{printable(str(values['logger']))}]")
        words.append(_lines(str(values["message"])))
        fields = {**values, **values.get("app", {})}
        blocks = []
        for name, value in fields.items():
            if name in (*_ENVELOPE, "message", "app", "exception_type", "exception_message"):
                continue
            if isinstance(value, str) and "\n" in value:
                blocks.append(_lines(value.rstrip("\n")))
            else:
                words.append(f"{name}={printable(value if isinstance(value, str) else repr(value))}")
        return "\n    ".join([" ".join(words), *blocks])


def _lines(text: str) -> str:
    """Indent all lines but the first, so that none of them can pass for a line of the log."""
    return "\n    ".join(map(printable, text.split("\n")))
