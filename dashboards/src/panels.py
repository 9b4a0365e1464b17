"""The panel library: typed builders of the panels that the pages are made of.

A panel cannot be made without its description (what, how to read, what is bad, what next), unit and thresholds:
they are arguments without defaults, so no page can leave one out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal
from urllib.parse import quote

from .config import AMBER, BLUE, CONFIG, GREEN, GREY, PAGES, PURPLE, RED

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "table", "heatmap", "gauge", "logs", "text", "traces", "nodeGraph"]
Steps = tuple[tuple[float | None, str], ...]

PLAIN: Final[Steps] = ((None, GREEN),)
NEUTRAL: Final[Steps] = ((None, BLUE),)


def rising(warn: float, bad: float) -> Steps:
    """Return thresholds of a value that is bad when high."""
    return ((None, GREEN), (warn, AMBER), (bad, RED))


def falling(bad: float, warn: float) -> Steps:
    """Return thresholds of a value that is bad when low."""
    return ((None, RED), (bad, AMBER), (warn, GREEN))


def never(amount: float = 1e-9) -> Steps:
    """Return thresholds of a value that should stay at zero."""
    return ((None, GREEN), (amount, RED))


@dataclass(frozen=True, slots=True)
class Doc:
    """What a panel says about itself.

    Args:
        what: what is drawn.
        read: how to read it.
        bad: what is bad.
        then: what to do next.
    """

    what: str
    read: str
    bad: str
    then: str

    def markdown(self) -> str:
        """Return the description as Grafana renders it."""
        parts = (("What", self.what), ("Read", self.read), ("Bad", self.bad), ("Next", self.then))
        return "\n\n".join(f"**{word}** {text}" for word, text in parts)


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Args:
        expr: PromQL; LogQL or TraceQL in a panel of that data source.
        legend: name of a series, with `{{label}}`.
        exemplar: ask for exemplars: where a histogram or a counter of errors is read.
        form: time_series, table or heatmap.
        instant: only the latest value.
    """

    expr: str
    legend: str = ""
    exemplar: bool = False
    form: Literal["time_series", "table", "heatmap"] = "time_series"
    instant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel; width in 24ths of the page, height in rows of 30 pixels."""

    title: str
    kind: Kind
    doc: Doc
    unit: str
    steps: Steps
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 8
    links: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    mappings: tuple[Json, ...] = ()
    decimals: int | None = None
    low: float | None = 0
    high: float | None = None
    datasource: tuple[str, str] = ("prometheus", "${datasource}")
    repeat: str | None = None
    identity: int | None = None
    shade: str | None = None  # one colour for all series: where each of them is bad

    def json(self, number: int, x: int, y: int) -> Json:
        """Return the panel in the classic schema, at this place."""
        source = {"type": self.datasource[0], "uid": self.datasource[1]}
        defaults: Json = {
            "unit": self.unit,
            "thresholds": {
                "mode": "absolute",
                "steps": [{"value": value, "color": color} for value, color in self.steps],
            },
            "color": self._color(),
            "mappings": list(self.mappings),
            "links": list(self.links),
            "custom": self.custom,
        }
        bounds = {"min": self.low, "max": self.high, "decimals": self.decimals}
        defaults |= {name: value for name, value in bounds.items() if value is not None}
        panel: Json = {
            "id": self.identity or number,
            "type": self.kind,
            "title": self.title,
            "description": self.doc.markdown(),
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "options": self.options,
            "targets": [
                self._target(query, chr(65 + place), source) for place, query in enumerate(self.queries)
            ],
            "transformations": list(self.transformations),
            "links": [],
        }
        if self.repeat is not None:
            panel |= {"repeat": self.repeat, "repeatDirection": "h", "maxPerRow": 4}
        return panel

    def _color(self) -> Json:
        if self.kind in ("stat", "gauge"):
            return {"mode": "thresholds"}
        if self.shade is not None:
            return {"mode": "shades", "fixedColor": self.shade}
        return {"mode": "palette-classic"}

    def _target(self, query: Query, letter: str, source: Json) -> Json:
        target: Json = {"refId": letter, "datasource": source}
        if source["type"] == "tempo":
            return target | {"query": query.expr, "queryType": "traceql", "limit": 20, "tableType": "traces"}
        target |= {"expr": query.expr, "legendFormat": query.legend, "editorMode": "code"}
        if source["type"] == "loki":
            return target | {"queryType": "instant" if query.instant else "range"}
        return target | {
            "exemplar": query.exemplar,
            "format": query.form,
            "instant": query.instant,
            "range": not query.instant,
        }


# --- Links -------------------------------------------------------------------------------------


def page_link(page: str, title: str, **variables: str) -> Json:
    """Return a data link to another page, with this page's time and variables."""
    uid, _ = PAGES[page]
    fixed = "".join(f"&var-{name}={value}" for name, value in variables.items())
    kept = "&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
    return {"title": title, "url": f"/d/{uid}?${{__url_time_range}}{kept}{fixed}", "targetBlank": False}


def explore_link(title: str, uid: str, query: Json) -> Json:
    """Return a data link to Explore with a query."""
    pane = {
        "datasource": uid,
        "queries": [{"refId": "A", "datasource": {"uid": uid}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = quote(json.dumps({"a": pane}, separators=(",", ":")), safe="${}[]:,_.")
    return {"title": title, "url": f"/explore?schemaVersion=1&orgId=1&panes={panes}", "targetBlank": True}


def logs_link(title: str = "Logs of these requests", stages: str = "", event: str = "http.request") -> Json:
    """Return a data link to the access lines behind a series."""
    expr = f'{{service_name=~".+"}} | json | event=`{event}`{stages}'
    return explore_link(title, CONFIG.loki_uid, {"expr": expr, "queryType": "range"})


def traces_link(title: str = "Traces of these requests", condition: str = "") -> Json:
    """Return a data link to the traces behind a series."""
    query = f'{{ kind = server && resource.webengine.name = "obsserve"{condition} }}'
    return explore_link(title, CONFIG.tempo_uid, {"query": query, "queryType": "traceql", "limit": 20})


def metrics_link() -> Json:
    """Return a data link to Explore with the panel's own series."""
    query = {"expr": "${__field.name}", "range": True}
    return explore_link("Explore metrics", "${datasource}", query)


BY_ROUTE: Final = " | http_route=`${__field.labels.http_route:percentencode}`"
ROUTE_LINKS: Final = (
    page_link("routes", "This route", route="${__field.labels.http_route:percentencode}"),
    logs_link(stages=BY_ROUTE),
    traces_link(condition=' && span.http.route = "${__field.labels.http_route:percentencode}"'),
)
REQUEST_LINKS: Final = (page_link("routes", "Routes"), logs_link(), traces_link())
ERROR_LINKS: Final = (
    page_link("routes", "Routes"),
    logs_link("Logs of failed requests", " | level=`error`"),
    traces_link("Traces of failed requests", " && status = error"),
)
WORKER_LINKS: Final = (page_link("workers", "Workers and runtime"), page_link("logs", "Logs and traces"))
CONNECTION_LINKS: Final = (
    page_link("connections", "Connections and protocol"),
    page_link("logs", "Logs and traces"),
)
TELEMETRY_LINKS: Final = (page_link("telemetry", "Telemetry health"), page_link("logs", "Logs and traces"))


# --- Fixed colours -----------------------------------------------------------------------------


def colored(pattern: str, color: str) -> Json:
    """Return an override: series whose name matches have this colour."""
    return {
        "matcher": {"id": "byRegexp", "options": f"/{pattern}/"},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
    }


STATUS_COLORS: Final = (
    colored("^1xx", GREY),
    colored("^2xx", GREEN),
    colored("^3xx", BLUE),
    colored("^4xx", AMBER),
    colored("^5xx", RED),
    colored("^(none|client_disconnected)", PURPLE),
)
QUANTILE_COLORS: Final = (colored("p50", GREEN), colored("p95", AMBER), colored("p99", RED))


def counted(pattern: str) -> Json:
    """Return an override: series whose name matches are plain numbers, on an axis of their own at the right."""
    unit = {"id": "unit", "value": "short"}
    axis = {"id": "custom.axisPlacement", "value": "right"}
    return {"matcher": {"id": "byRegexp", "options": f"/{pattern}/"}, "properties": [unit, axis]}


def outlined(pattern: str, color: str = RED) -> Json:
    """Return an override: series whose name matches are a dashed line, as limits are."""
    parts = (
        ("color", {"mode": "fixed", "fixedColor": color}),
        ("custom.fillOpacity", 0),
        ("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
    )
    properties = [{"id": name, "value": value} for name, value in parts]
    return {"matcher": {"id": "byRegexp", "options": f"/{pattern}/"}, "properties": properties}


def below_zero(pattern: str) -> Json:
    """Return an override: series whose name matches are drawn downwards, as on a mirrored axis."""
    return {
        "matcher": {"id": "byRegexp", "options": f"/{pattern}/"},
        "properties": [{"id": "custom.transform", "value": "negative-Y"}],
    }


# --- Kinds -------------------------------------------------------------------------------------

_LEGEND: Final = {
    "showLegend": True,
    "displayMode": "table",
    "placement": "bottom",
    "calcs": ["lastNotNull", "max"],
    # What was highest comes first: three rows are in view, and most reasons of a metric are at zero.
    "sortBy": "Max",
    "sortDesc": True,
}


def lines(
    title: str,
    doc: Doc,
    unit: str,
    steps: Steps,
    *queries: Query,
    links: tuple[Json, ...],
    stacked: bool = False,
    **more: Any,
) -> Panel:
    """Return a time series."""
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 8,
        "showPoints": "auto",
        "spanNulls": False,
        "axisSoftMin": 0,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if len(steps) > 1 else "off"},
    }
    options = {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
    return Panel(
        title=title,
        kind="timeseries",
        doc=doc,
        unit=unit,
        steps=steps,
        queries=queries,
        links=links,
        custom=custom,
        options=options,
        **more,
    )


def stat(
    title: str,
    doc: Doc,
    unit: str,
    steps: Steps,
    *queries: Query,
    links: tuple[Json, ...],
    text: str = "auto",
    **more: Any,
) -> Panel:
    """Return one big number, coloured by its thresholds."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "area" if text == "auto" else "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": text,
        "wideLayout": True,
    }
    size = {"width": 3, "height": 4} | more
    return Panel(
        title=title,
        kind="stat",
        doc=doc,
        unit=unit,
        steps=steps,
        queries=queries,
        links=links,
        options=options,
        **size,
    )


def heatmap(title: str, doc: Doc, unit: str, expr: str, *, links: tuple[Json, ...], **more: Any) -> Panel:
    """Return a heatmap of a histogram's buckets, with exemplars."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "steps": 64, "reverse": False},
        "exemplars": {"color": PURPLE},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"unit": unit, "axisPlacement": "left", "reverse": False},
    }
    return Panel(
        title=title,
        kind="heatmap",
        doc=doc,
        unit=unit,
        steps=PLAIN,
        queries=(Query(expr, "{{le}}", exemplar=True, form="heatmap"),),
        links=links,
        options=options,
        low=None,
        custom={"scaleDistribution": {"type": "linear"}},
        **more,
    )


def quantiles(histogram_query: str, name: str = "") -> tuple[Query, ...]:
    """Return the queries for p50, p95 and p99, with exemplars.

    Args:
        histogram_query: the summed rate of the buckets, by `le` and other labels.
        name: what follows the quantile in a series' name.
    """
    return tuple(
        Query(f"histogram_quantile({share:g}, {histogram_query})", f"p{share * 100:g}{name}", exemplar=True)
        for share in (0.5, 0.95, 0.99)
    )


def table(
    title: str,
    doc: Doc,
    unit: str,
    steps: Steps,
    *queries: Query,
    links: tuple[Json, ...],
    columns: dict[str, tuple[str, str]],
    sort: str = "",
    limit: int = 0,
    link_column: tuple[str, Json] | None = None,
    judged: dict[str, Steps] | None = None,
    **more: Any,
) -> Panel:
    """Return a table of instant queries, joined on their labels.

    Args:
        title: of the panel.
        doc: its description.
        unit: of values that no column says otherwise.
        steps: thresholds.
        queries: instant, in the form of a table.
        links: on every cell.
        columns: field as Prometheus names it → (heading, unit), in order; other fields are hidden.
        sort: heading of the column to sort by, descending.
        limit: rows to keep, 0 for all.
        link_column: heading of a column and the link on its cells.
        judged: heading of a column → thresholds that colour its cells.
        more: further fields of the panel.
    """
    names = list(columns)
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True},
            "indexByName": {name: place for place, name in enumerate(names)},
            "renameByName": {name: heading for name, (heading, _) in columns.items()},
        },
    }
    transformations: list[Json] = [{"id": "merge", "options": {}}, organize]
    if sort:
        transformations.append({"id": "sortBy", "options": {"sort": [{"field": sort, "desc": True}]}})
    if limit:
        transformations.append({"id": "limit", "options": {"limitField": limit}})
    overrides: list[Json] = [
        {"matcher": {"id": "byName", "options": heading}, "properties": [{"id": "unit", "value": shown}]}
        for heading, shown in columns.values()
        if shown
    ]
    for heading, bounds in (judged or {}).items():
        marked = [{"value": value, "color": color} for value, color in bounds]
        cells = {"id": "custom.cellOptions", "value": {"type": "color-text"}}
        thresholds = {"id": "thresholds", "value": {"mode": "absolute", "steps": marked}}
        coloured = {"id": "color", "value": {"mode": "thresholds"}}
        matcher = {"id": "byName", "options": heading}
        overrides.append({"matcher": matcher, "properties": [cells, thresholds, coloured]})
    if link_column is not None:
        matcher = {"id": "byName", "options": link_column[0]}
        overrides.append({"matcher": matcher, "properties": [{"id": "links", "value": [link_column[1]]}]})
    return Panel(
        title=title,
        kind="table",
        doc=doc,
        unit=unit,
        steps=steps,
        queries=tuple(replace(query, instant=True, form="table") for query in queries),
        links=links,
        transformations=tuple(transformations),
        overrides=tuple(overrides),
        options={"showHeader": True, "cellHeight": "sm"},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        **more,
    )
