"""Requests beyond the limits, on a real server: some wait for their turn, the rest is told to come back."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import flags_of, total, wait_for


def test_a_queue_serves_what_it_holds_and_refuses_the_rest(serve):
    server = serve(
        *("apps:fastapi", "--port", "0", "--metrics-port", "0"),
        *("--limit-concurrency", "1", "--limit-queue", "2", "--timeout-queue", "20"),
    )
    with ThreadPoolExecutor(3) as clients:
        asked = [clients.submit(httpx.get, f"{server.url}/sleep/2", timeout=30) for _ in range(3)]
        samples = wait_for(
            lambda: total(samples := server.metrics(), "obsserve_http_queued_requests") == 2 and samples,
            "two that wait",
        )
        assert total(samples, "obsserve_limit", limit="queue") == 2
        refused = httpx.get(f"{server.url}/items/1", timeout=10)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert [each.result().status_code for each in asked] == [200] * 3
    lines = server.access_lines(4)
    assert [line["http_response_status_code"] for line in lines] == [503, 200, 200, 200]
    assert (lines[0]["flags"], lines[0]["termination_detail"]) == (["QF"], "queue_full")
    waited = [line["queue_seconds"] for line in lines[1:]]
    assert waited[0] < 1.5 < waited[1] < waited[2]
    samples = wait_for(
        lambda: total(samples := server.metrics(), "obsserve_http_queued_requests") == 0 and samples,
        "an empty queue",
    )
    assert total(samples, "obsserve_http_rejected_requests_total", reason="queue_full") == 1
    assert total(samples, "http_server_request_duration_seconds_count") == 4
    assert server.stop() == 0


def test_who_has_waited_too_long_is_told_to_come_back(serve):
    server = serve(
        *("apps:fastapi", "--port", "0", "--metrics-port", "0"),
        *("--limit-concurrency", "1", "--limit-queue", "2", "--timeout-queue", "0.5"),
    )
    slow = threading.Thread(target=httpx.get, args=(f"{server.url}/sleep/4",), kwargs={"timeout": 20})
    slow.start()
    wait_for(lambda: total(server.metrics(), "http_server_active_requests") == 1, "a request in progress")
    assert httpx.get(f"{server.url}/items/1", timeout=10).status_code == 503
    slow.join(20)
    refused, _ = server.access_lines(2)
    assert (refused["termination_detail"], refused["error_type"]) == ("queue_timeout", "queue_full")
    assert 0.5 <= refused["duration_seconds"] < 3
    assert "queue_seconds" not in refused


def test_load_is_shed_while_the_loop_lags(serve):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0", "--limit-loop-lag", "0.5")
    assert httpx.get(f"{server.url}/items/1", timeout=10).status_code == 200
    httpx.get(f"{server.url}/block/1.5", timeout=20)
    wait_for(lambda: server.events("overload.enter"), "the server to shed")
    refused = wait_for(
        lambda: (answer := httpx.get(f"{server.url}/items/1", timeout=10)).status_code == 503 and answer,
        "a refusal",
        0.8,
    )
    assert refused.headers["retry-after"] == "1"
    wait_for(lambda: httpx.get(f"{server.url}/items/1", timeout=10).status_code == 200, "calm")
    (left,) = wait_for(lambda: server.events("overload.leave"), "a word about it")
    (entered,) = server.events("overload.enter")
    assert (entered["reason"], entered["level"], left["level"]) == ("loop_overload", "warning", "info")
    shed = [line for line in server.access_lines(4) if line["http_response_status_code"] == 503]
    assert {(line["outcome"], *flags_of(line)) for line in shed} == {("rejected", "OM")}
    rejected = total(server.metrics(), "obsserve_http_rejected_requests_total", reason="loop_overload")
    assert rejected == len(shed)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /proc that tells of memory")
def test_load_is_shed_while_memory_is_short(serve):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0", "--limit-memory", "1M")
    wait_for(lambda: server.events("overload.enter"), "the server to shed")
    assert httpx.get(f"{server.url}/items/1", timeout=10).status_code == 503
    (line,) = server.access_lines(1)
    assert (line["termination_detail"], flags_of(line)) == ("memory_overload", ["OM"])
    assert httpx.get(f"{server.admin_url}/livez", timeout=5).status_code == 200
