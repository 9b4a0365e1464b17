"""When metrics are pushed, what is counted of it, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from prometheus_client.core import GaugeMetricFamily

from obsserve.errors import StartupError
from obsserve.telemetry import catalogue, metricexport
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.exposition import Figures, Reading
from obsserve.telemetry.metricexport import (
    MetricExport,
    MetricExportConfiguration,
    metric_export_configuration,
)
from obsserve.telemetry.otlp import make_metric_carrier
from obsserve.telemetry.otlp_encode import RequestFrame
from obsserve.telemetry.spanfigures import Delivery
from obsserve.telemetry.spanqueue import EXPORT_FAILED, EXPORT_RECOVERED
from obsserve.testing_otlp import Answer, OTLPSink
from tests.waiting import wait_for
from tracedoubles import Figures as Counted

POINTS = 3
PROTOCOLS = ("grpc", "http/protobuf")


class Options:
    otlp_metrics = True
    otlp_endpoint = None
    otlp_protocol = None
    service_name = "shop"

    def __init__(self, **given):
        self.__dict__.update(given)


class TestConfiguration:
    def test_off(self):
        assert metric_export_configuration(Options(otlp_metrics=False), {}) is None
        assert metric_export_configuration(Options(), {"OTEL_SDK_DISABLED": "true"}) is None
        assert metric_export_configuration(Options(), {"OTEL_METRICS_EXPORTER": "none"}) is None
        prometheus = {"OTEL_METRICS_EXPORTER": "prometheus"}
        assert metric_export_configuration(Options(otlp_metrics=False), prometheus) is None

    def test_the_specifications_defaults(self):
        found = metric_export_configuration(Options(), {})
        assert (found.interval, found.timeout, found.request_timeout, found.notes) == (60.0, 30.0, 10.0, ())

    def test_by_opentelemetrys_variables(self):
        environ = {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "1500",
            "OTEL_METRIC_EXPORT_TIMEOUT": "2000",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1.5",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Cumulative",
        }
        found = metric_export_configuration(Options(otlp_metrics=False), environ)
        assert (found.interval, found.timeout, found.request_timeout, found.notes) == (1.5, 2.0, 1.5, ())
        environ["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"] = "20"  # a push is over after two seconds
        assert metric_export_configuration(Options(), environ).request_timeout == 2.0

    @pytest.mark.parametrize(
        "variable",
        [
            "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("nonsense", ["soon", "-1", "nan"])
    def test_what_is_not_understood_is_noted(self, variable, nonsense):
        found = metric_export_configuration(Options(), {variable: nonsense})
        (note,) = found.notes
        assert variable in note
        assert nonsense in note
        assert (found.interval, found.timeout, found.request_timeout) == (60.0, 30.0, 10.0)

    def test_nonsense(self):
        with pytest.raises(StartupError, match="it is no URL"):
            metric_export_configuration(Options(otlp_endpoint="c:4317"), {})
        with pytest.raises(StartupError, match="pigeon"):
            metric_export_configuration(Options(otlp_protocol="pigeon"), {})

    def test_nothing_of_opentelemetry_is_imported_for_it(self):
        code = (
            "import sys; from obsserve.telemetry import metricexport, otlp_metrics\n"
            "assert not {name.partition('.')[0] for name in sys.modules} & {'opentelemetry', 'prometheus_client'}"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


class Source:
    """Three points of the server's, and whatever the test puts beside them."""

    def __init__(self):
        self.app = []
        self.failures = 0
        self.fault = None

    def read(self):
        if self.fault is not None:
            raise self.fault
        values = {("ready",): [1.0], ("starting",): [0.0], ("draining",): [0.0]}
        return Reading([Figures(catalogue.WORKERS, values, {})], self.app)

    def count_failures(self, failures):
        self.failures += failures


class Carrier:
    def __init__(self):
        self.sizes = []
        self.answer = lambda _size: Delivery()
        self.ended = threading.Event()

    def deliver(self, metrics, size=None):
        assert all(isinstance(metric, bytes) for metric in metrics)
        self.sizes.append(size)
        return self.answer(size)

    def shutdown(self):
        self.ended.set()


@pytest.fixture(autouse=True)
def no_head_start(monkeypatch):
    monkeypatch.setattr(metricexport, "HEAD_START", 0.0)


@pytest.fixture
def region():
    return Cells.create(64, exemplars=0)


@pytest.fixture
def count(region):
    return Counted(region)


@pytest.fixture
def told():
    return []


@pytest.fixture
def export(region, told):
    made = []

    def make(carrier=None, source=None, interval=0.01, **facts):
        configuration = MetricExportConfiguration(
            endpoint=None, destination="http://c:1", protocol="grpc", service_name="shop", interval=interval, **facts
        )  # fmt: skip
        one = MetricExport(
            configuration, source or Source(), carrier if callable(carrier) else lambda: carrier, region=region,
            report=lambda *event: told.append(event), since=2, process_since=1,
        )  # fmt: skip
        made.append(one)
        one.start()
        return one

    yield make
    for one in made:
        one.shutdown(5)


class TestPushing:
    def test_again_and_again(self, export, count):
        carrier = Carrier()
        export(carrier)
        wait_for(lambda: len(carrier.sizes) >= 3, "three pushes")
        wait_for(lambda: count(catalogue.POINTS_EXPORTED, "") >= 3 * POINTS, "their points counted")
        assert set(carrier.sizes) == {POINTS}
        assert count.histogram_count(catalogue.COLLECTION_DURATION, "") >= 3
        assert count.histogram_count(catalogue.EXPORT_DURATION, "") >= 3

    def test_the_last_one_at_the_end(self, export, count):
        carrier = Carrier()
        one = export(carrier, interval=3600)
        assert one.shutdown(20)
        assert carrier.sizes == [POINTS]
        assert carrier.ended.is_set()
        assert count(catalogue.POINTS_EXPORTED, "") == POINTS
        assert count(catalogue.POINTS_INFLIGHT) == 0

    def test_before_it_has_begun(self, region):
        one = MetricExport(
            MetricExportConfiguration(endpoint=None, destination="", protocol="grpc", service_name=""),
            Source(), Carrier, region=region, report=print, since=2, process_since=1,
        )  # fmt: skip
        assert one.shutdown(1)

    def test_a_failure_is_told_and_counted_and_so_is_the_recovery(self, export, count, told):
        carrier = Carrier()
        answers = [Delivery("UNAVAILABLE", "http://c:1: UNAVAILABLE")]
        carrier.answer = lambda _size: answers.pop() if answers else Delivery()
        export(carrier)
        wait_for(lambda: len(told) == 2, "failure and recovery")
        assert told == [
            (EXPORT_FAILED, f"http://c:1: UNAVAILABLE ({POINTS} metric data points lost)"),
            (EXPORT_RECOVERED, f"metric data points are exported again; {POINTS} were lost"),
        ]
        assert count(catalogue.POINTS_EXPORTED, "UNAVAILABLE") == POINTS

    def test_after_three_failures_it_pauses(self, export):
        carrier = Carrier()
        carrier.answer = lambda _size: Delivery("UNAVAILABLE", "no")
        one = export(carrier, interval=0.001)
        wait_for(lambda: one._health.pause_left() > 0, "the pause")
        assert len(carrier.sizes) == 3
        one.shutdown(5)
        assert len(carrier.sizes) == 4  # the last one is tried

    def test_a_carrier_that_raises_loses_a_push_and_no_more(self, export, count, told):
        carrier = Carrier()
        faults = [RuntimeError("broken")]

        def answer(_size):
            if faults:
                raise faults.pop()
            return Delivery()

        carrier.answer = answer
        export(carrier)
        wait_for(lambda: count(catalogue.POINTS_EXPORTED, "") >= POINTS, "the next push")
        assert count(catalogue.POINTS_EXPORTED, "RuntimeError") == POINTS
        assert "broken" in told[0][1]

    def test_no_carrier_is_told_once(self, export, told):
        def make():
            raise LookupError("no hooks")

        one = export(make)
        wait_for(lambda: told, "it told")
        assert told == [
            (EXPORT_FAILED, "LookupError: no hooks; no more metrics are pushed (0 metric data points lost)")
        ]
        assert one.shutdown(5)

    def test_what_cannot_be_read_is_told_and_tried_again(self, export, told):
        source, carrier = Source(), Carrier()
        source.fault = OSError("gone")
        export(carrier, source)
        wait_for(lambda: told, "it told")
        assert "cannot be collected" in told[0][1]
        source.fault = None
        wait_for(lambda: carrier.sizes, "a push", deadline=30)

    def test_families_of_the_application_that_cannot_be_encoded_are_counted(self, export):
        source, carrier = Source(), Carrier()
        source.app = [GaugeMetricFamily("level", "A level.", value="none at all")]
        export(carrier, source, interval=3600).shutdown(20)
        assert source.failures == 1
        assert carrier.sizes == [POINTS]

    def test_rejected_points(self, export, count):
        carrier = Carrier()
        carrier.answer = lambda _size: Delivery(rejected=1)
        export(carrier, interval=3600).shutdown(20)
        assert count(catalogue.POINTS_EXPORTED, "rejected") == 1
        assert count(catalogue.POINTS_EXPORTED, "") == POINTS - 1

    def test_a_large_push_is_cut_into_requests(self, export, count, monkeypatch):
        monkeypatch.setattr(metricexport, "_REQUEST_BYTES", 100)
        source, carrier = Source(), Carrier()
        source.app = [GaugeMetricFamily(f"level_{n}", "A level.", value=n) for n in range(9)]
        carrier.answer = lambda _size: Delivery() if len(carrier.sizes) < 4 else Delivery("500", "no")
        export(carrier, source, interval=3600).shutdown(20)
        assert len(carrier.sizes) == 4  # what comes after a failure is not tried
        arrived = sum(carrier.sizes[:3])
        assert count(catalogue.POINTS_EXPORTED, "") == arrived
        assert count(catalogue.POINTS_EXPORTED, "500") == POINTS + 9 - arrived

    def test_a_push_that_takes_too_long_is_given_up(self, export, count, told, monkeypatch):
        monkeypatch.setattr(metricexport, "_REQUEST_BYTES", 1)
        source, carrier = Source(), Carrier()
        source.app = [GaugeMetricFamily(f"level_{n}", "A level.", value=n) for n in range(9)]

        def slow(_size):
            time.sleep(0.05)
            return Delivery()

        carrier.answer = slow
        export(carrier, source, interval=3600, timeout=0.02).shutdown(20)
        assert count(catalogue.POINTS_EXPORTED, "timeout") == POINTS + 9 - sum(carrier.sizes)
        assert "not done in 0.02 s" in told[0][1]

    def test_the_end_does_not_wait_for_a_collector_that_hangs(self, export, count, told):
        carrier = Carrier()
        carrier.answer = lambda _size: carrier.ended.wait(60) and Delivery("CANCELLED", "late")
        one = export(carrier, interval=3600)
        began = time.monotonic()
        assert not one.shutdown(0.3)
        assert time.monotonic() - began < 5
        one._thread.join(10)
        assert count(catalogue.POINTS_EXPORTED, "shutdown") == POINTS
        assert count(catalogue.POINTS_EXPORTED, "CANCELLED") == 0
        assert told == [
            (EXPORT_FAILED, "the shutdown could not wait for the last push of metrics to http://c:1")
        ]


class TestCarrying:
    """The official exporters, and a collector."""

    @pytest.fixture(params=PROTOCOLS)
    def sink(self, request, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with OTLPSink(request.param) as sink:
            yield sink

    @pytest.fixture
    def push(self, sink, export):
        path = "" if sink.protocol == "grpc" else "/v1/metrics"
        endpoint = sink.endpoint + path
        configuration = MetricExportConfiguration(
            endpoint=endpoint,
            destination=endpoint,
            protocol=sink.protocol,
            service_name="shop",
            request_timeout=1.0,
        )
        frame = RequestFrame({"service.name": "shop"}, "obsserve", "1")

        def push():
            return export(lambda: make_metric_carrier(configuration, frame), interval=3600).shutdown(20)

        return push

    def test_what_arrives(self, sink, push):
        assert push()
        (request,) = sink.metric_requests
        assert request.resource_metrics[0].resource.attributes[0].value.string_value == "shop"
        (metric,) = sink.metrics
        assert metric.name == "obsserve.workers"
        assert len(metric.gauge.data_points) == POINTS

    def test_headers_and_compression_of_the_exporters_variables(self, sink, push, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-tenant=shop")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip")
        assert push()
        assert sink.headers[0]["x-tenant"] == "shop"
        assert len(sink.metrics) == 1

    def test_a_refusal_has_its_name(self, sink, push, count, told):
        sink.answer = Answer("INVALID_ARGUMENT") if sink.protocol == "grpc" else Answer(400)
        assert push()
        assert (
            count(catalogue.POINTS_EXPORTED, "INVALID_ARGUMENT" if sink.protocol == "grpc" else "400")
            == POINTS
        )
        assert sink.endpoint in told[0][1]

    def test_nobody_there(self, sink, push, told):
        sink.close()
        assert push()
        ((event, message),) = told
        assert event == EXPORT_FAILED
        assert f"{POINTS} metric data points lost" in message

    @pytest.mark.parametrize("sink", ["grpc"], indirect=True)  # the HTTP exporter does not tell
    def test_what_it_rejects(self, sink, push, count):
        sink.answer = Answer(rejected=2)
        assert push()
        assert count(catalogue.POINTS_EXPORTED, "rejected") == 2
        assert count(catalogue.POINTS_EXPORTED, "") == POINTS - 2
