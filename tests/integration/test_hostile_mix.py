"""Under everything that clients, the application and the system can do, all signals count the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter

import httpx
import pytest
from conftest import parse_metrics, total, wait_for
from mix import CLIENTS, Mix
from test_workers import pids, ready

COUNT = "http_server_request_duration_seconds_count"
RECORDS = "obsserve_log_records_total"
WORKERS = 4
# A worker hands its lines over at least this often; what it had not is lost when it is killed.
HANDOVER = 0.1
# Those two are filtered and sampled, so that their lines cannot be compared one by one.
CHOSEN = {"/live/{rest}", "/sampled/{rest}"}
ENDINGS = {
    "LookupError", "app_no_response", "app_incomplete_response", "app_content_length_mismatch",
    "client_disconnected", "request_timeout", "response_timeout", "502", "concurrency_limit",
}  # fmt: skip


class Scraper(threading.Thread):
    """Scrapes all the time; remembers each counter that went down or away."""

    def __init__(self, server):
        super().__init__()
        self.scrapes = 0
        self.faults = []
        self._url = server.metrics_url
        self._over = threading.Event()

    def run(self):
        last = {}
        while not self._over.wait(0.05):
            now = {
                (name, tuple(sorted(labels.items()))): value
                for name, found in parse_metrics(httpx.get(self._url, timeout=10).text).items()
                if name.endswith(("_total", "_count", "_bucket", "_sum"))
                for labels, value in found
            }
            self.faults += [(key, was, now.get(key)) for key, was in last.items() if now.get(key, -1) < was]
            last = now
            self.scrapes += 1

    def __exit__(self, *_):
        self._over.set()
        self.join(30)

    def __enter__(self):
        self.start()
        return self


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

    found = wait_for(at_rest, "everything to come to rest", 30)
    time.sleep(0.3)  # a tick, for what is told to the counters then
    return server.metrics() if found else None


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


def kill_two(server, mix, count):
    """Kill two workers while the mix goes on; return when each was killed, by process id."""
    killed = {}

    def kill():
        for _ in range(2):
            time.sleep(1.0)
            victim = max(pids(server) - killed.keys())
            killed[victim] = time.time()
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: ready(server, WORKERS), "its replacement", 30)

    killer = threading.Thread(target=kill)
    killer.start()
    while killer.is_alive():
        asyncio.run(mix.run(count))
    killer.join()
    assert len(killed) == 2
    return killed


def bounded(server, tmp_path, mix, killed):
    """Nothing is lost but the last lines of the killed workers, and what they were doing."""
    samples = quiesced(server)
    counted, lines = by_metric(samples), read_lines(tmp_path)
    written = by_line(lines)
    missing = {
        at: count - written[at] for at, count in without_chosen(counted).items() if count != written[at]
    }
    assert min(missing.values(), default=0) >= 0, "a line without its count"
    assert not set(without_chosen(written)) - set(counted)
    # What clients were answered and no line tells of: by a killed worker, just before.
    ids = {line["request_id"] for line in lines}
    lag = max((value for _, value in samples.get("obsserve_event_loop_lag_max_seconds", [])), default=0.0)
    window = HANDOVER + lag + 0.25  # until this machine's client has seen the answer
    for answer in mix.answers:
        if answer.request_id not in ids and not answer.request.startswith(("GET /live", "GET /sampled")):
            # The server's own answers do not say which worker made them.
            kills = [killed[answer.pid]] if answer.pid in killed else [] if answer.pid else killed.values()
            assert any(at - window < answer.received < at + 1.0 for at in kills), answer
    # And no more than was over then.
    last = sum(1 for ended in mix.ended if any(at - window < ended < at + 1.0 for at in killed.values()))
    assert sum(missing.values()) <= last
    accounted = records(samples, "written", "sampled_out", "filtered", "dropped", "failed")
    sessions = total(samples, "obsserve_websocket_closes_total")
    assert 0 <= counted.total() + sessions - accounted <= last
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
        killed = kill_two(server, mix, count)
        bounded(server, tmp_path, mix, killed)
    assert not scraper.faults
    assert server.stop() == 0
