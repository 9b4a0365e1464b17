"""What the span of a reload says, and what becomes of one that is not kept or not wanted."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from obsserve.server import reloadspans
from obsserve.server.reloadspans import NAMED, Reload, ReloadSpans
from obsserve.settings import Settings
from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.spanfigures import Delivery
from tests.anyvalues import attributes


class Collector:
    """Takes what is delivered, on whichever thread that is."""

    def __init__(self):
        self.spans, self.threads, self.closed = [], set(), False

    def deliver(self, spans):
        self.threads.add(threading.current_thread().name)
        self.spans += [Span.FromString(span) for span in spans]
        return Delivery()

    def shutdown(self):
        self.closed = True


@pytest.fixture
def collector(monkeypatch):
    collector = Collector()
    monkeypatch.setattr(reloadspans, "_carrier", lambda *_: collector)
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)
    return collector


@pytest.fixture
def region():
    region = Cells.create(128, exemplars=0)
    yield region
    region.close()


@pytest.fixture
def reports():
    return []


@pytest.fixture
def spans(region, reports):
    def make(**options):
        settings = Settings(app="tests:app", **{"otlp_endpoint": "http://127.0.0.1:1", **options})
        return ReloadSpans(settings, "instance", region, lambda *report: reports.append(report))

    return make


def ended(spans, reload, **facts):
    spans.ended(reload, **{"workers": 2, "replaced": 2, "error_type": None, **facts})
    spans.stop()


def counted(region, metric):
    reader = region.reader()
    found = {
        row.labels: row.values[0] for row in reader.rows() if row.metric == metric.name and row.values[0]
    }
    reader.close()
    return found


def test_a_change_names_its_files_once_and_not_all(collector, spans):
    reload = Reload("change", [f"{n}.py" for n in range(30)])
    reload.join(Reload("change", ["1.py", "31.py"]))
    ended(spans(), reload)
    (span,) = collector.spans
    assert attributes(span)["obsserve.reload.files"] == [f"{n}.py" for n in range(NAMED)]
    assert "error.type" not in attributes(span)


def test_one_that_overtakes_another_begins_with_it(collector, spans):
    first = Reload("change", ["a.py"])
    later = Reload("change", ["b.py"])
    later.overtake(first)
    assert list(later.files) == ["a.py", "b.py"]
    assert later.noticed_at == first.noticed_at
    assert later.seconds() == pytest.approx(first.seconds(), abs=1)


@pytest.mark.parametrize("error_type", catalogue.RELOAD_ERRORS)
def test_what_is_not_gone_through_with_is_an_error(collector, spans, error_type):
    ended(spans(), Reload("signal"), replaced=1, error_type=error_type)
    (span,) = collector.spans
    assert (span.name, span.status.code) == ("server.reload", 2)
    assert attributes(span) == {
        "obsserve.reload.reason": "signal",
        "obsserve.reload.workers": 2,
        "obsserve.reload.replaced": 1,
        "error.type": error_type,
    }


def test_it_is_counted_and_sent_from_a_thread_of_its_own(collector, spans, region):
    ended(spans(), Reload("signal"))
    assert collector.closed
    assert threading.current_thread().name not in collector.threads
    assert counted(region, catalogue.SPANS_STARTED) == {("none", "RECORD_AND_SAMPLE"): 1.0}
    assert counted(region, catalogue.SPANS_EXPORTED) == {("",): 1.0}


def test_one_that_the_sampler_does_not_keep_is_counted_only(collector, spans, region):
    ended(spans(trace_sample_ratio=0.0), Reload("signal"))
    assert collector.spans == []
    assert counted(region, catalogue.SPANS_STARTED) == {("none", "DROP"): 1.0}


def test_more_than_there_is_room_for_are_dropped_and_counted(collector, spans, region, monkeypatch):
    monkeypatch.setattr(reloadspans, "_CAPACITY", 0)
    ended(spans(), Reload("signal"))
    assert collector.spans == []
    assert counted(region, catalogue.SPANS_PROCESSED) == {("queue_full",): 1.0}


def test_without_tracing_there_is_nothing_to_do(collector, spans, region):
    without = spans(otlp_endpoint=None)
    ended(without, Reload("signal"))
    assert without._under_way == []
    assert without._export is None
    assert counted(region, catalogue.SPANS_STARTED) == {}


def test_an_exporter_that_has_gone_meanwhile_is_told(collector, spans, reports, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    ended(spans(), Reload("signal"))
    ((event, message),) = reports
    assert event == "telemetry.export_failed"
    assert "zipkin" in message


def test_a_stop_before_any_reload_does_nothing(spans):
    spans().stop()
