"""Which traces are noted beside what is counted, and how often."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from obsserve.telemetry import catalogue, exemplars
from obsserve.telemetry.cells import _EXEMPLAR_RESERVE, DURATION, FIRST_BYTE, Cells, Family
from obsserve.telemetry.exemplars import INTERVAL, Exemplars
from obsserve.telemetry.metrics import Metrics, rows_for


def trace(number=1, *, sampled=True):
    return SimpleNamespace(trace_id_hex=f"{number:032x}", span_id_hex=f"{number:016x}", sampled=sampled)


def view(**facts):
    ordinary = {"trace": trace(), "began": 100.0, "head_done": 100.0, "first_byte": 100.02, "ended": 100.03}
    return SimpleNamespace(**ordinary | facts)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(value=1000.0, time=lambda: 1.7e9)
    now.perf_counter = lambda: now.value
    monkeypatch.setattr(exemplars, "time", now)
    return now


@pytest.fixture
def region():
    region = Cells.create(rows_for(10))
    yield region
    region.close()


@pytest.fixture
def noted(region):
    """Return the exemplars of a metric, by labels and place."""
    reader = region.reader()

    def noted(metric):
        return {
            (row.labels, place): (int(found.trace_id, 16), found.value)
            for row in reader.rows()
            if row.metric == metric.name
            for place, found in row.exemplars.items()
        }

    yield noted
    reader.close()


@pytest.mark.parametrize(("sampled_only", "count"), [(True, 1), (False, 2)])
def test_only_what_is_sampled_unless_all_is_wanted(region, noted, clock, sampled_only, count):
    errors = Family(region, catalogue.APP_PROTOCOL_FAULTS)
    found = Exemplars(region, sampled_only=sampled_only)
    for number, reason in enumerate(("no_response", "bad_message")):
        found.note_error(view(trace=trace(number, sampled=bool(number))), errors.row(reason))
    found.note_error(view(trace=None), errors.row("send_after_close"))
    assert len(noted(catalogue.APP_PROTOCOL_FAULTS)) == count


def test_an_error_is_noted_as_the_one_it_added(region, noted, clock):
    errors = Family(region, catalogue.APP_EXCEPTIONS)
    Exemplars(region, sampled_only=True).note_error(view(trace=trace(7)), errors.row("KeyError", "websocket"))
    assert noted(catalogue.APP_EXCEPTIONS) == {(("KeyError", "websocket"), 0): (7, 1.0)}


def test_a_flood_is_noted_once_a_second(region, noted, clock):
    slot = Family(region, catalogue.DRAIN_INTERRUPTED).row()
    found = Exemplars(region, sampled_only=True)
    for number in range(1, 100):
        found.note_error(view(trace=trace(number)), slot)
    assert noted(catalogue.DRAIN_INTERRUPTED) == {((), 0): (1, 1.0)}
    clock.value += INTERVAL
    found.note_error(view(trace=trace(100)), slot)
    assert noted(catalogue.DRAIN_INTERRUPTED) == {((), 0): (100, 1.0)}


def test_one_that_is_not_sampled_does_not_keep_the_next_one_away(region, noted, clock):
    slot = Family(region, catalogue.DRAIN_INTERRUPTED).row()
    found = Exemplars(region, sampled_only=True)
    found.note_error(view(trace=trace(1, sampled=False)), slot)
    found.note_error(view(trace=trace(2)), slot)
    assert noted(catalogue.DRAIN_INTERRUPTED) == {((), 0): (2, 1.0)}


def test_errors_have_places_that_latencies_cannot_take(noted, clock):
    region = Cells.create(rows_for(10), exemplars=16)
    reader = region.reader()
    found = Exemplars(region, sampled_only=True)
    for n in range(40):
        found.note(view(), n * 64, 0)
    slot = Family(region, catalogue.DRAIN_INTERRUPTED).row()
    found.note_error(view(trace=trace(9)), slot)
    (row,) = [row for row in reader.rows() if row.metric == catalogue.DRAIN_INTERRUPTED.name]
    assert int(row.exemplars[0].trace_id, 16) == 9
    reader.close()
    region.close()


def test_there_are_as_many_of_those_places_as_counters():
    assert sum(metric.bound for metric in catalogue.ERROR_COUNTERS) <= _EXEMPLAR_RESERVE


class TestByTheMetrics:
    """Each of the counters, by what ends an exchange."""

    @staticmethod
    def exchange(number, **facts):
        ordinary = {
            **{"method": "GET", "scheme": "http", "http_version": "1.1", "connection_request": 1},
            **{"status": 500, "route": "/", "error_type": "500", "exception": None, "app_started": 100.0},
            **{"response_started": 0.0, "request_body_size": 0, "response_body_size": 0, "pipelined": False},
            **{"ending": catalogue.COMPLETE, "app_protocol_error": None, "disconnect_phase": None},
            **{"write_blocked": 0.0, "websocket": False, "ordinary": False, "trace": trace(number)},
        }
        return view(**ordinary | facts)

    @pytest.mark.parametrize(
        ("metric", "labels", "facts"),
        [
            (catalogue.REJECTED_REQUESTS, ("draining",), {"ending": catalogue.DRAINING}),
            (catalogue.PROTOCOL_ERRORS, ("bad_header", "400"), {"ending": catalogue.BAD_HEADER}),
            (
                catalogue.CLIENT_DISCONNECTS,
                ("waiting",),
                {"ending": catalogue.CLIENT_DISCONNECTED, "disconnect_phase": "waiting"},
            ),
            (
                catalogue.APP_EXCEPTIONS,
                ("KeyError", "before_response"),
                {"ending": catalogue.APP_EXCEPTION, "exception": KeyError("x")},
            ),
            (catalogue.APP_PROTOCOL_FAULTS, ("no_response",), {"ending": catalogue.APP_NO_RESPONSE}),
            (
                catalogue.APP_PROTOCOL_FAULTS,
                ("send_after_close",),
                {"app_protocol_error": "send_after_close"},
            ),
            (catalogue.DRAIN_INTERRUPTED, (), {"ending": catalogue.WORKER_SHUTDOWN}),
        ],
        ids=lambda value: getattr(value, "name", None),
    )
    def test_an_exchange_that_went_wrong(self, region, noted, metric, labels, facts):
        metrics = Metrics(region, exemplars="trace_based")
        one = self.exchange(3, **facts)
        metrics.exchange_started(one)
        metrics.exchange_ended(one)
        assert noted(metric) == {(labels, 0): (3, 1.0)}
        assert metric in catalogue.ERROR_COUNTERS

    def test_a_websocket_whose_application_raises(self, region, noted):
        metrics = Metrics(region, exemplars="trace_based")
        metrics.app_exception_after_end(self.exchange(4, websocket=True), KeyError("x"))
        assert noted(catalogue.APP_EXCEPTIONS) == {(("KeyError", "websocket"), 0): (4, 1.0)}

    def test_a_lifespan_has_no_exchange_to_point_to(self, region, noted):
        metrics = Metrics(region, exemplars="always_on")
        metrics.lifespan_finished("startup", 1.0, failed=True, exception=KeyError("x"))
        assert noted(catalogue.APP_EXCEPTIONS) == {}

    def test_none_are_noted_when_they_are_off(self, region, noted):
        metrics = Metrics(region)
        one = self.exchange(3, ending=catalogue.APP_EXCEPTION, exception=KeyError("x"))
        metrics.exchange_started(one)
        metrics.exchange_ended(one)
        assert noted(catalogue.APP_EXCEPTIONS) == {}
        assert region._mapping.header[9] == 0

    def test_a_good_one_is_beside_its_latencies_only(self, region, noted):
        metrics = Metrics(region, exemplars="trace_based")
        one = self.exchange(5, status=200, error_type=None, ordinary=True)
        metrics.exchange_started(one)
        metrics.exchange_ended(one)
        assert all(noted(metric) == {} for metric in catalogue.ERROR_COUNTERS)
        assert {place for _, place in noted(catalogue.REQUEST_DURATION)} == {DURATION + 3, FIRST_BYTE + 2}
