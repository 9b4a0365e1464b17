"""What an observer can see, and how observers are compiled into hooks.

The exchange itself is the record: observers get it as a read-only `ExchangeView`. Immutability is a
type here, not a copy. Hooks are named by past participles. For each hook `Hooks` holds None when no
observer implements it, so that an unobserved server pays one branch. An observer that raises is
reported once and removed: a fault in telemetry never touches a response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from obsserve.telemetry.catalogue import DisconnectPhase, Ending, Outcome, ResponseOrigin

Address = tuple[str, int | None]
Headers = Sequence[tuple[bytes, bytes]]


class TargetView(Protocol):
    """A request target, split. Equal only to itself, so that it can stand for its text in a key."""

    @property
    def raw_path(self) -> bytes: ...
    @property
    def query_string(self) -> bytes: ...


class TraceView(Protocol):
    """The trace that an exchange belongs to."""

    @property
    def trace_id_hex(self) -> str: ...
    @property
    def span_id_hex(self) -> str: ...
    @property
    def flags_hex(self) -> str: ...
    @property
    def sampled(self) -> bool: ...
    @property
    def log_fragment(self) -> str:
        """The trace's fields of the access line, from the quote that ends the field before them."""
        ...


class ConnectionView(Protocol):
    """One client connection as the transport saw it. Times are `time.perf_counter` seconds."""

    @property
    def id(self) -> str: ...
    @property
    def serial(self) -> int:
        """Its number among the connections of this process."""
        ...

    @property
    def listener(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def peer(self) -> Address | None: ...
    @property
    def local(self) -> Address | None: ...
    @property
    def tls_protocol(self) -> str | None: ...
    @property
    def tls_cipher(self) -> str | None: ...
    @property
    def tls_resumed(self) -> bool: ...
    @property
    def tls(self) -> dict[str, Any] | None:
        """The ASGI `tls` extension; None without TLS."""
        ...

    @property
    def opened_at(self) -> float: ...
    @property
    def closed_at(self) -> float: ...
    @property
    def requests(self) -> int:
        """Exchanges that began on this connection."""
        ...

    @property
    def received_bytes(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def close_reason(self) -> str: ...
    @property
    def closed_while_active(self) -> str | None:
        """Which side ended the connection while an exchange was open: local, remote or None."""
        ...


class ExchangeView(Protocol):
    """One request and its response, from the first byte seen to its end.

    Times are `time.perf_counter` seconds; 0.0 stands for a stage that was not reached. They are the
    clock points t0 to t6 of the telemetry contract.
    """

    @property
    def connection(self) -> ConnectionView: ...
    @property
    def connection_request(self) -> int:
        """1 for the first exchange on its connection."""
        ...

    @property
    def present_route(self) -> str:
        """The route's template while the application still runs; empty as long as none is known."""
        ...

    @property
    def request_id(self) -> str: ...
    @property
    def method(self) -> str:
        """As sent; empty when the request line could not be read."""
        ...

    @property
    def trace(self) -> TraceView | None:
        """None when tracing is off."""
        ...

    @property
    def parts(self) -> TargetView | None:
        """The request target; None when it could not be read."""
        ...

    @property
    def raw_path(self) -> bytes:
        """Percent-encoded, without user-info, authority and query; empty when not parsed."""
        ...

    @property
    def query_string(self) -> bytes: ...
    @property
    def http_version(self) -> str:
        """1.0 or 1.1; empty when not parsed."""
        ...

    @property
    def scheme(self) -> str:
        """The URL scheme, http or https, after trusted forwarding headers."""
        ...

    @property
    def forwarded_scheme(self) -> str | None:
        """What a trusted forwarding header says of the scheme."""
        ...

    @property
    def forwarded_client(self) -> Address | None:
        """What a trusted forwarding header says of the client."""
        ...

    @property
    def client(self) -> Address | None:
        """After trusted forwarding headers, else the peer."""
        ...

    @property
    def forwarded_trusted(self) -> bool | None:
        """None when no forwarding header was seen."""
        ...

    @property
    def request_headers(self) -> Headers: ...
    @property
    def fields(self) -> dict[bytes, bytes]:
        """Request header fields by lower-case name, the last of each name."""
        ...

    @property
    def response_headers(self) -> Headers: ...
    @property
    def bound(self) -> dict[str, Any] | None:
        """Fields that the application has bound to it, for its line; None when there are none."""
        ...

    @property
    def scope(self) -> dict[str, Any] | None:
        """The ASGI scope; None for a request that no application saw."""
        ...

    @property
    def route(self) -> str:
        """The template of the route that answered; empty when none is known."""
        ...

    @property
    def status(self) -> int | None:
        """The status on the wire; None when no response was sent."""
        ...

    @property
    def ending(self) -> Ending: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def error_type(self) -> str | None: ...
    @property
    def exception(self) -> BaseException | None: ...
    @property
    def ordinary(self) -> bool:
        """Whether nothing was out of the way, for observers that have a shorter way then.

        HTTP/1.1, answered by the application below 500, not pipelined, not upgraded, never waited for a
        reader, no fault.
        """
        ...

    @property
    def app_protocol_error(self) -> str | None:
        """What the application did against ASGI, if anything (the metric's `reason`)."""
        ...

    @property
    def response_origin(self) -> ResponseOrigin: ...
    @property
    def disconnect_phase(self) -> DisconnectPhase | None: ...
    @property
    def flags(self) -> list[str]: ...
    @property
    def websocket(self) -> bool:
        """Whether the request asks for a WebSocket, and this exchange is its handshake."""
        ...

    @property
    def pipelined(self) -> bool: ...
    @property
    def request_body_size(self) -> int: ...
    @property
    def response_body_size(self) -> int: ...
    @property
    def request_size(self) -> int:
        """Bytes of the request on the wire, head included."""
        ...

    @property
    def response_size(self) -> int: ...
    @property
    def began(self) -> float:
        """t0, first byte seen."""
        ...

    @property
    def head_done(self) -> float:
        """t1, headers complete."""
        ...

    @property
    def app_started(self) -> float:
        """t2, the application's task runs."""
        ...

    @property
    def body_done(self) -> float:
        """t3, request body complete."""
        ...

    @property
    def response_started(self) -> float:
        """t4, the application sent its response start."""
        ...

    @property
    def first_byte(self) -> float:
        """t5, first response byte handed to the transport."""
        ...

    @property
    def ended(self) -> float:
        """t6, last byte handed over, or the moment of any other end."""
        ...

    @property
    def write_blocked(self) -> float:
        """Seconds for which the response waited on a slow reader."""
        ...


class SessionView(Protocol):
    """One open WebSocket, from the 101 of its handshake to its close. Times are `time.perf_counter` seconds."""

    @property
    def exchange(self) -> ExchangeView:
        """The handshake."""
        ...

    @property
    def route(self) -> str: ...
    @property
    def opened_at(self) -> float: ...
    @property
    def closed_at(self) -> float: ...
    @property
    def close_code(self) -> int:
        """As sent or received; 1005 for a close without a code, 1006 for a connection that was lost."""
        ...

    @property
    def close_initiator(self) -> str:
        """Who began to close: client, server, app, or none when the connection was lost."""
        ...

    @property
    def error_type(self) -> str | None: ...
    @property
    def exception(self) -> BaseException | None: ...
    @property
    def messages_received(self) -> int: ...
    @property
    def messages_sent(self) -> int: ...
    @property
    def bytes_received(self) -> int:
        """Payload bytes, after decompression."""
        ...

    @property
    def bytes_sent(self) -> int: ...
    @property
    def text_received(self) -> int:
        """Messages received that were text; the others were binary."""
        ...

    @property
    def text_sent(self) -> int: ...
    @property
    def text_bytes_received(self) -> int: ...
    @property
    def text_bytes_sent(self) -> int: ...
    @property
    def queued_messages(self) -> int:
        """Messages that the application has not received yet."""
        ...

    @property
    def ping_timed_out(self) -> bool: ...


class Observer(Protocol):
    """Something that wants to know. Each hook is optional: leave out what is not needed.

    connection_opened(connection), connection_closed(connection): once each for every connection.
    exchange_started(exchange): before the application runs, also for a refused request.
    exchange_running(exchange): in the request's own task and context, just before the application.
    exchange_ended(exchange): exactly once for each exchange, after `exchange_started`.
    session_started(session), session_ended(session): once each for every WebSocket that was accepted.
    ping_answered(seconds): the round-trip time of a WebSocket ping.
    """


ConnectionHook = Callable[[ConnectionView], None]
ExchangeHook = Callable[[ExchangeView], None]
SessionHook = Callable[[SessionView], None]
PingHook = Callable[[float], None]
FaultReport = Callable[[object, str, BaseException], None]

HOOKS = (
    "connection_opened",
    "connection_closed",
    "exchange_started",
    "exchange_running",
    "exchange_ended",
    "session_started",
    "session_ended",
    "ping_answered",
)

# Called for each request: `try: hook(view)`, `except Exception as fault: hooks.failed(name, fault)` costs
# less than one more call.
GUARDED_BY_CALLER = frozenset(("exchange_started", "exchange_running", "exchange_ended"))


class Hooks:
    """The compiled hooks of a set of observers: for each hook None, or one call.

    Args:
        observers: in the order in which they are called.
        on_fault: called once for an observer that raised, with it, the hook's name and the exception.
    """

    __slots__ = (*HOOKS, "_measured", "_observers", "_on_fault")

    connection_opened: ConnectionHook | None
    connection_closed: ConnectionHook | None
    exchange_started: ExchangeHook | None
    exchange_running: ExchangeHook | None
    exchange_ended: ExchangeHook | None
    session_started: SessionHook | None
    session_ended: SessionHook | None
    ping_answered: PingHook | None

    def __init__(self, observers: Sequence[object] = (), on_fault: FaultReport | None = None) -> None:
        self._observers = list(observers)
        self._on_fault = on_fault
        self._measured: set[str] = set()  # hooks whose next call is measured
        self._compile()

    def _compile(self) -> None:
        self._measured.clear()
        for hook in HOOKS:
            calls = [
                (observer, call)
                for observer in self._observers
                if (call := getattr(observer, hook, None)) is not None
            ]
            setattr(self, hook, self._guarded(hook, calls) if calls else None)

    def _guarded(self, hook: str, calls: list[tuple[object, Callable[[Any], None]]]) -> Callable[[Any], None]:
        if len(calls) == 1 and hook in GUARDED_BY_CALLER:
            return calls[0][1]

        if len(calls) == 2:  # metrics and access log, the usual pair: no loop to pay for
            (first, call_first), (second, call_second) = calls

            def notify_both(view: Any) -> None:
                try:
                    call_first(view)
                except Exception as fault:  # noqa: BLE001 - whatever it is, the request goes on
                    self._remove(first, hook, fault)
                try:
                    call_second(view)
                except Exception as fault:  # noqa: BLE001 - as above
                    self._remove(second, hook, fault)

            return notify_both

        def notify_each(view: Any) -> None:
            for observer, call in calls:
                try:
                    call(view)
                except Exception as fault:  # noqa: BLE001 - one faulty observer must not silence the next
                    self._remove(observer, hook, fault)

        return notify_each

    def measure(self, calls: int, measured: Callable[[str, list[tuple[object, float]]], None]) -> None:
        """Measure the next calls of each hook of an exchange; after them, everything is as before.

        Args:
            calls: how many of each hook.
            measured: called for each of them with the hook's name, and for each observer the seconds that it
                took.
        """
        for hook in GUARDED_BY_CALLER:
            usual = getattr(self, hook)
            if usual is not None and hook not in self._measured:
                self._measured.add(hook)
                setattr(self, hook, self._measuring(hook, usual, calls, measured))

    def _measuring(
        self,
        hook: str,
        usual: Callable[[Any], None],
        left: int,
        measured: Callable[[str, list[tuple[object, float]]], None],
    ) -> Callable[[Any], None]:
        calls = [
            (observer, call)
            for observer in self._observers
            if (call := getattr(observer, hook, None)) is not None
        ]

        def notify_measured(view: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                self._measured.discard(hook)
                setattr(self, hook, usual)
            costs: list[tuple[object, float]] = []
            for observer, call in calls:
                began = perf_counter()
                try:
                    call(view)
                except Exception as fault:  # noqa: BLE001 - whatever it is, the request goes on
                    self._remove(observer, hook, fault)
                costs.append((observer, perf_counter() - began))
            measured(hook, costs)

        return notify_measured

    def replace(self, old: Sequence[object], new: Sequence[object]) -> None:
        """Call other observers from now on in the place of some."""
        self._observers = [*(kept for kept in self._observers if kept not in old), *new]
        self._compile()

    def failed(self, hook: str, fault: BaseException) -> None:
        """Remove the one observer of a hook whose call raised; whoever calls a hook guards it with this."""
        for observer in self._observers:
            if getattr(observer, hook, None) is not None:
                self._remove(observer, hook, fault)
                return

    def _remove(self, observer: object, hook: str, fault: BaseException) -> None:
        if observer not in self._observers:
            return
        self._observers.remove(observer)
        self._compile()
        if self._on_fault is not None:
            self._on_fault(observer, hook, fault)
