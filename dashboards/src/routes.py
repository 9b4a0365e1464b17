"""Routes: what one route does, and which requests of it to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import CONFIG, RED
from .page import Row, page, query_variable, source_variable
from .panels import (
    ERROR_LINKS,
    NEUTRAL,
    PLAIN,
    QUANTILE_COLORS,
    ROUTE_LINKS,
    STATUS_COLORS,
    Doc,
    Panel,
    Query,
    heatmap,
    lines,
    never,
    quantiles,
    rising,
)
from .promql import DURATION, REQUESTS, TTFB, error_ratio, named_route, quantile, total

if TYPE_CHECKING:
    from .panels import Json

ROUTE = 'http_route=~"$route", http_request_method=~"$method"'
_BOUND = float(CONFIG.latency_bound)


def _red() -> Row:
    return Row(
        "Rate, errors, duration",
        (
            lines(
                "Requests",
                Doc(
                    "Requests each second by route, method and status.",
                    "Stacked: the height is the load of the chosen routes.",
                    "5xx bands; a route that vanished after a deploy.",
                    "Choose one route above to see it alone.",
                ),
                "reqps",
                NEUTRAL,
                Query(
                    "label_replace("
                    + named_route(
                        total(
                            REQUESTS,
                            "http_response_status_code",
                            "http_request_method",
                            "http_route",
                            only=ROUTE,
                        )
                    )
                    + ', "http_response_status_code", "none", "http_response_status_code", "")',
                    "{{http_response_status_code}} {{http_request_method}} {{http_route}}",
                ),
                links=ROUTE_LINKS,
                stacked=True,
                overrides=tuple(
                    {
                        **one,
                        "matcher": {
                            "id": "byRegexp",
                            "options": one["matcher"]["options"].replace("xx", "\\d\\d"),
                        },
                    }
                    for one in STATUS_COLORS
                ),
            ),
            lines(
                "Error ratio",
                Doc(
                    "Share of each route's requests that failed.",
                    "The first dashed line is the objective.",
                    "One route far above the others: its own bug or its own dependency.",
                    "Errors by type, below.",
                ),
                "percentunit",
                rising(1 - CONFIG.availability, 0.01),
                Query(named_route(error_ratio("http_route", only=ROUTE)), "{{http_route}}"),
                links=ERROR_LINKS,
            ),
            lines(
                "Time to first byte by route, p95",
                Doc(
                    "p95 of the time to the first byte, by route; dots are traces.",
                    "Buckets bound the resolution: a value between two of them is interpolated.",
                    f"Above {CONFIG.latency_bound} s.",
                    "Click a dot for a trace of that very time.",
                ),
                "s",
                rising(_BOUND, _BOUND * 4),
                Query(
                    named_route(quantile(0.95, TTFB, "http_route", only=ROUTE)),
                    "{{http_route}}",
                    exemplar=True,
                ),
                links=ROUTE_LINKS,
            ),
            lines(
                "Time to first byte",
                Doc(
                    "Median, p95 and p99 of all chosen routes together.",
                    "The distance of p99 from p50 is how uneven the service is.",
                    "p99 in seconds while p50 is in milliseconds.",
                    "Traces of slow requests, by the dots.",
                ),
                "s",
                rising(_BOUND, _BOUND * 4),
                *quantiles(total(f"{TTFB}_bucket", "le", only=ROUTE)),
                links=ROUTE_LINKS,
                overrides=QUANTILE_COLORS,
            ),
            lines(
                "Duration",
                Doc(
                    "Median, p95 and p99 of the whole duration, first byte in to last byte out.",
                    "Streams are long by nature: judge them by the first byte.",
                    "A duration far above the first byte on a route that does not stream: large bodies or slow readers.",
                    "Write-blocked seconds in Connections and protocol.",
                ),
                "s",
                NEUTRAL,
                *quantiles(total(f"{DURATION}_bucket", "le", only=ROUTE)),
                links=ROUTE_LINKS,
                overrides=QUANTILE_COLORS,
            ),
            heatmap(
                "Time to first byte, all of it",
                Doc(
                    "How many responses began after how long.",
                    "Two bands are two populations: cache hits and misses, small and large.",
                    "A band above the objective.",
                    "Choose methods and routes until one band is left.",
                ),
                "s",
                total(f"{TTFB}_bucket", "le", only=ROUTE),
                links=ROUTE_LINKS,
            ),
        ),
    )


def _errors() -> Row:
    return Row(
        "What goes wrong",
        (
            lines(
                "Errors by type",
                Doc(
                    "Requests with an error, each second, by `error_type` and route.",
                    "A class name is an exception that the application did not handle; a number is a status it sent.",
                    "A name that was not there yesterday.",
                    "Logs of failed requests: the traceback is in the record http.server.request.exception.",
                ),
                "reqps",
                never(),
                Query(
                    total(REQUESTS, "error_type", "http_route", only=f'error_type!="", {ROUTE}'),
                    "{{error_type}} {{http_route}}",
                ),
                shade=RED,
                links=ROUTE_LINKS,
                overrides=STATUS_COLORS,
            ),
            lines(
                "Uncaught exceptions",
                Doc(
                    "Exceptions that left the application, each second, by class and moment.",
                    "after_response_start means that the client saw a broken reply with a good status.",
                    "Any; more of them after a deploy.",
                    "Runbook of ObsserveAppExceptions.",
                ),
                "reqps",
                never(),
                Query(
                    total("obsserve_http_app_exceptions_total", "exception_type", "phase"),
                    "{{exception_type}} {{phase}}",
                    exemplar=True,
                ),
                shade=RED,
                links=ERROR_LINKS,
            ),
            lines(
                "Broken ASGI",
                Doc(
                    "What the application did against ASGI, each second, by reason.",
                    "no_response: it returned without an answer; body_too_short: less than its Content-Length.",
                    "Any: it is a bug of the application or a middleware.",
                    "Runbook of ObsserveAppProtocolErrors.",
                ),
                "reqps",
                never(),
                Query(
                    total("obsserve_http_app_protocol_errors_total", "reason"), "{{reason}}", exemplar=True
                ),
                shade=RED,
                links=ERROR_LINKS,
            ),
        ),
    )


def _bytes() -> Row:
    return Row(
        "Bodies",
        (
            lines(
                "Body bytes",
                Doc(
                    "Bytes of bodies received and sent each second, of all routes.",
                    "Payload alone, without heads and framing.",
                    "A jump without more requests: a larger reply than before.",
                    "Mean body below; --metrics-body-size for it by route.",
                ),
                "Bps",
                NEUTRAL,
                Query(total("obsserve_http_request_body_bytes_total"), "received"),
                Query(total("obsserve_http_response_body_bytes_total"), "sent"),
                links=ROUTE_LINKS,
                width=12,
            ),
            lines(
                "Mean body",
                Doc(
                    "Bytes of body for each request, received and sent, of all routes.",
                    "An average: few large ones hide among many small.",
                    "Growth after a deploy.",
                    "The log's http_response_body_size names the requests.",
                ),
                "bytes",
                NEUTRAL,
                Query(f"{total('obsserve_http_request_body_bytes_total')} / {total(REQUESTS)}", "received"),
                Query(f"{total('obsserve_http_response_body_bytes_total')} / {total(REQUESTS)}", "sent"),
                links=ROUTE_LINKS,
                width=12,
            ),
        ),
    )


def _examples() -> Row:
    # Grafana escapes what is chosen for a string in double quotes; between backticks /items/{id} would find nothing.
    slow = (
        '{service_name=~".+"} | json | event=`http.request` | http_route=~"$route" | ttfb_seconds > '
        + str(_BOUND)
        + ' | line_format "{{.http_response_status_code}} {{.http_request_method}} {{.url_path}} ttfb={{.ttfb_seconds}}'
        ' queue={{.queue_seconds}} app={{.app_seconds}} lag={{.loop_lag_max_seconds}} trace_id={{.trace_id}}"'
    )
    return Row(
        "Requests to look at",
        (
            Panel(
                title="Slow requests",
                kind="logs",
                doc=Doc(
                    f"Access lines of the chosen routes whose first byte took longer than {CONFIG.latency_bound} s.",
                    "queue, app and send seconds in a line say where the time went; loop_lag_max_seconds whether others are to blame.",
                    "A loop lag as long as the request: not this handler, its neighbour.",
                    "Click the trace_id.",
                ),
                unit="none",
                steps=PLAIN,
                queries=(Query(slow),),
                width=24,
                links=ROUTE_LINKS,
                datasource=("loki", "${loki}"),
                options={
                    "showTime": True,
                    "wrapLogMessage": False,
                    "enableLogDetails": True,
                    "sortOrder": "Descending",
                    "dedupStrategy": "none",
                    "showLabels": False,
                    "showCommonLabels": False,
                    "prettifyLogMessage": False,
                },
            ),
            Panel(
                title="Traces",
                kind="table",
                doc=Doc(
                    "Traces whose server span belongs to the chosen routes.",
                    "Newest first; the duration is that of the whole trace.",
                    "Durations far from what the graphs above say: sampling keeps only a part.",
                    "Open one.",
                ),
                unit="none",
                steps=PLAIN,
                queries=(Query('{ kind = server && span.http.route =~ "$route" }'),),
                width=24,
                links=ROUTE_LINKS,
                datasource=("tempo", "${tempo}"),
                options={"showHeader": True, "cellHeight": "sm"},
            ),
        ),
    )


def build() -> Json:
    """Return the page."""
    return page(
        "routes",
        "What one route does, and which requests of it to look at.",
        (_red(), _errors(), _bytes(), _examples()),
        query_variable(
            "route",
            "Route",
            f'{REQUESTS}{{job=~"$job", instance=~"$instance"}}',
            "http_route",
            "Templates of routes; what matched none has an empty name and is under All.",
        )
        | {"allValue": ".*"},
        query_variable(
            "method",
            "Method",
            f'{REQUESTS}{{job=~"$job", instance=~"$instance"}}',
            "http_request_method",
            "Request methods.",
        )
        | {"allValue": ".*"},
        source_variable("loki", "Logs", "loki"),
        source_variable("tempo", "Traces", "tempo"),
    )
