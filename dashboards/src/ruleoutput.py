"""Rules, their promtool tests and their runbooks, as text. YAML is written as JSON, which it contains."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .alerts import Alert, Series, alerts
from .config import CONFIG, PAGES
from .rules import recording

if TYPE_CHECKING:
    from .panels import Json


def _rule(alert: Alert) -> Json:
    uid, _ = PAGES[alert.page]
    return {
        "alert": f"Obsserve{alert.name}",
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.severity, **dict(alert.labels)},
        "annotations": {
            "summary": alert.summary + ".",
            "description": f"{alert.meaning} Now: {alert.value}. {alert.remedy}",
            "runbook": f"deploy/runbooks/Obsserve{alert.name}.md",
            "dashboard_url": f"{CONFIG.grafana_url}/d/{uid}?var-job={{{{ $labels.job }}}}",
        },
    }


def _case(alert: Alert, series: Series, fires: bool) -> Json:
    inputs = []
    for selector, values in series.items():
        name, _, labels = selector.partition("{")
        inside = ", ".join(filter(None, ['job="shop", instance="a:9464"', labels.rstrip("}")]))
        inputs.append({"series": f"{name}{{{inside}}}", "values": values})
    name = f"Obsserve{alert.name}"
    window = "".join(f', {label}="{value}"' for label, value in alert.labels)
    expr = f'group by (alertname, severity) (ALERTS{{alertname="{name}", alertstate="firing"{window}}})'
    labels = f'{{alertname="{name}", severity="{alert.severity}"}}'
    samples = [{"labels": labels, "value": 1}] if fires else []
    return {
        "name": f"{name} {'fires' if fires else 'does not fire'}{window}",
        "interval": "1m",
        "input_series": inputs,
        "promql_expr_test": [{"expr": expr, "eval_time": alert.at, "exp_samples": samples}],
    }


def _runbook(alert: Alert) -> str:
    commands = "\n".join(f"promtool query instant \"$PROMETHEUS\" '{expr}'" for expr in alert.look)
    return f"""# Obsserve{alert.name}

{alert.meaning}

Fires when this holds for {alert.hold} (severity {alert.severity}):

    {alert.expr}

## Look

With the address of Prometheus in `PROMETHEUS` (`http://localhost:9090`) and that of the metrics port in `OBSSERVE`:

```sh
{commands}
curl -sS "$OBSSERVE/readyz"
```

The dashboard is *{PAGES[alert.page][1]}*.

## Do

{alert.remedy}
"""


def rule_files() -> dict[str, str]:
    """Return the text of rules, tests and runbooks, by path."""
    listed = alerts()
    groups = {"groups": [{"name": "obsserve-alerts", "rules": [_rule(alert) for alert in listed]}]}
    cases = [
        _case(one, series, fires)
        for one in listed
        for series, fires in ((one.fires, True), (one.quiet, False))
    ]
    tests = {
        "rule_files": ["../rules/recording.yml", "../rules/alerts.yml"],
        "evaluation_interval": "1m",
        "tests": cases,
    }
    folder = "deploy/prometheus"
    found = {
        f"{folder}/rules/recording.yml": json.dumps(recording(), indent=1) + "\n",
        f"{folder}/rules/alerts.yml": json.dumps(groups, indent=1) + "\n",
        f"{folder}/tests/alerts.yml": json.dumps(tests, indent=1) + "\n",
    }
    for alert in listed:
        found.setdefault(f"deploy/runbooks/Obsserve{alert.name}.md", _runbook(alert))
    return found
