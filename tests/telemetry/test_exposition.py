"""The exposition: cells into what Prometheus reads, checked by its own tool and by the client library."""

from __future__ import annotations

import gzip
from itertools import permutations
import subprocess
from types import SimpleNamespace

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from obsserve.telemetry import catalogue, runtime
from obsserve.telemetry.cells import DURATION, FIRST_BYTE, Base, Cells, steady
from obsserve.telemetry.exposition import Exposition
from obsserve.telemetry.logmetrics import LogCounters
from obsserve.telemetry.metrics import Metrics, rows_for
from obsserve.telemetry.spanfigures import LogExportFigures, MetricExportFigures, SenderFigures, TraceFigures
from obsserve.telemetry.tlsmetrics import TLSMetrics
from tests.parts import program

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def exchange(**facts):
    """An ordinary exchange, but for what is given."""
    ordinary = {
        **{"method": "GET", "scheme": "http", "http_version": "1.1", "connection_request": 1},
        **{"status": 200, "route": "/items/{id}", "error_type": None, "exception": None},
        **{"began": 100.0, "head_done": 100.0, "app_started": 100.0001, "response_started": 100.001},
        **{"first_byte": 100.02, "ended": 100.03, "request_body_size": 3, "response_body_size": 12},
        **{"ending": catalogue.COMPLETE, "app_protocol_error": None, "disconnect_phase": None},
        **{"write_blocked": 0.0, "pipelined": False, "websocket": False, "ordinary": False},
    }
    return SimpleNamespace(**ordinary | facts)


def connection(**facts):
    ordinary = {
        **{"listener": "main", "state": "idle", "buffered_bytes": 0, "write_paused": False, "requests": 1},
        **{"received_bytes": 100, "sent_bytes": 200, "counted_received": 0, "counted_sent": 0},
        **{"opened_at": 1.0, "closed_at": 2.0, "close_reason": "client_closed", "closed_while_active": None},
    }
    return SimpleNamespace(**ordinary | facts)


@pytest.fixture(autouse=True)
def app_registry(monkeypatch):
    """A default registry for the application, as the library makes it."""
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    return registry


class Server:
    """One serving process: its region and everything that fills it."""

    def __init__(self, max_series=50):
        self.region = Cells.create(rows_for(max_series))
        self.metrics = Metrics(self.region, max_series=max_series)
        self.reader = self.region.reader()

    def finish(self, **facts):
        view = exchange(**facts)
        self.metrics.exchange_started(view)
        self.metrics.exchange_ended(view)

    def close(self):
        self.reader.close()
        self.region.close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def exposition(server):
    return Exposition([server.reader])


def samples(page, parse=parse_text):
    body = gzip.decompress(page.body) if page.content_encoding else page.body
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def value(page, name, **labels):
    return samples(page).get((name, frozenset(labels.items())))


class SimpleNamespaceWithIdentity(SimpleNamespace):
    __hash__ = object.__hash__


SESSION = {
    "route": "/ws", "opened_at": 1.0, "closed_at": 2.5, "close_code": 1000, "close_initiator": "client",
    "ping_timed_out": False, "queued_messages": 0, "messages_received": 3, "messages_sent": 2, "text_received": 1,
    "text_sent": 2, "bytes_received": 30, "bytes_sent": 20, "text_bytes_received": 10, "text_bytes_sent": 20,
}  # fmt: skip


def everything(server):
    """Use every metric that this process can bring forth."""
    LogCounters(server.region).set_queue(1, 2)
    LogCounters(server.region).truncated("access")
    LogCounters(server.region).write_error(OSError())
    lag = runtime.LoopLag(server.region)
    lag.tick(1.0)
    lag.tick(1.2)
    watch = runtime.GCWatch(server.region)
    watch.install()
    watch.remove()
    runtime.StallWatchdog(server.region, lambda: 0.0, lambda *_: None)
    TraceFigures(server.region)
    SenderFigures(server.region)
    LogExportFigures(server.region).sender()
    MetricExportFigures(server.region)
    TLSMetrics(server.region).loaded("success", 1.0)
    metrics = Metrics(server.region, max_series=10, body_sizes=True)
    for ending in catalogue.ENDINGS.values():
        view = exchange(
            status=ending.status,
            ending=ending,
            error_type=ending.error_type,
            route='/quo"te\\\n',
            exception=ValueError() if ending.flag in ("AX", "AP") else None,
            disconnect_phase="waiting" if ending.flag == "DC" else None,
        )
        metrics.exchange_started(view)
        metrics.exchange_ended(view)
    handshake = exchange(status=101, websocket=True, route="/ws")
    metrics.exchange_started(handshake)
    metrics.exchange_ended(handshake)
    session = SimpleNamespaceWithIdentity(**SESSION)
    metrics.session_started(session)
    metrics.session_ended(session)
    opened = connection(state="active")
    metrics.connection_opened(opened)
    metrics.sample([opened])
    metrics.connection_closed(opened)
    metrics.set_limit("backlog", 2048)
    metrics.lifespan_finished("startup", 0.5, failed=False)
    return [
        runtime.ProcessFigures(),
        runtime.python_info,
        lambda: runtime.build_info("1.0", "uvloop", "httptools"),
        runtime.readiness(lambda: True),
        lambda: [(catalogue.LISTENER_BACKLOG.name, ("main",), 1.0)],
        lambda: map(of_the_main_process, FROM_THE_MAIN_PROCESS),
    ]


# Figures that the main process makes of what it knows; tests/integration drives the real ones.
FROM_THE_MAIN_PROCESS = [
    metric
    for metric in catalogue.METRICS.values()
    if metric.name.startswith(
        (
            "obsserve_worker",
            "obsserve_config_",
            "obsserve_metrics_snapshot_",
            "obsserve_telemetry_",
            "target_",
        )
    )
]


def of_the_main_process(metric):
    return metric.name, tuple("0" for _ in metric.labels), 1.0


class TestAgainstTheOutsideWorld:
    @pytest.fixture
    def page(self, server):
        return Exposition([server.reader], everything(server)).scrape()

    def test_promtool_has_nothing_to_say(self, page):
        promtool = program("promtool", "apt-get install --no-install-recommends prometheus")
        check = subprocess.run(
            [promtool, "check", "metrics"], input=page.body, capture_output=True, check=False, timeout=30
        )
        assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")

    def test_a_scrape_has_everything_in_the_catalogue_and_nothing_else(self, page):
        exposed = {}
        for line in page.body.decode().split("\n"):
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in exposed, "a family is exposed twice"
                exposed[name] = kind
        assert exposed == {metric.name: metric.type for metric in catalogue.METRICS.values()}

    def test_labels_and_buckets_are_those_of_the_catalogue(self, page):
        for family in parse_text(page.body.decode()):
            metric = catalogue.METRICS.get(family.name) or catalogue.METRICS[f"{family.name}_total"]
            for sample in family.samples:
                names = set(sample.labels) - {"le"}
                assert names in ({*metric.labels}, {catalogue.OVERFLOW_LABEL}), sample
            bounds = {float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels}
            assert bounds == ({*metric.buckets, float("inf")} if metric.buckets else set())

    def test_openmetrics_can_be_parsed_strictly(self, server):
        exposition = Exposition([server.reader], everything(server))
        page = exposition.scrape(PROMETHEUS)
        assert page.content_type.startswith("application/openmetrics-text; version=1.0.0")
        assert page.body.endswith(b"# EOF\n")
        families = {family.name: family for family in parse_openmetrics(page.body.decode())}
        assert families["http_server_request_duration_seconds"].unit == "seconds"

    def test_the_bound_of_every_metric_holds(self, server):
        sources = everything(server)
        for n in range(400):
            server.finish(route=f"/{n}", method=f"M{n}", status=200 + n)
        page = Exposition([server.reader], sources).scrape()
        counts = {}
        for family in parse_text(page.body.decode()):
            sets = {frozenset(s.labels.items() - {("le", s.labels.get("le"))}) for s in family.samples}
            counts[family.name] = len(sets)
        for metric in catalogue.METRICS.values():
            assert counts[metric.name.removesuffix("_total")] <= metric.bound + 1


class TestTheShortWay:
    """Lines put together from prefixes are what the library makes of the same figures, byte for byte."""

    @pytest.mark.parametrize("accept", ["", OPENMETRICS, PROMETHEUS, "text/plain;version=1.0.0"])
    def test_the_whole_scrape(self, server, accept):
        exposition = Exposition([server.reader], [runtime.python_info, *everything(server)[2:]])
        self.add_exemplars(server)
        page = exposition.scrape(accept)
        again = Exposition([server.reader], exposition._sources)
        again._scrapes = dict(exposition._scrapes)
        encoder, content_type = choose_encoder(accept)
        assert page.content_type == content_type
        assert page.body == encoder(again)

    @staticmethod
    def add_exemplars(server):
        server.finish()
        row = next(iter(server.metrics._series.rows.values()))
        for column in (DURATION + 2, DURATION + 14, FIRST_BYTE):
            server.region.exemplar(row + column, 0.02, 1700000000.25, b"\xab" * 16, b"\xcd" * 8)

    @settings(max_examples=30, deadline=None)
    @given(st.text(max_size=10), st.floats(0, 1e9), st.integers(0, 10**12))
    def test_any_label_and_any_value(self, route, duration, size):
        server = Server()
        server.finish(route=route, ended=100.0 + duration, response_body_size=size)
        for accept in ("", OPENMETRICS):
            exposition = Exposition([server.reader])
            page = exposition.scrape(accept)
            again = Exposition([server.reader])
            again._scrapes = dict(exposition._scrapes)
            assert page.body == choose_encoder(accept)[0](again)
        server.close()

    def test_it_is_one_of_the_librarys_collectors(self, exposition):
        registry = prometheus_client.CollectorRegistry()
        registry.register(exposition)
        assert registry.get_sample_value("obsserve_http_pipelined_requests_total") == 0.0


class TestFigures:
    def test_an_exchange_is_in_all_its_histograms(self, server, exposition):
        server.finish(ended=100.6)
        page = exposition.scrape()
        labels = dict(
            zip(catalogue.EXCHANGE_LABELS, ("GET", "http", "200", "/items/{id}", "", "1.1"), strict=True)
        )
        duration = "http_server_request_duration_seconds"
        assert value(page, f"{duration}_bucket", **labels, le="0.5") == 0.0
        assert value(page, f"{duration}_bucket", **labels, le="0.75") == 1.0
        assert value(page, f"{duration}_bucket", **labels, le="+Inf") == 1.0
        assert value(page, f"{duration}_count", **labels) == 1.0
        assert value(page, f"{duration}_sum", **labels) == pytest.approx(0.6)
        waited = {"http_request_method": "GET", "http_route": "/items/{id}"}
        first_byte = "obsserve_http_time_to_first_byte_seconds"
        assert value(page, f"{first_byte}_bucket", **waited, le="0.01") == 0.0
        assert value(page, f"{first_byte}_bucket", **waited, le="0.025") == 1.0
        assert value(page, "obsserve_http_queue_seconds_bucket", le="0.0005") == 1.0
        assert value(page, "obsserve_http_request_body_bytes_total") == 3.0
        assert value(page, "obsserve_http_response_body_bytes_total") == 12.0

    def test_first_byte_is_summed_over_status_and_the_rest(self, server, exposition):
        server.finish()
        server.finish(status=500, error_type="500")
        page = exposition.scrape()
        labels = {"http_request_method": "GET", "http_route": "/items/{id}"}
        assert value(page, "obsserve_http_time_to_first_byte_seconds_count", **labels) == 2.0

    def test_active_requests_are_those_begun_and_not_ended(self, server, exposition):
        labels = {"http_request_method": "GET", "url_scheme": "http"}
        views = [exchange() for _ in range(3)]
        for view in views:
            server.metrics.exchange_started(view)
        assert value(exposition.scrape(), "http_server_active_requests", **labels) == 3.0
        server.metrics.exchange_ended(views[0])
        assert value(exposition.scrape(), "http_server_active_requests", **labels) == 2.0

    def test_active_requests_are_right_beyond_the_series_limit(self, server, exposition):
        for n in range(100):
            server.finish(route=f"/{n}")
        server.metrics.exchange_started(exchange(route="/beyond"))
        page = exposition.scrape()
        assert value(page, "http_server_active_requests", http_request_method="GET", url_scheme="http") == 1.0
        overflow = "http_server_request_duration_seconds_count"
        assert value(page, overflow, otel_metric_overflow="true") == 50.0
        counted = value(
            page, "obsserve_metrics_overflow_total", metric="http_server_request_duration_seconds"
        )
        assert counted == 50.0

    def test_connections_are_split_by_state(self, server, exposition):
        for _ in range(5):
            server.metrics.connection_opened(connection())
        server.metrics.connection_closed(connection())
        server.metrics.sample([connection(state="active"), connection(state="closing")])
        page = exposition.scrape()
        states = {s: value(page, "obsserve_connections_open", state=s) for s in catalogue.CONNECTION_STATES}
        assert states == {"idle": 2.0, "active": 1.0, "websocket": 0.0, "closing": 1.0}

    def test_several_processes_are_summed_and_one_that_is_gone_stays_counted(self, server):
        other, base = Server(), Base()
        readers = [server.reader, other.reader]
        exposition = Exposition(readers, base=base)
        server.finish()
        other.finish()
        other.metrics.exchange_started(exchange())
        count = ("http_server_request_duration_seconds_count", exchange_labels())
        active = {"http_request_method": "GET", "url_scheme": "http"}
        page = exposition.scrape()
        assert samples(page)[count] == 2.0
        assert value(page, "http_server_active_requests", **active) == 1.0
        base.fold(readers.pop())
        page = exposition.scrape()
        assert samples(page)[count] == 2.0
        assert value(page, "http_server_active_requests", **active) == 0.0
        other.close()

    def test_what_is_never_counted_starts_at_zero(self, exposition):
        page = exposition.scrape()
        assert value(page, "obsserve_http_rejected_requests_total", reason="draining") == 0.0
        assert value(page, "obsserve_log_records_total", stream="access", result="dropped") is None
        assert value(page, "obsserve_http_queue_seconds_count") == 0.0

    def test_series_are_counted_truly(self, exposition, app_registry):
        prometheus_client.Counter("app_things", "Things.", registry=app_registry).inc()
        page = exposition.scrape()
        assert value(page, "obsserve_metrics_series") == len(samples(page))

    def test_scrapes_count_themselves(self, exposition):
        exposition.scrape()
        exposition.scrape(OPENMETRICS)
        page = exposition.scrape()
        assert value(page, "obsserve_metrics_scrapes_total", format="text") == 2.0
        assert value(page, "obsserve_metrics_scrapes_total", format="openmetrics") == 1.0
        assert value(page, "obsserve_metrics_scrape_duration_seconds") > 0.0

    def test_a_source_that_fails_hides_nothing_else(self, server):
        def broken():
            raise OSError

        exposition = Exposition([server.reader], [broken, runtime.python_info])
        page = exposition.scrape()
        assert value(page, "obsserve_metrics_scrape_errors_total") == 1.0
        assert b"python_info{" in page.body


def exchange_labels():
    values = ("GET", "http", "200", "/items/{id}", "", "1.1")
    return frozenset(zip(catalogue.EXCHANGE_LABELS, values, strict=True))


class TestExemplars:
    def test_they_stand_at_their_buckets_in_openmetrics_only(self, server, exposition):
        TestTheShortWay.add_exemplars(server)
        families = {
            family.name: family for family in parse_openmetrics(exposition.scrape(OPENMETRICS).body.decode())
        }
        found = {
            (name, sample.labels["le"]): sample.exemplar
            for name, family in families.items()
            for sample in family.samples
            if sample.exemplar
        }
        assert set(found) == {
            ("http_server_request_duration_seconds", "0.025"),
            ("http_server_request_duration_seconds", "+Inf"),
            ("obsserve_http_time_to_first_byte_seconds", "0.005"),
        }
        exemplar = found["http_server_request_duration_seconds", "0.025"]
        assert exemplar.labels == {"trace_id": "ab" * 16, "span_id": "cd" * 8}
        assert sum(len(k) + len(v) for k, v in exemplar.labels.items()) <= 128
        assert (exemplar.value, float(exemplar.timestamp)) == (0.02, 1700000000.25)
        assert b"trace_id" not in exposition.scrape().body

    def test_the_newest_of_several_rows_is_shown(self, server, exposition):
        server.finish(status=200)
        server.finish(status=201)
        for seconds, row in enumerate(server.metrics._series.rows.values()):
            server.region.exemplar(
                row + FIRST_BYTE, 0.001 * seconds, 1700000000.0 + seconds, b"a" * 16, b"b" * 8
            )
        page = exposition.scrape(OPENMETRICS)
        exemplars = [line for line in page.body.decode().splitlines() if " # {" in line]
        assert len(exemplars) == 1
        assert exemplars[0].endswith(" 0.001 1700000001.0")

    def test_a_counter_can_have_one(self, server, exposition):
        server.finish(ending=catalogue.APP_EXCEPTION, exception=KeyError())
        (slot,) = server.metrics._events._exceptions._rows.values()
        server.region.exemplar(slot, 1.0, 1700000000.0, b"a" * 16, b"b" * 8)
        families = parse_openmetrics(exposition.scrape(OPENMETRICS).body.decode())
        (family,) = (family for family in families if family.name == "obsserve_http_app_exceptions")
        assert family.samples[0].exemplar.labels["trace_id"] == b"a".hex() * 16


class TestOverflow:
    def test_a_bounded_counter(self, server, exposition):
        for n in range(20):
            server.metrics.connection_opened(connection(listener=str(n)))
        page = exposition.scrape()
        name = "obsserve_connections_accepted_total"
        assert value(page, name, otel_metric_overflow="true") == 4.0
        assert value(page, "obsserve_metrics_overflow_total", metric=name) == 4.0

    def test_a_region_that_is_full(self):
        region = Cells.create(rows=90)
        metrics = Metrics(region, max_series=1000)
        reader = region.reader()
        for n in range(1000):
            metrics.exchange_ended(exchange(route=f"/{n % 300}", status=200 + n % 7))
        page = Exposition([reader]).scrape()
        name = "http_server_request_duration_seconds"
        counts = [v for (sample, _), v in samples(page).items() if sample == f"{name}_count"]
        assert sum(counts) == 1000.0
        assert value(page, f"{name}_count", otel_metric_overflow="true") > 900.0
        reader.close()
        region.close()

    def test_a_row_of_another_version_is_passed_over(self, server, exposition):
        server.region.row("obsserve_of_the_future_total", ())
        assert b"future" not in exposition.scrape().body


class TestTheApplicationsOwn:
    def test_its_metrics_are_merged(self, exposition, app_registry):
        prometheus_client.Counter("app_orders", "Orders.", ["kind"], registry=app_registry).labels("x").inc(2)
        page = exposition.scrape()
        assert value(page, "app_orders_total", kind="x") == 2.0
        assert b"app_orders_created" not in page.body
        assert samples(exposition.scrape(OPENMETRICS), parse_openmetrics)[
            "app_orders_total", frozenset({("kind", "x")})
        ]

    def test_the_librarys_duplicates_of_ours_are_left_out(self, server, app_registry):
        exposition = Exposition([server.reader], [runtime.ProcessFigures(), runtime.python_info])
        page = exposition.scrape()
        assert page.body.count(b"# TYPE process_cpu_seconds_total") == 1
        assert page.body.count(b"# TYPE python_info") == 1
        assert value(page, "process_open_fds") is None
        assert value(page, "process_open_fds", worker="0") > 0

    @pytest.mark.parametrize(
        "name", ["http_server_request_duration_seconds", "obsserve_http_pipelined_requests_total"]
    )
    def test_a_name_of_ours_cannot_be_taken(self, exposition, app_registry, name):
        prometheus_client.Gauge(name, "Mine!", registry=app_registry).set(77)
        body = exposition.scrape().body
        assert b"Mine!" not in body
        assert b" 77.0" not in body

    def test_a_collector_that_fails_is_counted(self, exposition, app_registry):
        class Broken:
            def collect(self):
                raise RuntimeError

            def describe(self):
                return []

        app_registry.register(Broken())
        assert value(exposition.scrape(), "obsserve_metrics_scrape_errors_total") == 1.0

    def test_a_family_that_cannot_be_rendered_takes_no_other_along(self, exposition, app_registry):
        class Odd:
            def describe(self):
                return []

            def collect(self):
                odd = prometheus_client.core.GaugeMetricFamily("app_odd", "Odd.")
                odd.add_metric([], "not a number")
                fine = prometheus_client.core.GaugeMetricFamily("app_fine", "Fine.", value=1)
                return [odd, fine]

        app_registry.register(Odd())
        page = exposition.scrape()
        assert value(page, "app_fine") == 1.0
        assert b"app_odd" not in page.body
        assert value(exposition.scrape(), "obsserve_metrics_scrape_errors_total") == 1.0


class TestNegotiation:
    @pytest.mark.parametrize(
        ("accept", "content_type"),
        [
            ("", "text/plain; version=0.0.4; charset=utf-8"),
            ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
            (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ],
    )
    def test_formats(self, exposition, accept, content_type):
        assert exposition.scrape(accept).content_type.startswith(
            content_type
        )  # and, since 0.22, the escaping

    def test_gzip(self, exposition):
        page = exposition.scrape("", "deflate, gzip;q=0.5")
        assert page.content_encoding == "gzip"
        assert b"obsserve_metrics_series" in gzip.decompress(page.body)
        assert exposition.scrape("", "identity").content_encoding is None

    @pytest.mark.parametrize("accept", ["", OPENMETRICS])
    def test_names_select(self, server, exposition, accept):
        server.finish()
        names = ["obsserve_http_queue_seconds_sum", "obsserve_http_pipelined_requests_total", "no_such_name"]
        page = exposition.scrape(accept, names=names)
        lines = page.body.decode().splitlines()
        assert {line.split(" ")[0] for line in lines if not line.startswith("#")} == set(names[:2])

    def test_a_family_can_be_selected_as_a_whole(self, server, exposition):
        page = exposition.scrape(names=["obsserve_http_queue_seconds"])
        assert len(samples(page)) == len(catalogue.QUEUE_BUCKETS) + 3

    def test_nothing_selected_is_an_empty_page(self, exposition):
        assert exposition.scrape(names=["nothing"]).body == b""
        assert exposition.scrape(OPENMETRICS, names=["nothing"]).body == b"# EOF\n"


class TestResource:
    """target_info, by OpenTelemetry's rule for Prometheus."""

    def test_attributes_become_labels(self, server):
        exposition = Exposition(
            [server.reader], resource={"service.name": "shop", "k8s.pod-name": 'a"b', "1x": 2}
        )
        labels = {"service_name": "shop", "k8s_pod_name": 'a"b', "key_1x": "2"}
        assert value(exposition.scrape(), "target_info", **labels) == 1.0
        assert value(exposition.scrape(names=["target_info"]), "target_info", **labels) == 1.0

    def test_without_attributes_there_is_none(self, exposition):
        assert b"target_info" not in exposition.scrape().body


class TestAppOfWorkers:
    def test_what_comes_from_elsewhere_is_merged_with_our_names_left_out(self, server):
        def collect():
            yield prometheus_client.core.CounterMetricFamily("jobs", "Jobs.", value=3)
            yield prometheus_client.core.GaugeMetricFamily("process_open_fds", "Ours.", value=3)

        page = Exposition([server.reader], app=collect).scrape()
        assert value(page, "jobs_total") == 3.0
        assert b"process_open_fds" not in page.body

    def test_a_collector_that_fails_does_not_hide_the_others(self, exposition, app_registry):
        class Broken:
            def describe(self):
                return []

            def collect(self):
                raise OSError

        app_registry.register(Broken())
        prometheus_client.Counter("jobs", "Jobs.", registry=app_registry).inc()
        page = exposition.scrape()
        assert value(page, "jobs_total") == 1.0
        assert value(page, "obsserve_metrics_scrape_errors_total") == 1.0


def test_sums_do_not_depend_on_the_order_of_what_was_added():
    """Which changes when a process has ended: its figures are in the base from then on."""
    parts = [0.1, 0.2, 0.3, 1e-6, 12345.678901]
    sums = {sum(order) for order in permutations(parts)}
    assert len(sums) > 1, "floats are like that"
    assert len({steady(total) for total in sums}) == 1
    assert [steady(total) for total in (0.0, 3.0, 2.0**60)] == [0.0, 3.0, 2.0**60]
    assert steady(1234.000001) == 1234.000001
