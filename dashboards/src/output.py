"""Everything that is generated, by path from the checkout's root. Pure: a test compares it with what is committed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from . import connections, loadtest, logs, overview, routes, telemetry, websockets, workers
from .config import PAGES
from .ruleoutput import rule_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from .panels import Json

BUILDERS: Final[dict[str, Callable[[], Json]]] = {
    "overview": overview.build,
    "routes": routes.build,
    "workers": workers.build,
    "connections": connections.build,
    "websockets": websockets.build,
    "telemetry": telemetry.build,
    "logs": logs.build,
    "loadtest": loadtest.build,
}


def files() -> dict[str, str]:
    """Return the text of every generated file, by its path."""
    pages = {PAGES[name][0]: build() for name, build in BUILDERS.items()}
    drawn = {f"dashboards/{uid}.json": json.dumps(page, indent=1) + "\n" for uid, page in pages.items()}
    return drawn | rule_files()
