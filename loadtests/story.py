"""Both sides of a run in one account: what the client counted, what the server observed, and whether they agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from loadtests.scrape import DURATION as SERVER_DURATION
from loadtests.scrape import LAG, TTFB, Between, Scrape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.histogram import Histogram
    from loadtests.ledger import Ledger

QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
RSS: Final = "process_resident_memory_bytes"
FDS: Final = "process_open_fds"
# A worker that was told to go is no accident.
ORDERLY: Final = {"reload", "max_requests", "max_rss", "max_lifetime", "shutdown"}


@dataclass
class Point:
    """What happened in one interval of the run; times in seconds, rates in each second."""

    at: float
    seconds: float
    users: int
    sent: float
    good: float
    failed: float
    refused: float
    client: dict[str, float | None]
    corrected: dict[str, float | None]
    observed: float | None = None
    server: dict[str, float | None] = field(default_factory=dict)
    lag_max: float | None = None
    rss: float | None = None
    fds: float | None = None
    workers: dict[str, dict[str, float]] = field(default_factory=dict)


def quantiles(histogram: Histogram) -> dict[str, float | None]:
    """Return the quantiles that are reported, of what the client measured."""
    return {name: histogram.quantile(share) for name, share in QUANTILES.items()}


def server_quantiles(between: Between, name: str) -> dict[str, float | None]:
    """Return the same of what the server measured."""
    return {label: between.quantile(share, name) for label, share in QUANTILES.items()}


def point(at: float, seconds: float, users: int, ledger: Ledger, between: Between | None) -> Point:
    """Sum an interval up.

    Args:
        at: its end, seconds since the run began.
        seconds: its length.
        users: how many there were at its end.
        ledger: the books of this interval alone.
        between: the readings at its two ends; None when the server did not answer.
    """
    seconds = max(seconds, 1e-9)
    found = Point(
        at,
        seconds,
        users,
        sent=ledger.ended / seconds,
        good=ledger.good / seconds,
        failed=ledger.failed / seconds,
        refused=ledger.answered["503"] / seconds,
        client=quantiles(ledger.times),
        corrected=quantiles(ledger.corrected),
    )
    if between is not None:
        after = between.after
        found.observed = between.observed / max(between.seconds, 1e-9)
        found.server = server_quantiles(between, TTFB)
        found.lag_max = after.highest("obsserve_event_loop_lag_max_seconds")
        found.rss, found.fds = after.total(RSS), after.total(FDS)
        found.workers = {"rss": after.by(RSS, "worker"), "fds": after.by(FDS, "worker")}
    return found


@dataclass(frozen=True)
class Reconciliation:
    """Whether every request that was sent is accounted for.

    Args:
        sent: by the client.
        answered: whole, as the client saw it.
        in_doubt: sent, but without a whole answer: the server may have observed them, or not.
        observed: by the server.
        statuses: for each status what the client and what the server counted.
    """

    sent: int
    answered: int
    in_doubt: int
    observed: int
    statuses: dict[str, tuple[int, int]]

    @property
    def lost(self) -> int:
        """How many requests the server knows nothing of: refused connections, killed processes."""
        return self.sent - self.observed

    @property
    def holds(self) -> bool:
        """Whether each answered request was observed, with its status, and nothing else was."""
        return self.answered <= self.observed <= self.sent and all(
            client <= server <= client + self.in_doubt for client, server in self.statuses.values()
        )

    def __str__(self) -> str:
        said = f"{self.sent} sent = {self.observed} observed"
        if self.lost:
            said += f" {'+' if self.lost > 0 else '-'} {abs(self.lost)} that the server "
            said += "never saw" if self.lost > 0 else "saw from elsewhere"
        if self.holds:
            return said + (
                f" ({self.in_doubt} got no whole answer)" if self.in_doubt else ", to the last one"
            )
        wrong = [
            f"{name}: {a} ≠ {b}" for name, (a, b) in self.statuses.items() if not a <= b <= a + self.in_doubt
        ]
        return "; ".join([f"DOES NOT HOLD: {said}", *wrong])


def reconcile(ledger: Ledger, between: Between) -> Reconciliation:
    """Compare the client's books with the server's counters."""
    server = {status: count for status, count in between.by_status.items() if status}
    names = sorted({*ledger.answered, *server})
    return Reconciliation(
        ledger.sent,
        ledger.answered.total(),
        ledger.in_doubt,
        between.observed,
        {name: (ledger.answered[name], server.get(name, 0)) for name in names},
    )


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of the line that fits these (x, y) best; None where there is no line."""
    if len(points) < 3:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else None


def growth(timeline: Sequence[Point], what: str) -> dict[str, float]:
    """Return by how much RSS or descriptors grow each second, by worker, after the first third of the run."""
    loaded = [one for one in timeline if one.users]
    settled = loaded[len(loaded) // 3 :]
    found = {}
    for worker in {name for one in settled for name in one.workers.get(what, ())}:
        line = [(one.at, one.workers[what][worker]) for one in settled if worker in one.workers.get(what, ())]
        if (rise := slope(line)) is not None:
            found[worker] = rise
    return found


def spans_waiting(reading: Scrape) -> float:
    """Return how many sampled spans have not left the server yet."""
    names = ("otel_sdk_span_live", "otel_sdk_processor_span_queue_size", "otel_sdk_exporter_span_inflight")
    return sum(reading.total(name) for name in names)


@dataclass(frozen=True)
class Knee:
    """Where a ramp left its SLO.

    Args:
        rate: the highest rate, in requests answered well each second, that kept it.
        users: how many users that took.
        broken_at: the rate that was offered when it was left; None when it never was.
        reason: what left it.
    """

    rate: float
    users: int
    broken_at: float | None
    reason: str | None

    def __str__(self) -> str:
        if self.broken_at is None:
            return f"not reached: {self.rate:.0f} requests/s are still within the SLO"
        return f"{self.rate:.0f} requests/s; at {self.broken_at:.0f} offered, {self.reason}"


def knee(
    timeline: Sequence[Point], *, ttfb_p95: float, refused_share: float, offered_by_user: float
) -> Knee | None:
    """Find the highest step of a ramp that kept the server's TTFB p95 and its share of 503s within bounds.

    One step that leaves them, followed by one that does not, was a hiccup.

    Args:
        timeline: the run; the intervals with as many users are one step, whose first does not count.
        ttfb_p95: bound in seconds.
        refused_share: bound, from 0 to 1.
        offered_by_user: requests each second that one user offers.
    """
    steps: dict[int, list[Point]] = {}
    for one in timeline:
        if one.users:
            steps.setdefault(one.users, []).append(one)
    best, broken = Knee(0.0, 0, None, None), None
    refused_before = 0.0
    for users, points in sorted(steps.items()):
        rate, refused, reason = _judge_step(points[1:] or points, ttfb_p95, refused_share)
        if reason is None:
            best, broken, refused_before = Knee(rate, users, None, None), None, refused
        elif broken is not None:  # twice in a row: no hiccup
            return broken
        else:
            between = 0.0
            if best.users and refused > refused_share:  # somewhere between the two steps it was just kept
                between = (rate - best.rate) * (refused_share - refused_before) / (refused - refused_before)
            broken = Knee(best.rate + max(between, 0.0), best.users, users * offered_by_user, reason)
    return broken or (best if best.users else None)


def _judge_step(
    points: Sequence[Point], ttfb_p95: float, refused_share: float
) -> tuple[float, float, str | None]:
    """Return the rate of good answers in a step, the share of refused ones, and what left the SLO there.

    What leaves the SLO there does so in every interval; a stall, of the server, of the machine or of those who
    send, does in one.
    """
    rate = median(one.good for one in points)
    refused = min(one.refused / one.sent if one.sent else 0.0 for one in points)
    p95s = [p95 for one in points if (p95 := one.server.get("p95")) is not None]
    p95 = min(p95s, default=0.0)
    reasons = []
    if p95 > ttfb_p95:
        reasons.append(f"the server's TTFB p95 is {p95 * 1e3:.0f} ms")
    if refused > refused_share:
        reasons.append(f"{refused:.1%} of the requests are refused")
    return rate, refused, " and ".join(reasons) or None


@dataclass
class Story:
    """A run, as the thresholds and the report read it."""

    scenario: str
    host: str
    started: float  # unix time
    seconds: float
    ledger: Ledger
    timeline: list[Point]
    between: Between | None  # None: the server's metrics were not to be had
    lines: dict[str, Any] | None = None  # what the access log says of this run
    facts: dict[str, Any] = field(default_factory=dict)  # what a scenario found out besides
    marks: list[tuple[float, str]] = field(default_factory=list)  # what was done to the server, and when

    @property
    def reconciliation(self) -> Reconciliation | None:
        """How the two sides agree."""
        return reconcile(self.ledger, self.between) if self.between else None

    def restarts(self, *, orderly: bool) -> dict[str, int]:
        """Return the workers that were replaced, by reason: as planned, or not."""
        found = self.between.by("obsserve_worker_restarts_total", "reason") if self.between else {}
        return {reason: round(count) for reason, count in found.items() if (reason in ORDERLY) == orderly}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for the JSON report."""
        ledger, between = self.ledger, self.between
        client = {
            "sent": ledger.sent,
            "answered": dict(ledger.answered),
            "cut": dict(ledger.cut),
            "unanswered": dict(ledger.unanswered),
            "abandoned": ledger.abandoned,
            "failed": ledger.failed,
            "errors": dict(ledger.errors.most_common(20)),
            "requests_per_second": ledger.sent / max(self.seconds, 1e-9),
            "seconds": quantiles(ledger.times),
            "corrected_seconds": quantiles(ledger.corrected),
            "by_name": {
                name: {"count": len(histogram), **quantiles(histogram)}
                for name, histogram in ledger.named.items()
            },
            "tallies": dict(ledger.tallies),
        }
        found: dict[str, Any] = {
            "scenario": self.scenario,
            "host": self.host,
            "started": self.started,
            "seconds": self.seconds,
            "client": client,
            "facts": self.facts,
            "marks": self.marks,
            "access_log": self.lines,
            "timeline": [asdict(one) for one in self.timeline],
        }
        if between is not None and self.reconciliation is not None:
            found["server"] = {
                "observed": between.observed,
                "by_status": between.by_status,
                "ttfb_seconds": server_quantiles(between, TTFB),
                "duration_seconds": server_quantiles(between, SERVER_DURATION),
                "rejected": between.by("obsserve_http_rejected_requests_total", "reason"),
                "protocol_errors": between.by("obsserve_http_protocol_errors_total", "reason"),
                "client_disconnects": between.by("obsserve_http_client_disconnects_total", "phase"),
                "loop_lag_seconds": {**server_quantiles(between, LAG), "max": lag_max(self)},
                "restarts": {**self.restarts(orderly=False), **self.restarts(orderly=True)},
                "spans": {
                    "started": between.by("otel_sdk_span_started_total", "otel_span_sampling_result"),
                    "live": between.after.total("otel_sdk_span_live"),
                    "processed": between.by("otel_sdk_processor_span_processed_total", "error_type"),
                    "queued": between.after.total("otel_sdk_processor_span_queue_size"),
                    "inflight": between.after.total("otel_sdk_exporter_span_inflight"),
                    "exported": between.by("otel_sdk_exporter_span_exported_total", "error_type"),
                },
                "log_records": between.by("obsserve_log_records_total", "result"),
                "rss_bytes_per_second": growth(self.timeline, "rss"),
                "fds_per_second": growth(self.timeline, "fds"),
            }
            found["reconciliation"] = {
                **asdict(self.reconciliation),
                "lost": self.reconciliation.lost,
                "holds": self.reconciliation.holds,
                "said": str(self.reconciliation),
            }
        return found


def lag_max(story: Story) -> float | None:
    """Return the worst loop lag of the run, seconds."""
    return max((one.lag_max for one in story.timeline if one.lag_max is not None), default=None)


__all__ = [
    "Between",
    "Knee",
    "Point",
    "Reconciliation",
    "Scrape",
    "Story",
    "growth",
    "knee",
    "point",
    "reconcile",
]
