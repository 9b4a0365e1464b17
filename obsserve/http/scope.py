"""Pure: an exchange's ASGI scope, with what trusted proxies say of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from obsserve.http.forwarded import decoded, with_port

if TYPE_CHECKING:
    from obsserve.http.connection import Connection
    from obsserve.http.exchange import Exchange
    from obsserve.telemetry.observer import Address

# Every key that a request's scope has, with what all requests share; to copy it and to put the rest into it
# costs less than a new dict (`python -m loadtests.bench instructions`).
_TEMPLATE: Final[dict[str, Any]] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "server": None,
    "client": None,
    "scheme": "http",
    "method": "",
    "root_path": "",
    "path": "",
    "raw_path": b"",
    "query_string": b"",
    "headers": (),
    "state": None,
    "extensions": None,
}
# How many keys it has when the application gets it.
SCOPE_SIZE: Final = len(_TEMPLATE)


def scope_of(exchange: Exchange) -> dict[str, Any]:
    """Return the scope of a request whose head has passed."""
    connection, parts, fields = exchange.connection, exchange.parts, exchange.fields
    server = connection.server
    assert parts is not None
    template = connection.scope_template
    if template is None:
        template = connection.scope_template = _template_of(connection)
    scope = template.copy()
    path, raw_path, root_path = parts.path, parts.raw_path, server.root_path
    if root_path:
        path, raw_path = root_path + path, root_path.encode() + raw_path
    others = server.forwarding.others
    if (
        b"x-forwarded-for" in fields
        or b"x-forwarded-proto" in fields
        or (others and not others.isdisjoint(fields))
    ):
        prefix = read_forwarded(exchange)
        if prefix is not None:
            removed = decoded(prefix)
            path, raw_path = removed + path, prefix + raw_path
            scope["root_path"] = removed + root_path
        if exchange.forwarded_client is not None:
            scope["client"] = exchange.forwarded_client
        scope["scheme"] = exchange.scheme
    scope["http_version"] = exchange.http_version
    scope["method"] = exchange.method
    scope["path"] = path
    scope["raw_path"] = raw_path
    scope["query_string"] = parts.query_string
    scope["headers"] = exchange.request_headers
    scope["state"] = server.app_state.copy()
    extensions: dict[str, Any] = {"obsserve": exchange}
    if connection.tls is not None:
        extensions["tls"] = dict(connection.tls)
    scope["extensions"] = extensions
    return scope


def _template_of(connection: Connection) -> dict[str, Any]:
    """Return the template with what every request of a connection says."""
    return _TEMPLATE | {
        "server": connection.local,
        "client": connection.client,
        "scheme": connection.scheme,
        "root_path": connection.server.root_path,
    }


def read_forwarded(exchange: Exchange) -> bytes | None:
    """Take what forwarding headers say of the request, if the peer is trusted.

    Returns:
        the path under which a proxy publishes the application, percent-encoded, if one says so.
    """
    connection, fields = exchange.connection, exchange.fields
    server = connection.server
    forwarding = server.forwarding
    if not forwarding.seen(fields):
        return None
    exchange.forwarded_trusted = connection.trusted
    if not connection.trusted:
        if forwarding.trusted is not None:
            server.reporter.forwarded_ignored(exchange)
        return None
    facts = forwarding.facts(fields, exchange.request_headers)
    exchange.forwarded_client = facts.client
    if facts.scheme is not None:
        exchange.forwarded_scheme = exchange.scheme = facts.scheme
    host = facts.host
    if facts.port is not None:
        named = host or fields.get(b"host")
        host = with_port(named, facts.port, exchange.scheme) if named else None
    if host is not None:
        _replace_host(exchange, host)
    return facts.prefix


def _replace_host(exchange: Exchange, host: bytes) -> None:
    exchange.fields = {**exchange.fields, b"host": host}
    others = [field for field in exchange.request_headers if field[0] != b"host"]
    exchange.request_headers = [(b"host", host), *others]


def address_of(name: Any) -> Address | None:
    """Turn a socket name into the scope's form: (host, port), (path, None) or None."""
    if isinstance(name, (tuple, list)):
        return (str(name[0]), int(name[1]))
    if isinstance(name, bytes):
        name = name.decode("utf-8", "surrogateescape")
    return (name, None) if name else None
