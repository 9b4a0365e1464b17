"""How one slice of one server is measured: each meter returns the values of one sample."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from . import load, proc
from .failure import BenchError
from .servers import Case, Running, Server, started
from .sink import SpanCounter

BUSY = 0.9  # of its core, below which the generator and not the server was the limit
SETTLE_SECONDS = 0.2  # longer than the 0.1 s within which an access log is to be flushed
POLL_SECONDS = 0.05
LINES_SECONDS = 5.0
# Still for longer than the 0.2 s after which a batch is sent that is not full.
SPANS_SECONDS, SPANS_STILL_SECONDS = 10.0, 0.3
SIGMAS = 6
RATE = 5000  # requests a second
RATE_KEPT = 0.95  # of the rate, below which the latencies are of another load
SERIES, ROUTES = 5000, 150  # a route has 17 series of durations and 17 of times to the first byte
SCRAPES_KEPT = 0.8
AS_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}
WARM_CONNECTIONS, IDLE_CONNECTIONS = 100, 2000
COUNTED_CONNECTIONS, WARM_TURNS, COUNTED_TURNS = 16, 20, 100


@dataclass(frozen=True)
class Reading:
    values: Mapping[str, float]
    unusable: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a run takes place."""

    app: str
    core: int
    seconds: float
    directory: Path
    python: str = sys.executable  # of the servers


def unaccounted(what: str, found: float, requests: int, in_flight: int) -> list[str]:
    """Return what is wrong with a count that should equal the requests.

    The generator does not count what was in flight when it stopped; the server does.
    """
    if requests <= found <= requests + in_flight:
        return []
    return [f"{found:g} {what} for {requests} requests"]


def wait_for_lines(running: Running, expected: int) -> int:
    """Return the count of lines once it is reached and stays."""
    deadline = time.monotonic() + LINES_SECONDS
    count = running.count_lines()
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        before, count = count, running.count_lines()
        if count == before and count >= expected:
            break
    return count


def unaccounted_spans(found: int, requests: int, in_flight: int, share: float) -> list[str]:
    """Return what is wrong with the number of spans that the collector got; a sample of them is a random number."""
    if share == 1.0:
        return unaccounted("spans at the collector", found, requests, in_flight)
    expected = requests * share
    spread = SIGMAS * (expected * (1 - share)) ** 0.5 + in_flight
    return [] if abs(found - expected) <= spread else [f"{found} spans at the collector, not {expected:.0f}"]


def wait_for_spans(collector: SpanCounter, expected: float) -> int:
    """Return the count of spans once it is reached and stays."""
    deadline = time.monotonic() + SPANS_SECONDS
    count, since = collector.spans, time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        if collector.spans != count:
            count, since = collector.spans, time.monotonic()
        elif count >= expected and time.monotonic() - since > SPANS_STILL_SECONDS:
            break
    return count


def under_full_load(running: Running, case: Case, place: Place) -> Reading:
    """CPU of a request and requests a second, with as much load as the server takes."""
    server = running.server
    if server.logs_lines:
        running.forget_lines(place.seconds)
    counted = running.counted_requests() if server.counts_requests else 0
    spans = running.collector.spans if running.collector is not None else 0
    before = running.cpu_seconds()
    done = load.full_load(running, case, place.seconds)
    time.sleep(SETTLE_SECONDS)  # what a server does late, such as writing its log, is its work all the same
    cpu = running.cpu_seconds() - before
    running.check_alive()
    problems = list(done.problems)
    # Of a WebSocket's messages the generator itself has seen that each came back.
    if server.logs_lines and not case.message_bytes:
        lines = wait_for_lines(running, done.requests)
        problems += unaccounted("lines", lines, done.requests, case.in_flight)
    if server.counts_requests and not case.message_bytes:
        counted = running.counted_requests() - counted
        problems += unaccounted("requests in /metrics", counted, done.requests, case.in_flight)
    if running.collector is not None and not case.message_bytes:
        arrived = wait_for_spans(running.collector, spans + done.requests * server.sampled) - spans
        problems += unaccounted_spans(arrived, done.requests, case.in_flight, server.sampled)
    if problems:
        problems.append(f"its last words: {running.last_words()}")
    busy = cpu / done.seconds
    values = {"busy": busy}
    if done.requests:
        values |= {"cpu": cpu / done.requests * 1e6, "throughput": done.requests / done.seconds}
    return Reading(values, frozenset() if busy >= BUSY else frozenset({"throughput"}), tuple(problems))


def at_constant_rate(running: Running, case: Case, place: Place) -> Reading:
    """Latency at a rate far below saturation."""
    if running.server.logs_lines:
        running.forget_lines(place.seconds)
    measured = load.constant_rate(running, case, place.seconds, RATE, place.directory)
    running.check_alive()
    kept = measured.requests / (RATE * place.seconds)
    values = {"p50": measured.p50 * 1e3, "p99": measured.p99 * 1e3, "rate_kept": kept}
    unusable = frozenset() if kept >= RATE_KEPT else frozenset({"p50", "p99"})
    return Reading(values, unusable, measured.problems)


class Scraper:
    """Scrapes as a Prometheus does, so many times a second, while it is entered."""

    def __init__(self, running: Running, scrapes: int) -> None:
        self.scrapes = 0
        self._running = running
        self._interval = 1 / scrapes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0)):
            due += self._interval
            self._running.scraped(AS_PROMETHEUS)
            self.scrapes += 1


def while_scraped(running: Running, case: Case, place: Place) -> Reading:
    """Latency at a rate far below saturation, with many series, which the server may be scraped for meanwhile."""
    page = running.scraped().decode()
    if series_in(page) < SERIES:
        for number in range(ROUTES):
            running.probe(replace(case, path=f"/route-{number}"))
        page = running.scraped().decode()
    problems = [] if series_in(page) >= SERIES else [f"{series_in(page)} series, not {SERIES}"]
    scrapes = running.server.scrapes
    if not scrapes:
        reading = at_constant_rate(running, case, place)
    else:
        with Scraper(running, scrapes) as scraper:
            reading = at_constant_rate(running, case, place)
        if scraper.scrapes < SCRAPES_KEPT * scrapes * place.seconds:
            problems.append(f"{scraper.scrapes} scrapes in {place.seconds} s")
    return replace(reading, problems=(*reading.problems, *problems))


def series_in(page: str) -> int:
    """Return how many series a page of /metrics has."""
    return sum(bool(line) and not line.startswith("#") for line in page.splitlines())


def of_idle_connections(server: Server, case: Case, place: Place) -> Reading:
    """Memory of an idle keep-alive connection, in a process of its own: what was freed would be used again."""
    with ExitStack() as stack:
        running = stack.enter_context(
            started(server, place.app, place.core, place.directory, python=place.python)
        )
        running.wait_until_ready(case)
        stack.enter_context(load.idle_connections(running, case, WARM_CONNECTIONS))
        time.sleep(SETTLE_SECONDS)
        before = proc.private_dirty_bytes(running.pid)
        connections = stack.enter_context(load.idle_connections(running, case, IDLE_CONNECTIONS))
        time.sleep(SETTLE_SECONDS)
        grown = proc.private_dirty_bytes(running.pid) - before
        closed = sum(not load.still_open(connection) for connection in connections)
    problems = (f"{closed} connections did not stay open",) if closed else ()
    return Reading({"idle": grown / IDLE_CONNECTIONS}, problems=problems)


def of_startup(server: Server, case: Case, place: Place) -> Reading:
    """Time from the command to its first answer, and what of it the processor worked."""
    with started(server, place.app, place.core, place.directory, python=place.python) as running:
        running.wait_until_ready(case, poll_seconds=0.001)
        taken = time.monotonic() - running.began
        worked = proc.run_seconds(running.pid)
    return Reading({"startup": taken * 1e3, "startup-cpu": worked * 1e3})


def tell_callgrind(running: Running, command: str) -> None:
    done = subprocess.run(
        ["callgrind_control", *command.split(), str(running.pid)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or "OK" not in done.stdout:
        raise BenchError(f"callgrind_control {command}: {(done.stderr or done.stdout).strip()}")


def of_instructions(server: Server, case: Case, place: Place) -> Reading:
    """Instructions of a request outside the kernel: the one figure here that repeats, whatever else runs."""
    load.require_program("valgrind")
    name = server.name.rstrip("%")  # which valgrind would take for a format's
    profile = place.directory / f"{name}.callgrind"
    prefix = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={profile}"]
    with started(server, place.app, place.core, place.directory, prefix, python=place.python) as running:
        running.wait_until_ready(case, poll_seconds=0.5)
        # Several connections: what is done once for all that one turn of the event loop brings is shared.
        with load.idle_connections(running, case, COUNTED_CONNECTIONS) as connections:
            for _ in range(WARM_TURNS):
                load.request_on_all(connections, case)
            tell_callgrind(running, "-i on")
            load.request_on_all(connections, case)
            tell_callgrind(running, "-z")
            for _ in range(COUNTED_TURNS):
                load.request_on_all(connections, case)
            tell_callgrind(running, "-d")
    dumped = profile.with_name(profile.name + ".1").read_text()
    found = re.search(r"^(?:summary|totals): (\d+)", dumped, re.MULTILINE)
    if found is None:
        raise BenchError("callgrind dumped no total")
    return Reading({"instructions": int(found[1]) / (COUNTED_TURNS * COUNTED_CONNECTIONS)})
