"""The application's own metrics, of several processes: what each library type becomes, and what outlives a process."""

from __future__ import annotations

import json
import subprocess
import sys

import prometheus_client
import pytest
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from obsserve.telemetry.appmetrics import AppMetrics, WorkersAppMetrics


class Worker:
    """A process's registry, and its snapshots as they come over the channel."""

    def __init__(self, slot):
        self.slot = slot
        self.registry = prometheus_client.CollectorRegistry(auto_describe=True)
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self.failures = []
        self.metrics = AppMetrics(lambda: self.failures.append(1))

    def snapshot(self, monkeypatch):
        monkeypatch.setattr(prometheus_client, "REGISTRY", self.registry)
        return json.loads(json.dumps(self.metrics.snapshot()))


@pytest.fixture
def workers():
    return [Worker("0"), Worker("1")]


@pytest.fixture
def merged(workers, monkeypatch):
    whole = WorkersAppMetrics()

    def merge():
        for worker in workers:
            whole.update(id(worker), worker.slot, worker.snapshot(monkeypatch))
        return whole

    return merge


def samples(whole):
    found = {}
    for family in text_string_to_metric_families(openmetrics(whole).decode()):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_counters_histograms_and_summaries_are_summed(workers, merged):
    for number, worker in enumerate(workers, 1):
        Counter("jobs", "Jobs.", ["kind"], registry=worker.registry).labels("mail").inc(number)
        histogram = Histogram("size", "Size.", buckets=(1, 2), registry=worker.registry)
        histogram.observe(number)
        Summary("wait", "Wait.", registry=worker.registry).observe(number)
    assert samples(merged()) == {
        ("jobs_total", (("kind", "mail"),)): 3,
        ("size_bucket", (("le", "1.0"),)): 1,
        ("size_bucket", (("le", "2.0"),)): 2,
        ("size_bucket", (("le", "+Inf"),)): 2,
        ("size_count", ()): 2,
        ("size_sum", ()): 3,
        ("wait_count", ()): 2,
        ("wait_sum", ()): 3,
    }


@pytest.mark.parametrize("live", ["", "live"])
@pytest.mark.parametrize(("mode", "value"), [("min", 3), ("max", 5), ("sum", 8), ("mostrecent", 3)])
def test_a_gauge_follows_its_mode(workers, merged, mode, value, live):
    gauges = [
        Gauge("depth", "Depth.", ["q"], registry=worker.registry, multiprocess_mode=live + mode)
        for worker in workers
    ]
    gauges[0].labels("a").set(9)
    gauges[1].labels("a").set(5)
    merged()
    gauges[0].labels("a").set(3)
    assert samples(merged()) == {("depth", (("q", "a"),)): value}


def test_a_gauge_of_all_shows_each_worker_by_its_slot(workers, merged):
    for number, worker in enumerate(workers):
        Gauge("depth", "Depth.", registry=worker.registry).set(number)
        Enum("state", "State.", states=["on", "off"], registry=worker.registry).state(["on", "off"][number])
    found = samples(merged())
    assert found["depth", (("worker", "0"),)] == 0
    assert found["depth", (("worker", "1"),)] == 1
    assert found["state", (("state", "off"), ("worker", "1"))] == 1


def test_a_label_of_the_application_is_not_overwritten(workers, merged):
    Gauge("depth", "Depth.", ["worker"], registry=workers[0].registry).labels("mine").set(1)
    assert samples(merged()) == {("depth", (("obsserve_worker", "0"), ("worker", "mine"))): 1}


def test_infos_are_united(workers, merged):
    for worker in workers:
        Info("app", "App.", registry=worker.registry).info({"version": "1"})
    assert samples(merged()) == {("app_info", (("version", "1"),)): 1}


def test_custom_collectors_are_asked(workers, merged):
    class Pool:
        def collect(self):
            yield GaugeMetricFamily("pool", "Pool.", value=4)

    workers[1].registry.register(Pool())
    assert samples(merged()) == {("pool", (("worker", "1"),)): 4}


def test_a_collector_that_fails_is_counted_and_the_others_are_there(workers, merged):
    class Broken:
        def describe(self):
            return []

        def collect(self):
            raise OSError("the database is away")

    workers[0].registry.register(Broken())
    Counter("jobs", "Jobs.", registry=workers[0].registry).inc()
    assert samples(merged()) == {("jobs_total", ()): 1}
    assert workers[0].failures == [1]


def test_the_newer_exemplar_stays(workers, merged):
    for number, worker in enumerate(workers):
        Counter("jobs", "Jobs.", registry=worker.registry).inc(1, {"trace_id": f"{number}"})
    (family,) = merged().collect()
    assert family.samples[0].exemplar.labels == {"trace_id": "1"}


def test_counters_outlive_their_process_and_gauges_do_not(workers, merged):
    for worker in workers:
        Counter("jobs", "Jobs.", registry=worker.registry).inc(2)
        Gauge("depth", "Depth.", registry=worker.registry, multiprocess_mode="sum").set(2)
    whole = merged()
    whole.fold(id(workers.pop(0)))
    assert samples(whole) == {("jobs_total", ()): 4, ("depth", ()): 2}
    assert [slot for slot, _ in whole.ages()] == ["1"]
    whole.fold("never seen")
    for _ in range(3):  # being read changes nothing
        assert samples(merged()) == {("jobs_total", ()): 4, ("depth", ()): 2}


def test_what_is_kept_does_not_grow_with_restarts(monkeypatch):
    whole = WorkersAppMetrics()
    for process in range(100):
        worker = Worker("0")
        Counter("jobs", "Jobs.", registry=worker.registry).inc()
        whole.update(process, worker.slot, worker.snapshot(monkeypatch))
        whole.fold(process)
    assert samples(whole) == {("jobs_total", ()): 100}
    assert len(list(whole.collect())) == 1


def test_an_application_without_the_library_pays_nothing():
    code = (
        "import sys; from obsserve.telemetry.appmetrics import AppMetrics; "
        "assert AppMetrics().snapshot() == []; assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
