"""The exposition that is made for the first scrape or push, not for the start.

The Prometheus client library takes as long to import as everything else that a metrics port needs, and nobody
scrapes before the server has started. Any thread may ask; one of them makes it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from obsserve.telemetry.exposition import Exposition, Page, Reading


class LateExposition:
    """Stands in for an Exposition.

    Whoever must not meet a scrape, nor the import before the first, holds `lock`.

    Args:
        make: makes it, and imports what that needs.
    """

    def __init__(self, make: Callable[[], Exposition]) -> None:
        self._make = make
        self._made: Exposition | None = None
        self.lock = threading.Lock()

    def scrape(self, accept: str = "", accept_encoding: str = "", names: Collection[str] = ()) -> Page:
        """Render everything, or what the names select; see `Exposition.scrape`."""
        with self.lock:
            return self._exposition().scrape(accept, accept_encoding, names)

    def collect(self) -> Iterator[Any]:
        """Yield the server's own metrics; see `Exposition.collect`."""
        with self.lock:
            yield from self._exposition().collect()

    def read(self) -> Reading:
        """Return what a scrape would show, as numbers; see `Exposition.read`."""
        with self.lock:
            return self._exposition().read()

    def count_failures(self, failures: int) -> None:
        """Count families that could not be used; see `Exposition.count_failures`."""
        with self.lock:
            self._exposition().count_failures(failures)

    def _exposition(self) -> Exposition:
        if self._made is None:
            self._made = self._make()
        return self._made
