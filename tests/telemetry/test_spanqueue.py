"""The queue and its sender: what is sent, what is lost, and how long an end may take."""

import threading
from time import monotonic

import pytest

from obsserve.telemetry import catalogue, spanqueue
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.spanfigures import Delivery, TraceFigures
from obsserve.telemetry.spanqueue import EXPORT_FAILED, EXPORT_RECOVERED, SpanQueue
from tracedoubles import Figures, put

EXPORTED, PROCESSED = catalogue.SPANS_EXPORTED, catalogue.SPANS_PROCESSED
PATIENCE = 10.0


class Collector:
    """A carrier that the test plays with."""

    def __init__(self):
        self.batches = []
        self.answer = Delivery()
        self.allowed = threading.Event()
        self.allowed.set()
        self.busy = threading.Event()
        self.arrived = threading.Condition()
        self.closed = False

    def deliver(self, spans):
        self.busy.set()
        self.allowed.wait()
        with self.arrived:
            self.batches.append(list(spans))
            self.arrived.notify_all()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def shutdown(self):
        self.closed = True

    def wait_for(self, batches):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.batches) >= batches, PATIENCE)


class Setting:
    def __init__(self, make_carrier=None, **options):
        self.collector = Collector()
        self.region = Cells.create(200)
        self.figures = Figures(self.region)
        self.reports = []
        self.queue = SpanQueue(
            make_carrier or (lambda: self.collector),
            TraceFigures(self.region),
            lambda *report: self.reports.append(report),
            **{"capacity": 100, "batch_size": 10, "schedule_delay": 3600.0} | options,
        )
        self.queue.start()

    def put(self, count):
        for n in range(count):
            put(self.queue, b"span %d" % n)

    @property
    def sizes(self):
        return [len(batch) for batch in self.collector.batches]


@pytest.fixture
def make():
    made = []

    def build(*args, **options):
        made.append(Setting(*args, **options))
        return made[-1]

    yield build
    for setting in made:
        setting.collector.allowed.set()
        setting.queue.shutdown(PATIENCE)
        setting.queue._thread.join(PATIENCE)


class TestSending:
    def test_a_full_batch_goes_at_once(self, make):
        setting = make()
        setting.put(10)
        setting.collector.wait_for(1)
        assert setting.sizes == [10]

    def test_fewer_wait(self, make):
        setting = make()
        setting.put(9)
        assert setting.sizes == []
        assert setting.queue.flush(PATIENCE)
        assert setting.collector.batches == [[b"span %d" % n for n in range(9)]]

    def test_fewer_go_when_their_time_has_come(self, make):
        setting = make(schedule_delay=0.01)
        setting.put(3)
        setting.collector.wait_for(1)

    def test_a_flush_sends_everything_in_batches(self, make):
        setting = make(batch_size=10, capacity=1000)
        setting.collector.allowed.clear()
        setting.put(35)
        setting.collector.allowed.set()
        assert setting.queue.flush(PATIENCE)
        assert sum(setting.sizes) == 35
        assert max(setting.sizes) == 10

    def test_a_flush_knows_its_time(self, make):
        setting = make()
        setting.collector.allowed.clear()
        setting.put(1)
        assert not setting.queue.flush(0.01)

    def test_an_empty_flush(self, make):
        assert make().queue.flush(PATIENCE)

    def test_figures(self, make):
        setting = make()
        setting.put(10)
        assert setting.queue.flush(PATIENCE)
        setting.queue.tick()
        figures = setting.figures
        assert (figures(EXPORTED, ""), figures(PROCESSED, "")) == (10, 10)
        assert figures.histogram_count(catalogue.EXPORT_DURATION, "") == 1
        assert figures(catalogue.SPANS_INFLIGHT) == 0
        assert figures(catalogue.SPAN_QUEUE) == 0
        assert figures(catalogue.SPAN_QUEUE_CAPACITY) == 100

    def test_figures_of_what_waits(self, make):
        setting = make()
        setting.collector.allowed.clear()
        setting.put(10)
        assert setting.collector.busy.wait(PATIENCE)
        setting.put(4)
        setting.queue.tick()
        assert setting.figures(catalogue.SPANS_INFLIGHT) == 10
        assert setting.figures(catalogue.SPAN_QUEUE) == 4


class TestLosses:
    def test_a_full_queue_drops_the_newest_and_counts(self, make):
        setting = make(capacity=20)
        setting.collector.allowed.clear()
        setting.put(10)
        assert setting.collector.busy.wait(PATIENCE)
        setting.put(50)
        assert setting.figures(PROCESSED, "queue_full") == 30
        setting.collector.allowed.set()
        assert setting.queue.flush(PATIENCE)
        assert setting.sizes == [10, 10, 10]

    def test_a_failed_batch_is_lost_and_counted(self, make):
        setting = make()
        setting.collector.answer = Delivery("UNAVAILABLE", "collector: UNAVAILABLE")
        setting.put(7)
        assert setting.queue.flush(PATIENCE)
        assert setting.figures(EXPORTED, "UNAVAILABLE") == 7
        assert setting.figures.histogram_count(catalogue.EXPORT_DURATION, "UNAVAILABLE") == 1
        assert setting.reports == [(EXPORT_FAILED, "collector: UNAVAILABLE (7 spans lost)")]

    def test_a_carrier_that_raises(self, make):
        setting = make()
        setting.collector.answer = LookupError("no route")
        setting.put(7)
        assert setting.queue.flush(PATIENCE)
        assert setting.figures(EXPORTED, "LookupError") == 7
        setting.collector.answer = Delivery()
        setting.put(10)
        setting.collector.wait_for(2)

    def test_spans_that_the_collector_does_not_want(self, make):
        setting = make()
        setting.collector.answer = Delivery(rejected=2)
        setting.put(10)
        assert setting.queue.flush(PATIENCE)
        assert (setting.figures(EXPORTED, ""), setting.figures(EXPORTED, "rejected")) == (8, 2)

    def test_a_carrier_that_cannot_be_made(self, make):
        def fail():
            raise ValueError("no such compression")

        setting = make(fail)
        setting.queue._thread.join(PATIENCE)
        assert setting.reports == [
            (EXPORT_FAILED, "ValueError: no such compression; no more spans are exported (0 spans lost)")
        ]
        setting.put(3)
        assert setting.figures(PROCESSED, "already_shutdown") == 3
        assert not setting.queue.flush(PATIENCE)

    def test_what_waited_for_a_carrier_that_cannot_be_made(self, make):
        made = threading.Event()

        def fail():
            made.wait()
            raise ValueError("no")

        setting = make(fail)
        setting.put(3)
        made.set()
        setting.queue._thread.join(PATIENCE)
        assert setting.figures(PROCESSED, "already_shutdown") == 3

    def test_every_span_is_accounted_for(self, make):
        setting = make(capacity=30)
        setting.collector.answer = Delivery("503")
        setting.put(25)
        setting.queue.flush(PATIENCE)
        setting.collector.answer = Delivery()
        setting.put(25)
        setting.queue.flush(PATIENCE)
        setting.queue.shutdown(PATIENCE)
        setting.put(5)
        figures = setting.figures
        dropped = figures(PROCESSED, "queue_full") + figures(PROCESSED, "already_shutdown")
        assert figures(EXPORTED, "") + figures(EXPORTED, "503") + dropped == 55


class TestADeadCollector:
    def fail(self, setting, times):
        setting.collector.answer = Delivery("UNAVAILABLE", "collector")
        for n in range(times):
            setting.put(1)
            assert setting.queue.flush(PATIENCE)

    def test_the_sender_pauses_after_three_failures(self, make):
        setting = make()
        self.fail(setting, 3)
        assert setting.queue._health.pause_left() > 0
        setting.put(20)
        assert setting.queue.wake_at > 20, "the request path wakes nobody meanwhile"
        assert setting.sizes == [1, 1, 1]

    def test_one_batch_is_tried_when_the_pause_is_over(self, make, monkeypatch):
        monkeypatch.setattr(spanqueue, "_FIRST_PAUSE", 0.01)
        setting = make()
        setting.collector.answer = Delivery("UNAVAILABLE", "collector")
        setting.put(50)
        setting.collector.wait_for(5)
        assert setting.sizes[:5] == [10] * 5
        assert setting.queue._health._pause > 0.01, "each pause is longer"

    def test_it_is_told_once(self, make):
        setting = make()
        self.fail(setting, 5)
        assert [event for event, _ in setting.reports] == [EXPORT_FAILED]

    def test_and_again_after_a_minute(self, make, monkeypatch):
        setting = make()
        self.fail(setting, 1)
        monkeypatch.setattr(spanqueue, "_REPORT_INTERVAL", 0.0)
        self.fail(setting, 1)
        assert setting.reports[-1] == (EXPORT_FAILED, "collector (2 spans lost)")

    def test_recovery(self, make):
        setting = make()
        self.fail(setting, 3)
        setting.collector.answer = Delivery()
        setting.put(1)
        assert setting.queue.flush(PATIENCE)
        assert setting.reports[-1] == (EXPORT_RECOVERED, "spans are exported again; 3 were lost")
        assert setting.queue._health.pause_left() == 0
        setting.put(10)
        setting.collector.wait_for(5)


class TestTheEnd:
    def test_what_waits_is_sent(self, make):
        setting = make()
        setting.put(5)
        setting.queue.shutdown(PATIENCE)
        assert setting.sizes == [5]
        assert setting.collector.closed
        assert setting.queue.shutdown(PATIENCE)

    def test_nothing_is_taken_afterwards(self, make):
        setting = make()
        setting.queue.shutdown(PATIENCE)
        setting.put(2)
        assert setting.figures(PROCESSED, "already_shutdown") == 2

    def test_a_collector_that_hangs_cannot_hold_it(self, make):
        setting = make()
        setting.collector.allowed.clear()
        setting.put(10)
        assert setting.collector.busy.wait(PATIENCE)
        setting.put(5)
        began = monotonic()
        assert not setting.queue.shutdown(0.1)
        assert monotonic() - began < 5.0
        assert setting.collector.closed
        assert setting.figures(EXPORTED, "shutdown") == 10
        assert setting.figures(PROCESSED, "already_shutdown") == 5
        assert setting.reports == [(EXPORT_FAILED, "the shutdown could not wait for 15 spans to be exported")]

    def test_the_abandoned_sender_counts_nothing_more(self, make):
        setting = make()
        setting.collector.allowed.clear()
        setting.put(10)
        assert setting.collector.busy.wait(PATIENCE)
        setting.queue.shutdown(0.0)
        setting.collector.allowed.set()
        setting.queue._thread.join(PATIENCE)
        assert setting.figures(EXPORTED, "") == 0
        assert setting.figures(EXPORTED, "shutdown") == 10

    def test_a_collector_found_dead_gets_a_moment_only(self, make, monkeypatch):
        monkeypatch.setattr(spanqueue, "LAST_ATTEMPT", 0.05)
        setting = make()
        TestADeadCollector().fail(setting, 3)
        setting.collector.busy.clear()
        setting.collector.allowed.clear()
        setting.put(5)
        began = monotonic()
        setting.queue.shutdown(30.0)
        assert monotonic() - began < 5.0

    def test_what_a_dead_collector_leaves_is_counted(self, make):
        setting = make()
        TestADeadCollector().fail(setting, 3)
        setting.put(25)
        setting.queue.shutdown(PATIENCE)
        assert setting.figures(EXPORTED, "UNAVAILABLE") + setting.figures(PROCESSED, "already_shutdown") == 28

    def test_before_the_carrier_is_made(self, make):
        made = threading.Event()
        collector = Collector()

        def slowly():
            made.wait()
            return collector

        setting = make(slowly)
        setting.put(3)
        setting.queue.shutdown(0.0)
        assert setting.figures(PROCESSED, "already_shutdown") == 3
        made.set()
        setting.queue._thread.join(PATIENCE)
        assert collector.batches == []


def test_without_a_region_the_figures_are_kept_for_nobody():
    figures = TraceFigures(None)
    figures.count_started("none", "DROP", is_recording=False)
    figures.count_started("local", "RECORD_ONLY", is_recording=True)
    read = Figures(figures.region)
    assert read(catalogue.SPANS_STARTED, "none", "DROP") == 1
    assert read(catalogue.SPANS_LIVE) == 1
