"""Pure: how a body is delimited (RFC 9112 6): which way a response's is, and where a request's ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# The framings. LENGTH: content-length. CHUNKED: chunked coding. CLOSE: until the connection closes
# (HTTP/1.0 without a length). NONE: this response has no body by definition.
LENGTH: Final = 0
CHUNKED: Final = 1
CLOSE: Final = 2
NONE: Final = 3

# RFC 9110 5.6.2
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

LAST_CHUNK: Final = b"0\r\n\r\n"


def has_no_body(method: str, status: int) -> bool:
    """Tell whether a response has no body whatever its head says (RFC 9112 6.3)."""
    return method == "HEAD" or status in (204, 304)


def forbids_length(status: int) -> bool:
    """Tell whether Content-Length must not be sent (RFC 9110 8.6)."""
    return status == 204


def choose(method: str, status: int, http_version: str, length: int | None) -> int:
    """Return the framing of a response.

    Args:
        method: the request's method.
        status: the response's status.
        http_version: the request's version, 1.0 or 1.1.
        length: the length of the body in bytes where it is known.
    """
    if has_no_body(method, status):
        return NONE
    if length is not None:
        return LENGTH
    return CHUNKED if http_version == "1.1" else CLOSE


def encode_chunk(data: bytes) -> bytes:
    """Return one chunk; `data` must not be empty, an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


# RFC 9112 7.1.1. Extensions are ignored, but have to be some: names and values as llhttp reads them, which lets a
# name be empty in front of what follows it.
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION: Final = b";(?:" + TOKEN + b"|(?=[=;]))(?:=(?:" + TOKEN + b"|" + _QUOTED + b")?)?"
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:" + _EXTENSION + rb")*\r")
_TRAILER_LINE: Final = re.compile(TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r")
# The size of a chunk that is malformed: nothing ends behind it.
_ENDLESS: Final = 1 << 62


class BodyEnd:
    """Finds where a request body ends in the bytes of its connection (RFC 9112 6.3, 7.1).

    A parser tells that a message is complete, not at which byte it was.

    Args:
        fields: the request's header fields.
    """

    __slots__ = ("_behind_data", "_chunked", "_in_trailer", "_line", "_skip", "_trailer_size", "malformed")

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._chunked = b"transfer-encoding" in fields
        self._skip = 0 if self._chunked else int(fields.get(b"content-length", 0))
        self._line = b""
        self._behind_data = self._in_trailer = False
        self._trailer_size = 0
        # A line was none that may stand there, among them one that ends with a bare LF.
        self.malformed = False

    @property
    def unframed(self) -> int:
        """How many bytes have come that are no body: of a chunk extension, or of the trailer.

        Not counted is a CR that may begin the empty line at the end.
        """
        return len(self._line.rstrip(b"\r")) + self._trailer_size

    def find(self, data: bytes, start: int = 0) -> int:
        """Return the index behind the body's last byte, -1 if it goes on behind `data`.

        Args:
            data: the bytes that follow those of the call before.
            start: where in them to begin.
        """
        while True:
            start += self._skip
            self._skip = max(start - len(data), 0)
            if self._skip:
                return -1
            if not self._chunked:
                return start
            line_end = data.find(b"\n", start)
            if line_end < 0:
                self._line += data[start:]
                return -1
            line, self._line = self._line + data[start:line_end], b""
            start = line_end + 1
            if self._in_trailer and line == b"\r":
                return start
            self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self._trailer_size += len(line) + len(b"\n")
            well_formed = _TRAILER_LINE.fullmatch(line) is not None
        elif self._behind_data:
            self._behind_data = False
            well_formed = line == b"\r"
        else:
            size = _CHUNK_LINE.fullmatch(line)
            well_formed = size is not None
            self._skip = int(size[1], 16) if size is not None else 0
            self._behind_data = bool(self._skip)
            self._in_trailer = not self._skip
        if not well_formed:
            self.malformed = True
            self._skip = _ENDLESS
