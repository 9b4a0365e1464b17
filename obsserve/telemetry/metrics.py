"""The metrics observer: exchanges and connections into cells.

Owns the rows that it fills; a row's labels never change. Rules:
- `_count_start` and `_count_end` are the hot path, and `speedups` has a shorter one: one look-up, then additions to slots
  (`python -m loadtests.bench hello` with and without metrics).
- Gauges of what is open are differences of counters (begun less ended, accepted less closed), so that they
  are right while the loop is blocked, and nothing can leak. Only the split of the open connections by
  state is sampled.
- Whatever a client can choose is bounded before it becomes a label.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Protocol

from obsserve.speedups import native
from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import COMPLETE, LATENCY_BUCKETS, QUEUE_BUCKETS
from obsserve.telemetry.cells import (
    DURATION,
    DURATION_SUM,
    EXCHANGE_PLACES,
    FIRST_BYTE,
    FIRST_BYTE_SUM,
    QUEUE,
    QUEUE_SUM,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    Family,
)
from obsserve.telemetry.names import BoundedNames
from obsserve.telemetry.observer import ConnectionView
from obsserve.telemetry.sessionmetrics import SessionMetrics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from obsserve.telemetry.cells import Cells, Labels
    from obsserve.telemetry.exemplars import Exemplars
    from obsserve.telemetry.hooks import ExchangeHook
    from obsserve.telemetry.observer import ExchangeView
    from obsserve.telemetry.traceconfig import ExemplarFilter

# The bucket n of a latency histogram holds what is above _ABOVE[n].
_ABOVE: Final = (float("-inf"), *LATENCY_BUCKETS)
_AT_ONCE: Final = QUEUE_BUCKETS[0]

_NAMED_ERROR_TYPES: Final = frozenset(
    ending.error_type for ending in catalogue.ENDINGS.values() if ending.error_type is not None
)
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_ROWS_FOR_THE_REST: Final = 1408  # everything but exchanges: catalogue bounds without latency histograms


class CountedConnection(ConnectionView, Protocol):
    """What a connection offers to be sampled and settled. The two counts are kept here, and start at 0."""

    counted_received: int
    counted_sent: int

    @property
    def state(self) -> str:
        """Idle, active, websocket or closing."""
        ...

    @property
    def buffered_bytes(self) -> int: ...
    @property
    def write_paused(self) -> bool: ...


def rows_for(max_series: int, *, body_sizes: bool = False) -> int:
    """Return how many rows a region needs for so many label sets of exchanges, and all the rest."""
    return max_series * (3 if body_sizes else 1) + _ROWS_FOR_THE_REST


def known_methods(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the methods that stand in labels by name: the ten, or what OpenTelemetry's variable says."""
    listed = environment.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "")
    return tuple(method for word in listed.split(",") if (method := word.strip())) or catalogue.KNOWN_METHODS


class Metrics:
    """Counts exchanges and connections.

    Arguments:
        region: the cells of this process, made with `rows_for(max_series)` rows.
        max_series: how many label sets exchanges may have; further ones share the overflow set.
        known_methods: the methods that stand in labels by name.
        body_sizes: whether there are histograms of body sizes.
        routes: whether exchanges are told apart by route.
        exemplars: whether traces are noted beside the latency buckets that they fall into, and the counters of what went
            wrong in them: those that are sampled (`trace_based`), all (`always_on`), none (`always_off`).
        worker: the slot of this serving process.

    """

    def __init__(
        self,
        region: Cells,
        *,
        max_series: int = catalogue.SERIES_LIMIT,
        known_methods: Collection[str] = catalogue.KNOWN_METHODS,
        body_sizes: bool = False,
        routes: bool = True,
        exemplars: ExemplarFilter = "always_off",
        worker: str = "0",
    ) -> None:
        self._region = region
        self._exemplars: Exemplars | None = None
        if exemplars != "always_off":
            from obsserve.telemetry.exemplars import Exemplars  # noqa: PLC0415 - only with traces

            self._exemplars = Exemplars(region, sampled_only=exemplars == "trace_based")
        self._slots = region.slots
        self._worker = worker
        self._series = _ExchangeSeries(region, max_series, frozenset(known_methods), routes=routes)
        self._ordinary_rows = self._series.ordinary_rows
        self._started = self._series.started
        self._sizes = self._size_families(max_series) if body_sizes else None
        self._events = _EventCounters(region, self._exemplars)
        self._connections = _ConnectionCounters(region)
        self.sessions = sessions = SessionMetrics(region)
        self.session_started = sessions.session_started
        self.session_ended = sessions.session_ended
        self.ping_answered = sessions.ping_answered
        self._series.exception_types = self._events.exception_types
        self._reused = Family(region, catalogue.CONNECTIONS_REUSED).row()
        self._forwarded_untrusted = Family(region, catalogue.FORWARDED_UNTRUSTED).row()
        self._write_blocked = Family(region, catalogue.WRITE_BLOCKED).row()
        self._pipelined = Family(region, catalogue.PIPELINED_REQUESTS).row()
        self._queued = Family(region, catalogue.QUEUED_REQUESTS)
        self._limits = Family(region, catalogue.LIMIT)
        self._lifespan_duration = Family(region, catalogue.LIFESPAN_DURATION)
        self._lifespan_failures = Family(region, catalogue.LIFESPAN_FAILURES, [("startup",), ("shutdown",)])

        # Decided once: in C where that was built, which leaves out of the way what is so here.
        self.exchange_started: ExchangeHook = self._count_start
        self.exchange_ended: ExchangeHook = self._count_end
        if native is not None and self._sizes is None:
            counts = native.Counts(
                slots=self._slots,
                rows=self._ordinary_rows,
                begun=self._started,
                reused=self._reused,
                places=EXCHANGE_PLACES,
                latency=LATENCY_BUCKETS,
                queue=QUEUE_BUCKETS,
                due={} if self._exemplars is None else self._exemplars.due,
                note=None if self._exemplars is None else self._exemplars.note,
                sampled_only=exemplars == "trace_based",
                start_otherwise=self._count_start,
                end_otherwise=self._count_end,
            )
            self.exchange_started = counts.started
            self.exchange_ended = counts.ended

    # --- Hooks ---

    def _count_start(self, view: ExchangeView) -> None:
        """Count a request that has begun."""
        slot = self._started.get((view.method, view.scheme))
        if slot is None:
            slot = self._series.start(view.method, view.scheme)
        self._slots[slot] += 1.0
        if view.connection_request == 2:
            self._slots[self._reused] += 1.0

    def _count_end(self, view: ExchangeView) -> None:
        """Count a request that has ended, with its times and sizes."""
        slots = self._slots
        ordinary = view.ordinary
        if ordinary:
            row = self._ordinary_rows.get((view.method, view.scheme, view.status, view.route))
            if row is None:
                row = self._series.resolve(view)
        else:
            row = self._series.resolve(view)
        duration = view.ended - view.began
        bucket = bisect_left(LATENCY_BUCKETS, duration)
        slots[row + DURATION_SUM] += duration
        first_byte = view.first_byte
        app_started = view.app_started
        if first_byte and app_started:
            head_done = view.head_done
            waited = first_byte - head_done
            queued = app_started - head_done
            slots[row + FIRST_BYTE_SUM] += waited
            slots[row + QUEUE_SUM] += queued
            if queued <= _AT_ONCE and waited > _ABOVE[bucket]:
                slots[row + bucket] += 1.0
            else:
                slots[row + FIRST_BYTE + bisect_left(LATENCY_BUCKETS, waited)] += 1.0
                slots[row + QUEUE + bisect_left(QUEUE_BUCKETS, queued)] += 1.0
                slots[row + DURATION + bucket] += 1.0
        else:
            self._count_unusual(view, row, bucket)
        if size := view.response_body_size:
            slots[row + RESPONSE_BYTES] += size
        if size := view.request_body_size:
            slots[row + REQUEST_BYTES] += size
        if not ordinary:
            self._count_the_rest(view)
        if self._exemplars is not None:
            self._exemplars.note(view, row, bucket)
        if self._sizes is not None:
            self._observe_sizes(row, view, *self._sizes)

    def _count_the_rest(self, view: ExchangeView) -> None:
        """Count what is out of the way in an exchange."""
        slots = self._slots
        if view.ending is not COMPLETE or view.app_protocol_error is not None:
            self._events.count(view)
        if blocked := view.write_blocked:
            slots[self._write_blocked] += blocked
        if view.pipelined:
            slots[self._pipelined] += 1.0
        if view.websocket:
            self.sessions.handshake_ended(view)

    def _count_unusual(self, view: ExchangeView, row: int, bucket: int) -> None:
        """Count the times of an exchange that no application saw, or that got no response."""
        slots = self._slots
        slots[row + DURATION + bucket] += 1.0
        if view.head_done and view.first_byte:
            waited = view.first_byte - view.head_done
            slots[row + FIRST_BYTE_SUM] += waited
            slots[row + FIRST_BYTE + bisect_left(LATENCY_BUCKETS, waited)] += 1.0
        if view.app_started:
            queued = view.app_started - view.head_done
            slots[row + QUEUE_SUM] += queued
            slots[row + QUEUE + bisect_left(QUEUE_BUCKETS, queued)] += 1.0

    def _size_families(self, max_series: int) -> tuple[Family, Family]:
        families = (
            Family(self._region, metric._replace(bound=max_series))
            for metric in (catalogue.REQUEST_BODY_SIZE, catalogue.RESPONSE_BODY_SIZE)
        )
        return next(families), next(families)

    def _observe_sizes(self, row: int, view: ExchangeView, requests: Family, responses: Family) -> None:
        labels = self._series.labels.get(row)
        if labels is None:
            requests.observe_overflow(view.request_body_size)
            responses.observe_overflow(view.response_body_size)
        else:
            requests.observe(view.request_body_size, *labels)
            responses.observe(view.response_body_size, *labels)

    def app_exception_after_end(self, view: ExchangeView, exception: BaseException) -> None:
        """Count what the application raised after its response was complete, or during a WebSocket's session."""
        self._events.exception(exception, "websocket" if view.websocket else "after_response_start", view)

    def connection_opened(self, connection: ConnectionView) -> None:
        """Count an accepted connection."""
        self._connections.accepted.add(1.0, connection.listener)

    def connection_closed(self, connection: CountedConnection) -> None:
        """Count a closed connection and what it had sent and received since it was last sampled."""
        self._connections.closed(connection)

    # --- What does not come from exchanges ---

    def begun(self) -> float:
        """Return how many exchanges have begun."""
        return sum(self._slots[slot] for slot in self._started.values())

    def sample(self, connections: Iterable[CountedConnection], *, queued: int = 0) -> None:
        """Look at every open connection: states, bytes on the wire, bytes that wait. Meant for once a second.

        Args:
            connections: the open ones.
            queued: how many requests wait for their turn.
        """
        self._connections.sample(connections)
        self._queued.set(queued)
        self.sessions.sample()

    def accept_error(self, kind: str) -> None:
        """Count a connection that could not be accepted; `kind` is an errno name in any case."""
        kind = kind.lower()
        self._connections.accept_failures.add(1.0, kind if kind in catalogue.ACCEPT_ERRORS else "other")

    def set_limit(self, limit: str, value: float) -> None:
        """Publish a configured limit, one of the catalogue's `LIMITS`."""
        self._limits.set(value, limit)

    def forwarded_ignored(self) -> None:
        """Count a request whose forwarding headers are not believed."""
        self._slots[self._forwarded_untrusted] += 1.0

    def proxy_protocol_failed(self, reason: str) -> None:
        """Count a connection without a good PROXY protocol header, by a reason from the catalogue."""
        self._connections.proxy_protocol_errors.add(1.0, reason)

    def lifespan_finished(
        self, phase: str, seconds: float, failed: bool, exception: BaseException | None = None
    ) -> None:
        """Publish how a lifespan phase went: startup or shutdown."""
        self._lifespan_duration.set(seconds, self._worker, phase)
        if failed:
            self._lifespan_failures.add(1.0, phase)
        if exception is not None:
            self._events.exception(exception, "lifespan", None)


class _ExchangeSeries:
    """Which row an exchange belongs to.

    `rows` is keyed by what the view says, `ordinary_rows` by what tells ordinary exchanges apart. Only what is already bounded is kept there: an unknown method is
    looked up as `_OTHER` each time, so that the table cannot be made to grow from outside.
    """

    def __init__(
        self, region: Cells, max_series: int, methods: frozenset[str], *, routes: bool = True
    ) -> None:
        self.rows: dict[tuple[str, str, int | None, str, str | None, str], int] = {}
        self.ordinary_rows: dict[tuple[str, str, int | None, str], int] = {}
        self.started: dict[tuple[str, str], int] = {}
        self.labels: dict[int, Labels] = {}
        self.exception_types = BoundedNames(catalogue.EXCEPTION_TYPE_LIMIT)
        self._overflow: dict[tuple[str, str], int] = {}
        self._region = region
        self._max_series = max_series
        self._methods = methods
        self._has_routes = routes
        self._routes = BoundedNames(catalogue.ROUTE_LIMIT)

    def start(self, method: str, scheme: str) -> int:
        """Return the slot that counts begun exchanges, which the gauge of active ones is made from."""
        key = (self._method(method), scheme)
        slot = self.started.get(key)
        if slot is None:
            slot = self.started[key] = self._region.row(catalogue.ACTIVE_REQUESTS.name, key, is_gauge=True)
        return slot

    def resolve(self, view: ExchangeView) -> int:
        """Return the row of an exchange whose own words are not in the table."""
        method = self._method(view.method)
        known_route = self._routes.bounded(view.route) if view.route else ""
        route = known_route if self._has_routes else ""
        error_type = None if view.error_type is None else self._error_type(view.error_type)
        version = view.http_version if view.http_version in _VERSIONS else ""
        key = (method, view.scheme, view.status, route, error_type, version)
        row = self.rows.get(key)
        if row is None:
            if len(self.rows) >= self._max_series:
                return self._overflow_row(method, view.scheme)
            status = "" if view.status is None else str(view.status)
            labels = (method, view.scheme, status, route, error_type or "", version)
            row = self.rows[key] = self._region.row(catalogue.REQUEST_DURATION.name, labels)
            self.labels[row] = labels
        if view.ordinary and (method, known_route) == (view.method, view.route):
            self.ordinary_rows[method, view.scheme, view.status, known_route] = row
        return row

    def _overflow_row(self, method: str, scheme: str) -> int:
        # By method and scheme, because the gauge of active requests has to find the ends of all of them.
        key = (method, scheme)
        row = self._overflow.get(key)
        if row is None:
            row = self._overflow[key] = self._region.row(catalogue.REQUEST_DURATION.name, key)
        return row

    def _method(self, method: str) -> str:
        return method if method in self._methods else catalogue.OTHER

    def _error_type(self, error_type: str) -> str:
        if error_type in _NAMED_ERROR_TYPES or error_type.isdecimal():
            return error_type
        return self.exception_types.bounded(error_type)


class _EventCounters:
    """Counters of what is not an ordinary end of an exchange: the catalogue's `ERROR_COUNTERS`."""

    def __init__(self, region: Cells, exemplars: Exemplars | None) -> None:
        self._slots = region.slots
        self._exemplars = exemplars
        endings = catalogue.ENDINGS.values()
        self.exception_types = BoundedNames(catalogue.EXCEPTION_TYPE_LIMIT)
        self._rejected = Family(
            region, catalogue.REJECTED_REQUESTS, [(end.rejection,) for end in endings if end.rejection]
        )
        self._protocol_errors = Family(
            region,
            catalogue.PROTOCOL_ERRORS,
            [(end.protocol_error, _text(end.status)) for end in endings if end.protocol_error],
        )
        self._disconnects = Family(
            region, catalogue.CLIENT_DISCONNECTS, [(phase,) for phase in catalogue.DISCONNECT_PHASES]
        )
        self._app_protocol = Family(
            region, catalogue.APP_PROTOCOL_FAULTS, [(reason,) for reason in catalogue.APP_PROTOCOL_ERRORS]
        )
        self._exceptions = Family(region, catalogue.APP_EXCEPTIONS)
        self._interrupted = Family(region, catalogue.DRAIN_INTERRUPTED)

    def count(self, view: ExchangeView) -> None:
        ending = view.ending
        if ending.rejection is not None:
            self._add(view, self._rejected, ending.rejection)
        if ending.protocol_error is not None:
            self._add(view, self._protocol_errors, ending.protocol_error, _text(ending.status))
        if view.disconnect_phase is not None:
            self._add(view, self._disconnects, view.disconnect_phase)
        app_protocol_error = view.app_protocol_error or ending.app_protocol_error
        if app_protocol_error is not None:
            self._add(view, self._app_protocol, app_protocol_error)
        if view.exception is not None:
            before = ending.flag == "AX" or (ending.flag != "AP" and not view.response_started)
            self.exception(view.exception, "before_response" if before else "after_response_start", view)
        if ending is catalogue.WORKER_SHUTDOWN:
            self._add(view, self._interrupted)

    def exception(self, exception: BaseException, phase: str, view: ExchangeView | None) -> None:
        name = catalogue.error_type_of(COMPLETE, None, exception) or catalogue.OTHER
        self._add(view, self._exceptions, self.exception_types.bounded(name), phase)

    def _add(self, view: ExchangeView | None, family: Family, *labels: str) -> None:
        slot = family.row(*labels)
        self._slots[slot] += 1.0
        if self._exemplars is not None and view is not None:
            self._exemplars.note_error(view, slot)


def _text(status: int | None) -> str:
    return "" if status is None else str(status)


class _ConnectionCounters:
    """Counters of connections, and the gauges that are sampled."""

    def __init__(self, region: Cells) -> None:
        self.accepted = Family(region, catalogue.CONNECTIONS_ACCEPTED)
        self.accept_failures = Family(
            region, catalogue.ACCEPT_FAILURES, [(error,) for error in catalogue.ACCEPT_ERRORS]
        )
        self.proxy_protocol_errors = Family(
            region, catalogue.PROXY_PROTOCOL_ERRORS, [(fault,) for fault in catalogue.PROXY_PROTOCOL_FAULTS]
        )
        self._closed = Family(
            region, catalogue.CONNECTIONS_CLOSED, [(reason,) for reason in catalogue.CLOSE_REASONS]
        )
        self._while_active = Family(region, catalogue.CLOSED_WHILE_ACTIVE, [("local",), ("remote",)])
        self._requests = Family(region, catalogue.CONNECTION_REQUESTS)
        self._age = Family(region, catalogue.CONNECTION_DURATION)
        self._received = Family(region, catalogue.RECEIVED_BYTES)
        self._sent = Family(region, catalogue.SENT_BYTES)
        self._states = Family(region, catalogue.CONNECTIONS_OPEN, [("active",), ("websocket",), ("closing",)])
        self._buffered = Family(region, catalogue.BUFFERED_BYTES)
        self._paused = Family(region, catalogue.WRITE_PAUSED)

    def closed(self, connection: CountedConnection) -> None:
        self._closed.add(1.0, connection.close_reason)
        if connection.closed_while_active is not None:
            self._while_active.add(1.0, connection.closed_while_active)
        if connection.requests:
            self._requests.observe(connection.requests)
        self._age.observe(connection.closed_at - connection.opened_at)
        self._count_bytes(connection)

    def sample(self, connections: Iterable[CountedConnection]) -> None:
        active = closing = websocket = paused = buffered = 0
        for connection in connections:
            state = connection.state
            if state == "active":
                active += 1
            elif state == "websocket":
                websocket += 1
            elif state == "closing":
                closing += 1
            buffered += connection.buffered_bytes
            paused += connection.write_paused
            if (
                connection.received_bytes != connection.counted_received
                or connection.sent_bytes != connection.counted_sent
            ):
                self._count_bytes(connection)
        self._states.set(active, "active")
        self._states.set(websocket, "websocket")
        self._states.set(closing, "closing")
        self._buffered.set(buffered)
        self._paused.set(paused)

    def _count_bytes(self, connection: CountedConnection) -> None:
        listener = connection.listener
        received, sent = connection.received_bytes, connection.sent_bytes
        self._received.add(received - connection.counted_received, listener)
        self._sent.add(sent - connection.counted_sent, listener)
        connection.counted_received = received
        connection.counted_sent = sent
