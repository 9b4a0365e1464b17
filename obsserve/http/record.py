"""What observers see of one request and its response.

The exchange itself is the record: this is the half of it that only says what happened. Class-level defaults
stand for everything that an ordinary request leaves alone.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from obsserve.asgi.route import resolve_route
from obsserve.telemetry.catalogue import outcome_of

if TYPE_CHECKING:
    from contextvars import Context

    from obsserve.http.connection import Connection
    from obsserve.http.head import Header, Target
    from obsserve.telemetry.catalogue import DisconnectPhase, Outcome, ResponseOrigin
    from obsserve.telemetry.observer import Address, TraceView

# What may stand in logs and headers as it is.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIds(list[tuple[str, bytes]]):
    """Random ids of 128 bits, each with the line that sends it back.

    Several are drawn at once, which costs less; not many, which would not stay in the processor's cache.

    Args:
        name: the response's field for it, None for no line.
    """

    def __init__(self, name: bytes | None = None) -> None:
        super().__init__()
        self._line = b"" if name is None else name + b": %b\r\n"

    def draw(self) -> tuple[str, bytes]:
        """Return an id that nobody has, and its line."""
        if not self:
            digits = os.urandom(16 * 32).hex()
            ids = [digits[start : start + 32] for start in range(0, len(digits), 32)]
            line = self._line
            self.extend((drawn, line and line % drawn.encode("ascii")) for drawn in ids)
        return self.pop()


class Record:
    """An `ExchangeView` in the making; read there what the attributes mean."""

    connection: Connection
    connection_request: int
    began: float
    parts: Target | None = None
    trace: TraceView | None = None
    forwarded_trusted: bool | None = None
    method = ""
    http_version = "1.1"
    forwarded_client: Address | None = None
    forwarded_scheme: str | None = None
    scheme = "http"
    ordinary = True
    request_headers: tuple[Header, ...] | list[Header] = ()
    fields: dict[bytes, bytes] = {}  # noqa: RUF012 - replaced, never changed
    response_headers: Any = ()
    scope: dict[str, Any] | None = None

    head_done = app_started = body_done = 0.0
    response_started = first_byte = ended = write_blocked = 0.0
    request_size = request_body_size = response_size = response_body_size = 0
    status: Any = None  # int once known; Any spares the hot path a check
    ending: Any = None  # an Ending once it has ended, as of every view that leaves
    error_type: str | None = None
    exception: BaseException | None = None
    app_protocol_error: str | None = None
    response_origin: ResponseOrigin = "app"
    disconnect_phase: DisconnectPhase | None = None
    reset = False
    pipelined = False
    websocket = False
    route = ""
    # Fields of the application's for the access line, under `app`.
    bound: dict[str, Any] | None = None
    # The context of the request's task before it runs, for an observer that puts something into it.
    context: Context | None = None
    # The response's field with the request's id, with its line end; empty when it is not sent back.
    id_line = b""
    # The response's fields with the ids of the request's span, with their line ends; where they are asked for.
    trace_line = b""
    _announced_route = ""
    # Where the framework's router looked (the scope's root_path), and the template that it found.
    matched = ("", "")
    _route_is_set = False
    _request_id: str | None = None

    @property
    def request_id(self) -> str:
        if self._request_id is None:
            self._request_id = self._given_id() or self.connection.server.request_ids.draw()[0]
        return self._request_id

    def identify(self) -> None:
        """Send the request's id back and tell the application, where there is something to find with it or somebody asked."""
        server = self.connection.server
        name = server.request_id_header
        trace = self.trace
        if trace is not None and name not in self.fields and self._request_id is None:
            self._request_id = given = trace.trace_id_hex
            if name is not None and server.has_request_ids:
                self.id_line = f"{server.request_id_start}{given}\r\n".encode("ascii")
        elif name in self.fields or self._request_id is not None:
            if name is None or not (server.has_request_ids or name in self.fields):
                return
            self.id_line = f"{server.request_id_start}{self.request_id}\r\n".encode("ascii")
        elif server.has_request_ids:
            ids = server.request_ids
            self._request_id, self.id_line = ids.pop() if ids else ids.draw()
        else:
            return
        if self.scope is not None:
            self.scope["state"]["request_id"] = self._request_id

    def _given_id(self) -> str | None:
        """Return the id that a trusted peer sent, else that of the trace."""
        name = self.connection.server.request_id_header
        if name in self.fields and self.connection.trusted:
            given = self.fields[name].decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return given
        return self.trace.trace_id_hex if self.trace is not None else None

    @property
    def raw_path(self) -> bytes:
        return self.parts.raw_path if self.parts is not None else b""

    @property
    def query_string(self) -> bytes:
        return self.parts.query_string if self.parts is not None else b""

    @property
    def client(self) -> Address | None:
        return self.forwarded_client or self.connection.client

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.ending, self.status)

    @property
    def flags(self) -> list[str]:
        flags = [self.ending.flag] if self.ending.flag is not None else []
        if self.reset:
            flags.append("RS")
        if self.status == 101:
            flags.append("UP")
        return flags

    @property
    def present_route(self) -> str:
        """The template as far as it is known by now; a mount may have more to say."""
        return self.route or self._announced_route or resolve_route(self.scope)

    def learn_route(self) -> str:
        """Take the template of the route that answered, as far as it is known by now."""
        if not self.route:
            self.route = self._announced_route or resolve_route(self.scope)
        return self.route

    def bind(self, **fields: Any) -> None:
        """Add fields to the access line, in its object `app` (the scope's `obsserve` extension).

        Args:
            fields: what JSON can hold; a later value replaces an earlier one of the name.
        """
        self.ordinary = False
        self.bound = {**(self.bound or {}), **fields}

    def set_route(self, route: str) -> None:
        """Announce the template of the route that answers (the scope's `obsserve` extension).

        Args:
            route: such as `/users/{id}`; never a path with values in it.
        """
        self._announced_route = route
        self._route_is_set = True

    def route_matched(self, root_path: str, route: str) -> None:
        """Take what the framework's router found; what the application itself sets counts more.

        Args:
            root_path: where the router looked.
            route: the whole template.
        """
        self.matched = (root_path, route)
        if not self._route_is_set:
            self._announced_route = route
