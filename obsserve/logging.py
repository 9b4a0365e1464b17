"""Formatters for those who configure logging themselves, in the forms that uvicorn's users know.

The server's own lines need none of this: see `obsserve.telemetry.logging` and `obsserve.telemetry.accesslog`.
"""

from __future__ import annotations

import http
import logging
import sys
from copy import copy
from typing import Any, Final, Literal

TRACE_LOG_LEVEL: Final = 5

_LEVEL_COLORS: Final = {
    TRACE_LOG_LEVEL: "34",
    logging.DEBUG: "36",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "91",
}
_STATUS_COLORS: Final = {1: "97", 2: "32", 3: "33", 4: "31", 5: "91"}
_BOLD: Final = "1"
_LONGEST_LEVEL: Final = len("CRITICAL")


class ColourizedFormatter(logging.Formatter):
    """Knows `%(levelprefix)s`, the level's name with a colon, padded, in its colour.

    A record with `extra={"color_message": ...}` shows that text where colours are on.

    Args:
        fmt: the format, as for `logging.Formatter`.
        datefmt: the format of `%(asctime)s`.
        style: the style of `fmt`.
        use_colors: None asks whether the stream is a terminal.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt=fmt, datefmt=datefmt, style=style)
        self.use_colors = self.should_use_colors() if use_colors is None else use_colors

    def should_use_colors(self) -> bool:
        """Return whether the stream that the lines go to is a terminal."""
        return _is_terminal(sys.stdout)

    def color_level_name(self, level_name: str, level_no: int) -> str:
        return _painted(level_name, _LEVEL_COLORS.get(level_no))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the method that logging calls)
        shown = copy(record)
        name = record.levelname
        padding = " " * (_LONGEST_LEVEL - len(name))
        if self.use_colors:
            name = self.color_level_name(name, record.levelno)
            if hasattr(shown, "color_message"):
                shown.msg = shown.color_message
                shown.message = shown.getMessage()
        shown.levelprefix = f"{name}:{padding}"
        return super().formatMessage(shown)


class DefaultFormatter(ColourizedFormatter):
    """For the server's own messages, which go to stderr."""

    def should_use_colors(self) -> bool:
        return _is_terminal(sys.stderr)


class AccessFormatter(ColourizedFormatter):
    """For records of `obsserve.access`.

    Knows `%(client_addr)s`, `%(request_line)s` and `%(status_code)s`, which come from the record's arguments.
    What else there is of a request stands in `record.obsserve`.
    """

    def get_status_code(self, status_code: int) -> str:
        """Return the status with its phrase, `404 Not Found`, in its colour."""
        try:
            text = f"{status_code} {http.HTTPStatus(status_code).phrase}"
        except ValueError:
            text = f"{status_code} "
        return _painted(text, _STATUS_COLORS.get(status_code // 100) if self.use_colors else None)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (see above)
        shown = copy(record)
        arguments: Any = record.args
        shown.client_addr, method, path, version, status = arguments
        shown.request_line = _painted(f"{method} {path} HTTP/{version}", _BOLD if self.use_colors else None)
        shown.status_code = self.get_status_code(int(status))
        return super().formatMessage(shown)


def _painted(text: str, color: str | None) -> str:
    return text if color is None else f"\x1b[{color}m{text}\x1b[0m"


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False
