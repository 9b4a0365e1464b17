"""Lines over time as SVG: two axes, a few curves, nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 900, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 28


@dataclass(frozen=True)
class Curve:
    """One line.

    Args:
        name: in the legend.
        color: of CSS.
        points: (seconds, value); a None value leaves a gap.
        dashed: how it is drawn.
    """

    name: str
    color: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False


def nice_step(top: float) -> float:
    """Return the distance between grid lines that people like: 1, 2 or 5 times a power of ten."""
    rough = max(top, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next((step * power for step in (1, 2, 5) if step * power >= rough), 10 * power)


def _runs(curve: Curve) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in curve.points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def chart(
    title: str,
    curves: Sequence[Curve],
    spoken: Callable[[float], str],
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Draw curves.

    Args:
        title: for those who cannot see it.
        curves: what to draw.
        spoken: writes a value of the vertical axis.
        marks: what happened, and when; a line each, whose words show when it is pointed at.

    Returns:
        A figure in HTML, with its legend.
    """
    values = [y for curve in curves for _, y in curve.points if y is not None]
    times = [x for curve in curves for x, _ in curve.points]
    if not values or max(times) <= 0:
        return '<p class="none">Nothing was measured.</p>'
    step = nice_step(max(values))
    top = step * max(1, math.ceil(max(values) / step))
    end = max(times)

    def x_of(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>']
    for number in range(round(top / step) + 1):
        y = y_of(number * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(spoken(number * step))}</text>'
        )
    tick = nice_step(end)
    for number in range(int(end / tick) + 1):
        at = number * tick
        anchor = "end" if x_of(at) > WIDTH - RIGHT - 20 else "middle"
        parts.append(f'<text x="{x_of(at):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{at:g} s</text>')
    for at, words in marks:
        x = x_of(min(at, end))
        parts.append(f'<g class="mark"><title>{at:.0f} s {escape(words)}</title>')
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></g>')
    for curve in curves:
        dash = ' stroke-dasharray="6 4"' if curve.dashed else ""
        for run in _runs(curve):
            path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in run)
            if len(run) == 1:
                x, y = run[0]
                parts.append(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{curve.color}"/>')
            parts.append(f'<polyline points="{path}" stroke="{curve.color}"{dash}/>')
    parts.append("</svg>")
    legend = "".join(
        f'<li><i style="border-color:{curve.color};border-top-style:{"dashed" if curve.dashed else "solid"}"></i>'
        f"{escape(curve.name)}</li>"
        for curve in curves
    )
    return f"<figure>{''.join(parts)}<figcaption><ul>{legend}</ul></figcaption></figure>"
