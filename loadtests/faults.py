"""What a scenario does to the server while it runs: replace its workers, kill one, stop its collector.

Each happens at a share of the planned time, in the process that leads the run, and only to the server that
`--server-pid` names and to its own children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import gevent
from locust import events
from locust.runners import WorkerRunner

from loadtests.observe import OBSERVER, give_up
from loadtests.story import spans_waiting

RECOVERY_SECONDS = 30.0


def at(share):
    """Call the function when this share of the planned time is over."""

    def plan(action):
        def start(environment, **_):
            if not isinstance(environment.runner, WorkerRunner):
                gevent.spawn_later(share * environment.shape_class.seconds, action)

        events.test_start.add_listener(start)
        return action

    return plan


@events.init.add_listener
def check(environment, runner, **_):
    if not isinstance(runner, WorkerRunner) and not environment.parsed_options.server_pid:
        give_up("this scenario hurts the server: name its main process with --server-pid")


def tell(message):
    at = time.monotonic() - OBSERVER.began
    OBSERVER.marks.append((at, message))
    print(f"{at:4.0f} s {message}", flush=True)


def reload():
    """Ask the main process to replace all workers."""
    tell("SIGHUP: all workers are replaced")
    os.kill(OBSERVER.options.server_pid, signal.SIGHUP)


def kill_worker():
    """Kill one of the server's workers, the one that has served longest, and time the repair."""
    reading = OBSERVER.reading()
    if reading is None:
        return tell("no worker was killed: the server does not answer")
    born = {
        labels["worker"]: value for labels, value in reading.samples["obsserve_worker_start_time_seconds"]
    }
    pids = {labels["worker"]: int(value) for labels, value in reading.samples["obsserve_worker_pid"]}
    for worker in sorted(pids, key=lambda one: born.get(one, 0.0)):
        if parent_of(pids[worker]) == OBSERVER.options.server_pid:
            at_risk = OBSERVER.facts.get("spans_at_risk", 0.0) + spans_waiting(reading)
            OBSERVER.facts["spans_at_risk"] = at_risk
            tell(f"SIGKILL: worker {worker} (pid {pids[worker]}) is killed")
            os.kill(pids[worker], signal.SIGKILL)
            return time_recovery(pids[worker])
    return tell("no worker was killed: none is a child of --server-pid")


def parent_of(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def time_recovery(killed):
    """Wait until as many workers serve as should, none of them the one that was killed."""
    began, before = time.monotonic(), OBSERVER.facts.get("recovery_seconds", 0.0)
    while (taken := time.monotonic() - began) < RECOVERY_SECONDS:
        reading = OBSERVER.reading()
        if reading is not None:
            pids = {int(value) for _, value in reading.samples["obsserve_worker_pid"]}
            ready = reading.total("obsserve_workers", state="ready")
            if killed not in pids and ready >= reading.total("obsserve_workers_desired"):
                return tell(f"all workers serve again after {taken:.1f} s")
        time.sleep(0.1)
        # While it lasts too: the run may end before it does.
        OBSERVER.facts["recovery_seconds"] = max(time.monotonic() - began, before)
    return tell(f"the workers are not back after {RECOVERY_SECONDS:.0f} s")


def stop_collector():
    """End the collector, without a word to the server."""
    pid = OBSERVER.options.collector_pid
    if pid:
        tell("SIGKILL: the collector is stopped")
        os.kill(pid, signal.SIGKILL)
