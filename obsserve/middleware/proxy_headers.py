"""`ProxyHeadersMiddleware`: client and scheme from forwarding headers, for an application behind another server.

The server does this itself, from the same functions, before it makes the scope; see `--proxy-headers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from obsserve.checks import comma_list
from obsserve.http.scope import TrustedPeers, forwarded_client, forwarded_scheme

if TYPE_CHECKING:
    from collections.abc import Sequence

    from obsserve.asgi.interfaces import ASGI3, Receive, Scope, Send

_OF_WEBSOCKETS: Final = {"http": "ws", "https": "wss"}


class ProxyHeadersMiddleware:
    """Believes X-Forwarded-For and X-Forwarded-Proto of trusted peers.

    Args:
        app: the application.
        trusted_hosts: addresses and networks, as a list or separated by commas; `*` trusts everyone.
    """

    def __init__(self, app: ASGI3, trusted_hosts: Sequence[str] | str = "127.0.0.1") -> None:
        self.app = app
        self.trusted_hosts = TrustedPeers(comma_list(trusted_hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            peer = scope.get("client")
            if (peer[0] if peer else None) in self.trusted_hosts:
                self._correct(scope)
        await self.app(scope, receive, send)

    def _correct(self, scope: Scope) -> None:
        fields = dict(scope["headers"])
        scheme = forwarded_scheme(fields.get(b"x-forwarded-proto", b""))
        if scheme is not None:
            scope["scheme"] = _OF_WEBSOCKETS[scheme] if scope["type"] == "websocket" else scheme
        if b"x-forwarded-for" in fields:
            client = forwarded_client(scope["headers"], self.trusted_hosts)
            if client is not None:
                scope["client"] = client
