"""What is made of the samples: ratios by round, their median, the A/A rule, the gates. Pure functions."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

MIN_ROUNDS = 3  # fewer have no median worth a verdict


@dataclass(frozen=True)
class Sample:
    """What one slice of one server showed."""

    round: int
    case: str
    server: str
    values: Mapping[str, float]
    unusable: frozenset[str] = frozenset()  # quantities that this slice could not measure
    problems: tuple[str, ...] = ()  # work that was not done right


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Gate:
    """A bound on a quantity's ratio to another server (or on its value, where `against` is empty)."""

    server: str
    quantity: str
    limit: float
    against: str = "uvicorn"
    case: str = ""  # every case of the suite when empty
    at_least: bool = False


class Verdict(StrEnum):
    MET = "met"
    MISSED = "MISSED"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judgement:
    gate: Gate
    case: str
    measured: Spread | None
    verdict: Verdict


@dataclass(frozen=True)
class Agreement:
    """Whether the same command, run twice in one run, gave the same figure."""

    case: str
    measured: Spread | None
    valid: bool


@dataclass(frozen=True)
class Pair:
    reference: str
    twin: str
    tolerance: float = 0.05


def spread(values: Iterable[float]) -> Spread | None:
    known = list(values)
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known), len(known))


def by_round(samples: Iterable[Sample], case: str, server: str, quantity: str) -> dict[int, float]:
    """Return the quantity of each round in which it could be measured."""
    return {
        sample.round: sample.values[quantity]
        for sample in samples
        if (sample.case, sample.server) == (case, server)
        and quantity in sample.values
        and quantity not in sample.unusable
    }


def ratios(samples: Iterable[Sample], case: str, server: str, against: str, quantity: str) -> list[float]:
    """Return server / against for each round that measured both; a machine's moods then cancel out."""
    samples = list(samples)
    of_server = by_round(samples, case, server, quantity)
    of_other = by_round(samples, case, against, quantity)
    return [of_server[number] / of_other[number] for number in sorted(of_server) if of_other.get(number)]


def agreement(samples: Sequence[Sample], case: str, pair: Pair, quantity: str) -> Agreement:
    measured = spread(ratios(samples, case, pair.twin, pair.reference, quantity))
    valid = measured is not None and abs(measured.median - 1) <= pair.tolerance
    return Agreement(case, measured, valid)


def judge(samples: Sequence[Sample], case: str, gate: Gate) -> Judgement:
    if gate.against:
        measured = spread(ratios(samples, case, gate.server, gate.against, gate.quantity))
    else:
        measured = spread(by_round(samples, case, gate.server, gate.quantity).values())
    if measured is None or measured.count < MIN_ROUNDS:
        return Judgement(gate, case, measured, Verdict.UNDECIDED)
    kept = measured.median >= gate.limit if gate.at_least else measured.median <= gate.limit
    return Judgement(gate, case, measured, Verdict.MET if kept else Verdict.MISSED)


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Return the order of a round: each round starts with another server."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def percentile(values: Iterable[float], fraction: float) -> float:
    """Return the smallest value that at least `fraction` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(fraction * len(ordered)) - 1, 0)]
