"""Thresholds as code: what can be measured of a run, and the bounds that a scenario sets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from loadtests.scrape import DURATION, TTFB
from loadtests.story import growth, lag_max, spans_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtests.story import Story

Unit = Literal["s", "share", "bytes", "", "/s", "yes"]


@dataclass(frozen=True)
class Bound:
    """What a measure may be: at least, at most, or both; `measured` alone asks that there be a value."""

    least: float | None = None
    most: float | None = None

    def keeps(self, value: float | None) -> bool:
        """Whether a value is within; one that could not be measured is not."""
        if value is None:
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def said(self, unit: Unit) -> str:
        """Return the bound in words."""
        if unit == "yes":
            return spoken(self.least, unit)
        if self.least is not None and self.least == self.most:
            return f"exactly {spoken(self.least, unit)}"
        parts = []
        if self.least is not None:
            parts.append(f"at least {spoken(self.least, unit)}")
        if self.most is not None:
            parts.append(f"at most {spoken(self.most, unit)}")
        return " and ".join(parts)


def at_most(value: float) -> Bound:
    """Bound from above."""
    return Bound(most=value)


def at_least(value: float) -> Bound:
    """Bound from below."""
    return Bound(least=value)


def exactly(value: float) -> Bound:
    """Allow one value only."""
    return Bound(value, value)


YES: Final = exactly(1)


def spoken(value: float | None, unit: Unit) -> str:
    """Return a value as people write it."""
    if value is None:
        return "not measured"
    if unit == "yes":
        return "yes" if value else "no"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "share":
        return f"{value:.2%}"
    if unit == "bytes":
        return f"{value / 1024:.1f} KiB" if abs(value) >= 1024 else f"{value:.0f} B"
    return f"{value:.6g}{unit}"


@dataclass(frozen=True)
class Measure:
    """Something that is measured of every run.

    Args:
        said: what it is, in words.
        unit: of its values.
        of: takes it from a story; None where the story does not hold it.
        server: whether it needs what the server says.
    """

    said: str
    unit: Unit
    of: Callable[[Story], float | None]
    server: bool = False


def _share(count: float, of: float) -> float | None:
    return count / of if of else None


def _reconciled(story: Story) -> float | None:
    found = story.reconciliation
    return None if found is None else float(found.holds)


def _named(name: str, share: float) -> Callable[[Story], float | None]:
    def measure(story: Story) -> float | None:
        histogram = story.ledger.named.get(name)
        return histogram.quantile(share) if histogram else None

    return measure


def _tally(name: str) -> Callable[[Story], float]:
    return lambda story: float(story.ledger.tallies[name])


def _grown(name: str, **labels: str) -> Callable[[Story], float | None]:
    return lambda story: story.between.total(name, **labels) if story.between else None


def _agree(tally: str, name: str, **labels: str) -> Callable[[Story], float | None]:
    """Measure by how much the server's counter differs from what the client counted."""

    def measure(story: Story) -> float | None:
        grown = _grown(name, **labels)(story)
        return None if grown is None else grown - story.ledger.tallies[tally]

    return measure


def _growth(what: str) -> Callable[[Story], float | None]:
    def measure(story: Story) -> float | None:
        if story.between is None:
            return None
        return max(
            (rise for worker, rise in growth(story.timeline, what).items() if worker != "main"), default=None
        )

    return measure


def _rss_by_request(story: Story) -> float | None:
    rise = _growth("rss")(story)
    rate = _share(story.ledger.sent, story.seconds)
    return None if rise is None or not rate else max(rise, 0.0) / rate


def _goodput_held(story: Story) -> float | None:
    """Compare the goodput under the heaviest load with that under the lightest."""
    loaded = [one for one in story.timeline if one.users]
    if not loaded:
        return None
    fewest, most = min(one.users for one in loaded), max(one.users for one in loaded)
    light = [one.good for one in loaded if one.users == fewest][1:]
    heavy = [one.good for one in loaded if one.users == most][1:]
    if fewest == most or not light or not heavy or not sum(light):
        return None
    return (sum(heavy) / len(heavy)) / (sum(light) / len(light))


def _lines(key: str) -> Callable[[Story], float | None]:
    return lambda story: None if story.lines is None else float(story.lines[key])


def _fact(key: str) -> Callable[[Story], float | None]:
    return lambda story: story.facts.get(key)


def _abnormal_closes(story: Story) -> float:
    tallies = story.ledger.tallies
    return float(
        sum(count for name, count in tallies.items() if name.startswith("ws_close_"))
        - tallies["ws_close_1000"]
    )


def _spans_lost(story: Story) -> float | None:
    if story.between is None:
        return None
    dropped = story.between.by("otel_sdk_processor_span_processed_total", "error_type")
    failed = story.between.by("otel_sdk_exporter_span_exported_total", "error_type")
    return sum(count for found in (dropped, failed) for error, count in found.items() if error)


def _spans_unexplained(story: Story) -> float | None:
    """Measure the share of sampled spans that went missing otherwise than with a process that was killed.

    A span ends up exported, counted as lost, or waits; what a process that is killed had waiting goes with it, and
    whoever kills it has read how many there were.
    """
    if story.between is None:
        return None
    after = story.between.after
    started = after.total("otel_sdk_span_started_total", otel_span_sampling_result="RECORD_AND_SAMPLE")
    dropped = sum(
        count
        for error, count in after.by("otel_sdk_processor_span_processed_total", "error_type").items()
        if error
    )
    known = after.total("otel_sdk_exporter_span_exported_total") + dropped + spans_waiting(after)
    missing = started - known - float(story.facts.get("spans_at_risk", 0.0))
    return _share(max(missing, 0.0), started)


def _server_errors(story: Story) -> float | None:
    if story.between is None:
        return None
    return sum(count for error, count in story.between.by(f"{DURATION}_count", "error_type").items() if error)


def _negative(value: float | None) -> float | None:
    return None if value is None else max(0.0, -value)


def _settled_p95(story: Story) -> float | None:
    """Take the median over the last intervals of the run, a fifth of it."""
    loaded = [one.corrected["p95"] for one in story.timeline if one.users]
    last = sorted(value for value in loaded[-max(1, len(loaded) // 5) :] if value is not None)
    return last[len(last) // 2] if last else None


MESSAGES: Final = "obsserve_websocket_messages_total"

MEASURES: Final[Mapping[str, Measure]] = {
    "reconciled": Measure("requests sent = requests observed, each status", "yes", _reconciled, server=True),
    "log_disagreement": Measure(
        "requests of this run that left not exactly one access line", "", _lines("disagreement")
    ),
    "sent": Measure("requests sent", "", lambda story: float(story.ledger.sent)),
    "failed_share": Measure(
        "requests and messages that failed",
        "share",
        lambda story: _share(story.ledger.failed, story.ledger.sent),
    ),
    "unanswered": Measure("requests without a whole answer", "", lambda story: float(story.ledger.in_doubt)),
    "refused_share": Measure(
        "requests answered 503",
        "share",
        lambda story: _share(story.ledger.answered["503"], story.ledger.sent),
    ),
    "retry_after_share": Measure(
        "503s that said Retry-After",
        "share",
        lambda story: _share(story.ledger.tallies["retry_after"], story.ledger.answered["503"]),
    ),
    "goodput_held": Measure(
        "goodput under the heaviest load, against that under the lightest", "share", _goodput_held
    ),
    "client_p95_seconds": Measure("p95 at the client", "s", lambda story: story.ledger.times.quantile(0.95)),
    "client_p99_seconds": Measure("p99 at the client", "s", lambda story: story.ledger.times.quantile(0.99)),
    "corrected_p95_seconds": Measure(
        "p95 at the client, from when the request was due",
        "s",
        lambda story: story.ledger.corrected.quantile(0.95),
    ),
    "server_ttfb_p95_seconds": Measure(
        "p95 of the server's time to first byte",
        "s",
        lambda story: story.between.quantile(0.95, TTFB) if story.between else None,
        server=True,
    ),
    "loop_lag_max_seconds": Measure("worst event loop lag", "s", lag_max, server=True),
    "unplanned_restarts": Measure(
        "workers that died",
        "",
        lambda story: float(sum(story.restarts(orderly=False).values())) if story.between else None,
        server=True,
    ),
    "planned_restarts": Measure(
        "workers that were replaced as planned",
        "",
        lambda story: float(sum(story.restarts(orderly=True).values())) if story.between else None,
        server=True,
    ),
    "unanswered_share": Measure(
        "requests without a whole answer",
        "share",
        lambda story: _share(story.ledger.in_doubt, story.ledger.sent),
    ),
    "recovery_seconds": Measure("from a kill until all workers served again", "s", _fact("recovery_seconds")),
    "spans_unexplained": Measure(
        "sampled spans of which nobody knows what became", "share", _spans_unexplained, server=True
    ),
    "spans_lost": Measure(
        "spans that were dropped or whose export failed, as counted", "", _spans_lost, server=True
    ),
    "connect_p95_seconds": Measure("p95 of connecting a WebSocket", "s", _named("WS connect", 0.95)),
    "echo_p95_seconds": Measure("p95 until one's own message came back", "s", _named("WS echo", 0.95)),
    "fan_out_p95_seconds": Measure("p95 until the others' messages arrived", "s", _named("WS fan-out", 0.95)),
    "messages_in_disagreement": Measure(
        "messages the server received, less those that were sent",
        "",
        _agree("ws_sent", MESSAGES, direction="received"),
        server=True,
    ),
    "messages_out_disagreement": Measure(
        "messages the server sent, less those that arrived",
        "",
        _agree("ws_received", MESSAGES, direction="sent"),
        server=True,
    ),
    "normal_closes_disagreement": Measure(
        "WebSockets the server saw closed with 1000, less those that were",
        "",
        _agree("ws_close_1000", "obsserve_websocket_closes_total", code="1000"),
        server=True,
    ),
    "abnormal_closes": Measure("WebSockets that ended otherwise than with 1000", "", _abnormal_closes),
    "server_errors": Measure("requests that the server holds for failed", "", _server_errors, server=True),
    "upload_bytes_disagreement": Measure(
        "bytes of bodies the server received, less those that were sent",
        "",
        _agree("bytes_sent", "obsserve_http_request_body_bytes_total"),
        server=True,
    ),
    "download_bytes_missing": Measure(
        "bytes that arrived beyond those the server says it sent",
        "",
        lambda story: _negative(_agree("bytes_received", "obsserve_http_response_body_bytes_total")(story)),
        server=True,
    ),
    "first_event_p95_seconds": Measure("p95 until the first event", "s", _named("SSE first event", 0.95)),
    "event_gap_p95_seconds": Measure("p95 between two events", "s", _named("SSE gap", 0.95)),
    "connections_disagreement": Measure(
        "connections the server accepted, less those that were made",
        "",
        _agree("connections", "obsserve_connections_accepted_total"),
        server=True,
    ),
    "idle_closes": Measure(
        "idle connections that the server closed",
        "",
        _grown("obsserve_connections_closed_total", reason="keepalive_timeout"),
        server=True,
    ),
    "requests_by_connection": Measure(
        "requests on each connection",
        "",
        lambda story: _share(story.ledger.sent, story.ledger.tallies["connections"]),
    ),
    "header_timeouts_disagreement": Measure(
        "408s for slow heads as the server counts them, less those that arrived",
        "",
        _agree("slow_heads", "obsserve_http_protocol_errors_total", reason="header_timeout"),
        server=True,
    ),
    "slow_heads": Measure("heads that never ended and got their 408", "", _tally("slow_heads")),
    "write_timeouts_disagreement": Measure(
        "connections closed because nobody read, less those who had stopped",
        "",
        _agree("stuck", "obsserve_connections_closed_total", reason="write_timeout"),
        server=True,
    ),
    "stuck_readers": Measure("readers who had stopped and were cut off", "", _tally("stuck")),
    "bystander_p95_seconds": Measure("p95 of those who do nothing unusual", "s", _named("GET /fast", 0.95)),
    "settled_p95_seconds": Measure(
        "p95 at the client, from when the request was due, at the end of the run", "s", _settled_p95
    ),
    "knee_rate": Measure("the knee: good answers each second", "", _fact("knee_rate")),
    "rss_bytes_by_request": Measure(
        "growth of a worker's memory with each request", "bytes", _rss_by_request, server=True
    ),
    "fds_by_second": Measure("growth of a worker's open descriptors", "/s", _growth("fds"), server=True),
}


@dataclass(frozen=True)
class Finding:
    """One threshold, held against a run."""

    name: str
    value: float | None
    bound: Bound

    @property
    def kept(self) -> bool:
        """Whether the run kept it."""
        return self.bound.keeps(self.value)

    def __str__(self) -> str:
        measure = MEASURES[self.name]
        said = f"{self.name}: {spoken(self.value, measure.unit)}"
        return f"{said}, {self.bound.said(measure.unit)} is asked ({measure.said})"


def judge(story: Story, slo: Mapping[str, Bound]) -> list[Finding]:
    """Hold a run against a table of thresholds."""
    return [Finding(name, MEASURES[name].of(story), bound) for name, bound in slo.items()]
