"""Pure: what a request head must fulfil (RFC 9112), and how a response head is serialised.

Nothing here keeps state but two bounded caches: response heads and request targets repeat, and
serialising or splitting them anew costs more than everything else in a small exchange.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from obsserve.http.framing import TOKEN, forbids_length, has_no_body
from obsserve.telemetry import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from obsserve.telemetry.catalogue import Ending

Header = tuple[bytes, bytes]

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

_TOKEN: Final = re.compile(TOKEN)
# A method token longer than this is no method (the longest registered one has 17 letters).
LONGEST_METHOD: Final = 32
# RFC 9112 2.2: empty lines before the request line are skipped.
_EMPTY_LINES: Final = re.compile(rb"[\r\n]*")
# RFC 9112 3; several spaces pass, as they do with llhttp.
_METHOD_SENT: Final = re.compile(b"(" + TOKEN + b") ")
_REQUEST_LINE: Final = re.compile(b"(" + TOKEN + rb") +([\x21-\x7e]+) +HTTP/([0-9]\.[0-9])")
# RFC 3986 3.2.2 with underscores, which ordinary host names in clusters have; user-info is not allowed.
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9\-._~]+)?\])(?::[0-9]*)?"
)
# RFC 9110 5.5: what would end the field or the message.
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\x00\r\n]")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

# Fields of which a second one makes the message ambiguous.
_SINGLE: Final = frozenset((b"host", b"content-length", b"transfer-encoding"))


class BadResponseError(RuntimeError):
    """The application's response start cannot be put on the wire."""


class Target:
    """A request target, split. `raw_path` is as on the wire, `path` is decoded.

    `ordinary`: an origin-form without a fragment, which needs no further check.
    """

    __slots__ = ("authority", "ordinary", "path", "query_string", "raw_path")

    def __init__(
        self, path: str, raw_path: bytes, query_string: bytes, authority: bytes | None, ordinary: bool
    ) -> None:
        self.path: Final = path
        self.raw_path: Final = raw_path
        self.query_string: Final = query_string
        self.authority: Final = authority
        self.ordinary: Final = ordinary


class TargetCache(dict[bytes, Target]):
    """Request target → its parts, for the targets seen last.

    Bounded by count and key size: a client that never repeats itself costs nothing but the look-up.
    """

    MAX_ENTRIES: Final = 1024
    MAX_KEY: Final = 256

    def __missing__(self, target: bytes) -> Target:
        split = split_target(target)
        if len(target) <= self.MAX_KEY:
            if len(self) >= self.MAX_ENTRIES:
                self.clear()
            self[target] = split
        return split


def split_target(target: bytes) -> Target:
    """Split an origin-form, absolute-form or asterisk-form target (RFC 9112 3.2)."""
    authority = None
    ordinary = target[:1] == b"/" and b"#" not in target
    if target[:1] != b"/" and (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        authority, target = absolute.groups()
        authority = authority.rpartition(b"@")[2]  # user-info must not reach the log or the application
        if target[:1] != b"/":
            target = b"/" + target
    raw_path, _, query_string = target.partition(b"?")
    path = raw_path.decode("latin-1")
    return Target(unquote(path) if "%" in path else path, raw_path, query_string, authority, ordinary)


def check_target(method: str, target: bytes) -> Ending | None:
    """Return why the target's form is refused (RFC 9112 3.2), or None."""
    if method == "CONNECT":
        return catalogue.UNKNOWN_METHOD  # an origin server has nothing to tunnel to
    if target[:1] == b"/":
        return catalogue.BAD_REQUEST_LINE if b"#" in target else None
    if target == b"*":
        return None if method == "OPTIONS" else catalogue.BAD_REQUEST_LINE
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or b"#" in target:
        return catalogue.BAD_REQUEST_LINE
    host = absolute[1].rpartition(b"@")[2]
    # RFC 9110 4.2.1: a URI with an empty host is invalid.
    return None if _is_host(host) and host[:1] not in (b"", b":") else catalogue.BAD_REQUEST_LINE


def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


class HostCache(set[bytes]):
    """Host values that passed, so that a service's few names are matched once."""

    MAX_ENTRIES: Final = 256
    MAX_KEY: Final = 256

    def check(self, value: bytes) -> bool:
        if not _is_host(value.rstrip(b" \t")):
            return False
        if len(value) <= self.MAX_KEY:
            if len(self) >= self.MAX_ENTRIES:
                self.clear()
            self.add(value)
        return True


def head_start(data: bytes, start: int = 0) -> int:
    """Return where the request line begins, behind the empty lines that may stand before it."""
    return _EMPTY_LINES.match(data, start).end()  # type: ignore[union-attr]  # it matches nothing, too


def head_end(data: bytes, start: int) -> int:
    """Return the index behind the head that begins at `start`, that of the end if it is not complete."""
    end = data.find(b"\r\n\r\n", start)
    return end + 4 if end >= 0 else len(data)


def check_size(head: bytes, start: int, line_limit: int, fields_limit: int) -> Ending | None:
    """Return which limit a head breaks by its exact size, as soon as that is certain, or None.

    Args:
        head: holds the head, or as much of it as has come.
        start: where its request line begins.
        line_limit: the longest request line in bytes, with its line end.
        fields_limit: the most bytes of header fields, with their line ends.
    """
    line_end = head.find(b"\n", start) + 1
    if not line_end:  # at least one more byte belongs to the line
        if len(head) - start < line_limit:
            return None
        return catalogue.URI_TOO_LONG if b" " in head[start:] else catalogue.BAD_REQUEST_LINE
    if line_end - start > line_limit:
        return catalogue.URI_TOO_LONG
    fields_end = head.find(b"\r\n\r\n", line_end - 2) + 2
    if fields_end < 2:
        fields_end = len(head) - 2  # the last two may belong to the empty line
    return catalogue.HEADER_TOO_LARGE if fields_end - line_end > fields_limit else None


def read_method(head: bytes, start: int) -> str:
    """Return the method of a head that a parser has not finished, empty if it is not there or no token."""
    method = _METHOD_SENT.match(head, start)
    return method[1].decode() if method is not None and len(method[1]) <= LONGEST_METHOD else ""


def read_line(head: bytes, start: int) -> tuple[bytes, str] | None:
    """Return target and version of a head that a parser has not finished, None if they are not there."""
    line = _REQUEST_LINE.match(head, start)
    return (line[2], line[3].decode()) if line is not None else None


def check_duplicates(headers: Iterable[Header]) -> Ending | None:
    """Return why a repeated field is refused (RFC 9112 3.2, 6.3), or None."""
    seen: dict[bytes, bytes] = {}
    for name, _ in headers:
        if name in _SINGLE:
            if name in seen:
                if name == b"host":
                    return catalogue.BAD_HOST
                return catalogue.LENGTH_CONFLICT if name == b"content-length" else catalogue.TE_CL_CONFLICT
            seen[name] = name
    return None


def check_framing(fields: dict[bytes, bytes], version: str) -> Ending | None:
    """Return why the message's length cannot be trusted (RFC 9112 6.1 to 6.3), or None."""
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is not None:
        if length is not None or version != "1.1":
            return catalogue.TE_CL_CONFLICT
        codings = [part.strip(b" \t").lower() for part in coding.split(b",")]
        if codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
            return catalogue.TE_CL_CONFLICT
        if len(codings) > 1:
            return catalogue.UNKNOWN_TRANSFER_CODING
    elif length is not None:
        length = length.strip(b" \t")
        if not length.isdigit() or len(length) > 19:  # more does not fit into 64 bits
            return catalogue.LENGTH_CONFLICT
    return None


def is_token(value: bytes) -> bool:
    return _TOKEN.fullmatch(value) is not None


def connection_options(value: bytes) -> list[bytes]:
    """Return the lower-case options of a Connection field (RFC 9110 7.6.1)."""
    return [option.strip().lower() for option in value.split(b",")]


class ResponseHead:
    """A serialised response head without its framing field and final empty line.

    `complete` is the whole head for an ordinary response of the announced length, `open` the same without the
    empty line at its end; `complete_length` is that length, None when there is no such response. `content_length` is what the application announced, None
    when it left that to the server. `close`: the application asked for the connection to be closed.
    `identified`: it carries the request's id, put there by the application.
    """

    __slots__ = (
        "close",
        "complete",
        "complete_length",
        "content_length",
        "event_stream",
        "headers",
        "identified",
        "open",
        "start",
        "status",
    )

    def __init__(
        self,
        *,
        status: int,
        headers: tuple[Header, ...],
        start: bytes,
        complete: bytes,
        open: bytes,  # noqa: A002  (the opposite of complete)
        complete_length: int | None,
        content_length: int | None,
        close: bool,
        event_stream: bool,
        identified: bool,
    ) -> None:
        self.status: Final = status
        self.headers: Final = headers
        self.start: Final = start
        self.complete: Final = complete
        self.open: Final = open
        self.complete_length: Final = complete_length
        self.content_length: Final = content_length
        self.close: Final = close
        self.event_stream: Final = event_stream
        self.identified: Final = identified


class HeadCache(dict[tuple[object, ...], ResponseHead]):
    """Response heads of the current second, keyed by status and header list.

    The server clears it whenever the Date changes. Bounded by count and by the size of an entry.
    """

    MAX_ENTRIES: Final = 512
    MAX_SIZE: Final = 2048

    def remember(self, key: tuple[object, ...], head: ResponseHead) -> None:
        if len(head.start) <= self.MAX_SIZE:
            if len(self) >= self.MAX_ENTRIES:
                self.clear()
            self[key] = head


def status_line(status: int) -> bytes:
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def serialise_head(
    status: int,
    headers: Sequence[Any],
    default_headers: list[Header],
    date: bytes,
    id_name: bytes | None = None,
) -> ResponseHead:
    """Serialise a response head.

    Args:
        status: 200 to 999, or the 101 of a WebSocket.
        headers: the application's (name, value) pairs.
        default_headers: sent unless the application sends a field of that name.
        date: the value of the Date field, empty to send none.
        id_name: the field in which a request's id is sent back; the application's own stands.

    Raises:
        BadResponseError: what the application sent cannot be put on the wire.
    """
    if not isinstance(status, int) or not (200 <= status <= 999 or status == 101):
        raise BadResponseError(f"status must be an integer from 200 to 999, not {status!r}")
    status = int(status)  # it may be an HTTPStatus
    lines: list[bytes] = []
    names: set[bytes] = set()
    content_length: int | None = None
    close = event_stream = False
    for name, value in map(_checked, headers):
        if name == b"content-length":
            if not value.isdigit() or (content_length is not None and int(value) != content_length):
                raise BadResponseError(f"response header content-length: {value!r} is no valid length")
            content_length = int(value)
            continue
        if name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise BadResponseError(
                    f"response header transfer-encoding: {value!r} is the server's to choose"
                )
            continue
        if name == b"connection":
            close = close or b"close" in connection_options(value)
            continue
        if name == b"content-type":
            event_stream = value.lower().startswith(b"text/event-stream")
        names.add(name)
        lines.append(b"%b: %b\r\n" % (name, value))
    start = [status_line(status)]
    if date and b"date" not in names:
        start.append(b"date: %b\r\n" % date)
    start += [b"%b: %b\r\n" % pair for pair in default_headers if pair[0] not in names]
    if forbids_length(status):
        content_length = None
    joined = b"".join(start + lines)
    unended = b"%bcontent-length: %d\r\n" % (joined, content_length or 0)
    # A 304 tells the length of a body that it does not have.
    complete_length = None if has_no_body("GET", status) else content_length
    return ResponseHead(
        status=status,
        headers=tuple((name, value) for name, value in headers),
        start=joined,
        complete=unended + b"\r\n",
        open=unended,
        complete_length=complete_length,
        content_length=content_length,
        close=close,
        event_stream=event_stream,
        identified=id_name in names,
    )


def _checked(header: Any) -> Header:
    """Return a response header with its name in lower case.

    Raises:
        BadResponseError: it is no pair of bytes, or would end the field or the message.
    """
    try:
        name, value = header
    except (TypeError, ValueError):
        raise BadResponseError(f"response header {header!r} is no pair of name and value") from None
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise BadResponseError(f"response header {name!r}: name and value must be bytes")
    name = name.lower()
    if not is_token(name) or _FORBIDDEN_IN_VALUE.search(value) is not None:
        raise BadResponseError(f"response header {name!r}: forbidden byte in name or value")
    return name, value
