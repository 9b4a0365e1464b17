"""One client connection: the transport, the order of exchanges, flow control, the deadlines.

Owns the transport and the queue of exchanges; what it reads is `Intake`'s. Rules: exchanges are answered in
the order of their requests; while one waits behind another nothing more is read; whatever is refused gets an
exchange too, so that it leaves a record; no timer is set, the ticker's `sweep()` finds deadlines that have
passed. What was pipelined behind a response that closes the connection is not served and leaves no record.

    idle ──first byte──▶ head ──headers complete──▶ exchange(s) ──last one ended──▶ idle
     └───────────── close(reason) ──▶ closing ──▶ connection_lost ◀── client ───────┘
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from obsserve.http.exchange import make_exchange
from obsserve.http.flow import BODY_FULL, DRAIN_LIMIT, QUEUE
from obsserve.http.head import head_end
from obsserve.http.intake import BETWEEN, BODY, HEAD, METHOD, REFUSED, Intake
from obsserve.http.scope import address_of, read_forwarded, scope_of
from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import COMPLETE

if TYPE_CHECKING:
    from obsserve.http.exchange import Exchange
    from obsserve.http.state import ServerState
    from obsserve.telemetry.catalogue import Ending
    from obsserve.telemetry.observer import Address

# How long a closed connection may go on sending what nobody will read (nginx's lingering_timeout is 5 s).
LINGER: Final = 2.0
# How long an idle connection is kept while draining, for a request that is already on its way; and one that has
# not had any yet, whose client has only just connected to ask something.
DRAIN_LINGER: Final = 0.5
FIRST_LINGER: Final = 2.0
# The name of each request's task.
TASK_NAME: Final = "obsserve-request"

_serial = count(1)


class Successor(asyncio.Protocol):
    """A protocol that takes the transport over from HTTP."""

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed."""

    def drain(self) -> None:
        """Come to an end soon: the server is stopping."""


class Connection(Intake):
    """A `ConnectionView` in the making; read there what the public attributes mean.

    Args:
        server: what all connections share.
        listener: the configured endpoint that accepted it.
        scheme: http or https.
    """

    __slots__ = (
        "_discarded",
        "_queue",
        "_sent",
        "_surplus",
        "client",
        "close_reason",
        "closed_at",
        "closed_while_active",
        "closing_since",
        "counted_received",
        "counted_sent",
        "exchange",
        "idle_since",
        "listener",
        "local",
        "opened_at",
        "peer",
        "requests",
        "scheme",
        "scope_template",
        "serial",
        "successor",
        "tls",
        "tls_cipher",
        "tls_protocol",
        "tls_resumed",
        "trusted",
    )

    def __init__(self, server: ServerState, listener: str = "", scheme: str = "http") -> None:
        super().__init__(server)
        self.listener = listener
        self.scheme = scheme
        self.serial = next(_serial)
        self.peer: Address | None = None
        self.client: Address | None = None
        self.local: Address | None = None
        self.trusted = False
        self.scope_template: dict[str, Any] | None = None  # see scope_of
        self.tls: dict[str, Any] | None = None
        self.tls_protocol: str | None = None
        self.tls_cipher: str | None = None
        self.tls_resumed = False
        self.requests = self._sent = 0
        self.counted_received = self.counted_sent = 0
        self.close_reason = ""
        self.closed_while_active: str | None = None
        self.opened_at = self.closed_at = self.closing_since = self.idle_since = 0.0
        self.exchange: Exchange | None = None
        self.successor: Successor | None = None
        self._queue: deque[Exchange] | None = None
        self._surplus = False  # beyond the limit: its first request is refused
        self._discarded = 0

    # --- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self.server
        self.transport = transport  # type: ignore[assignment]  # the loop makes no other for a Protocol
        self.opened_at = self.read_at = self.idle_since = perf_counter()
        self.peer = address_of(transport.get_extra_info("peername"))
        self.local = address_of(transport.get_extra_info("sockname"))
        self.client = self.client or self.peer
        self.trusted = server.forwarding.trusts(self.client)
        self.parser = server.parser(self)
        server.connections.add(self)
        self._surplus = len(server.connections) > server.limit_connections
        if server.hooks.connection_opened is not None:
            server.hooks.connection_opened(self)

    def introduce(self, client: Address | None, size: int) -> None:
        """Take note of what came before the first byte of HTTP; called before `connection_made`.

        Args:
            client: whom the peer speaks for, None for itself.
            size: how many bytes the peer used to say so.
        """
        self.client = client
        self.received_bytes = self._mark = size

    def eof_received(self) -> bool:
        if not self.close_reason:
            self.close_reason = "client_closed"
        return False  # the transport closes, connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        server = self.server
        server.connections.discard(self)
        self.closed_at = perf_counter()
        reset = isinstance(exc, ConnectionError)
        if not self.close_reason:
            self.close_reason = "client_reset" if reset else "client_closed"
        open_exchanges = self._open_exchanges()
        if open_exchanges and self.closed_while_active is None:
            self.closed_while_active = "local" if self.closing_since else "remote"
        self._reading = REFUSED
        self.closing_since = self.closing_since or self.closed_at
        for exchange in open_exchanges:
            self._announce(exchange)
            exchange.disconnect(reset=reset)
        self.exchange = self._incoming = self._queue = None
        self._head = b""
        self.wake_writers()
        if server.hooks.connection_closed is not None:
            server.hooks.connection_closed(self)
        del self.parser  # it refers back to this connection

    def _open_exchanges(self) -> list[Exchange]:
        """Return the exchanges that have not ended, in order, one whose head is arriving included."""
        exchanges = [*filter(None, (self.exchange,)), *(self._queue or ())]
        if self._reading in (HEAD, METHOD):
            exchanges.append(self.unread_exchange())
        return [exchange for exchange in exchanges if exchange.ending is None]

    # --- the order of exchanges --------------------------------------------------------------

    def begin_exchange(self, began: float) -> Exchange:
        self.requests += 1
        self._incoming = exchange = make_exchange(self, began, self.requests, self.scheme)
        exchange.request_headers = self._headers
        if self.exchange is not None:
            exchange.pipelined = True
            exchange.ordinary = False
            self._separate()
        return exchange

    def refuse(self, exchange: Exchange, ending: Ending) -> None:
        self._reading = REFUSED
        exchange.keep_alive = exchange.plain = False
        if not exchange.request_size:
            exchange.request_size = self.received_bytes - self._mark
        if exchange is not self.exchange:
            exchange.refusal = ending
            if self._queue is None or exchange not in self._queue:
                self.enqueue(exchange)
        elif exchange.ending is None:
            exchange.answer_and_end(ending)
        else:
            self.close("protocol_error")

    def enqueue(self, exchange: Exchange) -> None:
        if self.exchange is None:
            self.start(exchange)
        else:
            if self._queue is None:
                self._queue = deque()
            self._queue.append(exchange)
            self.pause(QUEUE)

    def start(self, exchange: Exchange) -> None:
        server = self.server
        self.exchange = exchange
        if exchange.refusal is None:
            if self._surplus:
                exchange.refusal = catalogue.CONNECTION_LIMIT
            elif server.active >= server.room and not exchange.admitted:
                exchange.refusal = server.admission.refusal(exchange, perf_counter())
                if exchange.refusal is None:  # it is started again when its turn has come
                    return
        server.total_requests += 1
        if server.draining:
            exchange.keep_alive = exchange.plain = False
            if exchange.websocket and exchange.refusal is None:
                exchange.refusal = (
                    catalogue.DRAINING
                )  # it would be closed at once: the client tries elsewhere
        if exchange.refusal is not None:
            if server.forwarding.seen(exchange.fields):
                read_forwarded(exchange)
            self._announce(exchange)
            exchange.identify()
            exchange.answer_and_end(exchange.refusal)
            return
        server.active += 1
        exchange.started = True
        exchange.scope = scope_of(exchange)
        context = server.context.copy()
        hooks = server.hooks
        if hooks.exchange_started is not None and not exchange.announced:
            exchange.context = context
            exchange.announced = True  # from here as in _announce, without the call
            try:
                hooks.exchange_started(exchange)
            except Exception as fault:  # noqa: BLE001 - a fault in telemetry never touches a response
                hooks.failed("exchange_started", fault)
            exchange.context = None  # an observer may have put the exchange into it: leave no cycle
        if server.request_id_header is not None:
            exchange.identify()
        loop = server.loop
        if loop.get_task_factory() is None:  # what create_task() would do; with a name it makes up none
            task = asyncio.Task(exchange.run(), loop=loop, name=TASK_NAME, context=context)
        else:
            task = loop.create_task(exchange.run(), name=TASK_NAME, context=context)
        exchange.task = task
        if not exchange.app_started or not task.done():  # an eager task may have run to its end
            server.tasks.add(task)

    def leave_queue(self, exchange: Exchange) -> None:
        """Forget that an exchange waits for its turn: it has ended before."""
        server = self.server
        server.admission.left(exchange)
        server.total_requests += 1
        self._announce(exchange)
        exchange.identify()

    def _announce(self, exchange: Exchange) -> None:
        hooks = self.server.hooks
        if hooks.exchange_started is not None and not exchange.announced:
            exchange.announced = True
            try:
                hooks.exchange_started(exchange)
            except Exception as fault:  # noqa: BLE001 - a fault in telemetry never touches a response
                hooks.failed("exchange_started", fault)

    def hand_over(self, successor: Successor, exchange: Exchange) -> None:
        """Let another protocol have the transport; this connection stays its record.

        Args:
            successor: gets what the transport reads from now on.
            exchange: the request that asked for it; it is served in its turn.
        """
        self.successor = successor
        self._reading = BETWEEN
        self._incoming = None
        behind = len(self._chunk) - head_end(self._chunk, self._message_start())
        exchange.request_size = self.received_bytes - self._mark - behind
        self._mark = self.received_bytes
        exchange.body_complete = True
        exchange.body_done = self.read_at
        self.transport.set_protocol(successor)
        self.enqueue(exchange)

    def count_sent(self, size: int) -> None:
        """Count bytes that the successor sent."""
        self._sent += size

    def account(self, exchange: Exchange) -> None:
        """Take over an exchange's byte count; called once, before its observers are."""
        if self.write_paused and exchange is self.exchange:
            now = perf_counter()
            exchange.waited(now - self.paused_since)
            self.paused_since = now
        self._sent += exchange.response_size
        if not exchange.request_size:  # the request was still arriving
            exchange.request_size = self.received_bytes - self._mark

    def exchange_ended(self, exchange: Exchange) -> None:
        """Go on after an exchange: the next one, the rest of its body, or the end of the connection."""
        if exchange is not self.exchange or self.closing_since:
            return
        if exchange.status == 101:
            self.exchange = None
        elif not exchange.keep_alive:
            self._close_after(exchange)
        elif not exchange.body_complete:
            self._discarded = 0
            self.discard(exchange.take_unread())
        elif self._queue or self.paused or not self.server.timeout_keep_alive:
            self.request_read()
        else:
            self.exchange = None
            self.idle_since = exchange.ended

    def request_read(self) -> None:
        """Start the next exchange in the queue, or become idle: response and request are both over."""
        exchange = self.exchange
        self.exchange = None
        if self._queue:
            following = self._queue.popleft()
            if not self._queue:
                self.resume(QUEUE)
            self.start(following)
        else:
            self.idle_since = exchange.ended if exchange is not None else perf_counter()
            if self.paused:
                self.resume(self.paused)
            if not self.server.timeout_keep_alive and self._reading == BETWEEN:
                self.close("keepalive_timeout")

    def _close_after(self, exchange: Exchange) -> None:
        ending = exchange.ending
        if ending is COMPLETE:
            self.close("drain" if self.server.draining else "negotiated")
        else:
            # Without a length only a reset tells the client that the response was cut short.
            self.close(ending.close_reason, abort=exchange.delimited_by_close)

    # --- closing -----------------------------------------------------------------------------

    def close(self, reason: str, *, abort: bool = False, unread: bool = False) -> None:
        """Close the connection after what is written has left.

        Args:
            reason: the metric's `reason`.
            abort: throw away what has not left yet.
            unread: the client may still be sending what nobody will read.
        """
        if self.closing_since:
            if abort:
                self.transport.abort()
            return
        self.closing_since = perf_counter()
        self.close_reason = self.close_reason or reason
        self.pending_write = self.transport.get_write_buffer_size()
        unread = unread or self._reading != BETWEEN
        self._reading = REFUSED
        if self.open_exchange is not None:
            self.closed_while_active = "local"
        if self._queue:
            self.requests -= len(self._queue)
            self._queue = None
        if abort:
            self.transport.abort()
        elif unread and not self.transport.is_closing():
            # Closing now would reset the connection, and the client lose the response with it (RFC 9112 9.6).
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._discarded = 0
            self.resume(self.paused)
        else:
            self.transport.close()

    def discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded <= DRAIN_LIMIT:
            self.resume(BODY_FULL)
        elif self._reading == REFUSED:
            self.pause(QUEUE)
        else:
            self.close("negotiated")

    # --- deadlines ---------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Act on deadlines that have passed; the ticker calls this.

        Args:
            now: `time.perf_counter` seconds.
        """
        if self.closing_since or self.write_paused:
            self._sweep_writing(now)
        if self.closing_since:
            return
        server = self.server
        exchange = self.exchange
        if exchange is None:
            if self.successor is not None:
                self.successor.sweep(now)
            else:
                self._sweep_idle(now)
        elif exchange.ending is None and now - (exchange.app_started or now) > server.timeout_request:
            task = exchange.task
            exchange.answer_and_end(catalogue.RESPONSE_TIMEOUT)
            if task is not None:
                task.cancel()
        elif (
            self._reading == BODY
            and not self.paused
            and not exchange.awaits_continue
            and now - self.read_at > server.timeout_request_body
        ):
            self._body_timed_out(exchange)

    def _sweep_idle(self, now: float) -> None:
        server = self.server
        if self._reading in (HEAD, METHOD):
            if now - max(self._head_began, self.idle_since) > server.timeout_request_header:
                self.refuse(self.unread_exchange(), catalogue.HEADER_TIMEOUT)
        elif server.draining:
            linger = DRAIN_LINGER if self.requests else FIRST_LINGER
            if now - max(self.idle_since, server.drain_started) > linger:
                self.close("drain")
        elif not self.requests:
            if now - self.opened_at > server.timeout_request_header:
                self.close("header_timeout")
        elif now - self.idle_since > server.timeout_keep_alive:
            self.close("keepalive_timeout")

    def _body_timed_out(self, exchange: Exchange) -> None:
        incoming = self._incoming
        if incoming is not None and incoming is not exchange:
            self.refuse(incoming, catalogue.BODY_TIMEOUT)
        elif exchange.ending is None:
            exchange.answer_and_end(catalogue.BODY_TIMEOUT)
        else:
            self.close("body_timeout")

    def _sweep_writing(self, now: float) -> None:
        """Find a client that does not take what is written to it, or that does not close its side."""
        size = self.transport.get_write_buffer_size()
        progress, self.pending_write = size < self.pending_write, size
        if progress and self.write_paused:
            if self.exchange is not None:
                self.exchange.waited(now - self.paused_since)
            self.paused_since = now
        elif progress:
            self.closing_since = now
        elif self.closing_since and not size:
            if now - self.closing_since > LINGER:
                self._end_linger(now)
        elif (
            now - (self.paused_since if self.write_paused else self.closing_since) > self.server.timeout_write
        ):
            if self.exchange is not None:
                self.exchange.end(catalogue.WRITE_TIMEOUT)
            self.close("write_timeout", abort=True)

    def _end_linger(self, now: float) -> None:
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.closing_since = now
            self.transport.close()

    def abandon(self, ending: Ending) -> None:
        """End whatever is still open: the grace period of a shutdown is over.

        Args:
            ending: how the open exchanges end.
        """
        exchange = self.exchange
        for waiting in self._open_exchanges():
            if waiting is not exchange:
                self._announce(waiting)
                waiting.end(ending)
        self._queue = None
        if exchange is not None and exchange.ending is None:
            task = exchange.task
            exchange.answer_and_end(ending)
            if task is not None:
                task.cancel()
                if not exchange.app_started:  # cancelled before its first step, it will not say goodbye
                    self.server.tasks.discard(task)
        self.close("shutdown")

    # --- what observers see beyond the attributes --------------------------------------------

    @property
    def id(self) -> str:
        return f"{self.server.instance}-{self.serial:x}"

    @property
    def open_exchange(self) -> Exchange | None:
        """The exchange that is answered now, None when there is none that has not ended."""
        exchange = self.exchange
        return exchange if exchange is not None and exchange.ending is None else None

    @property
    def sent_bytes(self) -> int:
        exchange = self.open_exchange
        return self._sent + (exchange.response_size if exchange is not None else 0)

    @property
    def state(self) -> str:
        if self.closing_since:
            return "closing"
        if self.successor is not None:
            return "websocket"
        return "idle" if self.exchange is None else "active"

    @property
    def buffered_bytes(self) -> int:
        return self.transport.get_write_buffer_size()
