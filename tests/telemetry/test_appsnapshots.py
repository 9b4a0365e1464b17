"""Snapshots on their way: asked for, sent when something has changed, not awaited from those who are silent."""

from __future__ import annotations

import json
import threading
import time

import prometheus_client
import pytest
from prometheus_client import Counter

from obsserve.telemetry.appsnapshots import SnapshotCollector, SnapshotSender


class Pair:
    """A worker's sender and the collector, with JSON between them."""

    def __init__(self, monkeypatch, *, interval=60.0, deadline=10.0):
        self.registry = prometheus_client.CollectorRegistry()
        monkeypatch.setattr(prometheus_client, "REGISTRY", self.registry)
        self.counter = Counter("orders", "Orders.", registry=self.registry)
        self.messages, self.failures = [], []
        self.sender = SnapshotSender(self.carry, lambda: self.failures.append(1), interval=interval)
        self.is_asked = True
        self.collector = SnapshotCollector(lambda: {"process": self.ask}, deadline=deadline)

    def ask(self, number):
        if self.is_asked:
            self.sender.asked({"number": number})

    def carry(self, **fields):
        message = json.loads(json.dumps(fields))
        self.messages.append(message)
        self.collector.received("process", "0", message)

    def orders(self):
        samples = [s for family in self.collector.collect() for s in family.samples]
        return {sample.name: sample.value for sample in samples}.get("orders_total")


@pytest.fixture
def pair(monkeypatch):
    made = Pair(monkeypatch)
    made.sender.start()
    yield made
    made.sender.finish(10.0)


def test_a_scrape_sees_what_is_counted_by_then(pair):
    for count in range(1, 4):
        pair.counter.inc()
        assert pair.orders() == count


def test_what_has_not_changed_is_not_sent_again(pair):
    pair.counter.inc()
    assert pair.orders() == 1
    assert pair.orders() == 1
    assert [message["snapshot"] is None for message in pair.messages] == [False, True]


def test_without_a_question_changes_are_sent_every_few_seconds(monkeypatch):
    pair = Pair(monkeypatch, interval=0.01)
    pair.sender.start()
    pair.counter.inc(7)
    end = time.monotonic() + 10
    while not any(
        message["snapshot"] and message["snapshot"][0]["samples"][0][2] == 7 for message in pair.messages
    ):
        assert time.monotonic() < end
        time.sleep(0.01)
    sent = len(pair.messages)
    time.sleep(0.1)
    assert len(pair.messages) == sent
    pair.sender.finish(10.0)


def test_the_end_is_told(monkeypatch):
    pair = Pair(monkeypatch, deadline=0.5)
    pair.sender.start()
    assert pair.orders() in (0, None)
    pair.counter.inc(3)
    pair.sender.finish(10.0)
    pair.collector.fold("process")
    pair.is_asked = False
    samples = [s for family in pair.collector.collect() for s in family.samples if s.name == "orders_total"]
    assert [sample.value for sample in samples] == [3.0]


def test_the_silent_are_awaited_once(monkeypatch):
    pair = Pair(monkeypatch, deadline=0.2)
    pair.sender.start()
    pair.counter.inc()
    assert pair.orders() == 1
    pair.is_asked = False
    began = time.monotonic()
    assert pair.orders() == 1
    assert time.monotonic() - began >= 0.2
    ((slot, age),) = pair.collector.ages()
    assert slot == "0"
    assert age >= 0.2
    began = time.monotonic()
    for _ in range(20):
        assert pair.orders() == 1
    assert time.monotonic() - began < 20 * 0.2
    pair.is_asked = True
    pair.counter.inc()
    pair.orders()  # asks it, and does not wait
    end = time.monotonic() + 10
    while pair.orders() != 2:
        assert time.monotonic() < end
    pair.sender.finish(10.0)


def test_a_process_that_goes_is_not_waited_for(monkeypatch):
    pair = Pair(monkeypatch, deadline=30.0)
    pair.is_asked = False  # it goes before it answers
    threading.Timer(0.1, lambda: pair.collector.fold("process")).start()
    began = time.monotonic()
    assert pair.orders() is None
    assert time.monotonic() - began < 25


def test_a_snapshot_that_cannot_be_sent_is_counted_and_the_next_one_is_tried(monkeypatch):
    pair = Pair(monkeypatch, deadline=0.2)
    carry, pair.carry_now = pair.carry, False

    def unsure(**fields):
        if not pair.carry_now:
            raise TypeError("not JSON")
        carry(**fields)

    pair.sender = SnapshotSender(unsure, lambda: pair.failures.append(1), interval=60.0)
    pair.sender.start()
    assert pair.orders() is None
    end = time.monotonic() + 10
    while not pair.failures:
        assert time.monotonic() < end
    pair.carry_now = True
    while pair.orders() != 0:
        assert time.monotonic() < end
    pair.sender.finish(10.0)
