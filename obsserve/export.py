"""`obsserve export`: write the files that come with the package where an operator can use and change them.

They are those of the repository's dashboards/, deploy/ and loadtests/, carried in the wheel as package data; in a
checkout they are taken from there. Nothing is overwritten unless it is asked for, and then only files of the same name.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final, NamedTuple

import click

from obsserve.errors import ConfigError, Problem

FAILED: Final = 1
# What the generated links begin with (dashboards/src/config.py).
GRAFANA_URL: Final = "http://localhost:3000"
IGNORED: Final = ("__pycache__", "*.pyc", "bench", "src")


class Part(NamedTuple):
    """What is exported under one name.

    Args:
        sources: folders of the package data, each with the folder that it becomes; "" is the target itself.
        remark: what to do next.
    """

    sources: tuple[tuple[str, str], ...]
    remark: str


PARTS: Final = {
    "dashboards": Part(
        (("dashboards", ""),), "Import them in Grafana, or mount the folder where its provisioning looks."
    ),
    "rules": Part(
        (("deploy/prometheus/rules", ""),),
        "Name them under rule_files of Prometheus; alerts link to the runbooks of `obsserve export deploy`.",
    ),
    # Its files refer to the other two as neighbours.
    "deploy": Part(
        (("deploy", "deploy"), ("dashboards", "dashboards"), ("loadtests", "loadtests")),
        "docs/deployment.md says what is where; deploy/compose.yaml starts all of it.",
    ),
    "loadtests": Part(
        (("loadtests", "loadtests"),), "pip install 'obsserve[loadtest]'; python -m loadtests api_mix"
    ),
}


@click.command(context_settings={"max_content_width": 120})
@click.argument("what", type=click.Choice(list(PARTS)))
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@click.option(
    "--grafana-url", metavar="URL", default=GRAFANA_URL, show_default=True, help="Where links lead."
)
def export(what: str, directory: Path, *, force: bool, grafana_url: str) -> None:
    """Write the dashboards, the rules, all of deploy/ or the load tests into DIR, which is made if it is not there."""
    part = PARTS[what]
    found = shared_files()
    copies = [
        (path, directory / folder / path.relative_to(found / source))
        for source, folder in part.sources
        for path in files_of(found / source)
    ]
    there = [target for _, target in copies if target.exists() or target.is_symlink()]
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ConfigError(
            [Problem("DIR", f"{there[0]}{more} would be overwritten", "give another directory, or --force")]
        )
    try:
        for path, target in copies:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, target, grafana_url.rstrip("/"))
    except OSError as error:
        click.echo(f"obsserve: error: {error.filename or directory}: {error.strerror or error}", err=True)
        sys.exit(FAILED)
    click.echo(f"{len(copies)} files in {directory}. {part.remark}")


def shared_files() -> Path:
    """Return the folder that holds dashboards/, deploy/ and loadtests/.

    Raises:
        ConfigError: the package was installed without them.
    """
    package = Path(__file__).parent
    for folder in (package / "share", package.parent):
        if (folder / "deploy").is_dir() and (folder / "dashboards").is_dir():
            return folder
    raise ConfigError(
        [Problem("export", "this installation has no such files", "install obsserve from its wheel")]
    )


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder that are for operators; not the sources that some of them are generated from."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.match(pattern) for pattern in IGNORED for part in _parts(path, folder))
    )


def _parts(path: Path, folder: Path) -> list[Path]:
    return [Path(name) for name in path.relative_to(folder).parts]


def _copy(path: Path, target: Path, grafana_url: str) -> None:
    target.write_bytes(path.read_bytes().replace(GRAFANA_URL.encode(), grafana_url.encode()))
    shutil.copymode(path, target)
