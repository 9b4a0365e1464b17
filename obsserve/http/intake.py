"""The reading half of a connection: bytes → parser events → exchanges, and the limits of what is read.

Owns the parser and the message that is being read. Rules: a head is refused for its size if and only if
its exact size breaks a limit, however its bytes were split into reads; each message's bytes are counted as
its own; of a message that has been read nothing is kept.

    BETWEEN ──first byte──▶ HEAD ──empty line──▶ BODY ──last byte──▶ BETWEEN
                             ├──unknown method, not complete yet──▶ METHOD ──┐
                             └──────── whatever is wrong ────────────────────┴──▶ REFUSED

Speed: parser events are methods of the connection because httptools calls them directly; what an ordinary
request does not need happens behind one test of `_reading` (`python -m loadtests.bench hello`).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from obsserve.http.flow import Flow
from obsserve.http.framing import BodyEnd
from obsserve.http.head import (
    LONGEST_METHOD,
    check_duplicates,
    check_framing,
    check_size,
    check_target,
    connection_options,
    head_end,
    head_start,
    is_token,
    read_line,
    read_method,
    split_target,
)
from obsserve.http.parser import UpgradeOffered
from obsserve.telemetry import catalogue

if TYPE_CHECKING:
    from collections import deque

    from obsserve.http.exchange import Exchange
    from obsserve.http.parser import Parser
    from obsserve.http.state import ServerState
    from obsserve.telemetry.catalogue import Ending

# What is being read.
BETWEEN: Final = 0
HEAD: Final = 1
BODY: Final = 2
OFFERED: Final = 3  # a head that offers an upgrade: for the moment in which the parser stops behind it
METHOD: Final = 4  # a method that the parser does not know, and that is not complete yet
REFUSED: Final = 5

_NO_HEADERS: Final[list[tuple[bytes, bytes]]] = []
# Where one of these is wrong, nothing of the request line but its method can be relied on.
_LINE_UNREAD: Final = (catalogue.BAD_REQUEST_LINE, catalogue.URI_TOO_LONG, catalogue.UNKNOWN_METHOD)


class Intake(Flow):
    """What a connection reads; `Connection` adds what it does about it."""

    __slots__ = (
        "_chunk",
        "_chunk_size",
        "_head",
        "_head_began",
        "_headers",
        "_incoming",
        "_mark",
        "_reading",
        "_target",
        "parser",
        "received_bytes",
    )

    parser: Parser
    _queue: deque[Exchange] | None

    def __init__(self, server: ServerState) -> None:
        super().__init__(server)
        self.received_bytes = 0
        self._reading = BETWEEN
        self._incoming: Exchange | None = None
        # The read that is being parsed; it begins with the message, or with the end of an earlier one.
        self._chunk = b""
        self._chunk_size = 0
        # Of received_bytes, where the message that is being read begins.
        self._mark = 0
        self._head = b""  # of a message whose head is not complete: what has come of it
        self._head_began = 0.0
        self._target = b""
        self._headers = _NO_HEADERS

    # --- what the connection adds ------------------------------------------------------------

    def begin_exchange(self, began: float) -> Exchange:
        """Make the exchange of the message that is being read."""
        raise NotImplementedError

    def refuse(self, exchange: Exchange, ending: Ending) -> None:
        """Answer a request with an error of the server's own, in its turn, and close."""
        raise NotImplementedError

    def start(self, exchange: Exchange) -> None:
        """Serve a request now."""
        raise NotImplementedError

    def enqueue(self, exchange: Exchange) -> None:
        """Serve a request in its turn."""
        raise NotImplementedError

    def request_read(self) -> None:
        """Go on: the current exchange ended before its request, and now that is over, too."""
        raise NotImplementedError

    def discard(self, size: int) -> None:
        """Count what nobody wants to read, and stop when it is too much."""
        raise NotImplementedError

    def close(self, reason: str, *, abort: bool = False, unread: bool = False) -> None:
        """Close the connection."""
        raise NotImplementedError

    # --- reads -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.read_at = perf_counter()
        reading = self._reading
        if reading:
            self._read_on(data)
            return
        self._chunk = data  # from here as in _parse, without the call
        self._chunk_size = size = len(data)
        self.received_bytes += size
        try:
            self.parser.feed(data)
        except Exception as error:  # noqa: BLE001 - each parser has its own; diagnose() tells them apart
            self._interrupted(error, data)
        if self._reading:
            self._keep_rest()
        self._chunk = b""

    def _read_on(self, data: bytes) -> None:
        """Read on in a message of an earlier read, or in what nobody wants."""
        reading = self._reading
        if reading == HEAD:
            head, self._head = self._head, b""
            self._parse(data, head + data)
        elif reading == BODY:
            body_end = self._incoming.body_end if self._incoming is not None else None
            end = body_end.find(data) if body_end is not None else -1
            if 0 <= end < len(data):  # what follows is a read of its own, which begins with a message
                self._parse(data[:end], data[:end])
                self.data_received(data[end:])
            else:
                self._parse(data, data)
        else:
            self.received_bytes += len(data)
            if reading == METHOD:
                self._head += data
                self._refuse_method()
            else:
                self.discard(len(data))

    def _parse(self, data: bytes, chunk: bytes) -> None:
        """Feed the parser.

        Args:
            data: what it has not seen.
            chunk: the same, behind what it has seen of an incomplete head.
        """
        self._chunk = chunk
        self._chunk_size = len(chunk)
        self.received_bytes += len(data)
        try:
            self.parser.feed(data)
        except Exception as error:  # noqa: BLE001 - as in data_received
            self._interrupted(error, data)
        if self._reading:
            self._keep_rest()
        self._chunk = b""

    def _keep_rest(self) -> None:
        """Keep what the next read needs to know of a message that is not complete; bound it."""
        server = self.server
        exchange = self._incoming
        if self._reading == HEAD:
            refusal = self._check_size()
            if refusal is None and len(self._headers) > server.limit_request_header_count:
                refusal = catalogue.HEADER_TOO_LARGE
            if refusal is not None:
                self._refuse_head(refusal)
            else:
                self._head = self._chunk[self._message_start() :]
        elif self._reading == BODY and exchange is not None:
            if exchange.body_end is None:
                exchange.body_end = BodyEnd(exchange.fields)
                exchange.body_end.find(self._chunk, head_end(self._chunk, self._message_start()))
            if exchange.body_end.unframed > server.limit_request_headers:
                self.refuse(exchange, catalogue.BAD_CHUNK)

    # --- parser events -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._reading == REFUSED:  # what follows a refused message in the same read
            return
        self._reading = HEAD
        self._head_began = self.read_at
        self._headers = []

    def on_url(self, fragment: bytes) -> None:
        self._target += fragment

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading == HEAD:
            # RFC 9112 5.1: white space behind the value is not part of it; llhttp leaves it there.
            self._headers.append((name.lower(), value.rstrip()))
        elif (
            self._reading == BODY and self._incoming is not None
        ):  # a trailer field: ASGI has no place for it
            exchange = self._incoming
            exchange.trailer_size += len(name) + len(value) + len(": \r\n")
            if exchange.trailer_size > self.server.limit_request_headers:
                self.refuse(exchange, catalogue.BAD_CHUNK)

    def on_headers_complete(self) -> None:
        if self._reading != HEAD:
            return
        server = self.server
        parser = self.parser
        headers = self._headers
        exchange = self.begin_exchange(self._head_began)
        exchange.fields = fields = dict(headers)
        exchange.head_done = self.read_at
        self._reading = BODY
        refusal: Ending | None = None
        method = parser.method()
        if method is None:
            exchange.method = parser.raw_method()
            refusal = catalogue.UNKNOWN_METHOD
        else:
            exchange.method = method
            if method == "HEAD":
                exchange.plain = False
        if (
            method is not None
            and self._mark + self._chunk_size == self.received_bytes  # the message begins the chunk
            and self._chunk.startswith(b" HTTP/1.1\r\n", len(method) + 1 + len(self._target))
        ):
            version = "1.1"  # to look costs less than to have httptools render it anew
        else:
            version = parser.http_version()
        if version != "1.1":
            exchange.http_version = version
            exchange.ordinary = False
            exchange.plain = exchange.keep_alive = False
            if version != "1.0":
                exchange.http_version = ""
                refusal = catalogue.UNSUPPORTED_VERSION
        if self._chunk_size > server.small_head:
            refusal = self._check_size() or refusal
        if len(headers) > server.limit_request_header_count:
            refusal = refusal or catalogue.HEADER_TOO_LARGE
        if refusal is None:
            refusal = self._check_head(exchange, fields, version)
        if refusal is not None:
            if refusal in _LINE_UNREAD:
                exchange.http_version = ""
            self.refuse(exchange, refusal)
            return
        connection = fields.get(b"connection")
        if connection is not None:
            options = connection_options(connection)
            if b"close" in options:
                exchange.keep_alive = exchange.plain = False
            elif version == "1.0" and b"keep-alive" in options:
                exchange.keep_alive = True
        if b"upgrade" in fields and parser.offers_upgrade():
            self._reading = OFFERED  # the parser stops behind the head, see _take_upgrade
            return
        if self.exchange is None:
            self.start(exchange)
        else:
            self.enqueue(exchange)

    def on_body(self, data: bytes) -> None:
        exchange = self._incoming
        if exchange is None or self._reading != BODY:
            return
        if exchange.request_body_size + len(data) > self.server.limit_request_body:
            self.refuse(exchange, catalogue.BODY_TOO_LARGE)
        elif exchange.ending is None:
            exchange.feed(data)
        else:
            self.discard(len(data))

    def on_message_complete(self) -> None:
        exchange = self._incoming
        if self._reading != BODY or exchange is None:
            return
        self._incoming = None
        self._reading = BETWEEN
        self._target = b""
        self._headers = _NO_HEADERS
        received, began = self.received_bytes, self._mark
        self._mark = received
        if exchange.ending is None:
            exchange.request_size = received - began
            exchange.body_complete = True
            exchange.body_done = self.read_at
            if exchange.waiters is not None:
                exchange.waiters.wake()
        else:
            exchange.body_complete = True
            self.request_read()

    # --- the head ----------------------------------------------------------------------------

    def _check_head(self, exchange: Exchange, fields: dict[bytes, bytes], version: str) -> Ending | None:
        """Read target, host and framing into the exchange; return why the request is refused, or None."""
        server = self.server
        authority = None
        target = server.targets[self._target]
        if not target.ordinary or exchange.method == "CONNECT":
            refusal = check_target(exchange.method, self._target)
            if refusal is not None:
                return refusal
            authority = target.authority
        exchange.parts = target
        if len(fields) != len(self._headers):
            refusal = check_duplicates(self._headers)
            if refusal is not None:
                return refusal
            if b"connection" in fields:  # RFC 9110 5.3: the fields of a list are one list
                fields[b"connection"] = b",".join(
                    value for name, value in self._headers if name == b"connection"
                )
        host = fields.get(b"host")
        if host is None:
            if version == "1.1":
                return catalogue.BAD_HOST
        elif host not in server.hosts and not server.hosts.check(host):
            return catalogue.BAD_HOST
        if authority is not None:  # RFC 9112 3.2.2: it replaces Host
            fields[b"host"] = authority
            others = [(name, value) for name, value in self._headers if name != b"host"]
            exchange.request_headers = [(b"host", authority), *others]
        if b"content-length" in fields or b"transfer-encoding" in fields:
            refusal = check_framing(fields, version)
            if refusal is not None:
                return refusal
            if int(fields.get(b"content-length", 0)) > server.limit_request_body:
                return catalogue.BODY_TOO_LARGE
            if fields.get(b"expect", b"").lower() == b"100-continue" and version == "1.1":
                exchange.expect_continue = True
        return None

    def _message_start(self) -> int:
        """Return where in the chunk the message that is being read begins."""
        if self._mark == self.received_bytes:
            self._separate()
        return head_start(self._chunk, max(len(self._chunk) - (self.received_bytes - self._mark), 0))

    def _check_size(self) -> Ending | None:
        """Return which limit the head breaks, complete or not."""
        server = self.server
        return check_size(
            self._chunk, self._message_start(), server.limit_request_line, server.limit_request_headers
        )

    def _separate(self) -> None:
        """Give the message that ended in this read its own bytes; the rest belongs to the next one."""
        if self._mark != self.received_bytes:
            return
        chunk = self._chunk
        last = self._queue[-1] if self._queue else self.exchange
        if last is None or last.ending is not None:  # an eager task has answered already: its size is told
            self._mark -= len(chunk)
            return
        start = head_start(chunk, max(len(chunk) - last.request_size, 0))
        end = BodyEnd(last.fields).find(chunk, head_end(chunk, start))
        behind = len(chunk) - max(end, 0)
        last.request_size -= behind
        self._mark -= behind

    # --- what goes wrong ---------------------------------------------------------------------

    def _interrupted(self, error: Exception, data: bytes) -> None:
        """Act on what stopped the parser."""
        found = self.parser.diagnose(error, data)
        if isinstance(found, UpgradeOffered):
            self._take_upgrade(found.rest)
        elif self._reading == REFUSED:
            pass
        elif self._reading == BODY and self._incoming is not None:
            # Behind the head only chunks and trailer fields are parsed.
            self.refuse(self._incoming, catalogue.BAD_CHUNK)
        elif found is None:  # what follows a request that asked to close
            self._reading = REFUSED
            last = self._queue[-1] if self._queue else self.exchange
            if last is None:
                self.close("negotiated")
            else:  # the parser may be alone in having understood it so: a trailer field, Proxy-Connection
                last.keep_alive = last.plain = False
        elif found is catalogue.UNKNOWN_METHOD:
            self._head = self._chunk[self._message_start() :]
            self._refuse_method()
        else:
            self._refuse_head(found)

    def unread_exchange(self, ending: Ending | None = None) -> Exchange:
        """Make the exchange of a message whose head is not complete, from what has come of it.

        Args:
            ending: what is wrong with it, if anything.
        """
        exchange = self.begin_exchange(self._head_began)
        head, start = (self._chunk, self._message_start()) if self._chunk else (self._head, 0)
        exchange.http_version = ""
        exchange.method = read_method(head, start)
        line = read_line(head, start) if ending not in _LINE_UNREAD else None
        if line is not None:
            exchange.parts = split_target(line[0])
            exchange.http_version = line[1] if line[1] in ("1.0", "1.1") else ""
        return exchange

    def _refuse_head(self, ending: Ending) -> None:
        self.refuse(self.unread_exchange(ending), ending)

    def _refuse_method(self) -> None:
        """Answer 501 to a valid method that nobody knows, 400 to anything else in its place."""
        method, space, _ = self._head.partition(b" ")
        possible = is_token(method) and len(method) <= LONGEST_METHOD
        if possible and not space:
            self._reading = METHOD
            return
        self._reading = HEAD
        self._refuse_head(catalogue.UNKNOWN_METHOD if possible else catalogue.BAD_REQUEST_LINE)

    def _take_upgrade(self, rest: bytes) -> None:
        """Let another protocol take over, or ignore that it was offered (RFC 9110 7.8), the body intact."""
        exchange = self._incoming
        if exchange is None or self._reading != OFFERED:
            return
        self._reading = BODY
        taker = self.server.websocket_taker
        # RFC 9110 7.8: in HTTP/1.0 an offer is ignored.
        if (
            taker is not None
            and exchange.http_version == "1.1"
            and exchange.fields[b"upgrade"].lower() == b"websocket"
        ):
            taker(self, exchange, rest)  # type: ignore[arg-type]  # each intake is a connection
            return
        self.enqueue(exchange)
        framing = (b"content-length", b"transfer-encoding")
        self.parser.decline_upgrade([field for field in exchange.fields.items() if field[0] in framing])
        if rest:
            try:
                self.parser.feed(rest)
            except Exception as error:  # noqa: BLE001 - as in data_received
                self._interrupted(error, rest)
