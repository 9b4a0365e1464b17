"""Recording rules: rates, objectives and quantiles by job, over the windows that alerts and pages read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .config import CONFIG
from .promql import COUNTED, FAILED, REQUESTS, TTFB

if TYPE_CHECKING:
    from .panels import Json

WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def _rate(metric: str, window: str, only: str = "", by: str = "job") -> str:
    selector = f"{{{only}}}" if only else ""
    return f"sum by ({by}) (rate({metric}{selector}[{window}]))"


def recording() -> Json:
    """Return the groups of recording rules."""
    rules = {
        "job:obsserve_requests:rate5m": _rate(REQUESTS, "5m"),
        "job_route:obsserve_requests:rate5m": _rate(REQUESTS, "5m", by="job, http_route"),
    }
    bucket = f'le="{CONFIG.latency_bound}"'
    for window in WINDOWS:
        counted = _rate(REQUESTS, window, COUNTED)
        rules[f"job:obsserve_errors:ratio_rate{window}"] = (
            f"({_rate(REQUESTS, window, FAILED)} or 0 * {counted}) / {counted}"
        )
        rules[f"job:obsserve_ttfb_slow:ratio_rate{window}"] = (
            f"1 - {_rate(f'{TTFB}_bucket', window, bucket)} / {_rate(f'{TTFB}_count', window)}"
        )
    for share in (50, 95, 99):
        quantile = f"histogram_quantile({share / 100}, {_rate(f'{TTFB}_bucket', '5m', by='job, le')})"
        rules[f"job:obsserve_ttfb:p{share}_5m"] = quantile
    rules["job:obsserve_saturation:ratio"] = (
        'sum by (job) (http_server_active_requests) / sum by (job) (obsserve_limit{limit="concurrency"})'
    )
    satisfied, tolerated = CONFIG.apdex_bound
    both = " + ".join(_rate(f"{TTFB}_bucket", "5m", f'le="{bound}"') for bound in (satisfied, tolerated))
    rules["job:obsserve_apdex:5m"] = f"({both}) / 2 / {_rate(f'{TTFB}_count', '5m')}"
    counted = _rate(REQUESTS, "5m", COUNTED)
    rules["job:obsserve_slo_requests:rate5m"] = counted
    rules["job:obsserve_slo_errors:rate5m"] = f"{_rate(REQUESTS, '5m', FAILED)} or 0 * {counted}"
    span = f"[{CONFIG.budget_days}d]"
    rules["job:obsserve_error_budget:remaining"] = (
        f"1 - sum_over_time(job:obsserve_slo_errors:rate5m{span})"
        f" / sum_over_time(job:obsserve_slo_requests:rate5m{span}) / {1 - CONFIG.availability:.6g}"
    )
    listed = [{"record": name, "expr": expr} for name, expr in rules.items()]
    return {"groups": [{"name": "obsserve-recording", "rules": listed}]}
