"""Rules, their promtool tests and their runbooks, as text. YAML is written as JSON, which it contains."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from .alerts import alerts
from .config import CONFIG, PAGES
from .rules import recording

if TYPE_CHECKING:
    from .alert import Alert, Series
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


_PLACES: Final = {
    "PROMETHEUS": "the address of Prometheus (`http://localhost:9090`)",
    "OBSSERVE": "that of the metrics port (`http://localhost:9464`)",
    "LOG": "the file with the server's standard error",
    "ACCESS_LOG": "the file with its access lines (JSON)",
    "PID": "its process id",
}


def _where(commands: str) -> str:
    named = [f"in `{name}` {what}" for name, what in _PLACES.items() if re.search(rf"\${name}\b", commands)]
    return f"With {', '.join(named)}:"


def _runbook(alert: Alert) -> str:
    asked = [f"promtool query instant \"$PROMETHEUS\" '{expr}'" for expr in alert.look]
    listed = "\n".join((*asked, *alert.commands))
    return f"""# Obsserve{alert.name}

{alert.meaning}

Fires when this holds for {alert.hold} (severity {alert.severity}):

    {alert.expr}

## Look

{_where(listed)}

```sh
{listed}
```

The dashboard is *{PAGES[alert.page][1]}*.

## Do

{alert.remedy}
"""


def _tests(listed: list[Alert], every: str) -> str:
    """Return the cases of these alerts; hours of them are evaluated less often, or they take minutes."""
    cases = [
        _case(one, series, fires)
        for one in listed
        for series, fires in ((one.fires, True), (one.quiet, False))
    ]
    tests = {
        "rule_files": ["../rules/recording.yml", "../rules/alerts.yml"],
        "evaluation_interval": every,
        "group_eval_order": ["obsserve-recording", "obsserve-alerts"],
        "tests": cases,
    }
    return json.dumps(tests, indent=1) + "\n"


def rule_files() -> dict[str, str]:
    """Return the text of rules, tests and runbooks, by path."""
    listed = alerts()
    groups = {"groups": [{"name": "obsserve-alerts", "rules": [_rule(alert) for alert in listed]}]}
    slow = [one for one in listed if re.fullmatch(r"[3-9]h|\d{3,}m", one.at)]
    folder = "deploy/prometheus"
    found = {
        f"{folder}/rules/recording.yml": json.dumps(recording(), indent=1) + "\n",
        f"{folder}/rules/alerts.yml": json.dumps(groups, indent=1) + "\n",
        f"{folder}/tests/alerts.yml": _tests([one for one in listed if one not in slow], "1m"),
        f"{folder}/tests/slow-alerts.yml": _tests(slow, "15m"),
    }
    for alert in listed:
        found.setdefault(f"deploy/runbooks/Obsserve{alert.name}.md", _runbook(alert))
    return found
