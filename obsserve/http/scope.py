"""Pure: an exchange's ASGI scope, and who the client is behind trusted proxies."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

    from obsserve.http.exchange import Exchange
    from obsserve.telemetry.observer import Address, Headers

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


def scope_of(exchange: Exchange) -> dict[str, Any]:
    """Return the scope of a request whose head has passed."""
    connection, parts, fields = exchange.connection, exchange.parts, exchange.fields
    server = connection.server
    assert parts is not None
    path, raw_path, root_path = parts.path, parts.raw_path, server.root_path
    if root_path:
        path, raw_path = root_path + path, root_path.encode() + raw_path
    if b"x-forwarded-for" in fields or b"x-forwarded-proto" in fields:
        read_forwarded(exchange)
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": exchange.http_version,
        "server": connection.local,
        "client": exchange.forwarded_client or connection.peer,
        "scheme": exchange.scheme,
        "method": exchange.method,
        "root_path": root_path,
        "path": path,
        "raw_path": raw_path,
        "query_string": parts.query_string,
        "headers": exchange.request_headers,
        "state": server.app_state.copy(),
        "extensions": {"obsserve": exchange},
    }


def read_forwarded(exchange: Exchange) -> None:
    """Take client and scheme from forwarding headers, if the peer is trusted."""
    connection, fields = exchange.connection, exchange.fields
    exchange.forwarded_trusted = connection.trusted
    trusted = connection.server.trusted
    if not connection.trusted or trusted is None:
        return
    if b"x-forwarded-proto" in fields:
        exchange.forwarded_scheme = forwarded_scheme(fields[b"x-forwarded-proto"])
        exchange.scheme = exchange.forwarded_scheme or exchange.scheme
    if b"x-forwarded-for" in fields:
        exchange.forwarded_client = forwarded_client(exchange.request_headers, trusted)


def address_of(name: Any) -> Address | None:
    """Turn a socket name into the scope's form: (host, port), (path, None) or None."""
    if isinstance(name, (tuple, list)):
        return (str(name[0]), int(name[1]))
    if isinstance(name, bytes):
        name = name.decode("utf-8", "surrogateescape")
    return (name, None) if name else None


class TrustedPeers:
    """The peers whose forwarding headers are believed.

    Args:
        peers: IP addresses, CIDR networks, literals (unix-socket peers have none), or `*` for all.
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

    def __contains__(self, host: object) -> bool:
        if self.trusts_all:
            return True
        if not host or not isinstance(host, str):  # a unix-socket peer has none
            return False
        if host in self._literals:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks if network.version == address.version)

    def client_of(self, hops: list[str]) -> str:
        """Return the client among forwarded hops: from the right, the first that is not trusted."""
        if self.trusts_all:
            return hops[0]
        for hop in reversed(hops):
            if split_address(hop)[0] not in self:
                return hop
        return hops[0]


def split_address(text: str) -> tuple[str, int]:
    """Split `ip`, `ip:port`, `[ip]` or `[ip]:port`; the port is 0 when there is none."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return host, int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0


def forwarded_client(headers: Headers, trusted: TrustedPeers) -> Address | None:
    """Return the client named by X-Forwarded-For, None when there is none."""
    hops = [
        hop
        for name, value in headers
        if name == b"x-forwarded-for"
        for part in value.decode("latin-1").split(",")
        if (hop := part.strip())
    ]
    return split_address(trusted.client_of(hops)) if hops else None


def forwarded_scheme(value: bytes) -> str | None:
    """Return http or https for an X-Forwarded-Proto value, None for anything else."""
    return _SCHEMES.get(value.strip().lower())
