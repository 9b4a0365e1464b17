"""A page: its variables, annotations, links and rows, laid out in the classic dashboard schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .config import AMBER, BLUE, CONFIG, GREEN, PAGES, PURPLE, RED

if TYPE_CHECKING:
    from .panels import Json, Panel

SCHEMA_VERSION: Final = 42
_COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels; a collapsed one is not queried until it is opened."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


def query_variable(name: str, label: str, metric: str, source: str, help_text: str) -> Json:
    """Return a variable whose values are those of a label.

    Args:
        name: of the variable.
        label: what stands before it on the page.
        metric: series whose label is asked for.
        source: the Prometheus label.
        help_text: shown beside it.
    """
    query = f"label_values({metric}, {source})"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": help_text,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
    }


def source_variable(name: str, label: str, kind: str) -> Json:
    """Return a variable that chooses a data source."""
    return {
        "type": "datasource",
        "name": name,
        "label": label,
        "query": kind,
        "current": {"text": "", "value": ""},
        "options": [],
        "refresh": 1,
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "skipUrlSync": False,
    }


def text_variable(name: str, label: str, help_text: str) -> Json:
    """Return a variable that one types."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": help_text,
        "query": "",
        "current": {"text": "", "value": ""},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


COMMON_VARIABLES: Final = (
    source_variable("datasource", "Data Source", "prometheus"),
    query_variable("job", "Job", "obsserve_build_info", "job", "The scrape job."),
    query_variable(
        "instance", "Instance", 'obsserve_build_info{job=~"$job"}', "instance", "The metrics port."
    ),
)


def _annotation(name: str, color: str, expr: str, title: str, text: str) -> Json:
    return {
        "name": name,
        "enable": True,
        "iconColor": color,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "expr": expr,
        "step": "30s",
        "titleFormat": title,
        "textFormat": text,
        "useValueForTime": False,
    }


def marks() -> list[Json]:
    """Return what every page marks on its time axis."""
    here = 'job=~"$job", instance=~"$instance"'
    return [
        {
            "builtIn": 1,
            "name": "Annotations & Alerts",
            "type": "dashboard",
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
        },
        _annotation(
            "Restarts",
            AMBER,
            f"sum by (instance, reason) (increase(obsserve_worker_restarts_total{{{here}}}[$__rate_interval])) > 0"
            f" or changes(process_start_time_seconds{{{here}}}[$__rate_interval]) > 0",
            "Restart",
            "{{instance}} {{reason}} {{worker}}",
        ),
        _annotation(
            "Reloads",
            BLUE,
            f"sum by (instance, result) (increase(obsserve_config_reloads_total{{{here}}}[$__rate_interval])) > 0",
            "Reload",
            "{{instance}} {{result}}",
        ),
        _annotation(
            "Versions",
            GREEN,
            f"count by (version) (obsserve_build_info{{{here}}}) unless "
            f"count by (version) (obsserve_build_info{{{here}}} offset 2m)",
            "New version",
            "{{version}}",
        ),
        _annotation(
            "Overload",
            RED,
            f"sum by (instance, reason) (rate(obsserve_http_rejected_requests_total{{{here}}}[$__rate_interval])) > 0",
            "Requests rejected",
            "{{instance}} {{reason}}",
        ),
        _annotation(
            "Alerts",
            RED,
            'ALERTS{alertname=~"Obsserve.+", alertstate="firing", severity=~"critical|warning"}',
            "{{alertname}}",
            "{{severity}} {{job}} {{instance}}",
        ),
        {
            "name": "Load tests",
            "enable": True,
            "iconColor": PURPLE,
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "target": {"limit": 100, "matchAny": False, "tags": ["obsserve", "loadtest"], "type": "tags"},
        },
    ]


def _laid_out(rows: tuple[Row, ...]) -> list[Json]:
    """Return rows and panels from the left to the right and from the top down."""
    placed: list[Json] = []
    number, y = 1, 0
    for row in rows:
        heading: Json = {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": row.collapsed,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        number, y = number + 1, y + 1
        inside: list[Json] = []
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            inside.append(panel.json(number, x, y))
            number, x, tallest = number + 1, x + panel.width, max(tallest, panel.height)
        y += tallest
        if row.collapsed:
            heading["panels"] = inside
        placed += [heading] if row.collapsed else [heading, *inside]
    return placed


def page(name: str, description: str, rows: tuple[Row, ...], *variables: Json) -> Json:
    """Return a whole dashboard.

    Args:
        name: the page's key in `config.PAGES`.
        description: one line about the question that it answers.
        rows: from the top down.
        variables: besides data source, job and instance.
    """
    uid, title = PAGES[name]
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["obsserve"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "refresh": CONFIG.refresh,
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "preload": False,
        "links": [
            {
                "type": "dashboards",
                "title": "obsserve",
                "tags": ["obsserve"],
                "asDropdown": False,
                "icon": "dashboard",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "The other pages, with these variables and this time",
                "url": "",
            }
        ],
        "annotations": {"list": marks()},
        "templating": {"list": [*COMMON_VARIABLES, *variables]},
        "panels": _laid_out(rows),
    }
