"""What telemetry itself costs on the event loops: `obsserve_telemetry_self_seconds_total`.

Ten times a second the hooks measure each observer for a few exchanges. Their cost counts as it is; the exchanges
until the next look are taken to cost what the warm ones among them did (the first ones after a pause find cold
caches). Between two looks nothing is added to the path of a request, not even a branch. What is done once a tick,
or for several exchanges together, is measured as such.

A call in which the thread lost the processor must not stand for hundreds: what takes longer than a millisecond is
left out. (The clock of the thread's CPU time would know, but it is a system call, which itself slows down what comes
after it.) Exports and writes of log lines run on threads of their own: they are no wait on the loop, and are in
`process_cpu_seconds_total`.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.hooks import Hooks

LOOK: Final = 24  # exchanges
COLD: Final = 8  # of these
INTERRUPTED: Final = 0.001  # seconds
_TRIALS: Final = 64


class Deferred(Protocol):
    """An observer that works on several exchanges together, later."""

    render: Callable[[], None]

    @property
    def waiting(self) -> int:
        """How many exchanges `render` will work on."""
        ...


class SelfCost:
    """Publishes what telemetry costs.

    Args:
        region: the cells of this process.
        hooks: whose calls are measured.
        signals: the signal of the catalogue that each observer works for.
        exchanges: returns how many exchanges there have been.
        deferred: what the access log does later.
    """

    def __init__(
        self,
        region: Cells,
        hooks: Hooks,
        signals: Mapping[object, str],
        exchanges: Callable[[], float],
        deferred: Iterable[Deferred] = (),
    ) -> None:
        self._seconds = Family(region, catalogue.SELF_SECONDS, [(signal,) for signal in catalogue.SIGNALS])
        self._hooks = hooks
        self._signals = signals
        self._exchanges = exchanges
        self._deferred = tuple(deferred)
        self._looks: dict[object, _Look] = {}
        self._watched: set[Deferred] = set()
        # What asking the clock takes is no cost of a signal.
        self._clock = min(-(perf_counter() - perf_counter()) for _ in range(_TRIALS))

    def tick(self) -> None:
        """Settle the exchanges that were not measured, and have the next ones measured."""
        now = self._exchanges()
        for look in self._looks.values():
            for signal, seconds in look.settle(now):
                self._seconds.add(seconds, signal)
        self._hooks.measure(LOOK, self._measured)
        for deferred in self._deferred:
            if deferred not in self._watched:
                self._watched.add(deferred)
                self._watch(deferred)

    def spent(self, seconds: float, signal: str) -> None:
        """Add the CPU seconds that were spent for a signal outside the hooks."""
        self._seconds.add(seconds, signal)

    def _measured(self, hook: str, costs: list[tuple[object, float]]) -> None:
        look = self._looks.get(hook) or self._looks.setdefault(hook, _Look())
        signals = self._signals
        self._add(look, 1, [(signals.get(observer), seconds) for observer, seconds in costs])

    def _add(self, look: _Look, exchanges: int, costs: list[tuple[str | None, float]]) -> None:
        if any(seconds > INTERRUPTED * exchanges for _, seconds in costs):
            return
        known = [(signal, max(s - self._clock, 0.0)) for signal, s in costs if signal is not None]
        look.add(exchanges, known)
        for signal, seconds in known:
            self._seconds.add(seconds, signal)

    def _watch(self, deferred: Deferred) -> None:
        """Measure what is deferred until it has worked on as many exchanges as a look has."""
        render = deferred.render
        look = self._looks.get(deferred) or self._looks.setdefault(deferred, _Look())
        left = LOOK

        def measured() -> None:
            nonlocal left
            exchanges = deferred.waiting
            left -= exchanges
            if left <= 0:
                deferred.render = render
                self._watched.discard(deferred)
            began = perf_counter()
            render()
            if exchanges:
                self._add(look, exchanges, [("access_log", perf_counter() - began)])

        deferred.render = measured


class _Look:
    """The exchanges measured since the last tick, and what they cost."""

    def __init__(self) -> None:
        self._settled = 0.0  # exchanges
        self._measured = 0
        self._warm = 0
        self._costs: dict[str, float] = {}

    def add(self, exchanges: int, costs: list[tuple[str, float]]) -> None:
        """Take what some exchanges cost; the cold ones count for the estimate only while there are no others."""
        if self._measured <= COLD < self._measured + exchanges:
            self._costs.clear()
            self._warm = 0
        self._measured += exchanges
        self._warm += exchanges
        for signal, seconds in costs:
            self._costs[signal] = self._costs.get(signal, 0.0) + seconds

    def settle(self, now: float) -> list[tuple[str, float]]:
        """Return what the exchanges that were not measured are taken to have cost, and begin anew.

        Args:
            now: how many exchanges there have been in all.
        """
        if not self._warm:
            return []  # they are left for the next time
        others = max(now - self._settled - self._measured, 0.0)
        estimates = [(signal, seconds / self._warm * others) for signal, seconds in self._costs.items()]
        self._settled = max(now, self._settled)
        self._measured = self._warm = 0
        self._costs.clear()
        return estimates
