"""Run a scenario against the demo application: ``python -m loadtests steady``.

Starts the server with the options that the scenario asks for, on free ports of 127.0.0.1, runs Locust headless for a
bounded time, prints the verdict, and ends what it has started. Exit code 0: all thresholds were kept; 1: one was
broken, one line for each; 2: it could not run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from loadtests.expectations import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
START_SECONDS = 30.0
STOP_SECONDS = 30.0
LONGEST_SECONDS = 60.0  # of Locust, where no run time is given
SPARE_SECONDS = 60.0  # for its start and end, where one is


def fail(message: str) -> NoReturn:
    print(f"loadtests: error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    questions = "\n".join(f"  {name:<18} {one.question}" for name, one in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Run a load scenario against the demo application.",
        epilog=f"scenarios:\n{questions}\n\nAgainst a server of your own: docs/load-testing.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", choices=SCENARIOS, metavar="SCENARIO")
    parser.add_argument(
        "--app", default="obsserve.demo:app", help="the application to serve (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the server")
    parser.add_argument(
        "--server", action="append", default=[], metavar="OPTION", help="a further option of it"
    )
    parser.add_argument("--users", type=int, help="how many, at the highest")
    parser.add_argument("--run-time", help="how long, such as 30s or 10m, instead of the scenario's own time")
    parser.add_argument("--processes", type=int, default=1, help="of Locust: a master and so many workers")
    parser.add_argument(
        "--slo", action="append", default=[], metavar="MEASURE<=VALUE", help="replace a threshold"
    )
    parser.add_argument(
        "--report", default="loadtests-report", metavar="DIRECTORY", help="where the report goes"
    )
    parser.add_argument("--grafana-url", metavar="URL", help="mark the run there")
    return parser.parse_args(argv)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with the block: asked first, then not asked."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Server:
    """The server of a run; its access log and its own log are files that the report's figures come from."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.access_log, self.log = folder / "access.log", folder / "server.log"
        with self.access_log.open("wb") as out, self.log.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "obsserve", *command],
                stdout=out,
                stderr=err,
                env={**environment(), "LOADTESTS_FOLDER": str(folder)},  # for mutants that remember
            )

    def addresses(self) -> tuple[str, str]:
        """Return the URL that it serves and that of its metrics, once it serves."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            events = {}
            for text in self.log.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    record = json.loads(text)
                    events[record["event"]] = record
            if self.process.poll() is not None:
                fail(f"the server has ended with {self.process.returncode}:\n{self.log.read_text()}")
            if "server.start" in events and "metrics.start" in events:
                return events["server.start"]["address"], events["metrics.start"]["address"]
            time.sleep(0.05)
        fail(f"the server did not start within {START_SECONDS:.0f} s:\n{self.log.read_text()}")


class Collector:
    """A collector for the server's spans, in a process of its own so that it can be stopped."""

    def __init__(self) -> None:
        program = (
            "import time; from obsserve.testing_otlp import OTLPSink; sink = OTLPSink(); "
            "print(sink.endpoint, flush=True); time.sleep(3600)"
        )
        self.process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)

    def endpoint(self) -> str:
        """Return its URL, once it answers."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline().decode().strip()
        if not found:
            fail("the collector did not start: pip install 'obsserve[otlp]'")
        return found


def locust_command(given: argparse.Namespace, **values: object) -> list[str]:
    """Return Locust's command line for one process, the options of all of them."""
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "scenarios" / f"{given.scenario}.py")]
    command += ["--headless", "--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0"]
    for name, value in values.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    for one in given.slo:
        command += ["--slo", one]
    return command


def run(given: argparse.Namespace, folder: Path, stack: contextlib.ExitStack) -> int:
    scenario = SCENARIOS[given.scenario]
    command = [given.app, "--port", "0", "--metrics-port", "0", "--workers", str(given.workers)]
    command += ["--supervise", "--log-format", "json", *scenario.server]
    collector = None
    if scenario.collector:
        collector = Collector()
        stack.enter_context(ended(collector.process))
        command += ["--otlp-endpoint", collector.endpoint()]
    for one in given.server:
        command += one.split()
    server = Server(folder, command)
    stack.enter_context(ended(server.process))
    url, metrics = server.addresses()
    print(f"{given.scenario}: {scenario.question}\nserver: obsserve {' '.join(command)} at {url}", flush=True)

    distributed = ["--processes", str(given.processes)] if given.processes > 1 else []
    locust = locust_command(
        given,
        host=url,
        server_metrics=metrics,
        server_pid=server.process.pid,
        collector_pid=collector.process.pid if collector else None,
        access_log_file=server.access_log,
        report=given.report,
        json_file=folder / "locust",
        users=given.users,
        run_time=given.run_time,
        grafana_url=given.grafana_url,
        run_id=secrets.token_hex(4),
        sample_ratio=1.0 if scenario.collector else 0.01,
    )
    process = subprocess.Popen([*locust, *distributed], cwd=HERE.parent, env=environment())
    stack.enter_context(ended(process))
    try:
        code = process.wait(
            LONGEST_SECONDS if given.run_time is None else parse_seconds(given.run_time) + SPARE_SECONDS
        )
    except subprocess.TimeoutExpired:
        fail("Locust did not come to an end")
    if server.process.poll() is not None:
        print(f"BREACH  the server did not survive: it ended with {server.process.returncode}", flush=True)
        return 1
    server.process.send_signal(signal.SIGTERM)
    ending = server.process.wait(STOP_SECONDS)
    if ending != 0:
        print(f"BREACH  the server ended with {ending} instead of 0", flush=True)
        return 1
    return code


def environment() -> dict[str, str]:
    """Return the environment for Locust: this checkout can be imported."""
    path = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def parse_seconds(text: str) -> float:
    """Read a time as Locust does: 90, 30s, 10m, 1h30m."""
    total, number = 0.0, ""
    for character in text:
        if character.isdigit():
            number += character
        elif character in "hms" and number:
            total += int(number) * {"h": 3600, "m": 60, "s": 1}[character]
            number = ""
        else:
            fail(f"--run-time {text}: write it as 30s, 10m or 1h30m")
    return total + (int(number) if number else 0)


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="loadtests-") as name, contextlib.ExitStack() as stack:
        return run(given, Path(name), stack)


if __name__ == "__main__":
    sys.exit(main())
