"""Under everything that clients, the application and the system can do, all signals count the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import pytest
from conftest import total, wait_for
from mix import CLIENTS, Mix
from scraper import Scraper
from test_workers import pids, ready

COUNT = "http_server_request_duration_seconds_count"
RECORDS = "obsserve_log_records_total"
BEAT = "obsserve_worker_last_heartbeat_timestamp_seconds"
WORKERS = 4
# A worker hands its lines over each time that its loop's pulse beats, this often; what it had not is lost when it
# is killed.
HANDOVER = 0.1
# The thread that writes them has its turn within this time, on a machine that has others to serve.
WRITING = 0.5
# A line's time is of the performance counter, and goes a little apart from the wall clock.
CLOCKS = 0.05
# Those two are filtered and sampled, so that their lines cannot be compared one by one.
CHOSEN = {"/live/{rest}", "/sampled/{rest}"}
ENDINGS = {
    "LookupError", "app_no_response", "app_incomplete_response", "app_content_length_mismatch",
    "client_disconnected", "request_timeout", "response_timeout", "502", "queue_full",
}  # fmt: skip


@pytest.fixture
def mixed(serve, tmp_path):
    """A server for the mix, whose collector is away."""

    def start():
        return serve(
            "mix_apps:app", "--port", "0", "--metrics-port", "0", "--workers", str(WORKERS),
            "--access-log-file", str(tmp_path / "access.log"), "--log-slow", "off",
            "--access-log-exclude", "/live/*", "--log-sample-path", "/sampled/*=0.3",
            "--timeout-request-header", "0.4", "--timeout-request-body", "0.4", "--timeout-request", "0.6",
            "--limit-request-body", "10000", "--limit-request-headers", "16384", "--limit-concurrency", "4",
            "--limit-queue", "2", "--timeout-queue", "0.05",
            "--otlp-endpoint", "http://127.0.0.1:9",
            environment={"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.2"},
        )  # fmt: skip

    return start


def quiesced(server):
    """The metrics, when nothing happens any more."""

    def at_rest():
        samples = server.metrics()
        busy = total(samples, "http_server_active_requests") + total(samples, "obsserve_connections_open")
        waiting = total(samples, "obsserve_log_queue_records")
        return samples if busy == waiting == 0 else None

    wait_for(at_rest, "everything to come to rest", 30)
    # One pulse more of each worker, for what is told to the counters then.
    rested = time.time()
    return wait_for(lambda: beats_since(server, rested + HANDOVER), "each worker's next pulse", 30)


def beats_since(server, moment):
    """The metrics, when the loop of each worker has turned since then."""
    samples = server.metrics()
    beats = [beat for _, beat in samples[BEAT]]
    return samples if len(beats) == WORKERS and min(beats) > moment else None


def key_of(route, status, error):
    return route or "", str(status or ""), error or ""


def by_metric(samples):
    counted = Counter()
    for labels, value in samples[COUNT]:
        at = key_of(labels["http_route"], labels["http_response_status_code"], labels["error_type"])
        counted[at] += int(value)
    return counted


def read_lines(tmp_path):
    text = (tmp_path / "access.log").read_bytes().decode("ascii")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def moment(timestamp):
    return datetime.fromisoformat(timestamp).timestamp()


def by_line(lines):
    return Counter(
        key_of(line["http_route"], line["http_response_status_code"], line.get("error_type"))
        for line in lines
        if line["event"] != "websocket.session"
    )


def without_chosen(counted):
    return {at: count for at, count in counted.items() if at[0] not in CHOSEN}


def records(samples, *results):
    return sum(total(samples, RECORDS, stream="access", result=result) for result in results)


def route_total(counted, route):
    return sum(count for at, count in counted.items() if at[0] == route)


def started_spans(samples):
    """Spans of exchanges, without those of sessions."""
    sessions = total(samples, "obsserve_websocket_closes_total")
    return total(samples, "otel_sdk_span_started_total") - sessions


def reconcile(server, tmp_path, mix):
    samples = quiesced(server)
    counted, lines = by_metric(samples), read_lines(tmp_path)
    written = by_line(lines)
    everything = counted.total()
    assert without_chosen(counted) == without_chosen(written)
    assert mix.sent - mix.resets <= everything <= mix.sent
    # Each exchange left a line, or its leaving none was decided.
    sessions = total(samples, "obsserve_websocket_closes_total")
    assert records(samples, "written") == len(lines)
    assert everything + sessions == records(
        samples, "written", "sampled_out", "filtered", "dropped", "failed"
    )
    assert records(samples, "filtered") == route_total(counted, "/live/{rest}")
    sampled = route_total(counted, "/sampled/{rest}")
    assert records(samples, "sampled_out") == sampled - route_total(written, "/sampled/{rest}")
    assert started_spans(samples) == everything
    # The mix was one.
    assert {at[2] for at in counted} >= ENDINGS
    phases = {labels["phase"] for labels, n in samples["obsserve_http_client_disconnects_total"] if n}
    assert phases == {"request_body", "waiting", "response", "stream"}
    reasons = {labels["reason"] for labels, n in samples["obsserve_http_protocol_errors_total"] if n}
    assert reasons >= {
        "bad_request_line", "bad_header", "bad_host", "bad_chunk", "te_cl_conflict", "header_timeout",
        "body_timeout", "body_too_large", "uri_too_long", "header_too_large", "unsupported_version",
    }  # fmt: skip
    ids = {line["request_id"] for line in lines}
    assert len(ids) == written.total()


@dataclass
class Kill:
    """A worker's end.

    Attributes:
        pid: whose.
        at: when it was killed.
        beat: when its loop had last turned, or earlier. It hangs behind where the machine gives it no time.
    """

    pid: int
    at: float
    beat: float

    def explains(self, span):
        """Whether this may be lost: it was begun before the end, and was not over long before it."""
        return span.began < self.at and span.ended > self.beat - HANDOVER - WRITING


def kill_one(server, mix):
    """Kill the youngest worker while it answers."""
    victim = max(pids(server))
    wait_for(lambda: sum(answer.pid == victim for answer in list(mix.answers)) > 10, "its answers", 60)
    samples = server.metrics()
    (slot,) = (labels["worker"] for labels, pid in samples["obsserve_worker_pid"] if pid == victim)
    (beat,) = (beat for labels, beat in samples[BEAT] if labels["worker"] == slot)
    kill = Kill(victim, time.time(), beat)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: ready(server, WORKERS) and victim not in pids(server), "its replacement", 60)
    return kill


def kill_two(server, mix, count):
    """Kill two workers while the mix goes on; return how."""
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(lambda: [kill_one(server, mix) for _ in range(2)])
        while not killer.done():
            asyncio.run(mix.run(count))
        return killer.result()


def bounded(server, tmp_path, mix, kills):
    """Nothing is lost but the last lines of the killed workers, and what they were doing."""
    samples = quiesced(server)
    counted, lines = by_metric(samples), read_lines(tmp_path)
    written = by_line(lines)
    missing = {
        at: count - written[at] for at, count in without_chosen(counted).items() if count != written[at]
    }
    assert min(missing.values(), default=0) >= 0, "a line without its count"
    assert not set(without_chosen(written)) - set(counted)
    # What clients were answered and no line tells of: by a killed worker, just before, and after all that it told.
    ids = {line["request_id"] for line in lines}
    told = defaultdict(float)
    for line in lines:
        told[line["process_pid"]] = max(told[line["process_pid"]], moment(line["timestamp"]))
    for answer in mix.answers:
        if answer.request_id not in ids and not answer.request.startswith(("GET /live", "GET /sampled")):
            # The server's own answers do not say which worker made them.
            by = [kill for kill in kills if answer.pid in (0, kill.pid) and kill.explains(answer.span)]
            assert any(answer.span.ended > told[kill.pid] - CLOCKS for kill in by), (answer, kills, told)
    # And no more than was over then.
    last = sum(any(kill.explains(span) for kill in kills) for span in mix.exchanges)
    assert sum(missing.values()) <= last
    accounted = records(samples, "written", "sampled_out", "filtered", "dropped", "failed")
    sessions = total(samples, "obsserve_websocket_closes_total")
    last_sessions = sum(any(kill.explains(span) for kill in kills) for span in mix.sessions)
    assert 0 <= counted.total() + sessions - accounted <= last + last_sessions
    # A span begins with its request: those of requests that a kill cut off have no end.
    cut = started_spans(samples) - counted.total()
    assert 0 <= cut <= 2 * CLIENTS


@pytest.mark.parametrize("count", [400, pytest.param(6000, marks=pytest.mark.full)])
def test_all_signals_count_the_same(mixed, tmp_path, count):
    server = mixed()
    mix = Mix(server.url)
    with Scraper(server) as scraper:
        asyncio.run(mix.run(count))
        reconcile(server, tmp_path, mix)
    assert scraper.scrapes > 5
    assert not scraper.faults
    assert server.stop() == 0


@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.full)])
def test_kills_lose_no_more_than_the_last_moment(mixed, tmp_path, count):
    server = mixed()
    mix = Mix(server.url, seed=2)
    with Scraper(server) as scraper:
        kills = kill_two(server, mix, count)
        bounded(server, tmp_path, mix, kills)
    assert not scraper.faults
    assert server.stop() == 0
