"""Pure: the opening handshake (RFC 6455 4.2), from a request head that is parsed already."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from obsserve.telemetry import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from obsserve.telemetry.catalogue import Ending

Header = tuple[bytes, bytes]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


# RFC 6455 11.3.1 and 11.3.5: once in a request.
_SINGLE: Final = (b"sec-websocket-key", b"sec-websocket-version")


def check_request(
    method: str, http_version: str, fields: dict[bytes, bytes], headers: Sequence[Header]
) -> Ending | None:
    """Return why a request that asks for a WebSocket is refused, or None.

    Args:
        method: must be GET.
        http_version: must be 1.1.
        fields: the request's header fields by lower-case name, the last of each.
        headers: all of them.
    """
    if method != "GET" or http_version != "1.1":
        return catalogue.BAD_UPGRADE
    # RFC 9110 7.8: the new protocol begins behind the request's body. Where one is announced, a proxy that reads on
    # in HTTP and a server that reads frames would not mean the same bytes.
    if fields.get(b"content-length", b"0").strip(b"0") or b"transfer-encoding" in fields:
        return catalogue.BAD_UPGRADE
    if len(fields) != len(headers) and any(
        sum(name == single for name, _ in headers) > 1 for single in _SINGLE
    ):
        return catalogue.BAD_UPGRADE
    if fields.get(b"sec-websocket-version") != b"13":
        return catalogue.UPGRADE_REQUIRED
    try:
        key = base64.b64decode(fields.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        return catalogue.BAD_UPGRADE
    return None if len(key) == 16 else catalogue.BAD_UPGRADE


def accept_key(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept value for a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    import hashlib  # noqa: PLC0415  (OpenSSL's, for the first WebSocket)

    return base64.b64encode(hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest())


def offered_subprotocols(headers: Iterable[Header]) -> list[str]:
    """Return the subprotocols that the client offers, in its order."""
    return [
        name
        for field, value in headers
        if field == b"sec-websocket-protocol"
        for part in value.decode("latin-1").split(",")
        if (name := part.strip())
    ]


def offered_extensions(headers: Iterable[Header]) -> bytes:
    """Return the client's Sec-WebSocket-Extensions fields as one value."""
    return b", ".join(value for name, value in headers if name == b"sec-websocket-extensions")
