"""How many users there are, and when: phases, one after the other, the last with nobody.

The run ends with nobody so that every request has its answer, and every report of a worker has arrived, before
the two sides are compared.
"""

from __future__ import annotations

from typing import NamedTuple

from locust import LoadTestShape

SETTLE_SECONDS = 3.0
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

    @property
    def settle_seconds(self) -> float:
        """How long the end takes at least; workers in other processes report in their own time."""
        return SETTLE_SECONDS if getattr(self.runner, "clients", None) else 1.0

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
        if now < self.over_at + self.settle_seconds:
            return 0, MOST_SPAWNED
        return None
