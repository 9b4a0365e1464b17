"""Figures as OTLP: what the official messages say of our bytes."""

from __future__ import annotations

import math

import prometheus_client
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
    SummaryMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.core import Metric as Family

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Exemplar
from obsserve.telemetry.exposition import Figures, Reading
from obsserve.telemetry.otlp_metrics import POINTS_AT_A_TIME, Moment, encode_reading
from tests.anyvalues import attributes

MOMENT = Moment(since=2_000, process=1_000, now=3_000)
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
TRACE, SPAN = "ab" * 16, "cd" * 8


def decoded(own=(), app=()):
    metrics, failures = encode_reading(Reading(own, app), MOMENT)
    messages = [Metric.FromString(metric.content) for metric in metrics]
    for metric, message in zip(metrics, messages, strict=True):
        assert len(getattr(message, message.WhichOneof("data")).data_points) == metric.points
    return messages, failures


def own(metric, values, exemplars=None):
    (message,), failures = decoded([Figures(metric, values, exemplars or {})])
    assert not failures
    return message


def app(*families):
    messages, failures = decoded(app=families)
    assert not failures
    return messages


class TestTheServers:
    def test_a_counter(self):
        exemplar = Exemplar(1.0, 5.5, TRACE, SPAN)
        message = own(
            catalogue.WORKER_RESTARTS, {("crash",): [3.0], ("reload",): [0.0]}, {("crash",): {0: exemplar}}
        )
        assert (message.name, message.unit) == ("obsserve.worker.restarts", "")
        assert message.description == catalogue.WORKER_RESTARTS.help
        assert message.sum.is_monotonic
        assert message.sum.aggregation_temporality == CUMULATIVE
        first, second = message.sum.data_points
        assert (first.as_int, second.as_int) == (3, 0)
        assert first.WhichOneof("value") == second.WhichOneof("value") == "as_int"
        assert attributes(first) == {"reason": "crash"}
        assert (first.start_time_unix_nano, first.time_unix_nano) == (2_000, 3_000)
        (found,) = first.exemplars
        assert (found.trace_id.hex(), found.span_id.hex()) == (TRACE, SPAN)
        assert (found.as_double, found.time_unix_nano) == (1.0, 5_500_000_000)

    def test_seconds_are_fractions_even_when_they_are_whole(self):
        message = own(catalogue.WRITE_BLOCKED, {(): [2.0]})
        assert (message.name, message.unit) == ("obsserve.http.write_blocked", "s")
        assert message.sum.data_points[0].WhichOneof("value") == "as_double"
        assert message.sum.data_points[0].as_double == 2.0

    def test_a_gauge(self):
        message = own(catalogue.READY, {(): [1.0]})
        assert (message.name, message.gauge.data_points[0].as_int) == ("obsserve.ready", 1)
        assert message.gauge.data_points[0].start_time_unix_nano == 0
        assert own(catalogue.PROCESS_MAX_FDS, {("0",): [math.inf]}).gauge.data_points[0].as_double == math.inf

    def test_an_up_down_counter_of_the_conventions(self):
        message = own(catalogue.ACTIVE_REQUESTS, {("GET", "http"): [2.0]})
        assert (message.name, message.unit) == ("http.server.active_requests", "{request}")
        assert message.WhichOneof("data") == "sum"
        assert not message.sum.is_monotonic
        assert message.sum.aggregation_temporality == CUMULATIVE
        assert attributes(message.sum.data_points[0]) == {"http.request.method": "GET", "url.scheme": "http"}

    def test_a_histogram(self):
        labels = ("GET", "http", "200", "", "", "1.1")
        cumulated = [1.0, 3.0, *[3.0] * 12, 4.0]
        exemplar = Exemplar(0.007, 5.5, TRACE, SPAN)
        message = own(
            catalogue.REQUEST_DURATION, {labels: [*cumulated, 4.0, 12.5]}, {labels: {1: exemplar}}
        )  # fmt: skip
        assert (message.name, message.unit) == ("http.server.request.duration", "s")
        assert message.histogram.aggregation_temporality == CUMULATIVE
        (point,) = message.histogram.data_points
        assert (point.count, point.sum) == (4, 12.5)
        assert list(point.bucket_counts) == [1, 2, *[0] * 12, 1]
        assert tuple(point.explicit_bounds) == catalogue.LATENCY_BUCKETS
        assert (point.start_time_unix_nano, point.time_unix_nano) == (2_000, 3_000)
        # Empty labels are no attributes; the status is a number, as the conventions have it.
        assert attributes(point) == {
            "http.request.method": "GET",
            "url.scheme": "http",
            "http.response.status_code": 200,
            "network.protocol.version": "1.1",
        }
        assert point.exemplars[0].as_double == 0.007
        assert not point.HasField("min")

    def test_the_overflow_set(self):
        message = own(catalogue.APP_EXCEPTIONS, {None: [7.0]})
        assert attributes(message.sum.data_points[0]) == {"otel.metric.overflow": True}

    def test_what_the_client_libraries_count_goes_back_to_the_start_of_the_process(self):
        message = own(catalogue.PROCESS_CPU, {("0",): [1.25]})
        assert (message.name, message.unit) == ("process_cpu_seconds", "s")
        assert message.sum.data_points[0].start_time_unix_nano == 1_000
        assert attributes(message.sum.data_points[0]) == {"worker": "0"}

    def test_the_resource_is_no_metric(self):
        figures = Figures(catalogue.TARGET_INFO._replace(labels=("service_name",)), {("shop",): [1.0]}, {})
        assert decoded([figures]) == ([], 0)

    def test_many_points_come_in_parts_of_one_name(self):
        values = {(f"/{n}",): [float(n)] for n in range(POINTS_AT_A_TIME * 2 + 1)}
        messages, _ = decoded([Figures(catalogue.WEBSOCKET_OPEN, values, {})])
        assert [len(message.gauge.data_points) for message in messages] == [POINTS_AT_A_TIME] * 2 + [1]
        assert {message.name for message in messages} == {"obsserve.websocket.connections_open"}
        points = [point for message in messages for point in message.gauge.data_points]
        assert {attributes(point)["http.route"]: point.as_int for point in points} == {
            f"/{n}": n for n in range(1, POINTS_AT_A_TIME * 2 + 1)
        } | {"/0": 0}


def test_the_official_encoder_makes_the_same_messages():
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.sdk.metrics import export as sdk
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    cumulative = sdk.AggregationTemporality.CUMULATIVE
    found, _ = decoded(
        [
            Figures(catalogue.WORKER_RESTARTS, {("crash",): [3.0]}, {}),
            Figures(catalogue.ACTIVE_REQUESTS, {("GET", "http"): [2.0]}, {}),
            Figures(catalogue.LOOP_LAG_MAX, {("0",): [0.25]}, {}),
            Figures(catalogue.QUEUE, {(): [1.0, 3.0, *[3.0] * 7, 4.0, 4.0, 1.5]}, {}),
        ]
    )
    times = {"start_time_unix_nano": 2_000, "time_unix_nano": 3_000}
    point = sdk.NumberDataPoint
    restarts = sdk.Sum([point({"reason": "crash"}, value=3, **times)], cumulative, True)
    active = sdk.Sum(
        [point({"http.request.method": "GET", "url.scheme": "http"}, value=2, **times)], cumulative, False
    )
    lag = sdk.Gauge([point({"worker": "0"}, value=0.25, start_time_unix_nano=None, time_unix_nano=3_000)])
    queue = sdk.HistogramDataPoint(
        attributes={}, count=4, sum=1.5, bucket_counts=[1, 2, *[0] * 7, 1], explicit_bounds=catalogue.QUEUE_BUCKETS,
        min=0.0, max=0.0, **times,
    )  # fmt: skip
    metrics = [
        sdk.Metric("obsserve.worker.restarts", catalogue.WORKER_RESTARTS.help, "", restarts),
        sdk.Metric("http.server.active_requests", catalogue.ACTIVE_REQUESTS.help, "{request}", active),
        sdk.Metric("obsserve.event_loop.lag_max", catalogue.LOOP_LAG_MAX.help, "s", lag),
        sdk.Metric("obsserve.http.queue", catalogue.QUEUE.help, "s", sdk.Histogram([queue], cumulative)),
    ]
    scope = sdk.ScopeMetrics(InstrumentationScope("obsserve"), metrics, "")
    request = encode_metrics(sdk.MetricsData([sdk.ResourceMetrics(Resource({}), [scope], "")]))
    official = list(request.resource_metrics[0].scope_metrics[0].metrics)
    for each in official[3].histogram.data_points:  # which are not counted
        each.ClearField("min")
        each.ClearField("max")
    assert found == official


class TestTheApplications:
    @pytest.fixture
    def registry(self):
        return prometheus_client.CollectorRegistry()

    def test_a_counter(self, registry):
        orders = prometheus_client.Counter("shop_orders", "Orders.", ["kind"], registry=registry)
        orders.labels("").inc(2)
        orders.labels("gift").inc(0.5, {"trace_id": TRACE, "span_id": SPAN, "user": "7"})
        (family,) = registry.collect()
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        (message,) = app(family)
        assert message.name == "shop_orders"
        assert message.sum.is_monotonic
        plain, gift = message.sum.data_points
        assert (plain.as_double, attributes(plain)) == (2.0, {})
        assert (gift.as_double, attributes(gift)) == (0.5, {"kind": "gift"})
        assert gift.start_time_unix_nano == 1_000
        (exemplar,) = gift.exemplars
        assert exemplar.trace_id.hex() == TRACE
        assert {pair.key: pair.value.string_value for pair in exemplar.filtered_attributes} == {"user": "7"}

    def test_a_histogram(self, registry):
        sizes = prometheus_client.Histogram(
            "shop_size_bytes", "Sizes.", ["kind"], buckets=(1, 10), unit="bytes", registry=registry
        )
        for value in (0.5, 2, 3, 400):
            sizes.labels("a").observe(value)
        sizes.labels("b").observe(1)
        (message,) = app(*registry.collect())[:1]
        assert (message.name, message.unit) == ("shop_size_bytes", "By")
        first, second = message.histogram.data_points
        assert (first.count, first.sum, list(first.bucket_counts)) == (4, 405.5, [1, 2, 1])
        assert list(first.explicit_bounds) == [1.0, 10.0]
        assert (attributes(first), attributes(second)) == ({"kind": "a"}, {"kind": "b"})
        assert second.count == 1

    def test_a_summary(self, registry):
        prometheus_client.Summary("shop_wait", "Waits.", registry=registry).observe(2.5)
        message = next(message for message in app(*registry.collect()) if message.name == "shop_wait")
        (point,) = message.summary.data_points
        assert (point.count, point.sum) == (1, 2.5)
        family = Family("quantiles", "With quantiles.", "summary")
        for quantile, value in (("0.5", 1.0), ("0.9", 3.0)):
            family.add_sample("quantiles", {"quantile": quantile, "kind": "a"}, value)
        family.add_sample("quantiles_count", {"kind": "a"}, 4)
        family.add_sample("quantiles_sum", {"kind": "a"}, 5.0)
        (message,) = app(family)
        (point,) = message.summary.data_points
        assert [(each.quantile, each.value) for each in point.quantile_values] == [(0.5, 1.0), (0.9, 3.0)]
        assert attributes(point) == {"kind": "a"}

    @pytest.mark.parametrize(
        ("family", "expected"),
        [
            (GaugeMetricFamily("level", "A level.", value=-1.5), {"level": -1.5}),
            (InfoMetricFamily("build", "A build.", value={"v": "1"}), {"build_info": 1.0}),
            (StateSetMetricFamily("door", "A door.", {"open": True}), {"door": 1.0}),
            (UnknownMetricFamily("thing", "A thing.", 3.0), {"thing": 3.0}),
            (
                GaugeHistogramMetricFamily(
                    "now", "Now.", buckets=[("1", 2.0), ("+Inf", 3.0)], gsum_value=4.0
                ),
                {"now_bucket": 2.0, "now_gcount": 3.0, "now_gsum": 4.0},
            ),
        ],
        ids=lambda value: getattr(value, "type", ""),
    )
    def test_what_is_there_now_is_a_gauge(self, family, expected):
        messages = app(family)
        assert {message.name: message.gauge.data_points[0].as_double for message in messages} == expected

    def test_nothing_that_is_not_understood_is_left_out(self):
        odd = Family("odd", "No infinity, and no count.", "histogram")
        odd.add_sample("odd_bucket", {"le": "1"}, 2.0)
        counter = CounterMetricFamily("counted", "A sample under the family's own name.")
        counter.add_sample("counted", {}, 3.0)
        found = {message.name: message.gauge.data_points[0].as_double for message in app(odd, counter)}
        assert found == {"odd_bucket": 2.0, "counted": 3.0}

    def test_a_family_that_cannot_be_encoded_does_not_take_the_others_along(self):
        torn = HistogramMetricFamily("torn", "Falls.", buckets=[("1", 5.0), ("+Inf", 2.0)], sum_value=1.0)
        messages, failures = decoded(app=[torn, GaugeMetricFamily("level", "A level.", value=1.0)])
        assert failures == 1
        assert [message.name for message in messages] == ["level"]
