"""A plug-in for Locust that tells both sides of a run: what the client saw, and what the server says of it.

Any locustfile gains it with ``locust -f loadtests/observe.py,mine.py --server-metrics URL``; the scenarios here
import it. It reads the server's metrics before, during and after; prints a line every few seconds and a verdict at
the end; compares what was sent with what was observed; and ends Locust with exit code 1 when a threshold is broken.

It owns this process's books (`OBSERVER.books`), and on the master, or where there is only one process, those of
the whole run. With `--processes` or `--master` and `--worker` the workers' books come with their reports.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
from pathlib import Path

import gevent
import locust
import locust.runners
from geventhttpclient.response import HTTPParseError
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadtests import report
from loadtests.access import account
from loadtests.annotations import Annotation
from loadtests.expectations import SCENARIOS
from loadtests.ledger import Ledger
from loadtests.scrape import Between, ScrapeError, read
from loadtests.shapes import Flat, Phases
from loadtests.story import Story, point
from loadtests.thresholds import MEASURES, Bound, judge

STOP_SECONDS = 10.0  # for a request that is under way when its user leaves
SETTLE_SECONDS = 10.0  # for the server to end what it has begun
RESULT_LINES = 5


class Observer:
    def __init__(self):
        self.books = Ledger()  # of this process, since they were last handed over
        self.fresh = Ledger()  # of the run, since the last line
        self.total = Ledger()  # of the run
        self.facts = {}  # what a scenario found out besides
        self.users = {}  # of each worker, as last reported
        self.marks = []  # what was done to the server
        self.concluders = []  # called with the story before it is judged
        self.timeline = []
        self.progress_seconds = 2.0  # a scenario may want more lines
        self.options = None
        self.environment = None
        self.first = self.last = None  # readings of the server's metrics
        self.began = 0.0
        self.annotation = None
        self.ticker = None

    # --- what users need ---------------------------------------------------------------------

    @property
    def user_agent(self):
        return f"obsserve-loadtest (synthetic; run {self.run_id}) locust/{locust.__version__}"

    @property
    def run_id(self):
        return self.options.run_id

    def trace(self):
        """Return a trace id of this run, and the traceparent that carries it."""
        trace_id = self.run_id + secrets.token_hex(16)[len(self.run_id) :]
        sampled = random.random() < self.options.sample_ratio
        return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-{sampled:02x}"

    # --- Locust's events ---------------------------------------------------------------------

    def add_options(self, parser):
        group = parser.add_argument_group("obsserve", "Both sides of the story")
        group.add_argument("--server-metrics", metavar="URL", help="The server's /metrics.")
        group.add_argument(
            "--scenario", default="", help="Whose thresholds hold; else that of the file's name."
        )
        group.add_argument(
            "--slo",
            action="append",
            default=[],
            metavar="MEASURE<=VALUE",
            help=f"A threshold, also with >= or =; replaces the scenario's. Measures: {', '.join(MEASURES)}.",
        )
        group.add_argument(
            "--report", metavar="DIRECTORY", help="Write SCENARIO.html and SCENARIO.json there."
        )
        group.add_argument(
            "--progress-seconds", type=float, default=self.progress_seconds, help="Between two lines."
        )
        group.add_argument(
            "--shared-server", action="store_true", help="Others use the server too: do not compare counts."
        )
        group.add_argument(
            "--access-log-file", metavar="FILE", help="The server's access log, in JSON lines."
        )
        group.add_argument(
            "--server-pid", type=int, help="The server's main process; scenarios that hurt it ask for it."
        )
        group.add_argument("--collector-pid", type=int, help="The collector that `chaos` stops.")
        group.add_argument(
            "--grafana-url", metavar="URL", help="Mark the run there; the token is in GRAFANA_TOKEN."
        )
        group.add_argument(
            "--sample-ratio", type=float, default=0.01, help="Which share of the traces is sampled."
        )
        group.add_argument(
            "--run-id",
            default=secrets.token_hex(4),
            metavar="HEX",
            help="What the run's trace ids begin with.",
        )

    def initialise(self, environment, runner, **_):
        self.environment, self.options = environment, environment.parsed_options
        environment.stop_timeout = max(environment.stop_timeout or 0.0, STOP_SECONDS)
        locust.runners.WORKER_REPORT_INTERVAL = self.options.progress_seconds / 2
        if isinstance(runner, WorkerRunner):
            environment.events.report_to_master.add_listener(self.report)
            return
        self.slo = self.thresholds()
        if isinstance(environment.shape_class, Phases):
            environment.shape_class.scale(self.options.num_users, self.options.run_time)
        elif environment.shape_class is None and self.options.run_time:
            # Locust's own end gives its workers half a second for their last report.
            users, spawn_rate = self.options.num_users or 1, self.options.spawn_rate or 1
            environment.shape_class = Flat(users, spawn_rate, self.options.run_time)
            environment.shape_class.runner = runner
        if isinstance(environment.shape_class, Phases):
            environment.shape_class.is_quiet = self.is_quiet
        if isinstance(runner, MasterRunner):
            environment.events.worker_report.add_listener(self.reported)
        if self.options.server_metrics:
            try:
                read(self.options.server_metrics)
            except ScrapeError as error:
                give_up(f"{error}; is --server-metrics right, and the server up?")
        environment.events.test_start.add_listener(self.start)
        environment.events.quitting.add_listener(self.conclude)

    def thresholds(self):
        scenario = SCENARIOS.get(self.scenario)
        slo = dict(scenario.slo) if scenario else {}
        if self.options.shared_server:
            slo.pop("reconciled", None)
        if not self.options.access_log_file:
            slo.pop("log_disagreement", None)
        for text in self.options.slo:
            name, bound = parsed(text)
            slo[name] = bound
        if not self.options.server_metrics:  # the client's side is all there is
            slo = {name: bound for name, bound in slo.items() if not MEASURES[name].server}
        return slo

    @property
    def scenario(self):
        return self.options.scenario or Path(self.options.locustfile.split(",")[-1]).stem

    def requested(self, request_type, name, response_time, exception, context=None, response=None, **_):
        """Enter one request of this process."""
        context = context or {}
        status = context.get("status") or getattr(response, "status_code", 0) or 0
        self.books.record(
            f"{request_type} {name}",
            response_time / 1000,
            status,
            exception,
            cut=context.get("cut", False) or isinstance(exception, (OSError, HTTPParseError)),
            late=context.get("late", 0.0),
            trace_id=context.get("trace_id", ""),
            exchange=context.get("exchange", True),
        )

    def report(self, client_id, data):
        data["obsserve_users"] = self.environment.runner.user_count  # none: these are the last of the books
        data["obsserve"] = self.books.drain()

    def reported(self, client_id, data):
        if "obsserve" in data:
            self.fresh.merge(data["obsserve"])
            self.users[client_id] = data["obsserve_users"]

    def is_quiet(self):
        """Whether all users have gone, and what they did has been reported."""
        return not any(self.users.values()) and not self.environment.runner.user_count

    def start(self, environment, **_):
        if self.ticker is not None:
            return
        self.began, self.began_unix = time.monotonic(), time.time()
        self.first = self.last = self.reading()
        if self.options.grafana_url:
            token = os.environ.get("GRAFANA_TOKEN", "")
            self.annotation = Annotation(self.options.grafana_url, token, self.scenario)
            complain(
                self.annotation.begin(self.began_unix, f"Load test {self.scenario} of {environment.host}")
            )
        self.ticker = gevent.spawn(self.tick_for_ever)

    # --- while it runs -----------------------------------------------------------------------

    def reading(self):
        if not self.options.server_metrics:
            return None
        try:
            return read(self.options.server_metrics)
        except ScrapeError:
            return None

    def tick_for_ever(self):
        while True:
            time.sleep(self.options.progress_seconds)
            self.tick()

    def tick(self):
        now = time.monotonic() - self.began
        reading = self.reading()
        between = Between(self.last, reading) if self.last and reading else None
        self.last = reading or self.last
        self.fresh.merge(self.books.drain())
        since = self.timeline[-1].at if self.timeline else 0.0
        users = self.environment.runner.user_count
        self.timeline.append(point(now, now - since, users, self.fresh, between))
        self.total.merge(self.fresh.drain())
        print(report.progress(self.timeline[-1], server=bool(self.options.server_metrics)), flush=True)

    # --- when it is over ---------------------------------------------------------------------

    def settle(self):
        """Wait until the server has ended what it had begun."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            reading = self.reading()
            self.last = reading or self.last
            self.total.merge(self.books.drain())
            self.total.merge(self.fresh.drain())
            if reading is None or self.first is None:
                return
            if not reading.active and reading.observed - self.first.observed >= self.total.answered.total():
                return
            time.sleep(0.2)

    def conclude(self, environment, **_):
        if self.ticker is None:  # it never began
            return
        self.ticker.kill()
        seconds = time.monotonic() - self.began
        self.settle()
        between = Between(self.first, self.last) if self.first and self.last else None
        shape = environment.shape_class
        if isinstance(shape, Phases) and shape.over_at is not None:
            seconds = shape.over_at  # what came after was waiting for the last answers
        story = Story(
            self.scenario,
            environment.host or "",
            self.began_unix,
            seconds,
            self.total,
            self.timeline,
            between,
            self.lines(),
            self.facts,
            self.marks,
        )
        for conclude in self.concluders:
            conclude(story)
        findings = judge(story, self.slo)
        print(report.summary(story, findings), flush=True)
        if self.options.report:
            for path in report.write(Path(self.options.report), story, findings):
                print(f"report: {path}", flush=True)
        failed = any(not one.kept for one in findings)
        environment.process_exit_code = int(failed)
        if self.annotation is not None:
            verdict = "failed" if failed else "passed"
            complain(
                self.annotation.end(
                    time.time(), f"Load test {self.scenario} of {environment.host}: {verdict}"
                )
            )

    def lines(self):
        if not self.options.access_log_file:
            return None
        path = Path(self.options.access_log_file)
        found = None
        for _ in range(RESULT_LINES):  # the server writes them in its own time
            found = account(path, self.run_id, sent=self.total.sent, lost_traces=self.total.lost_traces)
            if not found["disagreement"]:
                break
            time.sleep(0.3)
        return found


def parsed(text):
    """Read a threshold of the command line."""
    for sign in ("<=", ">=", "="):
        name, found, value = text.partition(sign)
        if not found:
            continue
        if name not in MEASURES:
            give_up(f"--slo {text}: there is no measure {name}; there are {', '.join(MEASURES)}")
        try:
            number = float(value)
        except ValueError:
            give_up(f"--slo {text}: {value!r} is not a number")
        return name, Bound(None if sign == "<=" else number, None if sign == ">=" else number)
    return give_up(f"--slo {text}: write MEASURE<=VALUE, >= or =")


def give_up(message):
    print(f"loadtests: error: {message}", file=sys.stderr, flush=True)
    sys.exit(2)


def complain(problem):
    if problem:
        print(f"loadtests: warning: {problem}", file=sys.stderr, flush=True)


def install():
    """Listen to Locust, once in a process, whichever name this file was loaded by."""
    found = getattr(events, "obsserve", None)
    if found is None:
        found = events.obsserve = Observer()
        events.init_command_line_parser.add_listener(found.add_options)
        events.init.add_listener(found.initialise)
        events.request.add_listener(found.requested)
    return found


OBSERVER = install()
