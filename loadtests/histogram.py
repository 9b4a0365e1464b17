"""Latencies as counts: what the client keeps of them, and what Prometheus buckets say."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Each step is 2 % wider than the one before: a quantile is right within 1 %, and reports of workers add up.
STEP: Final = math.log(1.02)
SHORTEST: Final = 1e-6


class Histogram:
    """How often each latency was seen.

    Args:
        counts: how often, by step; what `as_dict` gave.
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter()
        for step, count in (counts or {}).items():
            self.counts[int(step)] += count  # JSON has made text of the keys

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, seconds: float) -> None:
        """Count one latency, in seconds."""
        self.counts[round(math.log(max(seconds, SHORTEST)) / STEP)] += 1

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted."""
        self.counts.update(other.counts)

    def quantile(self, share: float) -> float | None:
        """Return the latency, in seconds, that this share of all did not exceed; None when there were none."""
        wanted = share * len(self)
        if not self.counts:
            return None
        reached = 0
        for step in sorted(self.counts):
            reached += self.counts[step]
            if reached >= wanted:
                break
        return math.exp(step * STEP)

    def as_dict(self) -> dict[int, int]:
        """Return the counts, for a message to another process."""
        return dict(self.counts)


def bucket_quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Return a quantile of a Prometheus histogram, as `histogram_quantile` of PromQL does.

    Args:
        share: from 0 to 1.
        buckets: cumulative counts by upper bound, infinity included.

    Returns:
        The quantile, interpolated within its bucket; the last finite bound when it lies above that; None when
        nothing was observed.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted = share * buckets[bounds[-1]]
    lower = below = 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * max(wanted - below, 0.0) / (count - below)
        lower, below = bound, count
    return lower
