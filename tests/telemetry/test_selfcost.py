"""What telemetry costs: measured on single exchanges, scaled by those since, attributed to the right signal."""

from __future__ import annotations

import pytest

from obsserve.telemetry import catalogue, hooks, selfcost
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.hooks import Hooks
from obsserve.telemetry.selfcost import COLD, INTERRUPTED, LOOK, SelfCost

COST = 0.0002


now = 0.0


def work(seconds):
    """Take so long: the clock is the test's own, so that a busy machine does not matter."""
    global now
    now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    for module in (hooks, selfcost):
        monkeypatch.setattr(module, "perf_counter", lambda: now)


class Busy:
    """An observer that works for a while in two hooks."""

    seen = 0

    def exchange_started(self, view):
        work(COST / 2)

    def exchange_ended(self, view):
        self.seen += 1
        work(COST / 2)


class Quick:
    def __init__(self):
        self.seen = 0

    def exchange_ended(self, view):
        self.seen += 1


class Batch:
    """An observer that renders later."""

    def __init__(self):
        self.waiting = 0
        self.rendered = 0

    def exchange_ended(self, view):
        self.waiting += 1

    def render(self):
        work(COST * self.waiting)
        self.rendered += self.waiting
        self.waiting = 0


class Site:
    def __init__(self, *observers, signals, deferred=None):
        self.cells = Cells.create(rows=16)
        self.reader = self.cells.reader()
        self.faults = []
        self.hooks = Hooks(observers, lambda observer, hook, fault: self.faults.append(observer))
        self.count = 0
        self.cost = SelfCost(
            self.cells, self.hooks, signals, lambda: self.count, [deferred] if deferred else ()
        )

    def serve(self, exchanges):
        for _ in range(exchanges):
            self.count += 1
            for hook in (self.hooks.exchange_started, self.hooks.exchange_ended):
                if hook is not None:
                    hook(object())

    def seconds(self, signal):
        rows = self.reader.rows()
        return sum(
            row.values[0]
            for row in rows
            if (row.metric, row.labels) == (catalogue.SELF_SECONDS.name, (signal,))
        )


def test_a_few_exchanges_stand_for_those_that_were_not_measured():
    busy, quick = Busy(), Quick()
    site = Site(busy, quick, signals={busy: "tracing", quick: "metrics"})
    usual = site.hooks.exchange_ended
    site.serve(6)  # before anything is measured
    site.cost.tick()
    site.serve(LOOK)
    measured = site.seconds("tracing")
    assert measured == pytest.approx(LOOK * COST)
    assert site.hooks.exchange_ended is usual
    site.serve(10)
    assert site.seconds("tracing") == measured, "nothing is measured in between"
    site.cost.tick()
    assert site.seconds("tracing") - measured == pytest.approx(16 * COST)
    assert site.seconds("metrics") == site.seconds("access_log") == 0
    assert busy.seen == quick.seen == LOOK + 16


def test_without_traffic_nothing_adds_up():
    busy = Busy()
    site = Site(busy, signals={busy: "metrics"})
    for _ in range(5):
        site.cost.tick()
    site.serve(1)
    once = site.seconds("metrics")
    for _ in range(5):
        site.cost.tick()
    assert site.seconds("metrics") == once
    assert once == pytest.approx(COST)


def test_cold_caches_stand_for_themselves_only():
    class SlowAtFirst:
        def __init__(self):
            self.seen = 0

        def exchange_ended(self, view):
            self.seen += 1
            if self.seen <= COLD:
                work(COST)

    slow = SlowAtFirst()
    site = Site(slow, signals={slow: "metrics"})
    site.cost.tick()
    site.serve(LOOK)
    cold = site.seconds("metrics")
    assert cold == pytest.approx(COLD * COST)
    site.serve(100)
    site.cost.tick()
    assert site.seconds("metrics") == cold, "not a hundred times what the first ones took"


def test_a_call_that_lost_the_processor_stands_for_nothing():
    class Preempted:
        def __init__(self):
            self.seen = 0

        def exchange_ended(self, view):
            self.seen += 1
            if self.seen == LOOK:
                work(50 * INTERRUPTED)

    preempted = Preempted()
    site = Site(preempted, signals={preempted: "metrics"})
    site.cost.tick()
    site.serve(1000)
    site.cost.tick()
    assert preempted.seen == 1000
    assert site.seconds("metrics") == 0


def test_what_is_done_later_is_scaled_by_its_exchanges():
    batch = Batch()
    site = Site(batch, signals={}, deferred=batch)
    site.cost.tick()
    batch.render()  # nothing waits: goes on waiting for a turn with work
    assert site.seconds("access_log") == 0
    site.serve(LOOK)
    batch.render()
    first = site.seconds("access_log")
    assert first == pytest.approx(LOOK * COST)
    site.serve(6)
    batch.render()
    assert site.seconds("access_log") == first
    site.cost.tick()
    assert site.seconds("access_log") - first == pytest.approx(6 * COST)
    assert batch.rendered == LOOK + 6


@pytest.mark.parametrize("others", [0, 1, 2])
def test_an_observer_that_raises_while_it_is_measured_is_removed(others):
    class Faulty:
        def exchange_ended(self, view):
            raise ValueError

    faulty, quicks = Faulty(), [Quick() for _ in range(others)]
    site = Site(faulty, *quicks, signals={})
    site.cost.tick()
    site.serve(3)
    site.cost.tick()
    site.serve(1)
    assert site.faults == [faulty]
    assert [quick.seen for quick in quicks] == [4] * others


def test_what_is_spent_outside_the_hooks_is_added():
    site = Site(signals={})
    site.cost.spent(0.5, "metrics")
    site.cost.spent(0.25, "metrics")
    assert site.seconds("metrics") == 0.75
