"""What the server says: one reading of its /metrics, and the difference between two."""

from __future__ import annotations

import time
import urllib.request
from collections import defaultdict
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from loadtests.histogram import bucket_quantile

Labels = dict[str, str]
DURATION: Final = "http_server_request_duration_seconds"
TTFB: Final = "obsserve_http_time_to_first_byte_seconds"
LAG: Final = "obsserve_event_loop_lag_seconds"
TIMEOUT_SECONDS: Final = 2.0


class ScrapeError(Exception):
    """The metrics cannot be had; the message says what from where."""


class Scrape:
    """One reading.

    Args:
        text: what /metrics answered, in the text format.
        at: when it was asked, seconds of the monotonic clock.
    """

    def __init__(self, text: str, at: float = 0.0) -> None:
        self.at = at
        self.samples: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples[sample.name].append((sample.labels, sample.value))

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that carry these labels."""
        return sum(
            value
            for found, value in self.samples.get(name, ())
            if all(found.get(label) == wanted for label, wanted in labels.items())
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the sums of a metric by the value of one of its labels."""
        sums: dict[str, float] = defaultdict(float)
        for found, value in self.samples.get(name, ()):
            sums[found.get(label, "")] += value
        return dict(sums)

    def highest(self, name: str) -> float:
        """Return the highest sample, 0 when there is none."""
        return max((value for _, value in self.samples.get(name, ())), default=0.0)

    def buckets(self, name: str) -> dict[float, float]:
        """Return the cumulative counts of a histogram by upper bound, over all its label sets."""
        return {float(bound): count for bound, count in self.by(f"{name}_bucket", "le").items()}

    @property
    def observed(self) -> float:
        """How many HTTP exchanges have ended."""
        return self.total(f"{DURATION}_count")

    @property
    def active(self) -> float:
        """How many have begun and not ended."""
        return self.total("http_server_active_requests")


class Between:
    """What happened between two readings."""

    def __init__(self, before: Scrape, after: Scrape) -> None:
        self.before, self.after = before, after

    @property
    def seconds(self) -> float:
        """The time between them."""
        return self.after.at - self.before.at

    def total(self, name: str, **labels: str) -> float:
        """Return by how much a counter has grown."""
        return self.after.total(name, **labels) - self.before.total(name, **labels)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return by how much a counter has grown, by the value of one of its labels; what did not grow is left out."""
        before = self.before.by(name, label)
        grown = {value: now - before.get(value, 0.0) for value, now in self.after.by(name, label).items()}
        return {value: growth for value, growth in grown.items() if growth}

    def quantile(self, share: float, name: str) -> float | None:
        """Return a quantile of what a histogram has observed in between, None if that was nothing."""
        before = self.before.buckets(name)
        return bucket_quantile(
            share,
            {bound: count - before.get(bound, 0.0) for bound, count in self.after.buckets(name).items()},
        )

    @property
    def observed(self) -> int:
        """How many HTTP exchanges ended."""
        return round(self.total(f"{DURATION}_count"))

    @property
    def by_status(self) -> dict[str, int]:
        """How many ended, by the status that was sent; empty text where none was."""
        counts = self.by(f"{DURATION}_count", "http_response_status_code")
        return {status: round(count) for status, count in counts.items()}


def read(url: str) -> Scrape:
    """Read /metrics.

    Raises:
        ScrapeError: if the server does not answer, or not with metrics.
    """
    at = time.monotonic()
    request = urllib.request.Request(url, headers={"Accept": "text/plain; version=0.0.4"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return Scrape(answer.read().decode(), at)
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors; no metrics are a ValueError
        raise ScrapeError(f"{url} cannot be read: {error}") from error
