"""Label values that come from outside, kept from growing without bound."""

from __future__ import annotations

from obsserve.telemetry import catalogue


class BoundedNames:
    """A set of names that stops growing: each further one is `_OTHER`.

    Args:
        limit: how many names are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def bounded(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= self._limit:
                return catalogue.OTHER
            self._known.add(name)
        return name
