"""A client of the metrics port that forgets nothing."""

from __future__ import annotations

import httpx
from conftest import parse_metrics

from tests.crowd import Crowd


class Scraper(Crowd):
    """Scrapes all the time; every series of a counter or histogram may only grow, and never goes away.

    Attributes:
        scrapes: how many there were.
        faults: series that did not, with their values before and after.
    """

    def __init__(self, server):
        super().__init__(self._run)
        self.scrapes = 0
        self.faults = []
        self._url = server.metrics_url

    def _run(self):
        before = {}
        with httpx.Client(timeout=20) as client:
            while not self.over.wait(0.03):
                now = {
                    (name, *sorted(labels.items())): value
                    for name, found in parse_metrics(client.get(self._url).text).items()
                    if name.endswith(("_total", "_count", "_bucket", "_sum"))
                    for labels, value in found
                }
                self.faults += [
                    (series, value, now.get(series))
                    for series, value in before.items()
                    if now.get(series, -1) < value
                ]
                before = now
                self.scrapes += 1
