"""The metrics observer: exchanges and connections in, label sets and sums out."""

from __future__ import annotations

import errno
import threading
from bisect import bisect_left
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import LATENCY_BUCKETS, QUEUE_BUCKETS
from obsserve.telemetry.cells import (
    DURATION_SUM,
    FIRST_BYTE_SUM,
    QUEUE_SUM,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    Cells,
    duration_counts,
    first_byte_counts,
    queue_counts,
)
from obsserve.telemetry.logmetrics import LogCounters
from obsserve.telemetry.metrics import Metrics, known_methods, rows_for


class FakeExchange:
    """An ordinary exchange, but for what is given."""

    def __init__(self, **facts):
        self.method, self.scheme, self.http_version = "GET", "http", "1.1"
        self.status, self.route, self.error_type = 200, "/items/{id}", None
        self.began, self.head_done, self.app_started = 100.0, 100.0001, 100.0002
        self.response_started = self.first_byte = 100.001
        self.ended = 100.0011
        self.request_body_size, self.response_body_size = 0, 12
        self.ending, self.exception, self.app_protocol_error = catalogue.COMPLETE, None, None
        self.disconnect_phase, self.write_blocked, self.pipelined = None, 0.0, False
        self.websocket, self.trace = False, None
        self.ordinary = False
        self.connection_request = 1
        for name, value in facts.items():
            assert hasattr(self, name)
            setattr(self, name, value)


class FakeConnection:
    def __init__(self, **facts):
        self.listener, self.state = "main", "idle"
        self.received_bytes = self.sent_bytes = self.counted_received = self.counted_sent = 0
        self.buffered_bytes, self.write_paused = 0, False
        self.opened_at, self.closed_at, self.requests = 10.0, 12.0, 1
        self.close_reason, self.closed_while_active = "client_closed", None
        for name, value in facts.items():
            assert hasattr(self, name)
            setattr(self, name, value)


@pytest.fixture
def region():
    region = Cells.create(rows_for(100))
    yield region
    region.close()


@pytest.fixture
def read(region):
    """Return the rows of a metric by label set, and the number `values[column]` of one row."""
    reader = region.reader()

    def read(metric, *labels):
        rows = {row.labels: row for row in reader.rows() if row.metric == metric.name}
        return rows[labels].values[0] if labels else {key: row.values for key, row in rows.items()}

    yield read
    reader.close()


def finish(metrics, **facts):
    view = FakeExchange(**facts)
    metrics.exchange_started(view)
    metrics.exchange_ended(view)
    return view


def labels_of(read):
    return set(read(catalogue.REQUEST_DURATION))


class TestLabels:
    def test_an_ordinary_exchange(self, region, read):
        finish(Metrics(region))
        assert labels_of(read) == {("GET", "http", "200", "/items/{id}", "", "1.1")}

    def test_nothing_sent_leaves_the_status_empty(self, region, read):
        finish(Metrics(region), status=None, error_type="client_disconnected")
        assert labels_of(read) == {("GET", "http", "", "/items/{id}", "client_disconnected", "1.1")}

    @pytest.mark.parametrize("method", ["", "get", "PROPFIND", "X" * 50])
    def test_an_unknown_method_is_other_everywhere(self, region, read, method):
        finish(Metrics(region), method=method)
        assert {labels[0] for labels in labels_of(read)} == {"_OTHER"}
        assert set(read(catalogue.ACTIVE_REQUESTS)) == {("_OTHER", "http")}

    def test_the_list_of_methods_can_be_replaced(self, region, read):
        methods = known_methods({"OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS": "PROPFIND, GET,"})
        assert methods == ("PROPFIND", "GET")
        metrics = Metrics(region, known_methods=methods)
        for method in ("PROPFIND", "GET", "POST"):
            finish(metrics, method=method)
        assert {labels[0] for labels in labels_of(read)} == {"PROPFIND", "GET", "_OTHER"}

    def test_without_the_variable_there_are_the_ten(self):
        assert known_methods({}) == catalogue.KNOWN_METHODS
        assert len(catalogue.KNOWN_METHODS) == 10

    def test_a_version_that_nobody_speaks_is_left_empty(self, region, read):
        finish(Metrics(region), http_version="7.3", status=505, error_type="505")
        assert {labels[5] for labels in labels_of(read)} == {""}

    def test_tables_do_not_grow_with_what_clients_choose(self, region):
        metrics = Metrics(region)
        for n in range(1000):
            finish(metrics, method=f"M{n}", http_version=f"{n}", route="")
        assert len(metrics._series.rows) == 1
        assert len(metrics._started) == 1


class TestBounds:
    def test_routes(self, read):
        region = Cells.create(rows_for(1000))
        reader = region.reader()
        metrics = Metrics(region, max_series=1000)
        for n in range(catalogue.ROUTE_LIMIT + 20):
            finish(metrics, route=f"/{n}")
        routes = {row.labels[3] for row in reader.rows() if row.metric == catalogue.REQUEST_DURATION.name}
        assert routes == {f"/{n}" for n in range(catalogue.ROUTE_LIMIT)} | {"_OTHER"}
        reader.close()
        region.close()

    def test_exception_types(self, region, read):
        metrics = Metrics(region)
        for n in range(catalogue.EXCEPTION_TYPE_LIMIT + 5):
            exception = type(f"E{n}", (Exception,), {"__module__": "app"})()
            finish(
                metrics,
                status=500,
                error_type=f"app.E{n}",
                exception=exception,
                ending=catalogue.APP_EXCEPTION,
            )
        names = {f"app.E{n}" for n in range(catalogue.EXCEPTION_TYPE_LIMIT)} | {"_OTHER"}
        assert {labels[4] for labels in labels_of(read)} == names
        exceptions = read(catalogue.APP_EXCEPTIONS)
        assert set(exceptions) == {(name, "before_response") for name in names}
        assert exceptions["_OTHER", "before_response"][0] == 5.0

    def test_named_error_types_take_no_place_of_exceptions(self, region, read):
        metrics = Metrics(region)
        for n in range(catalogue.EXCEPTION_TYPE_LIMIT):
            finish(metrics, status=500, error_type=f"app.E{n}")
        for error_type in ("request_timeout", "503"):
            finish(metrics, status=503, error_type=error_type)
        assert {"request_timeout", "503"} <= {labels[4] for labels in labels_of(read)}

    def test_series(self, region, read):
        metrics = Metrics(region, max_series=5)
        for n in range(8):
            finish(metrics, route=f"/{n}")
        finish(metrics, route="/9", method="POST")
        rows = read(catalogue.REQUEST_DURATION)
        assert set(rows) == {("GET", "http", "200", f"/{n}", "", "1.1") for n in range(5)} | {
            ("GET", "http"),
            ("POST", "http"),
        }
        assert sum(duration_counts(rows["GET", "http"])) == 3.0
        finish(metrics, route="/3")
        assert (
            sum(duration_counts(read(catalogue.REQUEST_DURATION)["GET", "http", "200", "/3", "", "1.1"]))
            == 2.0
        )


seconds = st.floats(0, 20)


class TestTimes:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(seconds, seconds, seconds, st.booleans(), st.booleans()), max_size=20))
    def test_each_histogram_is_what_it_would_be_alone(self, exchanges):
        region = Cells.create(64)
        reader = region.reader()
        metrics = Metrics(region, max_series=5)
        durations, waits, queues = [0.0] * 15, [0.0] * 15, [0.0] * 10
        sums = [0.0] * 3
        for queued, waited, rest, reached_app, answered in exchanges:
            head_done = 100.0
            view = FakeExchange(began=100.0, head_done=head_done, app_started=0.0, first_byte=0.0)
            now = head_done
            if reached_app:
                now = view.app_started = now + queued
                queues[bisect_left(QUEUE_BUCKETS, now - head_done)] += 1
                sums[2] += now - head_done
            if answered:
                now = view.first_byte = now + waited
                waits[bisect_left(LATENCY_BUCKETS, now - head_done)] += 1
                sums[1] += now - head_done
            view.ended = now + rest
            durations[bisect_left(LATENCY_BUCKETS, view.ended - view.began)] += 1
            sums[0] += view.ended - view.began
            metrics.exchange_ended(view)
        rows = [row.values for row in reader.rows() if row.metric == catalogue.REQUEST_DURATION.name]
        values = list(rows[0]) if rows else [0.0] * 60
        assert duration_counts(values) == durations
        assert first_byte_counts(values) == waits
        assert queue_counts(values) == queues
        assert [values[DURATION_SUM], values[FIRST_BYTE_SUM], values[QUEUE_SUM]] == pytest.approx(sums)
        reader.close()
        region.close()

    def test_a_request_without_headers_has_no_time_to_first_byte(self, region, read):
        finish(Metrics(region), head_done=0.0, app_started=0.0, first_byte=100.0, ending=catalogue.BAD_HEADER)
        (values,) = read(catalogue.REQUEST_DURATION).values()
        assert sum(duration_counts(values)) == 1.0
        assert sum(first_byte_counts(values)) == sum(queue_counts(values)) == 0.0

    def test_bodies_are_counted(self, region, read):
        metrics = Metrics(region)
        finish(metrics, request_body_size=5, response_body_size=7)
        finish(metrics, request_body_size=50, response_body_size=0)
        (values,) = read(catalogue.REQUEST_DURATION).values()
        assert (values[REQUEST_BYTES], values[RESPONSE_BYTES]) == (55.0, 7.0)

    def test_body_sizes_are_opt_in(self, region, read):
        finish(Metrics(region))
        assert read(catalogue.REQUEST_BODY_SIZE) == {}
        metrics = Metrics(region, body_sizes=True, max_series=1)
        finish(metrics, request_body_size=1024, response_body_size=5000)
        finish(metrics, request_body_size=1, response_body_size=1, route="/beyond")
        labels = ("GET", "http", "200", "/items/{id}", "", "1.1")
        requests, responses = read(catalogue.REQUEST_BODY_SIZE), read(catalogue.RESPONSE_BODY_SIZE)
        assert list(requests[labels][:12]) == [0, 1, *[0] * 9, 1024]
        assert list(responses[labels][:12]) == [0, 0, 0, 1, *[0] * 7, 5000]
        assert list(requests[None][:12]) == [1, *[0] * 10, 1]


class TestEvents:
    @pytest.mark.parametrize("ending", [e for e in catalogue.ENDINGS.values() if e.rejection])
    def test_rejections(self, region, read, ending):
        finish(Metrics(region), status=503, ending=ending, error_type=ending.error_type)
        counts = {labels: values[0] for labels, values in read(catalogue.REJECTED_REQUESTS).items()}
        assert {labels for labels, count in counts.items() if count} == {(ending.rejection,)}

    @pytest.mark.parametrize("ending", [e for e in catalogue.ENDINGS.values() if e.protocol_error])
    def test_protocol_errors_have_the_status_of_their_reason(self, region, read, ending):
        finish(Metrics(region), status=None, ending=ending)
        assert read(catalogue.PROTOCOL_ERRORS, ending.protocol_error, str(ending.status)) == 1.0

    @pytest.mark.parametrize("phase", catalogue.DISCONNECT_PHASES)
    def test_disconnects(self, region, read, phase):
        finish(Metrics(region), status=None, ending=catalogue.CLIENT_DISCONNECTED, disconnect_phase=phase)
        assert read(catalogue.CLIENT_DISCONNECTS, phase) == 1.0

    @pytest.mark.parametrize("ending", [e for e in catalogue.ENDINGS.values() if e.app_protocol_error])
    def test_misuse_of_asgi_that_ends_the_exchange(self, region, read, ending):
        finish(Metrics(region), ending=ending)
        assert read(catalogue.APP_PROTOCOL_FAULTS, ending.app_protocol_error) == 1.0

    def test_misuse_of_asgi_in_a_complete_response(self, region, read):
        finish(Metrics(region), app_protocol_error="duplicate_start")
        assert read(catalogue.APP_PROTOCOL_FAULTS, "duplicate_start") == 1.0

    @pytest.mark.parametrize(
        ("ending", "response_started", "phase"),
        [
            (catalogue.APP_EXCEPTION, 0.0, "before_response"),
            (catalogue.APP_EXCEPTION, 1.0, "before_response"),
            (catalogue.APP_EXCEPTION_AFTER_START, 1.0, "after_response_start"),
            (catalogue.CLIENT_DISCONNECTED, 0.0, "before_response"),
            (catalogue.CLIENT_DISCONNECTED, 1.0, "after_response_start"),
        ],
    )
    def test_exceptions(self, region, read, ending, response_started, phase):
        finish(Metrics(region), ending=ending, exception=KeyError("x"), response_started=response_started)
        assert {key: values[0] for key, values in read(catalogue.APP_EXCEPTIONS).items()} == {
            ("KeyError", phase): 1.0
        }

    def test_an_exception_after_the_end(self, region, read):
        metrics = Metrics(region)
        metrics.app_exception_after_end(finish(metrics), errors := ValueError())
        assert read(catalogue.APP_EXCEPTIONS, type(errors).__name__, "after_response_start") == 1.0

    def test_slow_readers_pipelining_and_drain(self, region, read):
        metrics = Metrics(region)
        finish(metrics, write_blocked=0.5, pipelined=True)
        finish(metrics, ending=catalogue.WORKER_SHUTDOWN, status=503)
        assert read(catalogue.WRITE_BLOCKED)[()][0] == 0.5
        assert read(catalogue.PIPELINED_REQUESTS)[()][0] == 1.0
        assert read(catalogue.DRAIN_INTERRUPTED)[()][0] == 1.0

    def test_the_lifespan(self, region, read):
        metrics = Metrics(region, worker="3")
        metrics.lifespan_finished("startup", 1.5, failed=False)
        metrics.lifespan_finished("shutdown", 0.5, failed=True, exception=RuntimeError())
        assert read(catalogue.LIFESPAN_DURATION, "3", "startup") == 1.5
        assert read(catalogue.LIFESPAN_FAILURES, "startup") == 0.0
        assert read(catalogue.LIFESPAN_FAILURES, "shutdown") == 1.0
        assert read(catalogue.APP_EXCEPTIONS, "RuntimeError", "lifespan") == 1.0

    def test_limits_and_accept_errors(self, region, read):
        metrics = Metrics(region)
        metrics.set_limit("backlog", 2048)
        for kind in ("EMFILE", "emfile", "ECONNABORTED"):
            metrics.accept_error(kind)
        assert read(catalogue.LIMIT, "backlog") == 2048.0
        assert read(catalogue.ACCEPT_FAILURES, "emfile") == 2.0
        assert read(catalogue.ACCEPT_FAILURES, "other") == 1.0


class TestConnections:
    def test_opened_and_closed(self, region, read):
        metrics = Metrics(region)
        connection = FakeConnection(
            requests=3, close_reason="drain", closed_while_active="local", sent_bytes=9
        )
        metrics.connection_opened(connection)
        metrics.connection_closed(connection)
        assert read(catalogue.CONNECTIONS_ACCEPTED, "main") == 1.0
        assert read(catalogue.CONNECTIONS_CLOSED, "drain") == 1.0
        assert read(catalogue.CLOSED_WHILE_ACTIVE, "local") == 1.0
        assert list(read(catalogue.CONNECTION_REQUESTS)[()][:12]) == [0, 0, 1, *[0] * 8, 3]
        assert list(read(catalogue.CONNECTION_DURATION)[()][:11]) == [0, 0, 0, 1, *[0] * 6, 2]
        assert read(catalogue.SENT_BYTES, "main") == 9.0

    def test_one_that_sent_nothing_is_not_counted_as_not_reused(self, region, read):
        Metrics(region).connection_closed(FakeConnection(requests=0))
        assert sum(read(catalogue.CONNECTION_REQUESTS)[()]) == 0.0

    def test_reuse_is_seen_at_the_second_request(self, region, read):
        metrics = Metrics(region)
        for number in range(1, 5):
            finish(metrics, connection_request=number)
        assert read(catalogue.CONNECTIONS_REUSED)[()][0] == 1.0

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=5), min_size=1, max_size=4
        )
    )
    def test_each_byte_is_counted_once(self, histories):
        region = Cells.create(128)
        reader = region.reader()
        metrics = Metrics(region)
        for history in histories:
            connection = FakeConnection()
            for received, sent in history:
                metrics.sample([connection])
                connection.received_bytes += received
                connection.sent_bytes += sent
            metrics.connection_closed(connection)
        rows = {row.metric: row.values[0] for row in reader.rows() if row.labels == ("main",)}
        received = sum(pair[0] for history in histories for pair in history)
        sent = sum(pair[1] for history in histories for pair in history)
        assert rows[catalogue.RECEIVED_BYTES.name] == received
        assert rows[catalogue.SENT_BYTES.name] == sent
        reader.close()
        region.close()

    def test_states_and_buffers_are_sampled(self, region, read):
        metrics = Metrics(region)
        connections = [
            FakeConnection(state="active", buffered_bytes=100, write_paused=True),
            FakeConnection(state="active", buffered_bytes=20),
            FakeConnection(state="closing"),
            FakeConnection(),
        ]
        metrics.sample(connections)
        assert read(catalogue.CONNECTIONS_OPEN, "active") == 2.0
        assert read(catalogue.CONNECTIONS_OPEN, "closing") == 1.0
        assert read(catalogue.BUFFERED_BYTES)[()][0] == 120.0
        assert read(catalogue.WRITE_PAUSED)[()][0] == 1.0
        metrics.sample([])
        assert read(catalogue.CONNECTIONS_OPEN, "active") == 0.0


class TestLogCounters:
    @pytest.fixture
    def total(self, region):
        reader = region.reader()

        def total(metric, *labels):
            rows = reader.rows()
            return sum(row.values[0] for row in rows if (row.metric, row.labels) == (metric.name, labels))

        yield total
        reader.close()

    def test_every_word_of_the_contract(self, region, total):
        counters = LogCounters(region, worker="1")
        counters.add("access", "written", 3)
        counters.add("app", "dropped")
        counters.truncated("access")
        counters.write_error(OSError(errno.ENOSPC, "full"))
        counters.write_error(ValueError())
        counters.write_seconds(0.25)
        counters.set_queue(7, 100)
        assert total(catalogue.LOG_RECORDS, "access", "written") == 3.0
        assert total(catalogue.LOG_RECORDS, "app", "dropped") == 1.0
        assert total(catalogue.LOG_TRUNCATED, "access") == 1.0
        assert total(catalogue.LOG_WRITE_ERRORS, "enospc") == 1.0
        assert total(catalogue.LOG_WRITE_ERRORS, "other") == 1.0
        assert total(catalogue.LOG_WRITE_SECONDS) == 0.25
        assert total(catalogue.LOG_QUEUE, "1") == 7.0
        assert total(catalogue.LOG_QUEUE_CAPACITY, "1") == 100.0

    def test_nothing_is_lost_between_threads(self, region, total):
        counters = LogCounters(region)

        def write():
            for _ in range(2000):
                counters.add("app", "written")

        for _ in range(3):
            threads = [threading.Thread(target=write) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert total(catalogue.LOG_RECORDS, "app", "written") == 60_000.0

    def test_threads_beyond_the_bound_take_no_further_rows(self, region, total):
        counters = LogCounters(region)
        barrier = threading.Barrier(40)

        def write():
            barrier.wait()
            counters.add("app", "written")
            barrier.wait()

        threads = [threading.Thread(target=write) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert total(catalogue.LOG_RECORDS, "app", "written") == 40.0
        assert len(counters._rows) == 16


def test_the_rest_has_enough_rows():
    """`rows_for` leaves room for every bounded label set besides the exchanges."""
    derived = {catalogue.REQUEST_DURATION, catalogue.TIME_TO_FIRST_BYTE}
    opt_in = {catalogue.REQUEST_BODY_SIZE, catalogue.RESPONSE_BODY_SIZE}
    threads = {catalogue.LOG_RECORDS, catalogue.LOG_TRUNCATED, catalogue.LOG_WRITE_SECONDS}
    rest = [metric for metric in catalogue.METRICS.values() if metric not in derived | opt_in]
    needed = sum(metric.bound * (16 if metric in threads else 1) for metric in rest)
    overflow_rows = 2 * (len(catalogue.KNOWN_METHODS) + 1)
    assert needed + overflow_rows <= rows_for(0)


@pytest.mark.parametrize("ordinary", [True, False])
def test_without_routes_all_exchanges_share_a_row(region, read, ordinary):
    metrics = Metrics(region, max_series=10, routes=False)
    for n in range(catalogue.ROUTE_LIMIT + 50):
        view = FakeExchange(route=f"/{n}", ordinary=ordinary)
        metrics.exchange_started(view)
        metrics.exchange_ended(view)
    rows = read(catalogue.REQUEST_DURATION)
    assert list(rows) == [("GET", "http", "200", "", "", "1.1")]
    (values,) = rows.values()
    assert sum(duration_counts(values)) == catalogue.ROUTE_LIMIT + 50


@pytest.mark.parametrize(
    ("chosen", "named"),
    [("trace_based", (True, False)), ("always_on", (True, True)), ("always_off", (False, False))],
)
def test_which_traces_are_exemplars(region, chosen, named):
    metrics = Metrics(region, exemplars=chosen)
    reader = region.reader()
    for sampled, method in ((True, "GET"), (False, "POST")):
        trace = SimpleNamespace(trace_id_hex="1" * 32, span_id_hex="2" * 16, sampled=sampled)
        finish(metrics, method=method, trace=trace)
    found = {
        row.labels[0]
        for row in reader.rows()
        if row.metric == "http_server_request_duration_seconds" and row.exemplars
    }
    assert ("GET" in found, "POST" in found) == named
    reader.close()
