"""What a run is told in: a line while it lasts, a summary at its end, a page and a JSON file to keep."""

from __future__ import annotations

import json
import time
from html import escape
from typing import TYPE_CHECKING, Any

from loadtests.chart import Curve, chart
from loadtests.scrape import DURATION, TTFB
from loadtests.story import QUANTILES, quantiles, server_quantiles
from loadtests.thresholds import MEASURES, spoken

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtests.story import Point, Story
    from loadtests.thresholds import Finding

BLUE, ORANGE, GREEN, RED, GREY, PURPLE = "#2563eb", "#d97706", "#16a34a", "#dc2626", "#6b7280", "#7c3aed"


def seconds(value: float | None) -> str:
    """Write a time; a dash where there is none."""
    return "–" if value is None else spoken(value, "s")


def progress(point: Point, *, server: bool) -> str:
    """Return the line for an interval."""
    failed = point.failed / point.sent if point.sent else 0.0
    refused = point.refused / point.sent if point.sent else 0.0
    said = (
        f"{point.at:4.0f} s {point.users:5d} users {point.sent:7.0f} req/s  errors {failed:6.1%}  503 {refused:6.1%}"
        f"  p95 client {seconds(point.client['p95'])}"
    )
    if not server:
        return said
    if point.observed is None:
        return said + ", server does not answer"
    return said + f", server {seconds(point.server.get('p95'))}  lag {seconds(point.lag_max)}"


def summary(story: Story, findings: Sequence[Finding]) -> str:
    """Return both sides in a few lines, then the thresholds, then the verdict."""
    ledger, between = story.ledger, story.between
    rows = [("", "client", "server")]
    rows.append(("requests", f"{ledger.sent}", f"{between.observed}" if between else "–"))
    rows += _latencies(story)
    statuses = between.by_status if between else {}
    for status in sorted({*ledger.answered, *statuses}):
        label = f"status {status}" if status else "no status"
        client = str(ledger.answered[status]) if status else str(ledger.in_doubt)
        rows.append((label, client, str(statuses.get(status, 0)) if between else "–"))
    text = [
        f"\n{story.scenario}: {story.seconds:.0f} s, {ledger.sent / max(story.seconds, 1e-9):.0f} requests/s"
    ]
    text += [f"  {name:<34} {client:>12} {server:>12}" for name, client, server in rows]
    if between is not None:
        rejected = between.by("obsserve_http_rejected_requests_total", "reason")
        text += [f"  503 because of {reason}: {count:.0f}" for reason, count in sorted(rejected.items())]
        replaced = {**story.restarts(orderly=False), **story.restarts(orderly=True)}
        text += [f"  workers replaced because of {reason}: {count}" for reason, count in replaced.items()]
    if story.reconciliation is not None:
        text.append(f"  counts: {story.reconciliation}")
    if story.lines is not None:
        text.append(
            f"  access log: {story.lines['lines']} lines of {story.lines['requests']} requests of this run"
        )
    if ledger.abandoned:
        text.append(f"  given up by their users: {ledger.abandoned}")
    text += [f"  {key}: {value}" for key, value in story.facts.items() if isinstance(value, str)]
    text += [f"  failure: {count} × {said}" for said, count in ledger.errors.most_common(3)]
    text += [f"ok      {one}" for one in findings if one.kept]
    broken = [one for one in findings if not one.kept]
    text += [f"BREACH  {one}" for one in broken]
    text.append(f"verdict: {story.scenario} {'failed' if broken else 'passed'}")
    return "\n".join(text)


def _latencies(story: Story) -> list[tuple[str, str, str]]:
    rows = []
    sides: list[tuple[str, dict[str, float | None], str]] = [
        ("whole response", quantiles(story.ledger.times), DURATION),
        ("to first byte", {}, TTFB),
        ("from when it was due", quantiles(story.ledger.corrected), ""),
    ]
    for name, client, metric in sides:
        server = server_quantiles(story.between, metric) if metric and story.between else {}
        if any(value is not None for value in (*client.values(), *server.values())):
            rows += [
                (f"{label} {name}", seconds(client.get(label)), seconds(server.get(label)))
                for label in QUANTILES
            ]
    return rows


def write(folder: Path, story: Story, findings: Sequence[Finding]) -> tuple[Path, Path]:
    """Write the page and the JSON file; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, data = folder / f"{story.scenario}.html", folder / f"{story.scenario}.json"
    found: dict[str, Any] = story.as_dict()
    found["thresholds"] = [
        {
            "name": one.name,
            "value": one.value,
            "least": one.bound.least,
            "most": one.bound.most,
            "kept": one.kept,
        }
        for one in findings
    ]
    found["passed"] = all(one.kept for one in findings)
    data.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page.write_text(html(story, findings), encoding="utf-8")
    return page, data


def html(story: Story, findings: Sequence[Finding]) -> str:
    """Return the page."""
    passed = all(one.kept for one in findings)
    timeline = story.timeline
    latency = chart(
        "p95 at the client and on the server",
        [
            Curve("client, p95", BLUE, [(one.at, one.client["p95"]) for one in timeline]),
            Curve("server, p95 to first byte", ORANGE, [(one.at, one.server.get("p95")) for one in timeline]),
            Curve(
                "client, p95 from when it was due",
                BLUE,
                [(one.at, one.corrected["p95"]) for one in timeline],
                True,
            ),
            Curve("event loop lag, worst", PURPLE, [(one.at, one.lag_max) for one in timeline], True),
        ],
        lambda value: spoken(value, "s") if value else "0",
        story.marks,
    )
    rates = chart(
        "Requests each second",
        [
            Curve("answered well", GREEN, [(one.at, one.good) for one in timeline]),
            Curve("sent", BLUE, [(one.at, one.sent) for one in timeline], True),
            Curve("observed by the server", ORANGE, [(one.at, one.observed) for one in timeline], True),
            Curve("refused (503)", PURPLE, [(one.at, one.refused) for one in timeline]),
            Curve("failed", RED, [(one.at, one.failed) for one in timeline]),
            Curve("users", GREY, [(one.at, float(one.users)) for one in timeline], True),
        ],
        lambda value: f"{value:g}",
        story.marks,
    )
    memory = chart(
        "Memory of all processes",
        [Curve("resident memory", GREEN, [(one.at, one.rss) for one in timeline])],
        lambda value: f"{value / 2**20:.0f} MiB",
    )
    checks = "".join(
        f'<tr class="{"kept" if one.kept else "broken"}"><td>{"kept" if one.kept else "BROKEN"}<td>{escape(one.name)}'
        f"<td>{escape(spoken(one.value, MEASURES[one.name].unit))}"
        f"<td>{escape(one.bound.said(MEASURES[one.name].unit))}<td>{escape(MEASURES[one.name].said)}"
        for one in findings
    )
    names = "".join(
        f"<tr><td>{escape(name)}<td>{len(histogram)}"
        + "".join(f"<td>{seconds(value)}" for value in quantiles(histogram).values())
        for name, histogram in sorted(story.ledger.named.items())
    )
    statuses = story.reconciliation.statuses if story.reconciliation else {}
    counts = "".join(
        f"<tr><td>{escape(status)}<td>{client}<td>{server}" for status, (client, server) in statuses.items()
    )
    both = "".join(f"<tr><td>{name}<td>{client}<td>{server}" for name, client, server in _latencies(story))
    errors = "".join(f"<li>{count} × {escape(said)}" for said, count in story.ledger.errors.most_common(10))
    facts = "".join(
        f"<p>{escape(key)}: <strong>{escape(value)}</strong>"
        for key, value in story.facts.items()
        if isinstance(value, str)
    )
    marks = "".join(f"<li>{at:.0f} s: {escape(words)}</li>" for at, words in story.marks)
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(story.started))
    agreement = (
        escape(str(story.reconciliation)) if story.reconciliation else "The server's metrics were not read."
    )
    return PAGE.format(
        title=escape(story.scenario),
        verdict="passed" if passed else "failed",
        about=f"{escape(story.host)}, {began}, {story.seconds:.0f} s, {story.ledger.sent} requests",
        checks=checks,
        facts=facts,
        latency=latency,
        rates=rates,
        memory=memory,
        both=both,
        agreement=agreement,
        counts=counts,
        names=names,
        marks=f"<ul class=plain>{marks}</ul>" if marks else "",
        errors=f"<h2>Failures</h2><ul class=plain>{errors}</ul>" if errors else "",
    )


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: {verdict}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 :root {{ color-scheme: light dark; --line: #8884; --soft: #8889 }}
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
 h1 small {{ font-size: 1rem; padding: .2rem .7rem; border-radius: 1rem; color: #fff; vertical-align: middle }}
 h1 small.passed {{ background: #15803d }} h1 small.failed {{ background: #b91c1c }}
 h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem }}
 table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
 td, th {{ border-bottom: 1px solid var(--line); padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top }}
 .broken td:first-child {{ color: #dc2626; font-weight: 600 }} .kept td:first-child {{ color: #16a34a }}
 .figures td:not(:first-child), .figures th:not(:first-child) {{ text-align: right }}
 figure {{ margin: 0 }} svg {{ width: 100%; height: auto }} svg text {{ font-size: 12px; fill: currentColor; opacity: .7 }}
 .note {{ font-size: .85rem; opacity: .75 }}
 .mark line {{ stroke: #dc2626; stroke-dasharray: 2 3 }}
 .grid {{ stroke: var(--line) }} polyline {{ fill: none; stroke-width: 2; stroke-linejoin: round }}
 ul {{ list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .85rem; margin: .2rem 0 }}
 ul.plain {{ display: block }} li i {{ display: inline-block; width: 1.5rem; border-top: 2px; margin: 0 .4rem .25rem 0 }}
 .pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 2rem }}
 @media (max-width: 45rem) {{ .pair {{ grid-template-columns: 1fr }} }}
</style>
<h1>{title} <small class="{verdict}">{verdict}</small></h1>
<p>{about}</p>{facts}
<h2>Thresholds</h2><table><tr><th><th>Measure<th>Value<th>Asked<th>Meaning{checks}</table>
<h2>Both sides: p95</h2>{latency}{marks}
<p class="note">The client measures each request; the server counts them in the buckets of a histogram, within which a
quantile is interpolated. What the client sees beyond the server's figure was spent outside of the server.</p>
<h2>Requests each second, and users</h2>{rates}
<div class="pair"><div><h2>Latency</h2><table class="figures"><tr><th><th>client<th>server{both}</table></div>
<div><h2>Counts</h2><p>{agreement}</p><table class="figures"><tr><th>status<th>client<th>server{counts}</table></div></div>
<h2>By name, at the client</h2>
<table class="figures"><tr><th>Name<th>Count<th>p50<th>p95<th>p99{names}</table>
{errors}
<h2>Memory</h2>{memory}
</html>
"""
