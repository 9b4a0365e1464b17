"""Rules, alerts and runbooks: valid to the real programs, each alert shown to fire and not to, nothing unknown named."""

import json
import re
import subprocess
from pathlib import Path

import promql_parser
import pytest

from obsserve.telemetry.catalogue import METRICS
from tests.dashboards.test_dashboards import selectors
from tests.parts import program

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = {path.name: json.loads(path.read_text()) for path in (DEPLOY / "prometheus" / "rules").glob("*.yml")}
ALERTS = RULES["alerts.yml"]["groups"][0]["rules"]
RECORDED = {rule["record"] for rule in RULES["recording.yml"]["groups"][0]["rules"]}


def run(name, package, *arguments):
    # The rules' own tests compute for half a minute, on a processor of their own.
    command = [program(name, f"apt-get install {package}"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_promtool_accepts_the_rules():
    result = run(
        "promtool", "prometheus", "check", "rules", *map(str, (DEPLOY / "prometheus/rules").glob("*.yml"))
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.timeout(600)
def test_each_alert_fires_and_does_not_fire():
    paths = sorted((DEPLOY / "prometheus/tests").glob("*.yml"))
    result = run("promtool", "prometheus", "test", "rules", *map(str, paths))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SUCCESS" in result.stdout
    tested = [case["name"] for path in paths for case in json.loads(path.read_text())["tests"]]
    for alert in ALERTS:
        assert any(name.startswith(f"{alert['alert']} fires") for name in tested)
        assert any(name.startswith(f"{alert['alert']} does not") for name in tested)


def test_promtool_accepts_the_scrape_configuration():
    result = run("promtool", "prometheus", "check", "config", str(DEPLOY / "prometheus/prometheus.yml"))
    assert result.returncode == 0, result.stdout + result.stderr


def test_amtool_accepts_the_configuration_of_the_alertmanager():
    path = str(DEPLOY / "alertmanager/alertmanager.yml")
    result = run("amtool", "prometheus-alertmanager", "check-config", path)
    assert result.returncode == 0, result.stdout + result.stderr


def named(expr):
    return [
        (one.name, {matcher.name for matcher in one.matchers.matchers} - {"__name__"})
        for one in selectors(promql_parser.parse(expr))
    ]


@pytest.mark.parametrize(
    "rule",
    [rule for file in RULES.values() for rule in file["groups"][0]["rules"]],
    ids=lambda rule: rule.get("alert") or rule["record"],
)
def test_a_rule_names_only_what_the_server_emits(rule):
    found = named(rule["expr"])
    assert found
    for name, labels in found:
        if name in RECORDED | {"up"}:
            continue
        family = METRICS.get(name) or METRICS.get(re.sub("_(bucket|count|sum)$", "", name))
        assert family is not None, name
        assert labels <= {"le", *family.labels}, name


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert):
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    for name in ("summary", "description", "runbook", "dashboard_url"):
        assert alert["annotations"][name]
    assert (DEPLOY.parent / alert["annotations"]["runbook"]).exists()


@pytest.mark.parametrize(
    "path", sorted((DEPLOY / "runbooks").glob("Obsserve*.md")), ids=lambda path: path.stem
)
def test_a_runbook_belongs_to_an_alert_and_its_expressions_parse(path):
    assert path.stem in {alert["alert"] for alert in ALERTS}
    expressions = re.findall(r"promtool query instant \"\$PROMETHEUS\" '(.*)'", path.read_text())
    assert expressions
    for expr in expressions:
        promql_parser.parse(expr)
