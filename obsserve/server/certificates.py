"""Pure: what certificates say, as the ASGI `tls` extension and the metrics tell it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
# RFC 4514 section 3; what is not in its table is written by its object identifier, as other programs do.
_SHORT_NAMES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
    "emailAddress": "1.2.840.113549.1.9.1",
    "serialNumber": "2.5.4.5",
    "surname": "2.5.4.4",
    "givenName": "2.5.4.42",
    "title": "2.5.4.12",
    "postalCode": "2.5.4.17",
}
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0x17, 0x18


def extension(
    tls: ssl.SSLObject, server_certificate: str | None, suites: Mapping[str, int]
) -> dict[str, Any]:
    """Return the ASGI `tls` extension of a connection (asgiref, specs/tls.rst).

    Args:
        tls: after its handshake.
        server_certificate: PEM.
        suites: the IANA numbers of cipher suites by OpenSSL's name.
    """
    cipher = tls.cipher()
    chain = [ssl.DER_cert_to_PEM_cert(certificate) for certificate in _client_chain(tls)]
    return {
        "server_cert": server_certificate,
        "client_cert_chain": chain,
        "client_cert_name": distinguished_name(tls.getpeercert() or {}) if chain else None,
        # A certificate that does not verify ends the handshake, so no request can tell of one.
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(tls.version() or ""),
        "cipher_suite": suites.get(cipher[0]) if cipher is not None else None,
    }


def _client_chain(tls: ssl.SSLObject) -> list[bytes]:
    leaf = tls.getpeercert(binary_form=True)
    if not leaf:
        return []
    whole = getattr(tls, "get_unverified_chain", None)  # Python 3.13, where it fails if there is none
    return [leaf] if whole is None else list(whole())


def distinguished_name(certificate: Mapping[str, Any]) -> str:
    """Return the subject of `getpeercert()` as RFC 4514 writes it: the last relative name first."""
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(name, name)}={_escaped(value)}" for name, value in relative)
        for relative in reversed(certificate.get("subject", ()))
    )


def _escaped(value: str) -> str:
    """Escape a value (RFC 4514 2.4)."""
    text = "".join("\\" + character if character in '\\",+;<>' else character for character in value)
    text = text.replace("\0", "\\00")
    if text.startswith((" ", "#")):
        text = "\\" + text
    if value.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return text


def validity(context: ssl.SSLContext) -> tuple[str | None, float | None]:
    """Return the certificate that a context serves, PEM, and when it expires, in epoch seconds.

    A handshake in memory asks for it: only so it is what clients get, wherever the context has it from.
    """
    served = _served(context)
    if served is None:
        return None, None
    try:
        return ssl.DER_cert_to_PEM_cert(served), not_after(served)
    except (ValueError, IndexError):
        return ssl.DER_cert_to_PEM_cert(served), None


def _served(context: ssl.SSLContext) -> bytes | None:
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_mode = ssl.CERT_NONE
    asking.set_ciphers("ALL:@SECLEVEL=0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except (ssl.SSLError, OSError):
            break
    try:
        return client.getpeercert(binary_form=True)
    except ValueError:  # the handshake came not far enough: TLS 1.2 that wants a client certificate
        return None


def not_after(certificate: bytes) -> float:
    """Return when a DER certificate expires, in epoch seconds (RFC 5280 4.1.2.5).

    Raises:
        ValueError: it is no certificate.
    """
    (outer,) = (body for tag, body in _elements(certificate) if tag == _SEQUENCE)
    fields = [body for tag, body in _elements(next(_elements(outer))[1]) if tag == _SEQUENCE]
    # signature, issuer, validity: the version and the serial number before them are no sequences.
    tag, moment = list(_elements(fields[2]))[1]
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("the validity of the certificate holds no time")
    digits = moment.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and contents of each element of DER (X.690 8.1)."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length >= 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[position : position + octets], "big")
            position += octets
        yield tag, data[position : position + length]
        position += length
