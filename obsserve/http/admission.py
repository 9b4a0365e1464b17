"""Which requests are served now, which wait for their turn, and which are refused.

Owns the requests that wait, and whether the process sheds load. Rules: a request waits only behind the limit
of requests in progress, in the order of arrival; none overtakes those that wait; what is shed is refused at once.
The hot path asks one question, whether `ServerState.room` is full; everything else is behind it.

    open ──limit reached──▶ first waits ──its turn, refused or gone──▶ last has left ──▶ open
    open ──loop lags, memory grows──▶ shedding ──neither for a second──▶ open
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from obsserve.telemetry import catalogue

if TYPE_CHECKING:
    from obsserve.http.exchange import Exchange
    from obsserve.http.state import ServerState
    from obsserve.settings import Settings
    from obsserve.telemetry.catalogue import Ending

# How long neither limit may have been broken before requests are served again.
CALM_SECONDS: Final = 1.0


class Admission:
    """Admits requests to one serving process.

    Args:
        server: whose requests; its `room` is kept here.
        settings: the limits.
    """

    def __init__(self, server: ServerState, settings: Settings) -> None:
        self._server = server
        self._limit = server.room
        self._places = settings.limit_queue or 0
        self._longest_wait = settings.timeout_queue
        self._lag_limit = settings.limit_loop_lag
        self._memory_limit = settings.limit_memory
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()
        self._is_admitting = False
        self._shedding: Ending | None = None
        self._strained_at = 0.0

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def refusal(self, exchange: Exchange, now: float) -> Ending | None:
        """Return why a request for which there is no room is refused; None when it waits for its turn.

        Args:
            exchange: the request.
            now: `perf_counter` seconds.
        """
        if self._shedding is not None:
            return self._shedding
        if len(self._waiting) >= self._places:
            return catalogue.QUEUE_FULL if self._places else catalogue.CONCURRENCY_LIMIT
        exchange.queued_at = now
        self._waiting[exchange] = None
        self._make_room()
        return None

    def left(self, exchange: Exchange) -> None:
        """Take a request out of the queue: its turn has come, it has waited too long, or it has ended."""
        del self._waiting[exchange]
        exchange.queued_at = 0.0
        self._make_room()

    def released(self) -> None:
        """Let the first one in: a request in progress has ended."""
        if self._waiting and not self._is_admitting:
            # Not from within the end of another request, whose observers have not been told yet.
            self._is_admitting = True
            self._server.loop.call_soon(self._admit)

    def tick(self, now: float) -> None:
        """Refuse who has waited too long; meant for ten times a second.

        Args:
            now: `perf_counter` seconds.
        """
        while self._waiting:
            first = next(iter(self._waiting))
            if now - first.queued_at <= self._longest_wait:
                break
            self.left(first)
            first.refusal = catalogue.QUEUE_TIMEOUT
            first.connection.start(first)

    def watch(self, now: float, *, lag: float, memory: int) -> None:
        """Begin or end to shed load; meant for ten times a second.

        Args:
            now: `perf_counter` seconds.
            lag: how late the event loop is now, in seconds.
            memory: what the process holds, in bytes; 0 where that cannot be told.
        """
        strain = None
        if self._lag_limit is not None and lag > self._lag_limit:
            strain = catalogue.LOOP_OVERLOAD
        elif self._memory_limit is not None and memory > self._memory_limit:
            strain = catalogue.MEMORY_OVERLOAD
        if strain is not None:
            self._strained_at = now
        elif self._shedding is None or now - self._strained_at <= CALM_SECONDS:
            return
        if strain is not self._shedding:
            self._shedding = strain
            self._server.reporter.overload_changed(strain)
            self._make_room()

    def _admit(self) -> None:
        self._is_admitting = False
        server = self._server
        while self._waiting and server.active < self._limit:
            exchange = next(iter(self._waiting))
            self.left(exchange)
            exchange.admitted = True
            exchange.connection.start(exchange)

    def _make_room(self) -> None:
        self._server.room = 0 if self._waiting or self._shedding is not None else self._limit
