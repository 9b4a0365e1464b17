"""The scenarios in one table: the server that each asks of the demo application, and what it promises.

Times are set for two cores that other work shares; --slo replaces them for a run of one's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests.thresholds import YES, Bound, at_least, at_most, exactly

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    Args:
        question: what it answers.
        slo: its thresholds, by the name of the measure.
        server: options of the server, in addition to two workers.
        collector: whether the server exports its spans to one.
    """

    question: str
    slo: Mapping[str, Bound]
    server: tuple[str, ...] = ()
    collector: bool = False


# What holds wherever nothing is meant to break.
SOUND: Final = {
    "reconciled": YES,
    "log_disagreement": exactly(0),
    "failed_share": exactly(0),
    "unanswered": exactly(0),
    "unplanned_restarts": exactly(0),
}

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "steady": Scenario(
        "Does it keep its latency at a constant rate?",
        SOUND
        | {
            "sent": at_least(100),
            "server_ttfb_p95_seconds": at_most(0.1),
            "corrected_p95_seconds": at_most(0.25),
            "loop_lag_max_seconds": at_most(1.0),
        },
    ),
    "api_mix": Scenario(
        "Do people who use all of it get good answers, and do both sides agree on each?",
        SOUND
        | {
            "sent": at_least(100),
            "server_ttfb_p95_seconds": at_most(0.25),
            "client_p95_seconds": at_most(0.5),
        },
    ),
    "overload": Scenario(
        "Past its limit, does it refuse early, say when to come back, and hold its goodput?",
        SOUND
        | {
            "refused_share": Bound(0.05, 0.95),
            "retry_after_share": exactly(1),
            "goodput_held": at_least(0.6),
            "server_ttfb_p95_seconds": at_most(0.25),
        },
        server=("--limit-concurrency", "6"),
    ),
    "websocket_chat": Scenario(
        "Do WebSockets connect, echo, fan out and close as they should, message by message?",
        SOUND
        | {
            "connect_p95_seconds": at_most(0.5),
            "echo_p95_seconds": at_most(0.5),
            "fan_out_p95_seconds": at_most(0.5),
            "messages_in_disagreement": exactly(0),
            "messages_out_disagreement": exactly(0),
            "normal_closes_disagreement": exactly(0),
            "abnormal_closes": exactly(0),
        },
    ),
    "deploy_under_load": Scenario(
        "Can all workers be replaced under load without losing one request?",
        SOUND | {"sent": at_least(100), "planned_restarts": at_least(4), "client_p99_seconds": at_most(2)},
    ),
    "chaos": Scenario(
        "Workers are killed and the collector dies: is the damage small, repaired, and counted?",
        {
            "reconciled": YES,
            "unanswered_share": at_most(0.05),
            "failed_share": at_most(0.05),
            "unplanned_restarts": exactly(2),
            "recovery_seconds": at_most(15),
            "spans_unexplained": at_most(0.02),
            "spans_lost": at_least(1),  # else the collector was not stopped
            "server_ttfb_p95_seconds": at_most(0.25),
        },
        collector=True,
    ),
    "upload": Scenario(
        "Do bodies of every kind arrive whole, and are those that are too large refused?",
        SOUND
        | {
            "upload_bytes_disagreement": exactly(0),
            "client_p95_seconds": at_most(1),
            "rss_bytes_by_request": at_most(16 * 1024),
        },
        server=("--limit-request-body", "600000"),
    ),
    "download_stream": Scenario(
        "Do large bodies arrive whole, and events when they happen?",
        SOUND
        | {
            "server_errors": exactly(0),
            "download_bytes_missing": exactly(0),
            "first_event_p95_seconds": at_most(0.5),
            "event_gap_p95_seconds": at_most(0.5),
        },
    ),
    "keepalive_churn": Scenario(
        "Can connections come and go without anybody noticing, and without any left behind?",
        SOUND
        | {
            "connections_disagreement": exactly(0),
            "idle_closes": at_least(3),
            "requests_by_connection": at_least(1.2),
            "fds_by_second": at_most(1),
        },
        server=("--timeout-keep-alive", "1"),
    ),
    "slow_clients": Scenario(
        "Do clients who send or read slowly harm the others?",
        {
            "reconciled": YES,
            "failed_share": exactly(0),
            "unplanned_restarts": exactly(0),
            "slow_heads": at_least(4),
            "header_timeouts_disagreement": exactly(0),
            "stuck_readers": at_least(3),
            "write_timeouts_disagreement": exactly(0),
            "bystander_p95_seconds": at_most(0.5),
        },
        server=("--timeout-request-header", "2", "--timeout-write", "3"),
    ),
    "spike": Scenario(
        "Does it get through a sudden rush, and is all well afterwards?",
        SOUND | {"corrected_p95_seconds": at_most(2), "settled_p95_seconds": at_most(0.5)},
    ),
    "soak": Scenario(
        "Does anything grow that should not?",
        SOUND
        | {
            "rss_bytes_by_request": at_most(4096),
            "fds_by_second": at_most(0.5),
            "server_ttfb_p95_seconds": at_most(0.1),
        },
    ),
    "ramp_to_break": Scenario(
        "At which rate does it leave its SLO?",
        SOUND | {"knee_rate": at_least(40)},
        server=("--limit-concurrency", "6"),
    ),
}
