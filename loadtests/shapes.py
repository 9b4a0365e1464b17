"""How many users there are, and when: phases, one after the other, the last with nobody.

The run ends with nobody so that every request has its answer, and every report of a worker has arrived, before
the two sides are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from locust import LoadTestShape

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLE_SECONDS = 1.0
LONGEST_SETTLE_SECONDS = 20.0
MOST_SPAWNED = 100.0  # users each second; beyond that Locust warns


class Phase(NamedTuple):
    users: int
    seconds: float
    spawn_rate: float = MOST_SPAWNED  # users each second


def ramp(first: int, last: int, steps: int, seconds: float) -> tuple[Phase, ...]:
    """Return equal steps from the first number of users to the last, `seconds` each."""
    rise = (last - first) / (steps - 1)
    return tuple(Phase(round(first + rise * step), seconds) for step in range(steps))


class Phases(LoadTestShape):
    """Go through `phases`; --users and --run-time scale them."""

    abstract = True
    use_common_options = True
    phases: tuple[Phase, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.plan = self.phases
        self.over_at: float | None = None
        self.is_quiet: Callable[[], bool] = lambda: (
            True
        )  # whether all users have gone, and all reports have come

    def scale(self, users: int | None, seconds: float | None) -> None:
        """Make the highest phase have so many users, and the whole take so long."""
        more = users / max(one.users for one in self.phases) if users else 1.0
        longer = seconds / self.seconds if seconds else 1.0
        self.plan = tuple(
            Phase(
                max(1, round(one.users * more)),
                one.seconds * longer,
                min(one.spawn_rate * more, MOST_SPAWNED),
            )
            for one in self.phases
        )

    @property
    def seconds(self) -> float:
        """How long it takes, without the end."""
        return sum(one.seconds for one in self.plan)

    def tick(self) -> tuple[int, float] | None:
        """Return users and spawn rate for now, None when the run is over."""
        now = self.get_run_time()
        ends = 0.0
        for one in self.plan:
            ends += one.seconds
            if now < ends:
                return one.users, one.spawn_rate
        if self.over_at is None:
            self.over_at = now
        waited = now - self.over_at
        if waited < SETTLE_SECONDS or (not self.is_quiet() and waited < LONGEST_SETTLE_SECONDS):
            return 0, MOST_SPAWNED
        return None


class Flat(Phases):
    """So many users for so long: what --users, --spawn-rate and --run-time ask for without any shape."""

    abstract = True

    def __init__(self, users: int, spawn_rate: float, seconds: float) -> None:
        self.phases = (Phase(users, seconds, spawn_rate),)
        super().__init__()
