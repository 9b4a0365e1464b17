"""The dashboards: fresh, complete in what they say of themselves, and naming only what the server emits."""

import json
import re
from pathlib import Path

import jsonschema
import promql_parser
import pytest

from dashboards.src.config import PAGES
from dashboards.src.output import files
from obsserve.telemetry.catalogue import ERROR_COUNTERS, METRICS

ROOT = Path(__file__).parents[2]
COMMITTED = {path.name: json.loads(path.read_text()) for path in (ROOT / "dashboards").glob("*.json")}
# What Prometheus itself adds, and what the recording rules make.
OTHERS = {"up", "scrape_duration_seconds", "ALERTS"}
LABELS = {"job", "instance", "le", "alertname", "alertstate", "severity", "class", "error"}


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def real_panels():
    for name, dashboard in sorted(COMMITTED.items()):
        for panel in panels(dashboard):
            if panel["type"] != "row":
                yield pytest.param(panel, id=f"{name}: {panel['title']}")


def expressions():
    for name, dashboard in sorted(COMMITTED.items()):
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                if target["datasource"]["type"] == "prometheus":
                    yield pytest.param(target["expr"], id=f"{name}: {panel['title']} {target['refId']}")
        for note in dashboard["annotations"]["list"]:
            if "expr" in note:
                yield pytest.param(note["expr"], id=f"{name}: annotation {note['name']}")
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                inside = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                yield pytest.param(inside[1], id=f"{name}: variable {variable['name']}")


def substituted(expr):
    expr = expr.replace("$__rate_interval", "5m")
    return re.sub(r"\$\w+", ".+", expr)


def selectors(node):
    """Every vector selector below a node of the parser's tree."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        below = getattr(node, name, None)
        if below is not None and not isinstance(below, str):
            yield from selectors(below)
    for below in getattr(node, "args", None) or ():
        yield from selectors(below)


def test_what_is_committed_is_what_the_generator_writes():
    for path, text in files().items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: make dashboards"
    assert set(COMMITTED) == {Path(path).name for path in files() if path.startswith("dashboards/")}


@pytest.mark.parametrize("expr", list(expressions()))
def test_an_expression_names_only_what_the_server_emits(expr):
    found = list(selectors(promql_parser.parse(substituted(expr))))
    assert found
    for selector in found:
        name = selector.name
        labels = {matcher.name for matcher in selector.matchers.matchers} - {"__name__"}
        if name in OTHERS or name.startswith("job:"):
            assert labels <= LABELS
            continue
        family = METRICS.get(name) or METRICS.get(re.sub("_(bucket|count|sum)$", "", name))
        assert family is not None, name
        assert labels <= LABELS | set(family.labels), name


@pytest.mark.parametrize("panel", list(real_panels()))
def test_a_panel_says_what_it_is(panel):
    assert panel["title"]
    for word in ("**What**", "**Read**", "**Bad**", "**Next**"):
        assert word in panel["description"]
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    values = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
    assert values == sorted(values)
    assert defaults["links"]
    for target in panel["targets"]:
        expr = target.get("expr", "")
        ranges = set(re.findall(r"\[([^\]]*)\]", re.sub(r'"[^"]*"', "", expr)))
        assert ranges <= {"$__rate_interval", "$__auto"}, ranges
        if "_bucket" in expr and panel["datasource"]["type"] == "prometheus":
            assert target["exemplar"], expr
        errors = any(metric.name in expr for metric in ERROR_COUNTERS)
        if errors and panel["type"] == "timeseries" and "/" not in expr:  # a ratio's scale is no count's
            assert target["exemplar"], expr


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_a_page_has_its_place_among_the_others(name):
    dashboard = COMMITTED[name]
    uids = {uid for uid, _ in PAGES.values()}
    assert dashboard["uid"] in uids and name == f"{dashboard['uid']}.json"
    assert [one["name"] for one in dashboard["templating"]["list"]][:3] == ["datasource", "job", "instance"]
    assert not dashboard["editable"] and dashboard["tags"] == ["obsserve"]
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(ids) == len(set(ids))
    linked = set(re.findall(r"/d/([\w-]+)", json.dumps(dashboard)))
    assert linked <= {page["uid"] for page in COMMITTED.values()}, linked
    # No panel lies over another.
    cells = set()
    for panel in panels(dashboard):
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells and place["x"] + place["w"] <= 24
        cells |= mine


# Made of the types of npm's @grafana/schema 13.2.2 by tests/dashboards/look/schema.mjs.
SCHEMA = Path(__file__).with_name("grafana-dashboard.schema.json")
# Open to data sources in Grafana, and closed in those types: what an annotation asks, the text of a variable's query.
OPEN = {
    "annotations": {"expr", "step", "titleFormat", "textFormat", "useValueForTime"},
    "templating": {"definition"},
}


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_a_page_follows_the_schema_of_grafana(name):
    dashboard = json.loads(json.dumps(COMMITTED[name]))
    for part, keys in OPEN.items():
        for entry in dashboard[part]["list"]:
            for key in keys:
                entry.pop(key, None)
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
    assert not [f"{error.json_path}: {error.message}" for error in validator.iter_errors(dashboard)]
    # It is a schema that refuses.
    assert not validator.is_valid({**dashboard, "panels": [{"type": "timeseries", "titel": "mistyped"}]})
    assert not validator.is_valid({**dashboard, "schemaVersion": "42"})
