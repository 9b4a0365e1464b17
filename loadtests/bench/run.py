"""One run of a suite: interleaved slices, more of them while the A/A pair disagrees, then the verdicts."""

import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from .arithmetic import Agreement, Judgement, Sample, Verdict, agreement, judge, rotated
from .load import require_program
from .meters import Place, Reading
from .servers import SERVERS, BenchError, Case, Running, require_package, started
from .suites import Suite

MOST_ROUNDS = 3  # times the rounds asked for, while the A/A pair disagrees
WARM_UP_SECONDS = 1

Measure = Callable[[str, Case], Reading]


@dataclass(frozen=True)
class Options:
    servers: tuple[str, ...]
    rounds: int
    seconds: float
    core: int  # of the servers; the harness and its generators have another
    python: str = sys.executable  # of the servers


@dataclass(frozen=True)
class Result:
    suite: Suite
    options: Options
    samples: list[Sample]
    agreements: list[Agreement]
    judgements: list[Judgement]

    @property
    def rounds(self) -> int:
        return max((sample.round for sample in self.samples), default=-1) + 1

    @property
    def problems(self) -> list[str]:
        return [
            f"{sample.server}, {sample.case}, round {sample.round + 1}: {problem}"
            for sample in self.samples
            for problem in sample.problems
        ]

    @property
    def exit_code(self) -> int:
        """0: every gate is met; 1: one is missed; 3: the run cannot tell."""
        valid = not self.problems and all(each.valid for each in self.agreements)
        verdicts = {judgement.verdict for judgement in self.judgements}
        if valid and Verdict.MISSED in verdicts:
            return 1
        return 3 if not valid or Verdict.UNDECIDED in verdicts else 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def one_round(number: int, suite: Suite, servers: tuple[str, ...], measure: Measure) -> Iterable[Sample]:
    for case in suite.cases:
        for name in rotated(servers, number):
            reading = measure(name, case)
            figures = "  ".join(f"{key} {value:.6g}" for key, value in reading.values.items())
            say(f"round {number + 1}  {case.name}  {name}  {figures}  {'; '.join(reading.problems)}")
            yield Sample(number, case.name, name, reading.values, reading.unusable, reading.problems)


def agreements_of(suite: Suite, servers: tuple[str, ...], samples: list[Sample]) -> list[Agreement]:
    if not {suite.pair.reference, suite.pair.twin} <= set(servers):
        return []
    return [agreement(samples, case.name, suite.pair, suite.quantities[0].key) for case in suite.cases]


def judgements_of(suite: Suite, servers: tuple[str, ...], samples: list[Sample]) -> list[Judgement]:
    """Judge the gates whose servers were in the run."""
    return [
        judge(samples, case.name, gate)
        for gate in suite.gates
        for case in suite.cases
        if gate.case in ("", case.name) and {gate.server, gate.against or gate.server} <= set(servers)
    ]


def measure_rounds(suite: Suite, options: Options, measure: Measure) -> list[Sample]:
    """Measure the rounds asked for, then more while the A/A pair disagrees and is asked for a verdict."""
    samples: list[Sample] = []
    for number in range(options.rounds * MOST_ROUNDS):
        samples += one_round(number, suite, options.servers, measure)
        agreed = all(each.valid for each in agreements_of(suite, options.servers, samples))
        if number + 1 >= options.rounds and agreed:
            break
    return samples


def standing_measure(suite: Suite, place: Place, servers: tuple[str, ...], stack: ExitStack) -> Measure:
    """Start all servers, warm them up, and return what measures one of them."""
    meter = suite.standing
    assert meter is not None
    running: dict[str, Running] = {}
    warm = replace(place, seconds=WARM_UP_SECONDS)
    for name in servers:
        running[name] = stack.enter_context(
            started(SERVERS[name], place.app, place.core, place.directory, python=place.python)
        )
        for case in suite.cases:
            running[name].wait_until_ready(case)
            meter(running[name], case, warm)
    return lambda name, case: meter(running[name], case, place)


def fresh_measure(suite: Suite, place: Place, servers: tuple[str, ...]) -> Measure:
    """Return what starts and measures one server; each was started once before, for bytecode and page cache."""
    meter = suite.fresh
    assert meter is not None
    for name in servers:
        with started(SERVERS[name], place.app, place.core, place.directory, python=place.python) as running:
            running.wait_until_ready(suite.cases[0])
    return lambda name, case: meter(SERVERS[name], case, place)


def run_suite(suite: Suite, options: Options) -> Result:
    for package in (*suite.packages, *(SERVERS[name].package for name in options.servers)):
        require_package(package)
    for program in suite.programs:
        require_program(program)
    if not options.servers:
        raise BenchError("no server to measure")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="obsserve-bench-")))
        place = Place(suite.app, options.core, options.seconds, directory, options.python)
        if suite.standing is not None:
            measure = standing_measure(suite, place, options.servers, stack)
        else:
            measure = fresh_measure(suite, place, options.servers)
        samples = measure_rounds(suite, options, measure)
    return Result(
        suite,
        options,
        samples,
        agreements_of(suite, options.servers, samples),
        judgements_of(suite, options.servers, samples),
    )
