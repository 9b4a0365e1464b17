"""The one block of configuration: objectives, thresholds, names and addresses.

Change a value, run `make dashboards`, and dashboards, rules, alerts and runbook links follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Config:
    """What the generated files depend on.

    Args:
        availability: share of requests that must succeed, over `budget_days`.
        latency: share of requests whose first byte must come within `latency_bound`.
        latency_bound: seconds, as written in a bucket of the time to first byte.
        apdex_bound: seconds, a bucket: satisfied; four times as long is tolerated, the next bucket is taken.
        budget_days: days over which the error budget is spent.
        minimum_rate: requests per second below which ratios say nothing.
        lag_bound: seconds of event loop lag at p99 that are too many.
        pause_bound: seconds of a garbage collection at p99 that are too many.
        queue_bound: seconds at p95 that a request may wait for the application to start.
        imbalance: the busiest worker's rate divided by the mean; with two workers 1.9 is 95 % on one of them.
        telemetry_share: of the processor's time, from which on telemetry is expensive.
        near_limit: share of a limit from which on it is near.
        grafana_url: where links in alerts lead; `obsserve export rules --grafana-url` replaces it.
        prometheus_uid: of the provisioned data source.
        loki_uid: of the provisioned data source.
        tempo_uid: of the provisioned data source.
        refresh: how often a dashboard is drawn anew.
    """

    availability: float = 0.999
    latency: float = 0.99
    latency_bound: str = "0.25"
    apdex_bound: tuple[str, str] = ("0.25", "1.0")
    budget_days: int = 30
    minimum_rate: float = 0.05
    lag_bound: float = 0.25
    pause_bound: float = 0.1
    queue_bound: float = 0.1
    imbalance: float = 1.9
    telemetry_share: float = 0.15
    near_limit: float = 0.8
    grafana_url: str = "http://localhost:3000"
    prometheus_uid: str = "obsserve-prometheus"
    loki_uid: str = "obsserve-loki"
    tempo_uid: str = "obsserve-tempo"
    refresh: str = "30s"


CONFIG: Final = Config()

# Pages by name: (uid, title). The uid is what links are made of, so it never changes.
PAGES: Final[dict[str, tuple[str, str]]] = {
    "overview": ("obsserve-overview", "obsserve / Overview"),
    "routes": ("obsserve-routes", "obsserve / Routes"),
    "workers": ("obsserve-workers", "obsserve / Workers and runtime"),
    "connections": ("obsserve-connections", "obsserve / Connections and protocol"),
    "websockets": ("obsserve-websockets", "obsserve / WebSockets"),
    "telemetry": ("obsserve-telemetry", "obsserve / Telemetry health"),
    "logs": ("obsserve-logs", "obsserve / Logs and traces"),
    "loadtest": ("obsserve-loadtest", "obsserve / Load test"),
    "runbooks": ("obsserve-runbooks", "obsserve / Runbooks"),
}

# Colours by meaning, the same on every page.
GREEN: Final = "green"
BLUE: Final = "blue"
AMBER: Final = "orange"
RED: Final = "red"
PURPLE: Final = "purple"
GREY: Final = "#8e8e8e"
