"""Flow control: pausing what is read, waiting for what is written, heads that wait for their body."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from obsserve.http.exchange import Exchange
    from obsserve.http.response import Response
    from obsserve.http.state import ServerState

# How far a response is; see exchange.py.
EXPECT_START: Final = 0
HELD: Final = 1
STREAMING: Final = 2
DONE: Final = 3

# uvicorn's HIGH_WATER_LIMIT, and asyncio's default for writing.
HIGH_WATER: Final = 65536
# What is read and thrown away of a body that the application did not want, before the connection closes.
DRAIN_LIMIT: Final = 65536

# Why reading is paused: the application does not keep up, or a request waits behind another.
BODY_FULL: Final = 1
QUEUE: Final = 2


class HeldHeads:
    """Response heads that wait for a body part of the same loop turn.

    Head and body then leave in one write: one system call fewer for each request. One callback serves all
    exchanges of a turn.
    """

    __slots__ = ("_loop", "exchanges")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.exchanges: list[Response] = []

    def release_soon(self) -> None:
        """Arrange for the release; whoever appends the first of a turn calls this."""
        self._loop.call_soon(self._release)

    def _release(self) -> None:
        exchanges, self.exchanges = self.exchanges, []
        for exchange in exchanges:
            if exchange.phase == HELD:  # nearly all have gone by now, with their body
                exchange.flush_head()


class Waiters:
    """Coroutines that wait for one thing to happen.

    Each has its own future, so that cancelling one does not wake another.
    """

    __slots__ = ("_futures", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: dict[asyncio.Future[None], None] = {}  # in the order of waiting

    async def wait(self) -> None:
        future = self._loop.create_future()
        self._futures[future] = None
        try:
            await future
        finally:
            # Also of one that is cancelled: a framework polls for the client's end that way, for ever.
            self._futures.pop(future, None)

    def wake(self) -> None:
        for future in self._futures:
            if not future.done():
                future.set_result(None)


class Flow(asyncio.Protocol):
    """What keeps a connection from being overrun, in either direction."""

    __slots__ = (
        "_drained",
        "paused",
        "paused_since",
        "pending_write",
        "read_at",
        "server",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport
    exchange: Exchange | None
    closed_at: float

    def __init__(self, server: ServerState) -> None:
        self.server = server
        self.read_at = 0.0
        self.paused = 0
        self.write_paused = False
        # Since when the client has taken nothing, and how much it had not taken then.
        self.paused_since = 0.0
        self.pending_write = 0
        self._drained: Waiters | None = None

    # --- reading -----------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Stop reading: the application does not keep up with the body."""
        self.pause(BODY_FULL)

    def resume_reading(self) -> None:
        """Read on: the application took what was there of the body."""
        if self.paused:
            self.resume(BODY_FULL)

    def pause(self, why: int) -> None:
        """Stop reading for one more reason."""
        if not self.paused and not self.transport.is_closing():
            self.transport.pause_reading()
        self.paused |= why

    def resume(self, why: int) -> None:
        """Read on, unless there is another reason not to."""
        if self.paused & why:
            self.paused &= ~why
            if not self.paused and not self.transport.is_closing():
                # A stalled reader was the server itself: the body's deadline starts anew.
                self.read_at = perf_counter()
                self.transport.resume_reading()

    # --- writing -----------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.write_paused = True
        self.paused_since = perf_counter()
        self.pending_write = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.waited(perf_counter() - self.paused_since)
        self.wake_writers()

    def wake_writers(self) -> None:
        """Let those who wait in `drained` look again."""
        if self._drained is not None:
            self._drained.wake()

    async def drained(self) -> None:
        """Wait until the transport takes more, or is gone."""
        if self._drained is None:
            self._drained = Waiters(self.server.loop)
        while self.write_paused and not self.closed_at:
            await self._drained.wait()
