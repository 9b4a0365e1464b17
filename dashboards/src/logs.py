"""Logs and traces: the requests themselves. Loki and Tempo, and no Prometheus but for the links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .config import AMBER, GREEN, PURPLE, RED
from .page import Row, page, source_variable, text_variable
from .panels import (
    NEUTRAL,
    PLAIN,
    Doc,
    Panel,
    Query,
    colored,
    explore_link,
    lines,
    page_link,
    rising,
)

if TYPE_CHECKING:
    from .panels import Json

LOKI: Final = ("loki", "${loki}")
TEMPO: Final = ("tempo", "${tempo}")
_STREAM: Final = '{service_name=~"$service"}'
_ACCESS: Final = _STREAM + " | json | event=~`http.request|websocket.handshake`"
_TRACE: Final = explore_link(
    "Trace", "${tempo}", {"query": "${__data.fields.trace_id}", "queryType": "traceql"}
)
_LINKS: Final = (page_link("overview", "Overview"), page_link("telemetry", "Telemetry health"), _TRACE)
_OUTCOMES: Final = (
    colored("^ok", GREEN),
    colored("client_error|protocol_error", AMBER),
    colored("server_error|app_error|rejected|timeout|shutdown", RED),
    colored("client_disconnected", PURPLE),
)


# What one looks for first: the lines as they are begin with 150 characters of times and names. A click on a line shows all
# of its fields; the data source's link to the trace reads the id behind trace_id=.
_REQUEST: Final = (
    ' | line_format "{{.http_response_status_code}} {{.http_request_method}} {{.url_path}} {{.outcome}}'
    " {{.termination_detail}} ttfb={{.ttfb_seconds}} duration={{.duration_seconds}} queue={{.queue_seconds}}"
    ' lag={{.loop_lag_max_seconds}} request_id={{.request_id}} trace_id={{.trace_id}}"'
)
_MESSAGE: Final = (
    ' | line_format "{{.event}}: {{.message}} request_id={{.request_id}} trace_id={{.trace_id}}"'
)


def _stream(title: str, doc: Doc, expr: str, *, width: int = 24, height: int = 10) -> Panel:
    return Panel(
        title=title,
        kind="logs",
        doc=doc,
        unit="none",
        steps=PLAIN,
        queries=(Query(expr),),
        links=_LINKS,
        datasource=LOKI,
        width=width,
        height=height,
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
    )


def build() -> Json:
    """Return the page."""
    one = " | request_id=~`.*$request_id.*` | trace_id=~`.*$trace_id.*`"
    rows = (
        Row(
            "Outcomes",
            (
                lines(
                    "Requests by outcome",
                    Doc(
                        "Access lines each second, by outcome; lines that were sampled count as one.",
                        "ok should dominate. The words are explained in docs/telemetry.md.",
                        "app_error, rejected, timeout.",
                        "Errors, below.",
                    ),
                    "reqps",
                    NEUTRAL,
                    Query(f"sum by (outcome) (rate({_ACCESS}[$__auto]))", "{{outcome}}"),
                    links=_LINKS,
                    datasource=LOKI,
                    overrides=_OUTCOMES,
                    stacked=True,
                ),
                lines(
                    "Time to first byte, p95 from the lines",
                    Doc(
                        "p95 of ttfb_seconds in the access lines, by route: exact, not from buckets.",
                        "It should lie within the bucket that the metric says.",
                        "Above the objective.",
                        "Slowest requests, below.",
                    ),
                    "s",
                    rising(0.25, 1),
                    Query(
                        f"quantile_over_time(0.95, {_ACCESS} | ttfb_seconds != `` | unwrap ttfb_seconds [$__auto])"
                        " by (http_route)",
                        "{{http_route}}",
                    ),
                    links=_LINKS,
                    datasource=LOKI,
                ),
                lines(
                    "How requests ended",
                    Doc(
                        "Access lines each second that did not end well, by termination_detail.",
                        "The word names the one place in the server where it was decided.",
                        "A word that was not there yesterday.",
                        "Click, and add it to the query.",
                    ),
                    "reqps",
                    NEUTRAL,
                    Query(
                        f"sum by (termination_detail) (rate({_ACCESS} | termination_detail != `` [$__auto]))",
                        "{{termination_detail}}",
                    ),
                    links=_LINKS,
                    datasource=LOKI,
                ),
            ),
        ),
        Row(
            "Lines",
            (
                _stream(
                    "Access lines",
                    Doc(
                        "Every request, newest first; type a request id or a trace id above to find one.",
                        "One line is one request, written when it ended.",
                        "level=error.",
                        "Open a line, click trace_id.",
                    ),
                    _ACCESS + one + _REQUEST,
                ),
                _stream(
                    "Errors and warnings",
                    Doc(
                        "What the server and the application logged as warning or worse; access lines are above.",
                        "event is the stable name of what happened; a click on a line shows its traceback.",
                        "Anything unknown.",
                        "Search the runbooks for the event.",
                    ),
                    _STREAM
                    + " | json | level=~`warning|error|critical` | logger!=`obsserve.access`"
                    + one
                    + _MESSAGE,
                    width=12,
                ),
                _stream(
                    "Slowest requests",
                    Doc(
                        "Access lines of requests that took longer than a second to their first byte.",
                        "queue_seconds, app_seconds and loop_lag_max_seconds say where the time went.",
                        "A loop lag as long as the request: another request blocked the loop.",
                        "Workers and runtime.",
                    ),
                    _ACCESS + " | ttfb_seconds > 1" + one + _REQUEST,
                    width=12,
                ),
            ),
        ),
        Row(
            "Traces",
            (
                Panel(
                    title="Slow or failed traces",
                    kind="table",
                    doc=Doc(
                        "Traces with a server span that failed or took longer than half a second.",
                        "Click the id.",
                        "Many of one route.",
                        "Routes, with that route chosen.",
                    ),
                    unit="none",
                    steps=PLAIN,
                    queries=(Query("{ kind = server && (status = error || duration > 500ms) }"),),
                    links=_LINKS,
                    datasource=TEMPO,
                    width=14,
                    height=10,
                    options={"showHeader": True, "cellHeight": "sm"},
                ),
                Panel(
                    title="The trace typed above",
                    kind="traces",
                    doc=Doc(
                        "The trace whose id stands in the field above.",
                        "The server's span is the root of what this service did; obsserve.response.start marks the first byte.",
                        "A gap before the application's spans is waiting: see obsserve.queue.",
                        "From a span to its lines by the link on it.",
                    ),
                    unit="none",
                    steps=PLAIN,
                    queries=(Query("$trace_id"),),
                    links=_LINKS,
                    datasource=TEMPO,
                    width=10,
                    height=10,
                ),
            ),
        ),
    )
    return page(
        "logs",
        "The requests themselves: lines and traces.",
        rows,
        source_variable("loki", "Logs", "loki"),
        source_variable("tempo", "Traces", "tempo"),
        text_variable("service", "Service", "service_name, as a regular expression")
        | {"query": ".+", "current": {"text": ".+", "value": ".+"}},
        text_variable("request_id", "Request id", "A part of it is enough."),
        text_variable("trace_id", "Trace id", "32 hex digits."),
    )
