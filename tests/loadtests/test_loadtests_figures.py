"""The arithmetic of a run, without one: latencies, scrapes, books, reconciliation, knee, thresholds."""

import json
import random

import pytest

from loadtests.expectations import SCENARIOS
from loadtests.histogram import Histogram, bucket_quantile
from loadtests.ledger import REMEMBERED, Ledger
from loadtests.scrape import Between, Scrape
from loadtests.story import Point, Story, growth, knee, point, reconcile, slope
from loadtests.thresholds import MEASURES, Bound, Finding, at_least, at_most, exactly, judge, spoken

INF = float("inf")


def metrics(statuses=None, *, active=0, **further):
    """Write /metrics of a server that has answered so many with each status."""
    lines = ["# TYPE http_server_request_duration_seconds histogram"]
    for status, count in (statuses or {}).items():
        label = f'http_response_status_code="{status}"'
        lines += [
            f'http_server_request_duration_seconds_bucket{{{label},le="0.1"}} {count}',
            f'http_server_request_duration_seconds_bucket{{{label},le="+Inf"}} {count}',
            f"http_server_request_duration_seconds_count{{{label}}} {count}",
            f"http_server_request_duration_seconds_sum{{{label}}} {count * 0.05}",
        ]
    lines += ["# TYPE http_server_active_requests gauge", f"http_server_active_requests {active}"]
    for name, value in further.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        family = name.removesuffix("_total")
        values = value if isinstance(value, dict) else {"": value}
        lines.append(f"# TYPE {family} {kind}")
        lines += [
            f"{name}{{{labels}}} {number}" if labels else f"{name} {number}"
            for labels, number in values.items()
        ]
    return "\n".join(lines) + "\n"


def between(before, after):
    return Between(Scrape(before, 0.0), Scrape(after, 10.0))


def answered(ledger, status, count=1, **options):
    for _ in range(count):
        ledger.begun += 1
        ledger.record("GET /", 0.01, status, None, **options)


def story(ledger=None, *, reading=None, timeline=(), lines=None):
    return Story("steady", "http://x", 0.0, 10.0, ledger or Ledger(), list(timeline), reading, lines)


# --- latencies -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_quantiles_are_right_within_one_percent(share):
    generator = random.Random(7)
    values = sorted(generator.lognormvariate(-4, 1.5) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.quantile(share) == pytest.approx(values[max(0, round(share * 5000) - 1)], rel=0.011)


def test_no_latency_has_no_quantile():
    assert Histogram().quantile(0.5) is None


def test_histograms_of_two_processes_add_up_also_through_json():
    one, other = Histogram(), Histogram()
    for _ in range(3):
        one.add(0.1)
    other.add(0.0)
    other.merge(Histogram(json.loads(json.dumps(one.as_dict()))))
    assert len(other) == 4
    assert other.quantile(0.9) == pytest.approx(0.1, rel=0.011)


@pytest.mark.parametrize(
    ("share", "buckets", "wanted"),
    [
        (0.5, {}, None),
        (0.5, {0.1: 0, INF: 0}, None),
        (0.5, {0.1: 10, 0.2: 10, INF: 10}, 0.05),
        (0.5, {0.1: 0, 0.2: 10, INF: 10}, 0.15),
        (0.95, {0.1: 10, 0.2: 20, INF: 20}, 0.19),
        (0.99, {0.1: 10, INF: 20}, 0.1),  # above the last bound: that is all that is known
        (1.0, {0.1: 10, 0.2: 10, INF: 10}, 0.1),
    ],
)
def test_bucket_quantile_is_that_of_promql(share, buckets, wanted):
    found = bucket_quantile(share, buckets)
    assert found == (None if wanted is None else pytest.approx(wanted))


# --- the server's side -----------------------------------------------------------------------


def test_only_what_happened_in_between_counts():
    found = between(
        metrics({"200": 5, "": 1}, obsserve_http_rejected_requests_total={'reason="a"': 2, 'reason="b"': 1}),
        metrics(
            {"200": 9, "": 1, "503": 4},
            obsserve_http_rejected_requests_total={'reason="a"': 2, 'reason="b"': 5},
        ),
    )
    assert found.observed == 8
    assert found.by_status == {"200": 4, "503": 4}
    assert found.by("obsserve_http_rejected_requests_total", "reason") == {"b": 4}
    assert found.quantile(0.5, "http_server_request_duration_seconds") == pytest.approx(0.05)
    assert found.seconds == 10


# --- the client's side -----------------------------------------------------------------------


def test_books_know_what_became_of_each_request():
    ledger = Ledger()
    answered(ledger, 200, 3)
    answered(ledger, 503)
    ledger.begun += 3
    ledger.record("GET /", 0.1, 200, ConnectionResetError("cut"), cut=True, trace_id="aa")
    ledger.record("GET /", 0.1, 0, ConnectionRefusedError("no"), trace_id="bb")
    ledger.record("WS echo", 0.1, 0, None, exchange=False)
    assert (ledger.sent, ledger.ended, ledger.abandoned, ledger.good) == (7, 6, 1, 3)
    assert (ledger.in_doubt, ledger.failed) == (3, 2)
    assert ledger.lost_traces == ["aa", "bb"]
    assert len(ledger.named["WS echo"]) == 1
    assert len(ledger.times) == 6


def test_a_locustfile_that_counts_nothing_before_it_is_sent():
    ledger = Ledger()
    ledger.record("GET /", 0.1, 200, None)
    assert (ledger.sent, ledger.abandoned) == (1, 0)


def test_corrected_latency_runs_from_when_the_request_was_due():
    ledger = Ledger()
    answered(ledger, 200, late=0.5)
    assert ledger.times.quantile(0.5) == pytest.approx(0.01, rel=0.02)
    assert ledger.corrected.quantile(0.5) == pytest.approx(0.51, rel=0.02)


def test_what_is_drained_is_what_is_merged():
    books, total = Ledger(), Ledger()
    answered(books, 200, 2)
    books.tallies["sent"] += 4
    books.begun += 1
    books.record("GET /", 0.1, 0, TimeoutError(), trace_id="aa")
    kept = books.as_dict()
    for _ in range(2):
        total.merge(json.loads(json.dumps(kept)))
    assert (total.sent, total.tallies["sent"], total.lost_traces) == (6, 8, ["aa", "aa"])
    assert total.answered == {"200": 4}
    assert books.drain() == kept
    assert books.as_dict() == Ledger().as_dict()
    total.lost_traces = ["x"] * REMEMBERED
    total.merge(kept)
    assert len(total.lost_traces) == REMEMBERED


# --- both ------------------------------------------------------------------------------------


def test_counts_agree_to_the_last_request():
    ledger = Ledger()
    answered(ledger, 200, 3)
    found = reconcile(ledger, between(metrics(), metrics({"200": 3})))
    assert found.holds
    assert str(found) == "3 sent = 3 observed, to the last one"


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ({"200": 2}, "1 that the server never saw"),
        ({"200": 4}, "1 that the server saw from elsewhere"),
        ({"200": 2, "500": 1}, "200: 3 ≠ 2; 500: 0 ≠ 1"),
    ],
)
def test_counts_that_do_not_agree(statuses, said):
    ledger = Ledger()
    answered(ledger, 200, 3)
    found = reconcile(ledger, between(metrics(), metrics(statuses)))
    assert not found.holds
    assert str(found).startswith("DOES NOT HOLD")
    assert said in str(found)


@pytest.mark.parametrize(("observed", "holds"), [(2, False), (3, True), (4, True), (5, True), (6, False)])
def test_requests_without_an_answer_may_have_been_observed(observed, holds):
    ledger = Ledger()
    answered(ledger, 200, 3)
    ledger.begun += 2
    ledger.record("GET /", 0.1, 0, ConnectionResetError())
    found = reconcile(ledger, between(metrics(), metrics({"200": observed})))
    assert found.holds is holds
    assert found.lost == 5 - observed


def test_an_exchange_without_a_status_is_an_observed_one():
    ledger = Ledger()
    answered(ledger, 200, 2)
    ledger.begun += 1
    assert reconcile(ledger, between(metrics(), metrics({"200": 2, "": 1}))).holds


def test_spans_that_went_missing_with_a_killed_worker_are_explained_by_whoever_killed_it():
    started = 'otel_span_sampling_result="RECORD_AND_SAMPLE"'
    reading = between(
        metrics(),
        metrics(
            otel_sdk_span_started_total={started: 100, 'otel_span_sampling_result="DROP"': 900},
            otel_sdk_exporter_span_exported_total={'error_type=""': 40, 'error_type="UNAVAILABLE"': 10},
            otel_sdk_processor_span_processed_total={'error_type=""': 50, 'error_type="queue_full"': 5},
            otel_sdk_processor_span_queue_size=15,
        ),
    )
    told = story(reading=reading)
    assert MEASURES["spans_unexplained"].of(told) == pytest.approx(0.3)
    assert MEASURES["spans_lost"].of(told) == 15
    told.facts["spans_at_risk"] = 25
    assert MEASURES["spans_unexplained"].of(told) == pytest.approx(0.05)


def test_knee_between_two_steps():
    ramp = [step(2, 10, good=100.0), step(4, 20, good=110, refused=2.2449), step(6, 30, good=100, refused=90)]
    found = knee(ramp, ttfb_p95=0.25, refused_share=0.01, offered_by_user=10.0)
    assert found.rate == pytest.approx(105, abs=0.1)  # 2 % are refused at 110: 1 % half-way


def test_a_hiccup_is_no_knee():
    ramp = [step(2, 10, good=10.0), step(4, 20, good=10, refused=10), step(6, 30, good=30.0)]
    found = knee(ramp, ttfb_p95=0.25, refused_share=0.01, offered_by_user=1.0)
    assert (found.rate, found.broken_at) == (30.0, None)


def step(at, users, *, good, refused=0.0, p95=0.01, rss=None, seconds=2.0):
    empty = {"p50": None, "p95": None, "p99": None}
    workers = {"rss": rss or {}, "fds": rss or {}}
    sent = good + refused
    server = {**empty, "p95": p95}
    return Point(
        at, seconds, users, sent, good, 0.0, refused, empty, empty, sent, server, 0.1, 0.0, 0.0, workers
    )


def test_knee_is_the_last_step_within_the_slo():
    ramp = [step(at, 10 * (at // 4 + 1), good=10.0 * (at // 4 + 1)) for at in range(0, 16, 2)]
    ramp += [step(16, 50, good=0.0), step(18, 50, good=38, refused=12, p95=0.4)]
    found = knee(ramp, ttfb_p95=0.25, refused_share=0.01, offered_by_user=1.0)
    assert (found.users, found.broken_at) == (40, 50.0)
    assert found.rate == pytest.approx(40, abs=0.2)
    assert "400 ms" in str(found)
    assert "24.0% of the requests are refused" in str(found)


def test_knee_that_was_not_reached_and_one_below_the_first_step():
    flat = [step(2, 10, good=10.0), step(4, 10, good=10.0)]
    found = knee(flat, ttfb_p95=0.25, refused_share=0.01, offered_by_user=1.0)
    assert str(found) == "not reached: 10 requests/s are still within the SLO"
    assert knee(flat, ttfb_p95=0.001, refused_share=0.01, offered_by_user=1.0).rate == 0
    assert knee([], ttfb_p95=1, refused_share=0, offered_by_user=1.0) is None


def test_slope_and_growth_by_worker():
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 1), (1, 3)]) is None
    assert slope([(1, 1), (1, 2), (1, 3)]) is None
    run = [step(at, 5, good=1, rss={"0": 100.0 + 8 * at, "1": 50.0}) for at in range(12)]
    found = growth(run, "rss")
    assert found == {"0": pytest.approx(8), "1": pytest.approx(0)}


def test_a_point_without_the_server():
    ledger = Ledger()
    answered(ledger, 200, 10)
    answered(ledger, 503, 10)
    found = point(4.0, 2.0, 7, ledger, None)
    assert (found.sent, found.good, found.refused, found.users, found.observed) == (10, 5, 5, 7, None)


# --- thresholds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "value", "kept"),
    [
        (at_most(1), 1, True),
        (at_most(1), 1.1, False),
        (at_least(1), 1, True),
        (at_least(1), 0.9, False),
        (exactly(0), 0, True),
        (exactly(0), -1, False),
        (Bound(1, 2), 1.5, True),
        (at_most(1), None, False),  # what could not be measured is no success
    ],
)
def test_bounds(bound, value, kept):
    assert bound.keeps(value) is kept


def test_a_breach_says_what_was_measured_and_what_is_asked():
    finding = Finding("client_p95_seconds", 0.75, at_most(0.5))
    assert str(finding) == "client_p95_seconds: 750 ms, at most 500 ms is asked (p95 at the client)"


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (None, "s", "not measured"),
        (2, "s", "2 s"),
        (0.5, "share", "50.00%"),
        (2048, "bytes", "2.0 KiB"),
        (3, "", "3"),
    ],
)
def test_values_as_people_write_them(value, unit, said):
    assert spoken(value, unit) == said


def test_what_must_hold_is_asked_with_yes():
    assert str(Finding("reconciled", 0.0, exactly(1))).startswith("reconciled: no, yes is asked")


def test_every_measure_can_be_taken_of_an_empty_run():
    for name, measure in MEASURES.items():
        found = measure.of(story())
        assert found is None or found == 0, name
        if measure.server:
            assert found is None, f"{name} claims a value without the server's metrics"


def test_every_threshold_names_a_measure():
    for scenario in SCENARIOS.values():
        assert set(scenario.slo) <= set(MEASURES)
        assert scenario.slo


def test_judgement():
    ledger = Ledger()
    answered(ledger, 200, 9)
    answered(ledger, 503)
    found = judge(
        story(ledger, reading=between(metrics(), metrics({"200": 9, "503": 1}))),
        {"refused_share": at_most(0.05), "reconciled": exactly(1), "sent": at_least(10)},
    )
    assert [(one.name, one.value, one.kept) for one in found] == [
        ("refused_share", 0.1, False),
        ("reconciled", 1.0, True),
        ("sent", 10.0, True),
    ]
