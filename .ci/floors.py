"""Print `name==version` for the floor of each dependency of obsserve and of its extras for users."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("otlp", "config", "wsgi", "standard")


def floors() -> list[str]:
    """Return a requirement for each `>=` in pyproject.toml that users install."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    named = [
        *project["dependencies"],
        *(line for extra in EXTRAS for line in project["optional-dependencies"][extra]),
    ]
    found = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)", line) for line in named)
    return sorted({f"{match[1]}=={match[2]}" for match in found if match is not None})


if __name__ == "__main__":
    sys.stdout.write("".join(f"{floor}\n" for floor in floors()))
