"""What all connections of one serving process share: the application, the limits, the caches."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Protocol

from obsserve.http.admission import Admission
from obsserve.http.flow import HeldHeads
from obsserve.http.forwarded import Forwarding, TrustedPeers
from obsserve.http.head import HeadCache, HostCache, TargetCache
from obsserve.http.record import RequestIds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextvars import Context

    from obsserve.http.connection import Connection
    from obsserve.http.exchange import Exchange
    from obsserve.http.head import Header
    from obsserve.http.parser import Parser, ParserEvents
    from obsserve.settings import Settings
    from obsserve.telemetry.catalogue import Ending
    from obsserve.telemetry.hooks import Hooks
    from obsserve.telemetry.observer import ExchangeView, SessionView

ASGIApplication = Any


class Reporter(Protocol):
    """Where a connection says what an operator should read."""

    def app_exception(self, exchange: ExchangeView, exception: BaseException, *, after_end: bool) -> None:
        """Tell of an exception that the application raised.

        Args:
            exchange: the one during which it was raised.
            exception: what was raised.
            after_end: the response was complete, so no record of the exchange carries it.
        """
        ...

    def app_misuse(self, exchange: ExchangeView, reason: str, message: str) -> None:
        """Tell of something that the application did against the ASGI specification."""
        ...

    def overload_changed(self, strain: Ending | None) -> None:
        """Tell that requests are refused from now on because of this strain, or, without one, no more."""
        ...

    def forwarded_ignored(self, exchange: ExchangeView) -> None:
        """Tell of forwarding headers that are not believed, because the peer is not trusted."""
        ...

    def websocket_checkpoint(self, session: SessionView, age: float) -> None:
        """Tell that a WebSocket is still open, after so many seconds."""
        ...


def _bound(value: float | None) -> float:
    return math.inf if value is None else value


class ServerState:
    """Shared by all connections; uvicorn's users know it as `server.server_state`.

    Args:
        settings: the options.
        loop: the serving loop.
        app: an ASGI 3 application.
        parser: makes a connection's parser.
        hooks: the compiled observers.
        context: what each request's context is a copy of; the lifespan's, after start-up.
        app_state: the lifespan's `state`, copied into each scope.
        reporter: told of exceptions and misuse.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        loop: asyncio.AbstractEventLoop,
        app: ASGIApplication,
        parser: Callable[[ParserEvents], Parser],
        hooks: Hooks,
        context: Context,
        app_state: dict[str, Any],
        reporter: Reporter,
    ) -> None:
        self.loop = loop
        self.app = app
        self.parser = parser
        self.hooks = hooks
        self.context = context
        self.app_state = app_state
        self.reporter = reporter

        self.root_path = settings.root_path
        self.trusted_peers = TrustedPeers(settings.forwarded_allow_ips)
        believed = self.trusted_peers if settings.proxy_headers else None
        self.forwarding = Forwarding(believed, settings.forwarded_headers)
        self.default_headers: list[Header] = default_headers(settings)
        self.sends_date = settings.date_header
        header = settings.request_id_header
        self.request_id_header = header.encode() if header is not None else None
        self.request_id_start = f"{header}: "
        self.request_ids = RequestIds(self.request_id_header)
        # Whether something is to be found with a request's id, so that each response carries it.
        self.has_request_ids = settings.access_log
        self.date = b""

        self.limit_request_line = settings.limit_request_line
        self.limit_request_headers = settings.limit_request_headers
        self.limit_request_header_count = settings.limit_request_header_count
        self.limit_request_body = _bound(settings.limit_request_body)
        self.limit_connections = _bound(settings.limit_connections)
        # A head of at most so many bytes breaks neither limit, and need not be measured.
        self.small_head = min(self.limit_request_line, self.limit_request_headers)
        self.timeout_keep_alive = settings.timeout_keep_alive
        self.timeout_request_header = _bound(settings.timeout_request_header)
        self.timeout_request_body = _bound(settings.timeout_request_body)
        self.timeout_write = _bound(settings.timeout_write)
        self.timeout_tls_handshake = _bound(settings.timeout_tls_handshake)
        self.timeout_request = _bound(settings.timeout_request)

        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.total_requests = 0
        # Requests and WebSockets in progress, and how many there may be for one more to be served at once.
        self.active = 0
        self.room = _bound(settings.limit_concurrency)
        self.admission = Admission(self, settings)
        self.draining = False
        self.drain_started = 0.0
        # The time to drain is nearly over: applications that wait for their client to leave are told that it has.
        self.dismissing = False
        # Takes over a connection on which a WebSocket was asked for; None while none is served.
        self.websocket_taker: Callable[[Connection, Exchange, bytes], None] | None = None

        # Tells this process's connection ids from those of every other.
        self.instance = os.urandom(4).hex()
        self.heads = HeadCache()
        self.targets = TargetCache()
        self.hosts = HostCache()
        self.held = HeldHeads(loop)

    def release(self) -> None:
        """Note that a WebSocket is in progress no more."""
        self.active -= 1
        self.admission.released()

    def set_date(self, date: bytes) -> None:
        """Take the Date of a new second; heads that carry the old one are forgotten."""
        self.date = date if self.sends_date else b""
        self.heads.clear()


def default_headers(settings: Settings) -> list[Header]:
    """Return the fields that every response carries besides Date."""
    given = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in settings.headers]
    if settings.server_header and not any(name == b"server" for name, _ in given):
        return [(b"server", b"obsserve"), *given]
    return given
