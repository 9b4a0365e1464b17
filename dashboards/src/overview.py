"""Overview: are users served well, how much error budget is left, and where to look next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import AMBER, CONFIG, GREEN, PURPLE, RED
from .page import Row, page
from .panels import (
    CONNECTION_LINKS,
    ERROR_LINKS,
    NEUTRAL,
    PLAIN,
    QUANTILE_COLORS,
    REQUEST_LINKS,
    ROUTE_LINKS,
    STATUS_COLORS,
    WORKER_LINKS,
    Doc,
    Query,
    colored,
    falling,
    heatmap,
    lines,
    never,
    outlined,
    page_link,
    quantiles,
    rising,
    stat,
    table,
)
from .promql import (
    CONCURRENCY,
    DURATION,
    ERRORED,
    FAILED,
    REQUESTS,
    TTFB,
    added,
    error_ratio,
    named_route,
    now,
    quantile,
    series,
    total,
)

if TYPE_CHECKING:
    from .panels import Json

_READY = 'state="ready"'
_BUDGET = 1 - CONFIG.availability
_BOUND = float(CONFIG.latency_bound)
_BUCKETS = "Resolution is that of the 14 buckets; above 10 s only 'more than 10 s' is known."


def _strip() -> Row:
    return Row(
        "Now",
        (
            stat(
                "Ready",
                Doc(
                    "Whether every chosen instance answers 200 on /readyz.",
                    "READY when all of them do, NOT READY when any does not.",
                    "NOT READY for more than a rolling deploy takes.",
                    "Ask the instance: `curl -s http://INSTANCE/readyz` names the reasons; then Workers and runtime.",
                ),
                "none",
                falling(0.5, 1),
                Query(f"min({series('obsserve_ready')})", "ready"),
                links=WORKER_LINKS,
                text="value",
                mappings=(
                    {
                        "type": "value",
                        "options": {
                            "0": {"text": "NOT READY", "color": RED, "index": 0},
                            "1": {"text": "READY", "color": GREEN, "index": 1},
                        },
                    },
                ),
            ),
            stat(
                "Workers ready",
                Doc(
                    "Serving processes that are ready, as a share of those that are wanted.",
                    "100 % is all of them; a server in one process has a single one.",
                    "Below 100 % for minutes: a worker does not start or keeps crashing.",
                    "Workers and runtime: restarts by reason.",
                ),
                "percentunit",
                falling(0.5, 1),
                Query(
                    f"{now('obsserve_workers', only=_READY)} / {now('obsserve_workers_desired')}"
                    f" or min({series('obsserve_ready')})",
                    "ready",
                ),
                links=WORKER_LINKS,
                high=1,
            ),
            stat(
                "Requests",
                Doc(
                    "Requests that ended, each second; refused and malformed ones too.",
                    "Compare with the same hour of yesterday.",
                    "A cliff: nobody reaches the server, or one instance has left.",
                    "Connections and protocol: are connections accepted?",
                ),
                "reqps",
                NEUTRAL,
                Query(total(REQUESTS), "requests"),
                links=REQUEST_LINKS,
            ),
            stat(
                "Errors",
                Doc(
                    "Share of requests that failed: 5xx, time-outs and replies cut short; clients that left are not counted.",
                    "It burns the error budget of "
                    f"{_BUDGET:.1%}: ten times that share empties {CONFIG.budget_days} days in three.",
                    f"Above {_BUDGET:.1%} for long, above 1 % at any time.",
                    "Errors by type below; then the logs of failed requests.",
                ),
                "percentunit",
                rising(_BUDGET, 0.01),
                Query(error_ratio(), "errors"),
                links=ERROR_LINKS,
                decimals=2,
            ),
            stat(
                "First byte, p95",
                Doc(
                    "95 of 100 responses begin within this time after the request's head is complete.",
                    "Long streams do not spoil it, unlike the whole duration.",
                    f"Above the objective of {CONFIG.latency_bound} s.",
                    "Slow routes in the table below, then their traces.",
                ),
                "s",
                rising(_BOUND, _BOUND * 4),
                Query(quantile(0.95, TTFB), "p95", exemplar=True),
                links=REQUEST_LINKS,
            ),
            stat(
                "Saturation",
                Doc(
                    "Active requests as a share of --limit-concurrency; without that limit, the worst loop lag of a worker.",
                    "At 100 % further requests are answered 503.",
                    f"Above {CONFIG.near_limit:.0%} for minutes.",
                    "Add workers or instances; see Workers and runtime for what they wait on.",
                ),
                "percentunit",
                rising(CONFIG.near_limit, 0.95),
                Query(
                    f"{now('http_server_active_requests')} / {now('obsserve_limit', only=CONCURRENCY)}"
                    f" or max({series('obsserve_event_loop_lag_max_seconds')})",
                    "saturation",
                ),
                links=WORKER_LINKS,
            ),
            stat(
                f"Budget left, {CONFIG.budget_days} d",
                Doc(
                    f"What is left of the failures that {CONFIG.availability:.1%} allows in {CONFIG.budget_days} days.",
                    "Weighted by requests; 0 % means that the objective is just missed.",
                    "Below 25 %: stop risky deploys. Below 0 %: the objective is missed.",
                    "Burn rate below shows when it was spent.",
                ),
                "percentunit",
                falling(0, 0.25),
                Query('min(job:obsserve_error_budget:remaining{job=~"$job"})', "left"),
                links=ERROR_LINKS,
                low=None,
                decimals=1,
                mappings=(
                    {
                        "type": "range",
                        "options": {
                            "from": None,
                            "to": 0,
                            "result": {"text": "SPENT", "color": RED, "index": 0},
                        },
                    },
                ),
            ),
            stat(
                "Version",
                Doc(
                    "The versions that run.",
                    "One name is right; two at once are a deploy under way.",
                    "Two for more than an hour.",
                    "Compare `count by (instance, version) (obsserve_build_info)` with what was deployed.",
                ),
                "none",
                PLAIN,
                Query(f"count by (version) ({series('obsserve_build_info')})", "{{version}}"),
                links=WORKER_LINKS,
                text="name",
            ),
        ),
    )


def _red() -> Row:
    by_class = (
        f'label_replace(label_replace(rate({series(REQUESTS)}[$__rate_interval]), "class", "none", '
        '"http_response_status_code", ""), "class", "${1}xx", "http_response_status_code", "(.)..")'
    )
    buckets = total(f"{TTFB}_bucket", "le")
    return Row(
        "Rate, errors, duration",
        (
            lines(
                "Requests by status",
                Doc(
                    "Requests each second by class of status; 'none' sent no status, because the client had gone.",
                    "Green should dominate; the height is the load.",
                    "Red at all; purple that grows means that clients give up waiting.",
                    "Errors by type, at the right.",
                ),
                "reqps",
                NEUTRAL,
                Query(added(by_class, "class"), "{{class}}"),
                links=REQUEST_LINKS,
                stacked=True,
                overrides=STATUS_COLORS,
            ),
            lines(
                "Errors by type",
                Doc(
                    "Requests with an error, each second, by `error_type`: a status, an exception's class, or the server's word for it.",
                    "The same word stands in the access line and on the span.",
                    "Anything but client_disconnected.",
                    "Click for the logs of failed requests; docs/telemetry.md explains each word.",
                ),
                "reqps",
                never(),
                Query(total(REQUESTS, "error_type", only=ERRORED), "{{error_type}}"),
                shade=RED,
                links=ERROR_LINKS,
                overrides=STATUS_COLORS,
            ),
            lines(
                "Error ratio",
                Doc(
                    "Share of requests that failed, by job.",
                    "The dashed lines are the objective and 1 %.",
                    "Above the objective's line for minutes.",
                    "Burn rate says how urgent it is.",
                ),
                "percentunit",
                rising(_BUDGET, 0.01),
                Query(error_ratio("job"), "{{job}}"),
                shade=RED,
                links=ERROR_LINKS,
            ),
            lines(
                "Time to first byte",
                Doc(
                    "Median, p95 and p99 of the time from complete request head to first response byte; dots are traces.",
                    f"{_BUCKETS} Click a dot to open its trace.",
                    f"p95 above {CONFIG.latency_bound} s; a p99 that leaves p50 behind.",
                    "The heatmap shows whether there are two populations; the table which route.",
                ),
                "s",
                rising(_BOUND, _BOUND * 4),
                *quantiles(buckets),
                links=REQUEST_LINKS,
                overrides=QUANTILE_COLORS,
            ),
            heatmap(
                "Duration of requests",
                Doc(
                    "How many requests took how long, first byte in to last byte out.",
                    "Darker is more; quantiles hide two bands, this does not.",
                    "A second band above the first, or one that climbs.",
                    "Routes, one at a time.",
                ),
                "s",
                total(f"{DURATION}_bucket", "le"),
                links=REQUEST_LINKS,
            ),
            lines(
                "Active requests and limit",
                Doc(
                    "Requests that have begun and not ended, those that wait in --limit-queue, and --limit-concurrency.",
                    "The gap to the limit is head room.",
                    "Touching the limit: the next are answered 503.",
                    "Queue wait in Workers and runtime; raise the limit only if memory and loop lag allow.",
                ),
                "short",
                NEUTRAL,
                Query(now("http_server_active_requests", "instance"), "{{instance}}"),
                Query(now("obsserve_http_queued_requests", "instance"), "waiting {{instance}}"),
                Query(now("obsserve_limit", "instance", only=CONCURRENCY), "limit {{instance}}"),
                links=WORKER_LINKS,
                overrides=(outlined("^limit"),),
            ),
        ),
    )


def _objective() -> Row:
    recorded = ("5m", "30m", "1h", "6h", "1d", "3d")
    return Row(
        "Objective",
        (
            lines(
                "Burn rate of the error budget",
                Doc(
                    f"How many times faster than allowed the budget of {_BUDGET:.1%} is spent, over windows from 5 minutes to 3 days.",
                    f"1 spends it in exactly {CONFIG.budget_days} days; dashed lines are where alerts fire.",
                    "The 1 h and 5 m lines above 14.4 page; 3 d and 6 h above 1 warn.",
                    "Errors by type, then the runbook of ObsserveErrorBudgetBurn.",
                ),
                "short",
                ((None, GREEN), (1, AMBER), (6, AMBER), (14.4, RED)),
                *(
                    Query(
                        f'job:obsserve_errors:ratio_rate{span}{{job=~"$job"}} / {_BUDGET:.6g}',
                        f"{span} {{{{job}}}}",
                    )
                    for span in recorded
                ),
                links=ERROR_LINKS,
                width=12,
            ),
            lines(
                "Burn rate of the latency budget",
                Doc(
                    f"The same for responses that begin later than {CONFIG.latency_bound} s, of which {1 - CONFIG.latency:.0%} are allowed.",
                    "As for errors.",
                    "As for errors.",
                    "The slowest routes below; then their traces.",
                ),
                "short",
                ((None, GREEN), (1, AMBER), (6, AMBER), (14.4, RED)),
                *(
                    Query(
                        f'job:obsserve_ttfb_slow:ratio_rate{span}{{job=~"$job"}} / {1 - CONFIG.latency:.6g}',
                        f"{span} {{{{job}}}}",
                    )
                    for span in recorded
                ),
                links=REQUEST_LINKS,
                width=12,
            ),
        ),
    )


def _causes() -> Row:
    return Row(
        "First suspects",
        (
            lines(
                "Rejected by the server",
                Doc(
                    "503s that the server itself made, each second, by reason.",
                    "concurrency_limit, connection_limit and queue_full are your limits; loop_overload and memory_overload shed load; draining is a shutdown.",
                    "Anything outside of a deploy.",
                    "Runbook of ObsserveRejectingRequests.",
                ),
                "reqps",
                never(),
                Query(total("obsserve_http_rejected_requests_total", "reason"), "{{reason}}", exemplar=True),
                shade=RED,
                links=CONNECTION_LINKS,
            ),
            lines(
                "Clients that left",
                Doc(
                    "Requests that the client left, each second, by what the server was doing.",
                    "'waiting' left before an answer came, 'response' in the middle of it, 'stream' ended a stream.",
                    "'waiting' that grows with the time to first byte: clients' time-outs.",
                    "Compare with their time-outs; the log's disconnect_phase names the requests.",
                ),
                "reqps",
                NEUTRAL,
                Query(total("obsserve_http_client_disconnects_total", "phase"), "{{phase}}", exemplar=True),
                links=CONNECTION_LINKS,
                overrides=(colored(".*", PURPLE),),
            ),
            lines(
                "Event loop lag, worst",
                Doc(
                    "By how much the worst timer of the last 30 seconds was late, by worker.",
                    "All requests of that worker waited that long.",
                    f"Above {CONFIG.lag_bound} s: something blocks the loop.",
                    "Workers and runtime; the log event loop.stall has the stack of the culprit.",
                ),
                "s",
                rising(0.1, CONFIG.lag_bound),
                Query(
                    f"max by (instance, worker) ({series('obsserve_event_loop_lag_max_seconds')})",
                    "{{worker}} @ {{instance}}",
                ),
                links=WORKER_LINKS,
            ),
        ),
    )


def _routes() -> Row:
    busy = total(f"{DURATION}_sum", "http_route")
    whole = f"scalar({total(DURATION + '_sum')})"
    failed = f"topk(10, {total(REQUESTS, 'http_route', only=FAILED)})"
    return Row(
        "Routes",
        (
            table(
                "Busiest routes",
                Doc(
                    "The ten routes with the most requests: rate, share that fails, p95 to the first byte, share of all time spent.",
                    "Sorted by rate; what matched no route, 404s of scanners among it, stands under no route.",
                    "A red cell, or a route with few requests and much of the time.",
                    "Click a route.",
                ),
                "none",
                PLAIN,
                Query(named_route(total(REQUESTS, "http_route"))),
                Query(named_route(error_ratio("http_route"))),
                Query(named_route(quantile(0.95, TTFB, "http_route")), exemplar=True),
                Query(named_route(f"{busy} / {whole}")),
                links=ROUTE_LINKS,
                columns={
                    "http_route": ("Route", ""),
                    "Value #A": ("Requests", "reqps"),
                    "Value #B": ("Errors", "percentunit"),
                    "Value #C": ("First byte, p95", "s"),
                    "Value #D": ("Share of time", "percentunit"),
                },
                sort="Requests",
                limit=10,
                judged={"Errors": rising(_BUDGET, 0.01)},
                link_column=(
                    "Route",
                    page_link("routes", "This route", route="${__data.fields.Route:percentencode}"),
                ),
                width=16,
                height=9,
            ),
            lines(
                "Failed requests by route",
                Doc(
                    "Requests that failed, each second, by route.",
                    "One line is a bug in one place, many are a cause that they share.",
                    "Any line that stays.",
                    "Click for the logs and traces of that route.",
                ),
                "reqps",
                never(),
                Query(f"{named_route(failed)} > 0", "{{http_route}}"),
                shade=RED,
                links=ROUTE_LINKS,
                height=9,
            ),
        ),
    )


def build() -> Json:
    """Return the page."""
    return page(
        "overview",
        "Are users served well, how much error budget is left, and where to look next.",
        (_strip(), _red(), _objective(), _causes(), _routes()),
    )
