"""Any Python value as JSON can hold it: strict, ASCII, no deeper than a log line needs."""

from __future__ import annotations

import json
from typing import Any, Final

_DEEPEST: Final = 4


def dumps(value: Any) -> str:
    """Return JSON of ASCII characters without white space, for what `plain` returns."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def plain(value: Any, depth: int = 0) -> Any:
    """Return the value as JSON can hold it: what it cannot becomes text. Never raises."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, str):
        # A lone surrogate is escaped by the encoder into something that strict parsers refuse.
        return value.encode("utf-8", "replace").decode()
    if depth < _DEEPEST and isinstance(value, dict):
        return {str(plain(str(name))): plain(inner, depth + 1) for name, inner in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner, depth + 1) for inner in value]
    try:
        return plain(repr(value))
    except Exception:  # noqa: BLE001 - whatever the application's __repr__ does
        return f"({type(value).__name__})"
