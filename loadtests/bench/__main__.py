"""The command line: ``python -m loadtests.bench hello --rounds 9 --seconds 2 --json hello.json``."""

import argparse
import contextlib
import fcntl
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from .profile import profile
from .report import json_of, text_of
from .run import Options, run_suite, say
from .servers import SERVERS, BenchError
from .suites import METRICS_LOG, SUITES, Suite

PROFILE = "profile"


def parser() -> argparse.ArgumentParser:
    suites = "\n".join(f"  {suite.name:13} {suite.about}" for suite in SUITES.values())
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description="Compare servers on one core, with the load generator on another.",
        epilog=f"suites:\n{suites}\n  {'all':13} every suite\n  {PROFILE:13} cProfile of one server: "
        f"profile [suite] --servers name\n\nservers:\n  {' '.join(SERVERS)}\n\n"
        "exit code: 0 every gate met, 1 a gate missed, 2 wrong usage or a part is missing, "
        "3 the run cannot tell\n(A/A pair disagrees, a quantity was not measured, wrong answers)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("suites", nargs="+", metavar="suite", choices=[*SUITES, "all", PROFILE])
    made.add_argument(
        "--rounds", type=positive, help="at least that many; up to three times while A/A disagrees"
    )
    made.add_argument(
        "--seconds",
        type=duration,
        help="of each slice; many short ones tell more than few long ones where the machine is not quiet",
    )
    made.add_argument("--servers", type=names, help="these only, separated by commas")
    made.add_argument(
        "--also", type=names, default=(), help="these besides the suite's own, such as uvicorn-log"
    )
    made.add_argument(
        "--python", default=sys.executable, metavar="FILE", help="the servers' interpreter, if not this one"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write all samples and verdicts there")
    made.add_argument("--markdown", action="store_true", help="print Markdown, for docs/performance.md")
    return made


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def duration(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 600:
        raise argparse.ArgumentTypeError("must be 0.1 to 600")
    return number


def names(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    for name in found:
        if name not in SERVERS:
            raise argparse.ArgumentTypeError(f"no server is named {name!r}: {', '.join(SERVERS)}")
    return found


def take_cores() -> int:
    """Move the harness and its generators to one core, and return another one for the servers."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("two cores are needed: one for the servers, one for the load generator")
    os.sched_setaffinity(0, {cores[-1]})
    return cores[0]


@contextlib.contextmanager
def only_run() -> Iterator[None]:
    """Wait until no other run measures on this machine: two at once measure each other."""
    with (Path(tempfile.gettempdir()) / "obsserve-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def leave(number: int, _: FrameType | None) -> None:
    """Let a termination unwind, so that the servers are ended."""
    raise SystemExit(128 + number)


def options_for(suite: Suite, arguments: argparse.Namespace, core: int) -> Options:
    servers = tuple(dict.fromkeys([*(arguments.servers or suite.servers), *arguments.also]))
    return Options(
        servers, arguments.rounds or suite.rounds, arguments.seconds or suite.seconds, core, arguments.python
    )


def run(arguments: argparse.Namespace) -> int:
    core = take_cores()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    chosen = list(SUITES) if "all" in arguments.suites else arguments.suites
    if PROFILE in chosen:
        suite = SUITES[next((name for name in chosen if name != PROFILE), "hello")]
        for name in arguments.servers or (METRICS_LOG,):
            profile(name, suite, core, arguments.seconds or suite.seconds)
        return 0
    results = []
    for name in chosen:
        result = run_suite(SUITES[name], options_for(SUITES[name], arguments, core))
        print(text_of(result, as_markdown=arguments.markdown), flush=True)
        results.append(result)
        if arguments.json:
            arguments.json.write_text(json.dumps([json_of(each) for each in results], indent=1) + "\n")
    codes = {result.exit_code for result in results}
    return 1 if 1 in codes else max(codes)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, leave)
    try:
        with only_run():
            return run(arguments)
    except BenchError as error:
        say(f"bench: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
