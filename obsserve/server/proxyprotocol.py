"""The PROXY protocol, versions 1 and 2: who the client is, told by a proxy before the first byte of HTTP.

`ProxyHeader` owns a fresh connection of a trusted peer until its header is complete, and then gives the
transport to the HTTP connection, or to the TLS handshake in front of it. Rules (the specification is HAProxy's
proxy-protocol.txt): a trusted peer has to send the header, and nobody else is asked for one; not one byte
behind it is read; whatever is wrong closes the connection, is counted
and is told; type-length-value fields are skipped.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from obsserve.http.scope import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.http.connection import Connection
    from obsserve.http.state import ServerState
    from obsserve.telemetry.observer import Address

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V1_START: Final = b"PROXY "
_V1_LIMIT: Final = 107  # bytes, with the line end (2.1)
_V1_SHORTEST: Final = len(b"PROXY UNKNOWN\r\n")
_V2_FIXED: Final = 16
_V2_ADDRESSES: Final = {1: 12, 2: 36, 3: 216}  # by address family: how many bytes two addresses take
_V1_FAMILIES: Final = {"TCP4": 4, "TCP6": 6}


class BadHeader(ValueError):  # noqa: N818 - carries the reason
    """A PROXY protocol header cannot be used.

    Args:
        reason: one of the catalogue's.
        message: what is wrong, for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Endpoints(NamedTuple):
    """The two ends of the connection that the proxy took; None where the proxy speaks for itself."""

    client: Address | None = None
    local: Address | None = None


# --- pure: how much to read, and what it says -------------------------------------------------


def wanted(read: bytes) -> int:
    """Return how many bytes of the header to read next, never more than belong to it; 0 when it is complete.

    Raises:
        BadHeader: this is none.
    """
    if len(read) < _V1_SHORTEST:
        _check_start(read)
        return _V1_SHORTEST - len(read)
    if read.startswith(_V1_START):
        if read.endswith(b"\r\n"):
            return 0
        if len(read) >= _V1_LIMIT:
            raise BadHeader("malformed", "the line of the PROXY header has no end")
        return 1
    _check_start(read)
    if len(read) < _V2_FIXED:
        return _V2_FIXED - len(read)
    if read[12] >> 4 != 2:
        raise BadHeader("unsupported", f"version {read[12] >> 4} of the PROXY protocol is not known")
    return _V2_FIXED + int.from_bytes(read[14:16], "big") - len(read)


def _check_start(read: bytes) -> None:
    if not any(start[: len(read)] == read[: len(start)] for start in (SIGNATURE, _V1_START)):
        raise BadHeader("missing", "the connection does not begin with a PROXY header")


def endpoints(header: bytes) -> Endpoints:
    """Return what a complete header says.

    Raises:
        BadHeader: it breaks the specification.
    """
    return _endpoints_v1(header) if header.startswith(_V1_START) else _endpoints_v2(header)


def _endpoints_v1(header: bytes) -> Endpoints:
    try:
        words = header.removesuffix(b"\r\n").decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise BadHeader("malformed", "the PROXY header is not ASCII") from None
    if words[1] == "UNKNOWN":  # whatever follows is to be ignored (2.1)
        return Endpoints()
    version = _V1_FAMILIES.get(words[1])
    if version is None:
        raise BadHeader("unsupported", f"the PROXY header names the protocol {words[1]!r}")
    if len(words) != 6:
        raise BadHeader("malformed", "the PROXY header has not two addresses and two ports")
    source, destination, source_port, destination_port = words[2:]
    return Endpoints(
        (_ip(source, version), _port(source_port)), (_ip(destination, version), _port(destination_port))
    )


def _ip(text: str, version: int) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or "%" in text:
        raise BadHeader("malformed", f"the PROXY header has {text!r} in the place of an address")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or str(int(text)) != text or int(text) > 65535:
        raise BadHeader("malformed", f"the PROXY header has {text!r} in the place of a port")
    return int(text)


def _endpoints_v2(header: bytes) -> Endpoints:
    command, family, transport = header[12] & 15, header[13] >> 4, header[13] & 15
    if command > 1 or transport > 2 or family > 3:
        raise BadHeader("malformed", "the PROXY header has an unassigned command, family or transport")
    if command == 0 or family == 0 or transport == 0:  # LOCAL or UNSPEC: the connection stands for itself
        return Endpoints()
    if transport == 2:
        raise BadHeader("unsupported", "the PROXY header names datagrams on a stream")
    data = header[_V2_FIXED:]
    if len(data) < _V2_ADDRESSES[family]:
        raise BadHeader("malformed", "the PROXY header is too short for its addresses")
    if family == 3:
        names = [data[start : start + 108].partition(b"\0")[0] for start in (0, 108)]
        return Endpoints(address_of(names[0]), address_of(names[1]))
    size, kind = (4, socket.AF_INET) if family == 1 else (16, socket.AF_INET6)
    ports = [int.from_bytes(data[at : at + 2], "big") for at in (2 * size, 2 * size + 2)]
    return Endpoints(
        (socket.inet_ntop(kind, data[:size]), ports[0]),
        (socket.inet_ntop(kind, data[size : 2 * size]), ports[1]),
    )


# --- the connection before its first byte -----------------------------------------------------


class ProxyHeader(asyncio.BufferedProtocol):
    """Reads the header of one connection, if its peer is trusted, and makes way for HTTP.

    Args:
        state: what all connections share.
        connection: the HTTP connection to come.
        report: told of a bad header: the peer, the reason, a message.
        handshake: takes the transport in the connection's place, for TLS; reads on by itself.
    """

    def __init__(
        self,
        state: ServerState,
        connection: Connection,
        report: Callable[[Address | None, str, str], None],
        handshake: asyncio.BaseProtocol | None = None,
    ) -> None:
        self._state = state
        self._connection = connection
        self._report = report
        self._handshake = handshake
        self._read = b""
        self._buffer = bytearray()
        self._peer: Address | None = None
        self._transport: Any = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._peer = address_of(transport.get_extra_info("peername"))
        if not self._state.trusted_peers.trusts(self._peer):
            self._make_way(Endpoints())
            return
        seconds = self._state.timeout_request_header
        if seconds < float("inf"):
            message = f"the PROXY header is not complete after {seconds:g} seconds"
            self._deadline = self._state.loop.call_later(seconds, self._refuse, "timeout", message)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's hint is larger than the header
        self._buffer = bytearray(wanted(self._read) or 1)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._read += self._buffer[:nbytes]
        try:
            if wanted(self._read) > 0:
                return
            found = endpoints(self._read)
        except BadHeader as bad:
            self._refuse(bad.reason, str(bad))
            return
        self._make_way(found)

    def eof_received(self) -> bool:
        self._refuse("incomplete", "the connection ended before its PROXY header")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:  # a reset; of an orderly end eof_received was told
            self._report(self._peer, "incomplete", "the connection was reset before its PROXY header")
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, reason: str, message: str) -> None:
        """Close the connection, which is counted as every other."""
        self._report(self._peer, reason, message)
        self._stop_timer()
        connection, transport = self._connection, self._transport
        connection.introduce(None, len(self._read))
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.close("protocol_error", abort=True)

    def _make_way(self, found: Endpoints) -> None:
        self._stop_timer()
        connection, transport = self._connection, self._transport
        connection.introduce(found.client, len(self._read))
        if self._handshake is not None:
            self._handshake.connection_made(transport)
            return
        transport.pause_reading()  # so that the loop notices that reads are no longer buffered
        transport.set_protocol(connection)
        connection.connection_made(transport)
        transport.resume_reading()
