"""Every expression against a real Prometheus that scrapes the demo application under traffic of all kinds: no empty panel."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import ExitStack

import promql_parser
import pytest

from obsserve.telemetry.catalogue import METRICS
from obsserve.testing_otlp import OTLPSink
from tests.dashboards.stack import ROOT, Prometheus, free_port, look
from tests.dashboards.test_dashboards import COMMITTED, panels, selectors
from tests.dashboards.test_rules import ALERTS, RECORDED
from tests.dashboards.traffic import Traffic
from tests.integration.conftest import ServerProcess, wait_for

RATE_INTERVAL = "60s"  # longer than the run: whatever happened in it counts
# In the catalogue, and not emitted yet: their panels wait for them.
PENDING = {"obsserve_telemetry_self_seconds_total", "obsserve_metrics_snapshot_errors_total"}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """Prometheus after a run: failures, 503s, WebSockets, a reload, a killed worker, and a server in trouble.

    The second server has no room for its log, no collector for its spans and few series for its routes.
    """
    folder = tmp_path_factory.mktemp("live")
    with ExitStack() as stack:
        sink = stack.enter_context(OTLPSink())
        good = start(
            stack,
            folder / "good",
            *("--workers", "2", "--limit-concurrency", "8", "--limit-connections", "100"),
            *("--timeout-request-header", "1", "--timeout-keep-alive", "2", "--ws-ping-interval", "0.5"),
            *("--otlp-endpoint", sink.endpoint, "--trace-trust", "none"),
        )
        full = stack.enter_context(open("/dev/full", "wb"))
        bad = start(
            stack,
            folder / "bad",
            *("--metrics-max-series", "10", "--otlp-endpoint", f"http://127.0.0.1:{free_port()}"),
            stdout=full,
            environment={"OTEL_BSP_MAX_QUEUE_SIZE": "16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"},
        )
        found = stack.enter_context(Prometheus(folder / "prometheus", *map(target, (good, bad))))
        wait_for(lambda: len(found.query("obsserve_ready == 1")) == 2, "the first scrapes")
        with (
            Traffic(good.url.removeprefix("http://")) as crowd,
            Traffic(bad.url.removeprefix("http://"), "browse", "fail") as few,
        ):
            run(good, found)
        assert not crowd.wrong + few.wrong, crowd.wrong + few.wrong
        found.servers = good, bad
        yield found


def start(stack, folder, *options, **more):
    folder.mkdir()
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "500", **more.pop("environment", {})}
    fixed = ("obsserve.demo:app", "--port", "0", "--metrics-port", "0", *options)
    server = ServerProcess(folder, *fixed, environment=environment, **more)
    stack.callback(server.kill)
    return server.started()


def target(server):
    return server.metrics_url.removeprefix("http://").removesuffix("/metrics")


def run(server, prometheus):
    """Let everything happen that a page shows, and wait until Prometheus has seen it."""
    time.sleep(4)
    pids = {labels["worker"]: int(pid) for labels, pid in server.metrics()["obsserve_worker_pid"]}
    os.kill(pids["0"], signal.SIGKILL)
    for action, metric in (
        (None, 'obsserve_worker_restarts_total{reason="signal"}'),
        (signal.SIGHUP, 'obsserve_config_reloads_total{result="success"}'),
        (None, 'obsserve_http_rejected_requests_total{reason="concurrency_limit"}'),
        (None, "obsserve_event_loop_stalls_total"),
        (None, "obsserve_websocket_closes_total"),
        (None, "obsserve_websocket_ping_rtt_seconds_count"),
        (None, "obsserve_log_write_errors_total"),
        (None, "obsserve_metrics_overflow_total"),
        (None, 'otel_sdk_exporter_span_exported_total{error_type!=""}'),
    ):
        if action is not None:
            server.process.send_signal(action)
        wait_for(lambda metric=metric: prometheus.query(f"{metric} > 0"), f"{metric} above 0", 60)
    time.sleep(3)  # two more scrapes, so that each of them has a rate


def substituted(expr):
    expr = expr.replace("$__rate_interval", RATE_INTERVAL).replace('"$worker"', '"0"')
    return re.sub(r"\$\w+", ".+", expr)


def names(expr):
    return {selector.name for selector in selectors(promql_parser.parse(expr))}


def expressions():
    for name, dashboard in sorted(COMMITTED.items()):
        for panel in panels(dashboard):
            for query in panel.get("targets", ()):
                if query["datasource"]["type"] == "prometheus":
                    yield pytest.param(query["expr"], id=f"{name}: {panel['title']} {query['refId']}")
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                inside = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                yield pytest.param(inside[1], id=f"{name}: variable {variable['name']}")
    for note in next(iter(COMMITTED.values()))["annotations"]["list"]:
        if note["name"] in ("Restarts", "Reloads", "Overload"):
            yield pytest.param(note["expr"], id=f"annotation {note['name']}")
    for name in sorted(RECORDED):
        yield pytest.param(name, id=name)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("expr", list(expressions()))
def test_no_panel_is_empty(prometheus, expr):
    expr = substituted(expr)
    values = [float(one["value"][1]) for one in prometheus.query(expr)]
    if not values and (waits := names(expr) & PENDING):
        pytest.xfail(f"not emitted yet: {', '.join(waits)}")
    assert values
    # A quantile of a histogram without observations is no number: that panel is as empty.
    assert any(value == value for value in values), values


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "alert", ALERTS, ids=lambda alert: "-".join((alert["alert"], *alert["labels"].values()))
)
def test_an_alert_reads_what_is_there(prometheus, alert):
    """Prometheus takes the expression, and each series that it reads exists with each of the labels it asks for."""
    prometheus.query(alert["expr"])
    for selector in selectors(promql_parser.parse(alert["expr"])):
        wanted = {matcher.name for matcher in selector.matchers.matchers} - {"__name__"}
        found = prometheus.query(f"last_over_time({selector.name}[{RATE_INTERVAL}])")
        assert found, selector.name
        family = METRICS.get(re.sub("_(bucket|count|sum)$", "", selector.name)) or METRICS.get(selector.name)
        for label in wanted & set(family.labels if family else ()) - {"error_type"}:
            assert any(label in one["metric"] for one in found), (selector.name, label)


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy/runbooks").glob("Obsserve*.md")), ids=lambda path: path.stem
)
def test_the_commands_of_a_runbook_work(prometheus, path):
    for server in prometheus.servers:
        output = look(path.stem, prometheus, server)
        assert output or path.stem in ("ObsserveReloadFailed", "ObsserveStartupFailing"), path.stem
