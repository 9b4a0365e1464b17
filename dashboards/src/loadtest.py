"""Load test: what the server says while somebody drives it, and where it bends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import CONFIG, RED
from .page import Row, page
from .panels import (
    CONNECTION_LINKS,
    ERROR_LINKS,
    NEUTRAL,
    QUANTILE_COLORS,
    REQUEST_LINKS,
    WORKER_LINKS,
    Doc,
    Query,
    colored,
    lines,
    never,
    outlined,
    quantiles,
    rising,
)
from .promql import CONCURRENCY, ERRORED, LOST, REQUESTS, TTFB, error_ratio, mean, now, rate, series, total

if TYPE_CHECKING:
    from .panels import Json

_BOUND = float(CONFIG.latency_bound)


def build() -> Json:
    """Return the page."""
    rows = (
        Row(
            "Offered and served",
            (
                lines(
                    "Requests and goodput",
                    Doc(
                        "Requests each second, and those of them that were answered well.",
                        "The gap between the two lines is refused or failed. Purple regions are load tests.",
                        "Goodput that falls while requests rise: the server collapses instead of shedding.",
                        "Set --limit-concurrency so that it sheds.",
                    ),
                    "reqps",
                    NEUTRAL,
                    Query(total(REQUESTS), "requests"),
                    Query(
                        total(REQUESTS, only='error_type="", http_response_status_code=~"[123].."'), "goodput"
                    ),
                    links=REQUEST_LINKS,
                ),
                lines(
                    "Time to first byte, on the server",
                    Doc(
                        "Median, p95 and p99 as the server saw it; compare with the client's report.",
                        "What the client saw beyond it was waiting outside of the server: network, backlog, the client itself.",
                        "The knee: p95 that bends upwards while requests stay flat.",
                        "That rate is the capacity; run below 70 % of it.",
                    ),
                    "s",
                    rising(_BOUND, _BOUND * 4),
                    *quantiles(total(f"{TTFB}_bucket", "le")),
                    links=REQUEST_LINKS,
                    overrides=QUANTILE_COLORS,
                ),
                lines(
                    "Share refused and failed",
                    Doc(
                        "Share of requests that failed, and share that the server itself refused with 503.",
                        "Together they are what clients saw go wrong.",
                        "Failures that are no refusals: the application breaks under load.",
                        "Errors by type in Overview.",
                    ),
                    "percentunit",
                    rising(0.01, 0.05),
                    Query(error_ratio(), "failed"),
                    Query(f"{total('obsserve_http_rejected_requests_total')} / {total(REQUESTS)}", "refused"),
                    links=ERROR_LINKS,
                    overrides=(colored("failed", RED),),
                ),
            ),
        ),
        Row(
            "What gives way first",
            (
                lines(
                    "CPU by worker",
                    Doc(
                        "Cores that each process uses.",
                        "At 1 a worker can do no more.",
                        "All at 1: add cores. One at 1: imbalance.",
                        "Workers and runtime.",
                    ),
                    "short",
                    rising(0.75, 0.9),
                    Query(
                        f"sum by (instance, worker) ({rate('process_cpu_seconds_total')})",
                        "{{worker}} @ {{instance}}",
                    ),
                    links=WORKER_LINKS,
                    width=6,
                ),
                lines(
                    "Wait from head to application, p95",
                    Doc(
                        "p95 of the wait for the loop, before the application starts.",
                        "It bends before anything else does.",
                        "Above 100 ms.",
                        "The rate at which it bends is the capacity.",
                    ),
                    "s",
                    rising(0.05, 0.1),
                    Query(
                        f"histogram_quantile(0.95, {total('obsserve_http_queue_seconds_bucket', 'le')})",
                        "p95",
                        exemplar=True,
                    ),
                    Query(mean("obsserve_http_queue_seconds"), "mean"),
                    links=WORKER_LINKS,
                    width=6,
                ),
                lines(
                    "Event loop lag, worst",
                    Doc(
                        "Worst lag of the last 30 seconds, by worker.",
                        "It rises with the longest thing that runs without awaiting.",
                        f"Above {CONFIG.lag_bound} s.",
                        "Log event loop.stall.",
                    ),
                    "s",
                    rising(0.1, CONFIG.lag_bound),
                    Query(
                        f"max by (instance, worker) ({series('obsserve_event_loop_lag_max_seconds')})",
                        "{{worker}} @ {{instance}}",
                    ),
                    links=WORKER_LINKS,
                    width=6,
                ),
                lines(
                    "Active requests and limit",
                    Doc(
                        "Requests in progress and --limit-concurrency.",
                        "In progress = rate x duration (Little's law).",
                        "Flat at the limit with 503s: it sheds, as asked.",
                        "Raise the limit only while the first byte stays fast.",
                    ),
                    "short",
                    NEUTRAL,
                    Query(now("http_server_active_requests"), "active"),
                    Query(now("obsserve_limit", only=CONCURRENCY), "limit"),
                    links=WORKER_LINKS,
                    overrides=(outlined("^limit"),),
                    width=6,
                ),
                lines(
                    "Connections and backlog",
                    Doc(
                        "Open connections, and those that the kernel holds until they are accepted.",
                        "Open follows the number of users.",
                        "A backlog: arrivals are faster than accepts.",
                        "More workers; --backlog only hides it.",
                    ),
                    "short",
                    NEUTRAL,
                    Query(now("obsserve_connections_open"), "open"),
                    Query(now("obsserve_listener_backlog_connections"), "backlog"),
                    links=CONNECTION_LINKS,
                    width=6,
                ),
                lines(
                    "Refused by reason",
                    Doc(
                        "503s of the server itself, each second, by reason.",
                        "Refusing early keeps the rest fast.",
                        "Refusals far below the capacity: limits too tight.",
                        "--limit-concurrency, --limit-connections.",
                    ),
                    "reqps",
                    never(),
                    Query(
                        total("obsserve_http_rejected_requests_total", "reason"), "{{reason}}", exemplar=True
                    ),
                    shade=RED,
                    links=CONNECTION_LINKS,
                    width=6,
                ),
                lines(
                    "Memory",
                    Doc(
                        "Resident memory of each process.",
                        "It should return to where it was, some minutes after the test.",
                        "A higher floor after each test: a leak.",
                        "Runbook of ObsserveMemoryGrowth.",
                    ),
                    "bytes",
                    NEUTRAL,
                    Query(series("process_resident_memory_bytes"), "{{worker}} @ {{instance}}"),
                    links=WORKER_LINKS,
                    width=6,
                ),
                lines(
                    "Telemetry lost",
                    Doc(
                        "Log records and spans lost, each second.",
                        "0, also at the knee: the test is then fully observed.",
                        "Any: the figures above are right, the logs are not complete.",
                        "Telemetry health.",
                    ),
                    "ops",
                    never(),
                    Query(total("obsserve_log_records_total", only=LOST), "log records"),
                    Query(f"{total('otel_sdk_processor_span_processed_total', only=ERRORED)}", "spans"),
                    links=WORKER_LINKS,
                    width=6,
                ),
            ),
        ),
    )
    return page("loadtest", "What the server says while somebody drives it, and where it bends.", rows)
