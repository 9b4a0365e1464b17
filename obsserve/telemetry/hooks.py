"""How observers are compiled into hooks.

Hooks are named by past participles. For each hook `Hooks` holds None when no observer implements it, so that
an unobserved server pays one branch. An observer that raises is reported once and removed: a fault in
telemetry never touches a response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from obsserve.speedups import native
from obsserve.telemetry.observer import ConnectionView, ExchangeView, MessageView, SessionView

ConnectionHook = Callable[[ConnectionView], None]
ExchangeHook = Callable[[ExchangeView], None]
SessionHook = Callable[[SessionView], None]
MessageHook = Callable[[MessageView], None]
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
    "message_received",
    "message_handled",
    "message_sent",
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
    message_received: MessageHook | None
    message_handled: MessageHook | None
    message_sent: MessageHook | None

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

        if native is not None:
            chain: Callable[[Any], None] = native.Chain(
                calls=tuple(call for _, call in calls),
                failed=lambda number, fault: self._remove(calls[number][0], hook, fault),
            )
            return chain

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
