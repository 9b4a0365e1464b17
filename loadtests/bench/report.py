"""A result as a table for the terminal, as Markdown for docs/performance.md, and as JSON."""

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .arithmetic import Agreement, Judgement, Spread, by_round, ratios, spread
from .run import Result
from .servers import Case

PACKAGES = ("obsserve", "uvicorn", "granian", "fastapi", "uvloop", "httptools")
Row = Sequence[str]


def machine() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": versions,
    }


def machine_line(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return f"{facts['cpu']}, Linux {facts['kernel']}, {facts['python']}; {packages}"


def ratio_text(measured: Spread | None) -> str:
    if measured is None:
        return "-"
    return f"{measured.median:.2f} ({measured.low:.2f}..{measured.high:.2f})"


def table_of(result: Result, case: Case) -> list[Row]:
    """Return the head and a row for each server."""
    reference = result.suite.pair.reference
    head = ["server"]
    for quantity in result.suite.quantities:
        head.append(quantity.title)
        if quantity.compared:
            head.append(f"x {reference}")
    rows: list[Row] = [head]
    for name in result.options.servers:
        row = [name]
        for quantity in result.suite.quantities:
            measured = spread(by_round(result.samples, case.name, name, quantity.key).values())
            row.append(f"{measured.median:,.{quantity.digits}f}" if measured else "-")
            if quantity.compared and name == reference:
                row.append("1")
            elif quantity.compared:
                row.append(
                    ratio_text(spread(ratios(result.samples, case.name, name, reference, quantity.key)))
                )
        rows.append(row)
    return rows


def aligned(rows: Sequence[Row]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(rows: Sequence[Row]) -> str:
    head, *body = rows
    lines = [head, ["---", *("---:" for _ in head[1:])], *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def agreement_text(each: Agreement, tolerance: float) -> str:
    verdict = "valid" if each.valid else "NOT VALID: too much else runs on this machine"
    return f"A/A, {each.case}: {ratio_text(each.measured)}: {verdict} (within {tolerance:.0%})"


def judgement_text(judgement: Judgement) -> str:
    gate = judgement.gate
    sign = "≥" if gate.at_least else "≤"
    unit = f" x {gate.against}" if gate.against else ""
    measured = judgement.measured
    found = "not measured" if measured is None else f"{measured.median:,.2f} in {measured.count} rounds"
    bound = f"{gate.server} {gate.quantity} {sign} {gate.limit:g}{unit}"
    return f"gate, {judgement.case}: {bound}: {found}: {judgement.verdict}"


def text_of(result: Result, *, as_markdown: bool) -> str:
    suite, options = result.suite, result.options
    layout: Callable[[Sequence[Row]], str] = markdown if as_markdown else aligned
    slices = (
        f"{result.rounds} rounds of {options.seconds:g} s" if suite.standing else f"{result.rounds} rounds"
    )
    parts = [f"{'### ' if as_markdown else ''}{suite.name}: {suite.about}", ""]
    for case in suite.cases:
        load = f", {case.connections} connections" if "wrk" in suite.programs else ""
        parts += [f"{case.name}{load}, {slices}; median (min..max)", "", layout(table_of(result, case)), ""]
    bullet = "- " if as_markdown else ""
    parts += [bullet + agreement_text(each, suite.pair.tolerance) for each in result.agreements]
    parts += [bullet + judgement_text(each) for each in result.judgements]
    parts += [f"{bullet}wrong work: {problem}" for problem in result.problems]
    parts += [bullet + machine_line(machine())]
    return "\n".join(parts) + "\n"


def json_of(result: Result) -> dict[str, Any]:
    return {
        "suite": result.suite.name,
        "machine": machine(),
        "servers": list(result.options.servers),
        "rounds": result.rounds,
        "seconds": result.options.seconds,
        "exit_code": result.exit_code,
        "agreements": [asdict(each) for each in result.agreements],
        "gates": [asdict(each) for each in result.judgements],
        "samples": [{**asdict(each), "unusable": sorted(each.unusable)} for each in result.samples],
    }
