"""The scenarios in one table: the server that each asks of the demo application, and what it promises.

Times are set for two cores that other work shares; --slo replaces them for a run of one's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadtests.thresholds import YES, at_least, at_most, exactly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtests.thresholds import Bound


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
}
