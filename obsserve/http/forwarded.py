"""Pure: who the client is, and what it asked for, by the forwarding headers of trusted proxies.

Only headers that the options name are read, and only those of a trusted peer. A value that breaks its
grammar says nothing: the next header in the order of the options is asked. `Forwarding` owns a bounded cache,
because a proxy says the same of every request of its clients.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from obsserve.http.head import HostCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from obsserve.telemetry.observer import Address, Headers

# What uvicorn reads; found by two look-ups in each request's fields.
FOR: Final = b"x-forwarded-for"
PROTO: Final = b"x-forwarded-proto"
# Their several fields are one list (RFC 9110 5.3); of the others the last field counts.
_LISTS: Final = frozenset({FOR, b"forwarded"})
_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# A peer on a unix socket has no address; this word in the list of trusted peers stands for it.
UNIX: Final = "unix"
# RFC 3986 3.3, without a second slash in front, which browsers take for the start of a host.
_PREFIX: Final = re.compile(rb"/(?!/)(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")


class TrustedPeers:
    """The peers whose forwarding headers are believed.

    Args:
        peers: IP addresses, CIDR networks, literals, `unix` for peers on a unix socket, or `*` for all.
    """

    def __init__(self, peers: Iterable[str]) -> None:
        self.trusts_all = False
        self._literals: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for peer in (entry.strip() for entry in peers):
            if peer == "*":
                self.trusts_all = True
            elif "/" in peer:
                self._add_network(peer)
            elif peer:
                self._literals.add(peer)

    def _add_network(self, peer: str) -> None:
        try:
            self._networks.append(ip_network(peer, strict=False))
        except ValueError:
            self._literals.add(peer)

    def trusts(self, peer: Address | None) -> bool:
        """Tell whether a connection's other end is trusted; None and a path are those of a unix socket."""
        if (peer is None or peer[1] is None) and UNIX in self._literals:
            return True
        return (peer[0] if peer is not None else None) in self

    def __contains__(self, host: object) -> bool:
        if self.trusts_all:
            return True
        if not host or not isinstance(host, str):
            return False
        if host in self._literals:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # how a socket of both families names an IPv4 peer
            if str(address) in self._literals:
                return True
        return any(address in network for network in self._networks if network.version == address.version)

    def nearest_stranger(self, hosts: Sequence[str]) -> int:
        """Return which of the forwarded hops is the client: from the right, the first that is not trusted."""
        if not self.trusts_all:
            for index in range(len(hosts) - 1, -1, -1):
                if hosts[index] not in self:
                    return index
        return 0


class Facts(NamedTuple):
    """What forwarding headers say; None for what they do not.

    `host` is a Host header's value, `prefix` the path that a proxy has removed, percent-encoded.
    """

    client: Address | None = None
    scheme: str | None = None
    host: bytes | None = None
    port: int | None = None
    prefix: bytes | None = None

    def completed(self, other: Facts) -> Facts:
        """Return these facts, and of the other's those that are missing here."""
        return Facts(
            other.client if self.client is None else self.client,
            other.scheme if self.scheme is None else self.scheme,
            other.host if self.host is None else self.host,
            other.port if self.port is None else self.port,
            other.prefix if self.prefix is None else self.prefix,
        )


class Forwarding:
    """Reads the forwarding headers that the options name.

    Args:
        trusted: whose word counts, None for nobody's.
        names: lower-case header names; where two say the same, the first that the request carries wins.
    """

    MAX_ENTRIES: Final = 1024
    MAX_KEY: Final = 512

    def __init__(self, trusted: TrustedPeers | None, names: Iterable[str]) -> None:
        self.trusted = trusted
        self.names = tuple(name.encode() for name in names)
        # Besides the two that are looked for in any case.
        self.others = frozenset(self.names) - {FOR, PROTO}
        self._hosts = HostCache()
        self._cache: dict[tuple[bytes | None, ...], Facts] = {}

    def trusts(self, peer: Address | None) -> bool:
        return self.trusted is not None and self.trusted.trusts(peer)

    def seen(self, fields: dict[bytes, bytes]) -> bool:
        """Tell whether a request carries a header that would be read."""
        return any(name in fields for name in self.names)

    def facts(self, fields: dict[bytes, bytes], headers: Headers) -> Facts:
        """Return what the headers of a trusted peer's request say.

        Args:
            fields: the request's fields by name, the last of each name.
            headers: all of them.
        """
        values = tuple([fields.get(name) for name in self.names])
        if len(fields) != len(headers):
            values = tuple(map(_joined(headers).get, self.names))
        found = self._cache.get(values)
        if found is None:
            found = self._read(values)
            if sum(map(len, filter(None, values))) <= self.MAX_KEY:
                if len(self._cache) >= self.MAX_ENTRIES:
                    self._cache.clear()
                self._cache[values] = found
        return found

    def _read(self, values: Sequence[bytes | None]) -> Facts:
        assert self.trusted is not None
        facts = Facts()
        for name, value in zip(self.names, values, strict=True):
            if value is not None:
                said = self._read_one(name, value.strip(b" \t"), self.trusted)
                facts = facts.completed(said)
        return facts

    def _read_one(self, name: bytes, value: bytes, trusted: TrustedPeers) -> Facts:
        if name == FOR:
            return Facts(client=forwarded_client(value, trusted))
        if name == PROTO:
            return Facts(scheme=forwarded_scheme(value))
        if name == b"x-real-ip":
            return Facts(client=_real_ip(value))
        if name == b"x-forwarded-host":
            # A proxy that appends its own value puts it last; what stands before came from its client.
            return Facts(host=self._host(value.rpartition(b",")[2].strip(b" \t")))
        if name == b"x-forwarded-port":
            return Facts(port=_port(value.decode("latin-1")))
        if name == b"x-forwarded-prefix":
            return Facts(prefix=_prefix(value))
        return self._read_standard(value, trusted)

    def _read_standard(self, value: bytes, trusted: TrustedPeers) -> Facts:
        elements = forwarded_elements(value)
        if not elements:
            return Facts()
        nodes = [split_address(element.get("for", "unknown")) for element in elements]
        index = trusted.nearest_stranger([host for host, _ in nodes])
        # What the nearest trusted proxy says of the request as it reached it (RFC 7239 4).
        element = elements[index]
        return Facts(
            client=nodes[index] if nodes[index][0].lower() != "unknown" else None,
            scheme=forwarded_scheme(element.get("proto", "").encode("latin-1")),
            host=self._host(element.get("host", "").encode("latin-1")),
        )

    def _host(self, value: bytes) -> bytes | None:
        return value if value and (value in self._hosts or self._hosts.check(value)) else None


def _joined(headers: Headers) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields[name] = b"%b,%b" % (fields[name], value) if name in _LISTS and name in fields else value
    return fields


# --- X-Forwarded-* ----------------------------------------------------------------------------


def split_address(text: str) -> tuple[str, int]:
    """Split `ip`, `ip:port`, `[ip]` or `[ip]:port`; the port is 0 when there is none."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return host, int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0


def forwarded_client(value: bytes, trusted: TrustedPeers) -> Address | None:
    """Return the client named by X-Forwarded-For, None when there is none."""
    hops = [split_address(hop) for part in value.decode("latin-1").split(",") if (hop := part.strip())]
    return hops[trusted.nearest_stranger([host for host, _ in hops])] if hops else None


def forwarded_scheme(value: bytes) -> str | None:
    """Return http or https for an X-Forwarded-Proto value, None for anything else."""
    return _SCHEMES.get(value.strip().lower())


def _real_ip(value: bytes) -> Address | None:
    """Return the address of X-Real-IP, which is nginx's `$remote_addr`: one address, without a port."""
    host = value.decode("latin-1")
    try:
        ip_address(host)
    except ValueError:
        return None
    return host, 0


def _port(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if 0 < number <= 65535 else None


def _prefix(value: bytes) -> bytes | None:
    """Return a path without a slash at its end; None for what is no path, and for one that says nothing."""
    if _PREFIX.fullmatch(value) is None:
        return None
    return value.rstrip(b"/") or None


def decoded(prefix: bytes) -> str:
    """Return a prefix as the scope's root_path has it."""
    return unquote(prefix.decode("ascii"))


def with_port(host: bytes, port: int, scheme: str) -> bytes:
    """Return a Host value with another port, which is left out where the scheme implies it."""
    name = re.sub(rb":[0-9]*\Z", b"", host)
    return name if _DEFAULT_PORTS.get(scheme) == port else b"%b:%d" % (name, port)


# --- Forwarded (RFC 7239) ---------------------------------------------------------------------

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_PAIR: Final = re.compile(f"({_NAME})=({_NAME}|{_QUOTED})")
_SPACES: Final = re.compile(r"[ \t]*")
# RFC 7239 6; what an address is, ipaddress knows better.
_NODE: Final = re.compile(
    r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]|(unknown)|(_[A-Za-z0-9._-]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?",
    re.IGNORECASE,
)


def forwarded_elements(value: bytes) -> list[dict[str, str]] | None:
    """Return the elements of a Forwarded header, each with its parameters by lower-case name.

    None when anything in it breaks the grammar of RFC 7239 4: a proxy that adds to what a client sent must
    not give the client a way to hide what it adds, so that nothing of such a header is believed.
    """
    text = value.decode("latin-1")
    elements: list[dict[str, str]] = []
    element: dict[str, str] = {}
    position = 0
    while True:
        if (pair := _PAIR.match(text, position)) is not None:
            name, given = pair[1].lower(), pair[2]
            if given.startswith('"'):
                given = re.sub(r"\\(.)", r"\1", given[1:-1])
            if name in element or (name in ("for", "by") and not _is_node(given)):
                return None
            element[name] = given
            position = pair.end()
        if text[position : position + 1] == ";":  # no white space around it; pairs may be missing
            position += 1
            continue
        position = _space_end(text, position)
        if position < len(text) and text[position] != ",":
            return None
        if element:  # an empty element of a list is none (RFC 9110 5.6.1)
            elements.append(element)
            element = {}
        if position >= len(text):
            return elements
        position = _space_end(text, position + 1)


def _space_end(text: str, start: int) -> int:
    return _SPACES.match(text, start).end()  # type: ignore[union-attr]  # it matches nothing, too


def _is_node(text: str) -> bool:
    match = _NODE.fullmatch(text)
    if match is None:
        return False
    if (host := match[1] or match[2]) is None:
        return True
    try:
        return ip_address(host).version == (4 if match[1] else 6)
    except ValueError:
        return False
