"""What the main process watches its workers for: that they live, that their loops turn, their memory, their age.

Owns what is known of each worker's pulse. Rules:
- Silence is what this process has seen of it, not what clocks say: neither a corrected clock nor a machine,
  a container or a main process that stood still makes a worker look dead.
- A worker that starts is never judged, only talked about: it may import for as long as it likes.
- A worker whose process does not answer is killed (`--timeout-worker-healthcheck`); one whose event loop is
  blocked only if that is asked for (`--timeout-worker-unresponsive`). The stack of either is logged.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from obsserve.telemetry.runtime import resident_bytes

if TYPE_CHECKING:
    from obsserve.server.supervisor import Supervisor
    from obsserve.server.workerprocess import WorkerProcess
    from obsserve.settings import Settings

# How often memory and age are looked at, seconds; time-outs that are short are looked at more often.
INTERVAL: Final = 1.0
SHORTEST_INTERVAL: Final = 0.05
# How long a worker may take to write its stack before it is killed, seconds.
STACK_WAIT: Final = 0.5


@dataclass(slots=True, eq=False)
class Pulse:
    """What is known of one worker.

    Args:
        since: when it was first seen, monotonic seconds.
    """

    since: float
    beat: float = 0.0
    silence: float = 0.0  # seconds for which its loop has not turned
    unanswered: float = 0.0  # seconds since it was asked whether it lives, without an answer
    asked: bool = False
    serving_since: float = 0.0
    age_limit: float = 0.0
    called_slow: bool = False
    called_large: bool = False


class Vitals:
    """Watches, and has workers replaced or killed.

    Args:
        settings: the options.
    """

    def __init__(self, settings: Settings) -> None:
        self._healthcheck = settings.timeout_worker_healthcheck
        self._unresponsive = settings.timeout_worker_unresponsive
        self._max_rss = settings.limit_max_rss
        self._max_lifetime = settings.limit_max_lifetime
        self._jitter = settings.limit_max_lifetime_jitter
        bounds = [bound / 4 for bound in (self._healthcheck, self._unresponsive) if bound is not None]
        self._interval = max(min(INTERVAL, *bounds, INTERVAL), SHORTEST_INTERVAL)
        self._pulses: dict[WorkerProcess, Pulse] = {}

    async def watch(self, supervisor: Supervisor) -> None:
        """Look at the workers from time to time, until cancelled."""
        supervisor.receivers["pong"] = self._answered
        before = monotonic()
        while True:
            await asyncio.sleep(self._interval)
            now = monotonic()
            # Time for which this process did not run is not held against anybody.
            passed, before = min(now - before, 2 * self._interval), now
            workers = tuple(supervisor.fleet.workers)
            for worker in workers:
                pulse = self._pulses.setdefault(worker, Pulse(now))
                self._look_at(supervisor, worker, pulse, now, passed)
            for gone in self._pulses.keys() - set(workers):
                del self._pulses[gone]

    def _answered(self, worker: WorkerProcess, _message: dict[str, Any]) -> None:
        pulse = self._pulses.get(worker)
        if pulse is not None:
            pulse.asked, pulse.unanswered = False, 0.0

    def _look_at(
        self, supervisor: Supervisor, worker: WorkerProcess, pulse: Pulse, now: float, passed: float
    ) -> None:
        if worker.state == "starting":
            self._tell_slow_start(supervisor, worker, pulse, now)
        if worker.state != "ready" or worker.killed_for is not None:
            return
        if not pulse.serving_since:
            pulse.serving_since = now
            pulse.age_limit = (self._max_lifetime or 0.0) + random.uniform(0.0, self._jitter)  # noqa: S311 - spreads load
            self._tell_large_start(supervisor, worker, pulse)
        beat = worker.heartbeat()
        pulse.silence = 0.0 if beat != pulse.beat else pulse.silence + passed
        pulse.beat = beat
        if not self._is_alive(supervisor, worker, pulse, passed):
            return
        worker.resident = resident_bytes(worker.pid) or worker.resident
        self._consider_replacement(supervisor, worker, pulse, now)

    def _is_alive(self, supervisor: Supervisor, worker: WorkerProcess, pulse: Pulse, passed: float) -> bool:
        """Kill it if it does not live; a loop that turns is proof enough, else it is asked."""
        if not pulse.silence:
            pulse.asked, pulse.unanswered = False, 0.0
            return True
        if self._unresponsive is not None and pulse.silence >= self._unresponsive:
            what = f"its event loop has been blocked for {pulse.silence:.1f} s"
            supervisor.end_unresponsive(worker, what)
            return False
        if self._healthcheck is None:
            return True
        if pulse.asked:
            pulse.unanswered += passed
            if pulse.unanswered >= self._healthcheck:
                what = f"its process has not answered for {pulse.unanswered:.1f} s"
                supervisor.end_unresponsive(worker, what)
                return False
        elif pulse.silence >= self._interval:
            pulse.asked = True
            worker.channel.send("ping")
        return True

    def _consider_replacement(
        self, supervisor: Supervisor, worker: WorkerProcess, pulse: Pulse, now: float
    ) -> None:
        limit, resident = self._max_rss, worker.resident
        if limit is not None and resident >= limit and not pulse.called_large:
            supervisor.recycle(worker, "max_rss", resident_bytes=resident, limit_bytes=limit)
        elif self._max_lifetime is not None and now - pulse.serving_since >= pulse.age_limit:
            supervisor.recycle(worker, "max_lifetime", age_seconds=round(now - pulse.serving_since, 1))

    def _tell_large_start(self, supervisor: Supervisor, worker: WorkerProcess, pulse: Pulse) -> None:
        """A worker that was as large when it became ready would be replaced for ever."""
        limit, resident = self._max_rss, worker.resident
        if limit is not None and resident >= limit:
            pulse.called_large = True
            supervisor.log.warning(
                "worker.large",
                message=f"Worker {worker.slot} needs more memory than limit_max_rss from the beginning; "
                "it is not replaced for that",
                worker=worker.slot,
                resident_bytes=resident,
                limit_bytes=limit,
            )

    def _tell_slow_start(
        self, supervisor: Supervisor, worker: WorkerProcess, pulse: Pulse, now: float
    ) -> None:
        if self._healthcheck is None or pulse.called_slow or now - pulse.since < self._healthcheck:
            return
        pulse.called_slow = True
        supervisor.log.warning(
            "worker.slow",
            message=f"Worker {worker.slot} is still starting after {now - pulse.since:.0f} s",
            worker=worker.slot,
            pid=worker.pid,
        )
