"""For tests, ours and those of users: a transport in memory, and an observer that remembers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obsserve.telemetry.observer import ConnectionView, ExchangeView


class MemoryTransport(asyncio.Transport):
    """A transport whose peer is the test: what is written can be read, limits and ends can be played.

    Args:
        protocol: the protocol that is told of reads, pauses and the end; set it before they are played.
        peername: the client's address.
        sockname: the server's address.
        extra: further `get_extra_info` values.
    """

    def __init__(
        self,
        protocol: Any = None,
        *,
        peername: tuple[str, int] | None = ("127.0.0.1", 50000),
        sockname: tuple[str, int] | None = ("127.0.0.1", 8000),
        **extra: Any,
    ) -> None:
        super().__init__({"peername": peername, "sockname": sockname, **extra})
        self._protocol = protocol
        self.written = bytearray()
        self.writes: list[bytes] = []
        self.reading = True
        self.eof_written = False
        self.closed = False
        self.aborted = False
        self.buffered = 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def write(self, data: Any) -> None:
        if not self.closed:
            self.writes.append(bytes(data))
            self.written += data

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def lose(self, exception: Exception | None = None) -> None:
        """Play the peer's end: an orderly close, or with an exception a reset."""
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(exception)


FROZEN = (
    "connection_request", "request_id", "method", "raw_path", "query_string", "http_version", "scheme", "client",
    "request_headers", "response_headers", "bound", "route", "status", "ending", "outcome", "error_type", "exception",
    "app_protocol_error", "response_origin", "disconnect_phase", "flags", "pipelined", "request_body_size",
    "response_body_size", "request_size", "response_size", "began", "head_done", "app_started", "body_done",
    "response_started", "first_byte", "ended", "write_blocked",
)  # fmt: skip


class FrozenExchange:
    """What an `ExchangeView` said when its exchange ended."""

    def __init__(self, view: ExchangeView) -> None:
        for name in FROZEN:
            setattr(self, name, getattr(view, name))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"<{self.method or '?'} {self.raw_path!r} {self.status} {self.ending.detail}>"


class RecordingObserver:
    """An observer that remembers what it was told, in order."""

    def __init__(self) -> None:
        self.started: list[ExchangeView] = []
        self.ended: list[FrozenExchange] = []
        self.opened: list[ConnectionView] = []
        self.closed: list[ConnectionView] = []

    def connection_opened(self, connection: ConnectionView) -> None:
        self.opened.append(connection)

    def connection_closed(self, connection: ConnectionView) -> None:
        self.closed.append(connection)

    def exchange_started(self, exchange: ExchangeView) -> None:
        self.started.append(exchange)

    def exchange_ended(self, exchange: ExchangeView) -> None:
        self.ended.append(FrozenExchange(exchange))
