"""permessage-deflate (RFC 7692) for wsproto: what is agreed, and a message that never inflates past its limit.

wsproto's own extension inflates whatever arrives, forgets that a message is compressed when a ping stands
between its fragments, and raises for offers that it cannot read.

Owns, for each direction, the zlib state that messages share, and of the message that is being read whether it
is compressed and how long it has become.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME: Final = "permessage-deflate"
# uvicorn's parameters: 4 KiB windows hold the memory of a connection near 16 KiB.
WINDOW_BITS: Final = 12
_MEMORY_LEVEL: Final = 5
# zlib's raw deflate knows no window of 8 bits.
_BITS: Final = {str(bits): bits for bits in range(9, 16)}
# What RFC 7692 7.2.1 leaves out at the end of a message.
_TAIL: Final = b"\x00\x00\xff\xff"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The parameters of one connection (RFC 7692 7.1).

    Args:
        server_bits: of the window of what the server compresses.
        client_bits: likewise, of the client; 15 when the client did not say that it can do with less.
        server_forgets: the server begins each message with an empty window.
        client_forgets: likewise, the client.
    """

    server_bits: int = WINDOW_BITS
    client_bits: int = 15
    server_forgets: bool = False
    client_forgets: bool = False

    @classmethod
    def with_offer(cls, parameters: Iterable[str]) -> Self | None:
        """Return what an offer with these parameters comes to; None when it must be declined."""
        given: dict[str, str | None] = {}
        for parameter in parameters:
            name, equals, value = parameter.partition("=")
            name = name.strip().lower()
            if name in given:
                return None
            given[name] = value.strip().strip('"') if equals else None
        forgets = [
            given.pop(name, "") for name in ("server_no_context_takeover", "client_no_context_takeover")
        ]
        server = given.pop("server_max_window_bits", "15")
        client = given.pop("client_max_window_bits", "")
        if given or any(forgets) or server not in _BITS or (client and client not in _BITS):
            return None
        return cls(
            server_bits=min(_BITS[server], WINDOW_BITS),
            client_bits=15 if client == "" else min(_BITS[client or "15"], WINDOW_BITS),
            server_forgets=forgets[0] is None,
            client_forgets=forgets[1] is None,
        )

    def answer(self) -> str:
        """Return the response's Sec-WebSocket-Extensions."""
        parts = [NAME, f"server_max_window_bits={self.server_bits}"]
        if self.client_bits < 15:  # only clients that offer to may be asked
            parts.append(f"client_max_window_bits={self.client_bits}")
        if self.server_forgets:
            parts.append("server_no_context_takeover")
        if self.client_forgets:
            parts.append("client_no_context_takeover")
        return "; ".join(parts)


def agree(offer: str) -> Agreement | None:
    """Return what the first offer that can be taken comes to; None when there is none.

    Args:
        offer: the request's Sec-WebSocket-Extensions.
    """
    for part in offer.split(","):
        name, *parameters = part.split(";")
        if name.strip().lower() == NAME:
            agreement = Agreement.with_offer(parameters)
            if agreement is not None:
                return agreement
    return None


class BoundedDeflate(Extension):
    """The extension of one connection.

    Args:
        agreement: its parameters.
        compress_from: shorter messages are sent as they are.
    """

    name = NAME

    def __init__(self, agreement: Agreement, compress_from: int) -> None:
        self.max_size = 0  # of a message; the codec's
        self._agreement = agreement
        self._compress_from = compress_from
        self._inflater: Any = None
        self._deflater: Any = None
        self._compressed = self._control = False
        self._size = 0

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        """Offer nothing: this is the server's side."""
        return False

    def frame_inbound_header(
        self,
        proto: Any,  # noqa: ARG002 - wsproto's form, here and below
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,  # noqa: ARG002
    ) -> CloseReason | RsvBits:
        self._control = opcode.iscontrol()
        if rsv.rsv1 and (self._control or opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR
        if not self._control and opcode is not Opcode.CONTINUATION:
            self._compressed = rsv.rsv1
            self._size = 0
            if self._compressed and self._inflater is None:
                self._inflater = zlib.decompressobj(-self._agreement.client_bits)
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes | CloseReason:  # noqa: ARG002
        return data if self._control or not self._compressed else self._inflate(data)

    def frame_inbound_complete(self, proto: Any, fin: bool) -> bytes | CloseReason | None:  # noqa: ARG002
        if self._control or not self._compressed or not fin:
            return None
        data = self._inflate(_TAIL)
        if self._agreement.client_forgets:
            self._inflater = None
        return data

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        room = self.max_size - self._size
        try:
            inflated: bytes = self._inflater.decompress(data, room + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        if len(inflated) > room:
            return CloseReason.MESSAGE_TOO_BIG
        self._size += len(inflated)
        return inflated

    def frame_outbound(
        self,
        proto: Any,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        data: bytes,
        fin: bool,  # noqa: ARG002 - each message is one frame
    ) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol() or len(data) < self._compress_from:
            return rsv, data
        deflater = self._deflater
        if deflater is None:
            deflater = zlib.compressobj(wbits=-self._agreement.server_bits, memLevel=_MEMORY_LEVEL)
        compressed = (deflater.compress(bytes(data)) + deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]
        self._deflater = None if self._agreement.server_forgets else deflater
        return RsvBits(True, rsv.rsv2, rsv.rsv3), compressed
