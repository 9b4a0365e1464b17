"""What middleware that was written for uvicorn reads out of a scope."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from obsserve.websocket.session import ClientDisconnected

if TYPE_CHECKING:
    from obsserve.asgi.interfaces import Scope

__all__ = ["ClientDisconnected", "get_client_addr", "get_path_with_query_string"]


def get_client_addr(scope: Scope) -> str:
    """Return `host:port` of the client, empty when it has no address."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def get_path_with_query_string(scope: Scope) -> str:
    """Return the path, quoted again, with the query."""
    path = quote(scope["path"])
    query: bytes = scope["query_string"]
    return f"{path}?{query.decode('ascii', 'backslashreplace')}" if query else path
