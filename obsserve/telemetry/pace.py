"""Long work beside a serving loop, in steps.

In one process a scrape and the serving loop share the interpreter, and often a processor. Whatever takes
milliseconds there is done in steps of some ten microseconds, and steps back after each: a request then waits
for one of them, not for all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Item = TypeVar("_Item")

_PAUSE: Final = 1e-5  # seconds
_ITEMS: Final = 16


def step_back() -> None:
    """Let other threads have the interpreter and the processor."""
    time.sleep(_PAUSE)


def unhurried(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items, and step back after every few."""
    for number, item in enumerate(items, start=1):
        yield item
        if not number % _ITEMS:
            step_back()
