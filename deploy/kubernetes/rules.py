"""Wrap the rules of deploy/prometheus for the Prometheus Operator: `python deploy/kubernetes/rules.py`.

Writes overlays/prometheus-operator/prometheusrule.yaml, which is committed; a test checks that it is fresh.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RULES = HERE.parent / "prometheus/rules"
TARGET = HERE / "overlays/prometheus-operator/prometheusrule.yaml"
HEAD = "# Generated from deploy/prometheus/rules by deploy/kubernetes/rules.py.\n"


def rendered() -> str:
    """Return the manifest; its YAML is the rules' own JSON."""
    groups: list[Any] = []
    for path in sorted(RULES.glob("*.yml")):
        groups.extend(json.loads(path.read_text())["groups"])
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "obsserve"},
        "spec": {"groups": groups},
    }
    return HEAD + json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(rendered())
