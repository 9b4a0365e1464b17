"""The parser interface, and its adapter for httptools (fast); that for h11 (everywhere) is in `h11parser.py`.

A parser turns bytes into calls on its `ParserEvents`: message begin, target, each header field, headers
complete, body parts, message complete. It keeps no policy: what is allowed is decided in `head.py`, for
both parsers alike. An adapter only maps its library's complaints to endings and, where the library is
laxer than the other, closes the gap, so that both see the same exchanges in the same bytes.

Differences that remain, none of which moves the boundary of a message:
- Of a malformed request, the cause that is told may differ where a line has several faults.
- httptools refuses a line at its first wrong byte, h11 at some of them only when the line is complete.
- httptools reads RTSP/1.0 and RTSP/1.1 in the place of the version as HTTP of that version.
- h11 refuses a chunk size of more than 20 digits, however many of them are zeros; httptools one that does not
  fit into 64 bits.
- httptools minds Proxy-Connection, and Connection among trailer fields: after a close there it reads no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from obsserve.telemetry import catalogue

try:
    import httptools
except ImportError:  # PyPy and Windows
    httptools: Any = None  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.telemetry.catalogue import Ending

# The methods that llhttp reads as HTTP requests; h11 is held to the same list.
METHODS: Final = {
    name.encode(): name
    for name in (  # noqa: SIM905 - words read better
        "GET HEAD POST PUT DELETE PATCH OPTIONS TRACE CONNECT QUERY "  # RFC 9110, 5789, HTTP QUERY
        "ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND "
        "PROPPATCH PURGE REBIND REPORT SEARCH SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE"
    ).split()
}


class ParserEvents(Protocol):
    """What a parser calls, in this order for each message."""

    def on_message_begin(self) -> None: ...
    def on_url(self, fragment: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class UpgradeOffered(Exception):  # noqa: N818 - an event of the parser, not an error
    """The head asked for another protocol; the bytes after the head are not parsed yet.

    Args:
        rest: what followed the head in the data that was fed.
    """

    def __init__(self, rest: bytes) -> None:
        super().__init__(rest)
        self.rest = rest


class Parser(Protocol):
    """One connection's request parser. `feed` raises one of `errors`, or anything else for a fault."""

    @property
    def feed(self) -> Callable[[bytes], object]: ...

    def method(self) -> str | None:
        """Return the method of the head that is complete; None for one that is not known."""
        ...

    def raw_method(self) -> str: ...

    def http_version(self) -> str: ...

    def offers_upgrade(self) -> bool:
        """Tell whether parsing will stop after this head to let another protocol take over."""
        ...

    def decline_upgrade(self, framing: list[tuple[bytes, bytes]]) -> None:
        """Go on with HTTP after an offered upgrade; `framing` holds the fields that delimit the body."""
        ...

    def diagnose(self, error: Exception, data: bytes) -> Ending | UpgradeOffered | None:
        """Return what a raised error means; None when nothing more will be parsed, and rightly so."""
        ...


# --- httptools --------------------------------------------------------------------------------

# In the order in which they are looked for in llhttp's texts, in lower case.
_DIAGNOSES: Final = (
    ("present with", catalogue.TE_CL_CONFLICT),
    ("transfer-encoding", catalogue.TE_CL_CONFLICT),
    ("content-length", catalogue.LENGTH_CONFLICT),
    ("chunk", catalogue.BAD_CHUNK),
    ("http version", catalogue.UNSUPPORTED_VERSION),
    ("pri/upgrade", catalogue.UNSUPPORTED_VERSION),
    ("invalid method for http", catalogue.UNKNOWN_METHOD),
    ("header", catalogue.BAD_HEADER),
    ("after start line", catalogue.BAD_HEADER),
    ("lf after cr", catalogue.BAD_HEADER),
)


class HttptoolsParser:
    """Adapter for httptools, whose C parser calls the events directly."""

    __slots__ = ("_events", "_parser", "feed")

    def __init__(self, events: ParserEvents) -> None:
        self._events = events
        self._parser = httptools.HttpRequestParser(events)
        self.feed: Callable[[bytes], object] = self._parser.feed_data

    def method(self) -> str | None:
        return METHODS.get(self._parser.get_method())

    def raw_method(self) -> str:
        return str(self._parser.get_method().decode("latin-1"))

    def http_version(self) -> str:
        return str(self._parser.get_http_version())

    def offers_upgrade(self) -> bool:
        return bool(self._parser.should_upgrade())

    def decline_upgrade(self, framing: list[tuple[bytes, bytes]]) -> None:
        # llhttp cannot be told to go on, so a new parser gets a head that only delimits the body.
        events = _BodyFirst(self._events)
        self._parser = httptools.HttpRequestParser(events)
        self.feed = self._parser.feed_data
        lines = b"".join(b"%b: %b\r\n" % field for field in framing)
        self.feed(b"POST / HTTP/1.1\r\n" + lines + b"\r\n")

    def diagnose(self, error: Exception, data: bytes) -> Ending | UpgradeOffered | None:
        if isinstance(error, httptools.HttpParserUpgrade):
            return UpgradeOffered(data[error.args[0] :])
        if isinstance(error, httptools.HttpParserCallbackError) or not isinstance(
            error, httptools.HttpParserError
        ):
            raise error  # a fault of ours, which must not pass for the client's
        text = str(error)
        if text.startswith("Data after"):
            return None
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            return catalogue.UNKNOWN_METHOD
        text = text.lower()
        for words, ending in _DIAGNOSES:
            if words in text:
                return ending
        return catalogue.BAD_REQUEST_LINE


class _BodyFirst:
    """Events for a parser that was given a made-up head: swallows that head, then passes all on."""

    def __init__(self, events: ParserEvents) -> None:
        self._events = events
        self._swallowing = True
        self.on_body = events.on_body
        self.on_message_complete = events.on_message_complete

    def on_message_begin(self) -> None:
        if not self._swallowing:
            self._events.on_message_begin()

    def on_url(self, fragment: bytes) -> None:
        if not self._swallowing:
            self._events.on_url(fragment)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._swallowing:
            self._events.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._swallowing:
            self._swallowing = False
        else:
            self._events.on_headers_complete()


def parser_class(name: object) -> type[Parser]:
    """Return the parser that an `--http` value names; what names none of them parses nothing itself.

    Raises:
        ImportError: httptools is asked for and not installed.
    """
    if name == "h11" or (name == "auto" and httptools is None):
        from obsserve.http.h11parser import H11Parser  # noqa: PLC0415 - h11 is slow to import

        return H11Parser
    if httptools is None:
        raise ImportError('httptools is not installed: use --http h11, or run "pip install httptools"')
    return HttptoolsParser
