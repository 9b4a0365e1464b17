"""docs/migrating.md names only what exists, and lists what the formats know."""

from __future__ import annotations

import re
from pathlib import Path

from obsserve.accessformat import (
    APACHE_ATOMS,
    APACHE_ATOMS_WITH_ARGUMENT,
    GUNICORN_ATOMS,
    GUNICORN_ATOMS_WITH_ARGUMENT,
)
from obsserve.main import main
from obsserve.options import SHARED

TEXT = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
FLAGS = {option.flag for option in SHARED.values()} | {
    name for parameter in main.params for name in parameter.opts
}


def rows():
    for line in TEXT.splitlines():
        if line.startswith("| ") and not line.endswith("obsserve |"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_every_flag_in_the_column_of_obsserve_exists():
    named = {flag for row in rows() for flag in re.findall(r"--[a-z0-9-]+", row[1])}
    assert named
    assert named <= FLAGS


def test_every_flag_in_the_text_exists():
    prose = "\n".join(line for line in TEXT.splitlines() if not line.startswith("|"))
    # Said not to exist, and another server's.
    others = {"--http2", "--reload", "--access-logformat", "--graceful-timeout", "--statsd-host"}
    assert set(re.findall(r"--[a-z0-9-]+", prose)) <= FLAGS | others


def test_every_module_exists():
    import importlib

    for path in set(re.findall(r"obsserve(?:\.[a-z_]+)+(?=\.…|`)", TEXT)) - {"obsserve.toml"}:
        module, _, attribute = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            if path.removeprefix("obsserve.") not in ("error", "access"):  # loggers
                assert hasattr(importlib.import_module(module), attribute), path


def test_every_atom_is_listed():
    table = TEXT.partition("### Formats of the access line")[2].partition("## Questions")[0]
    apache = {match[1] for match in re.finditer(r"`%[><]?([A-Za-z])`", table)}
    with_argument = {match[1] for match in re.finditer(r"`%\{[^}]+\}([A-Za-z])`", table)}
    assert apache == APACHE_ATOMS
    assert with_argument == APACHE_ATOMS_WITH_ARGUMENT
    words = {word for row in table.splitlines() if row.startswith("| ") for word in _gunicorn(row)}
    assert words == GUNICORN_ATOMS | {f"{{name}}{letter}" for letter in GUNICORN_ATOMS_WITH_ARGUMENT}


def _gunicorn(row):
    return re.findall(r"`([^`]+)`", row.split("|")[3])
