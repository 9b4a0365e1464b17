"""What an alert is made of: its expression, its words, its runbook, and series that fire it and that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Series = dict[str, str]  # selector without job and instance → values, one each minute


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Args:
        name: without the prefix Obsserve.
        severity: critical pages, warning and info do not.
        hold: for how long the expression must hold.
        expr: PromQL.
        summary: one line, with the labels.
        value: how `$value` reads in the description.
        page: the dashboard to open.
        meaning: what it means for users.
        look: expressions to look at next.
        remedy: what to do.
        commands: commands to run beside those expressions.
        fires: series that fire it.
        quiet: series that do not.
        at: when to look at them.
    """

    name: str
    severity: Literal["critical", "warning", "info"]
    hold: str
    expr: str
    summary: str
    value: str
    page: str
    meaning: str
    look: tuple[str, ...]
    remedy: str
    fires: Series
    quiet: Series
    at: str = "30m"
    labels: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()


BY: Final = "sum by (job, instance)"


def event(name: str) -> str:
    """Return the command that shows the last lines of the server's log with this event."""
    return f'jq -cR \'fromjson? | select(.event == "{name}")\' "$LOG" | tail -n 3'


def access(condition: str) -> str:
    """Return the command that counts the access lines for which a condition of jq holds, by route and ending."""
    shown = '"\\(.http_route) \\(.termination_detail // .outcome)"'
    return f"jq -rR 'fromjson? | select({condition}) | {shown}' \"$ACCESS_LOG\" | sort | uniq -c | sort -rn | head -n 5"


def increase(metric: str, window: str, by: str = "job, instance", only: str = "") -> str:
    """Return by how much a counter grew in a window, by labels."""
    return f"sum by ({by}) (increase({metric}{{{only}}}[{window}]))".replace("{}", "")
