"""The h11 adapter, for wherever httptools is not; imported only when it is used, because h11 is slow to import."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import h11

from obsserve.http.framing import TOKEN, BodyEnd
from obsserve.http.head import connection_options
from obsserve.http.parser import METHODS, UpgradeOffered
from obsserve.telemetry import catalogue

if TYPE_CHECKING:
    from obsserve.http.parser import ParserEvents
    from obsserve.telemetry.catalogue import Ending

# The adapter reads the head line by line, so that its first wrong line is refused when it is there, as
# llhttp does; h11 is given what delimits the body, and reads that.
_PARTIAL_LINE: Final = re.compile(rb"[^ ]+ +(?:[\x21-\x7e]+(?: +[\x21-\x7e]*\r?|\r)?)?")
# RFC 9112 3, or HTTP/0.9's without a version, which is refused for just that.
_LINE: Final = re.compile(rb"[^ ]+ +([\x21-\x7e]+)(?: +HTTP/([0-9]\.[0-9]))?\r\n")
_TARGET_START: Final = re.compile(rb"/|\*|[A-Za-z]+://")
# RFC 9110 5.1 and 5.5; no white space before the colon, no folding (RFC 9112 5.1, 5.2).
_FIELD: Final = re.compile(b"(" + TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n")
_PARTIAL_FIELD: Final = re.compile(b"(?:" + TOKEN + rb"(?::[\t\x20-\x7e\x80-\xff]*)?)?\r?")
# Larger than any limit of ours: sizes are the connection's business.
_UNLIMITED: Final = 1 << 31


class RefusedHead(Exception):  # noqa: N818 - carries the ending
    """The head is refused before h11 sees it."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.detail)
        self.ending = ending


class DataAfterCloseError(Exception):
    """The client goes on after a request that it said would be its last."""


class H11Parser:
    """Adapter for h11: one `h11.Connection` for each message, since only its reading half is used."""

    def __init__(self, events: ParserEvents) -> None:
        self._events = events
        self._closed = False
        self._line = b""
        self._reset()

    def _reset(self) -> None:
        self._begun = self._offered = self._is_last = False
        self._target_told = 0
        self._method: bytes = b""
        self._version = ""
        self._fields: list[tuple[bytes, bytes]] = []
        self._reader: Any = None
        self._body_end: BodyEnd | None = None

    def method(self) -> str | None:
        return METHODS.get(self._method)

    def raw_method(self) -> str:
        return self._method.decode("latin-1")

    def http_version(self) -> str:
        return self._version

    def offers_upgrade(self) -> bool:
        return self._offered

    def decline_upgrade(self, framing: list[tuple[bytes, bytes]]) -> None:  # noqa: ARG002 - it is known
        self._offered = False
        self._read_body(b"")

    def diagnose(self, error: Exception, data: bytes) -> Ending | UpgradeOffered | None:  # noqa: ARG002
        if isinstance(error, UpgradeOffered):
            return error
        if isinstance(error, RefusedHead):
            return error.ending
        if isinstance(error, DataAfterCloseError):
            return None
        if not isinstance(error, h11.RemoteProtocolError):
            raise error  # a fault of ours, which must not pass for the client's
        return catalogue.BAD_CHUNK

    def feed(self, data: bytes) -> None:
        while data:
            data = self._read_head(data) if self._reader is None else self._read_body(data)

    def _read_head(self, data: bytes) -> bytes:
        """Read the lines of the head; return what follows it."""
        data, self._line = self._line + data, b""
        if not self._begun:
            data = data.lstrip(b"\r\n")  # RFC 9112 2.2: empty lines before the request line
            if not data:
                return b""
            if self._closed:
                raise DataAfterCloseError
            self._begun = True
            self._events.on_message_begin()
        start = 0
        while self._reader is None:
            end = data.find(b"\n", start) + 1
            if not end:
                self._line = data[start:]
                self._check_partial(self._line)
                return b""
            line, start = data[start:end], end
            if not self._version:
                self._read_line(line)
            elif line != b"\r\n":
                self._read_field(line)
            else:
                self._complete_head(data[start:])
        return data[start:]

    def _check_partial(self, line: bytes) -> None:
        """Refuse a line that is wrong already."""
        if self._version:
            if _PARTIAL_FIELD.fullmatch(line) is None:
                raise RefusedHead(catalogue.BAD_HEADER)
            return
        self._method, space, rest = line.partition(b" ")
        self._check_method(self._method, complete=bool(space))
        if space and _PARTIAL_LINE.fullmatch(line) is None:
            raise RefusedHead(catalogue.BAD_REQUEST_LINE)
        target = rest.lstrip(b" ").partition(b" ")[0].rstrip(b"\r")
        self._check_target(target, complete=False)
        self._tell_target(target)

    def _check_method(self, method: bytes, *, complete: bool) -> None:
        if method in METHODS if complete else any(known.startswith(method) for known in METHODS):
            return
        if complete and method == b"PRI":  # HTTP/2's preface
            raise RefusedHead(catalogue.UNSUPPORTED_VERSION)
        if complete or not b"PRI".startswith(method):
            raise RefusedHead(catalogue.UNKNOWN_METHOD)

    def _check_target(self, target: bytes, *, complete: bool) -> None:
        if self._method == b"CONNECT" or _TARGET_START.match(target) is not None:
            return
        scheme, colon, slashes = target.partition(b":")
        if complete or (scheme and not scheme.isalpha()) or (colon and not b"//".startswith(slashes)):
            raise RefusedHead(catalogue.BAD_REQUEST_LINE)

    def _read_line(self, line: bytes) -> None:
        method, space, _ = line.partition(b" ")
        self._check_method(method, complete=bool(space))
        self._method = method
        match = _LINE.fullmatch(line)
        if match is None:
            raise RefusedHead(catalogue.BAD_REQUEST_LINE)
        self._check_target(match[1], complete=True)
        self._version = match[2].decode() if match[2] is not None else "0.9"
        if self._version not in ("0.9", "1.0", "1.1", "2.0"):  # the last is refused with the whole head
            raise RefusedHead(catalogue.UNSUPPORTED_VERSION)
        self._tell_target(match[1])

    def _tell_target(self, target: bytes) -> None:
        """Tell what is new of the target."""
        if len(target) > self._target_told:
            self._events.on_url(target[self._target_told :])
            self._target_told = len(target)

    def _read_field(self, line: bytes) -> None:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise RefusedHead(catalogue.BAD_HEADER)
        self._fields.append((match[1].lower(), match[2].rstrip(b" \t")))
        self._events.on_header(match[1], match[2])

    def _complete_head(self, rest: bytes) -> None:
        """Tell of the complete head, and let h11 read on."""
        options = {
            option
            for name, value in self._fields
            if name == b"connection"
            for option in connection_options(value)
        }
        self._is_last = b"close" in options or (self._version == "1.0" and b"keep-alive" not in options)
        upgrades = any(name == b"upgrade" for name, _ in self._fields)
        self._offered = (upgrades and b"upgrade" in options) or self._method == b"CONNECT"
        framing = [field for field in self._fields if field[0] in (b"content-length", b"transfer-encoding")]
        self._fields = []
        self._body_end = BodyEnd(dict(framing)) if b"transfer-encoding" in dict(framing) else None
        self._reader = h11.Connection(h11.SERVER, max_incomplete_event_size=_UNLIMITED)
        # Target and version are judged already; a POST with a Host is what h11 has nothing against.
        lines = b"".join(b"%b: %b\r\n" % field for field in framing)
        self._reader.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n")
        self._events.on_headers_complete()
        self._reader.next_event()  # raises where the framing is wrong, which has been refused by now
        if self._offered:
            raise UpgradeOffered(rest)
        if not rest:
            self._read_body(b"")

    def _read_body(self, data: bytes) -> bytes:
        """Pass on what h11 makes of the bytes; return what belongs to the next message."""
        if data:
            if self._body_end is not None:  # h11 is laxer: above all, it lets a bare LF end a trailer
                self._body_end.find(data)
                if self._body_end.malformed:
                    raise RefusedHead(catalogue.BAD_CHUNK)
            self._reader.receive_data(data)
        while True:
            event = self._reader.next_event()
            if isinstance(event, h11.Data):
                self._events.on_body(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                for name, value in event.headers:
                    if name in (b"content-length", b"transfer-encoding"):
                        raise RefusedHead(catalogue.BAD_CHUNK)  # as llhttp; RFC 9110 6.5.1 forbids them
                    self._events.on_header(name, value)
                rest = bytes(self._reader.trailing_data[0])
                self._closed = self._is_last
                self._reset()
                self._events.on_message_complete()
                return rest
            else:  # NEED_DATA
                return b""
