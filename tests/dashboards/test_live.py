"""Every expression against a real Prometheus that scrapes the demo application under traffic of all kinds: no empty panel."""

from __future__ import annotations

import re

import promql_parser
import pytest

from obsserve.telemetry.catalogue import METRICS
from tests.dashboards.scene import scene
from tests.dashboards.stack import ROOT, look
from tests.dashboards.test_dashboards import COMMITTED, panels, selectors
from tests.dashboards.test_rules import ALERTS, RECORDED


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    with scene(tmp_path_factory.mktemp("live")) as found:
        yield found


def substituted(expr, interval):
    expr = expr.replace("$__rate_interval", interval).replace('"$worker"', '"0"')
    return re.sub(r"\$\w+", ".+", expr)


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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("expr", list(expressions()))
def test_no_panel_is_empty(prometheus, expr):
    expr = substituted(expr, prometheus.interval)
    values = [float(one["value"][1]) for one in prometheus.query(expr)]
    assert values
    # A quantile of a histogram without observations is no number: that panel is as empty.
    assert any(value == value for value in values), values


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "alert", ALERTS, ids=lambda alert: "-".join((alert["alert"], *alert["labels"].values()))
)
def test_an_alert_reads_what_is_there(prometheus, alert):
    """Prometheus takes the expression, and each series that it reads exists with each of the labels it asks for."""
    prometheus.query(alert["expr"])
    for selector in selectors(promql_parser.parse(alert["expr"])):
        wanted = {matcher.name for matcher in selector.matchers.matchers} - {"__name__"}
        found = prometheus.query(f"last_over_time({selector.name}[{prometheus.interval}])")
        assert found, selector.name
        family = METRICS.get(re.sub("_(bucket|count|sum)$", "", selector.name)) or METRICS.get(selector.name)
        for label in wanted & set(family.labels if family else ()) - {"error_type"}:
            assert any(label in one["metric"] for one in found), (selector.name, label)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy/runbooks").glob("Obsserve*.md")), ids=lambda path: path.stem
)
def test_the_commands_of_a_runbook_work(prometheus, path):
    for server in prometheus.servers:
        output = look(path.stem, prometheus, server)
        assert output or path.stem in ("ObsserveReloadFailed", "ObsserveStartupFailing"), path.stem
