"""`obsserve top`: look at a running server from a terminal: its figures, and what has been open for longest.

It reads `/-/status` and `/-/requests` of the metrics port, which it finds where the server found it: in the same
environment and configuration file.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any, Final

import click

from obsserve.healthcheck import (
    asked,
    config_option,
    metrics_address,
    metrics_host_option,
    metrics_port_option,
)

UNREACHABLE: Final = 1
CLEAR: Final = "\x1b[H\x1b[2J"


@click.command(context_settings={"max_content_width": 120})
@config_option
@click.option("--url", metavar="URL", help="The metrics port, http://HOST:PORT, wherever it is.")
@metrics_host_option
@metrics_port_option
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, print, and exit.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How many seconds an answer may take.",
)
def top(  # noqa: PLR0917 - click gives them by name
    config_file: str | None,
    url: str | None,
    metrics_host: str | None,
    metrics_port: str | None,
    interval: float,
    once: bool,
    timeout: float,
) -> None:
    """Show a running server: requests, connections, workers, and what has been open for longest."""
    if url is None:
        url = metrics_address(config_file, metrics_host, metrics_port)
    url = url.rstrip("/").removesuffix("/metrics")
    before, then = _page(url, "status", timeout), time.monotonic()
    try:
        while True:
            time.sleep(interval)
            status, now = _page(url, "status", timeout), time.monotonic()
            requests = _page(url, "requests", timeout)["requests"]
            width, height = shutil.get_terminal_size()
            lines = shown(before, status, now - then, requests, height - 1)
            click.echo(("" if once else CLEAR) + "\n".join(line[:width] for line in lines))
            before, then = status, now
            if once:
                return
    except KeyboardInterrupt:
        return


def _page(url: str, page: str, timeout: float) -> dict[str, Any]:
    address = f"{url}/-/{page}"
    status, body = asked(address, timeout)
    try:
        found = json.loads(body) if status == 200 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        said = body.decode("utf-8", "replace").strip().partition("\n")[0][:200]
        click.echo(f"{address}: {status or ''} {said or 'no page of obsserve'}", err=True)
        sys.exit(UNREACHABLE)
    return found


def shown(
    before: dict[str, Any],
    status: dict[str, Any],
    seconds: float,
    requests: list[dict[str, Any]],
    height: int,
) -> list[str]:
    """Return the lines of one look.

    Args:
        before: the status of the look before.
        status: the status now.
        seconds: the time between them.
        requests: what is open, the oldest first.
        height: how many lines there is room for.
    """

    def rate(key: str) -> float:
        return max(_sum(status[key]) - _sum(before[key]), 0.0) / seconds

    state = "ready" if status["ready"] else f"not ready: {', '.join(status['reasons'])}"
    lines = [
        f"{status['service_name']}  obsserve {status['version']}  {state}",
        (
            f"requests     {rate('requests_ended'):.1f}/s   {_sum(status['requests_active']):.0f} active   "
            f"{rate('requests_rejected'):.1f}/s rejected"
        ),
        (
            f"connections  {_parts(status['connections_open'])}   {_sum(status['connections_waiting']):.0f} waiting   "
            f"{status['websockets_open']:.0f} websockets"
        ),
        f"workers      {_parts(status['workers']) or '1'}   {_sum(status['worker_restarts']):.0f} restarts",
        (
            f"cpu          {rate('cpu_seconds'):.0%}   memory {_sum(status['resident_bytes']) / 2**20:.0f} MiB   "
            f"loop lag {max(status['loop_lag_max_seconds'].values(), default=0.0) * 1e3:.1f} ms   "
            f"{_sum(status['loop_stalls']):.0f} stalls"
        ),
        f"telemetry    {rate('telemetry_seconds'):.1%} of a core   {status['series']:.0f} series",
        "",
        f"{'AGE':>8}  {'PHASE':<12} {'WORKER':>6}  {'METHOD':<7} PATH",
    ]
    rows = [
        f"{row['age_seconds']:>7.1f}s  {row['phase']:<12} {row['worker']:>6}  {row['http_request_method']:<7} "
        f"{row['url_path']}"
        for row in requests
    ]
    room = max(height - len(lines), 1)
    if len(rows) > room:
        rows[room - 1 :] = [f"         and {len(rows) - room + 1} more"]
    return [_inert(line) for line in lines + rows]


def _inert(line: str) -> str:
    """Return what a terminal can show: whatever a client sends must not reach it as an escape sequence."""
    return "".join(character if " " <= character <= "~" else "?" for character in line)


def _sum(figure: float | dict[str, float]) -> float:
    return sum(figure.values()) if isinstance(figure, dict) else figure


def _parts(figure: dict[str, float]) -> str:
    return "  ".join(f"{count:.0f} {name}" for name, count in figure.items() if count)
