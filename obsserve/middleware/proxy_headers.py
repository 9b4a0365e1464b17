"""`ProxyHeadersMiddleware`: client and scheme from forwarding headers, for an application behind another server.

The server does this itself, from the same functions, before it makes the scope; see `--proxy-headers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from obsserve.checks import comma_list
from obsserve.http.forwarded import FOR, PROTO, Forwarding, TrustedPeers

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
        self._forwarding = Forwarding(self.trusted_hosts, (FOR.decode(), PROTO.decode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            peer = scope.get("client")
            if self.trusted_hosts.trusts(peer):
                self._correct(scope)
        await self.app(scope, receive, send)

    def _correct(self, scope: Scope) -> None:
        headers = scope["headers"]
        facts = self._forwarding.facts(dict(headers), headers)
        if facts.scheme is not None:
            scope["scheme"] = _OF_WEBSOCKETS[facts.scheme] if scope["type"] == "websocket" else facts.scheme
        if facts.client is not None:
            scope["client"] = facts.client
