"""A blocked loop, a full pipe: the operator still sees, and the service goes on."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time

import httpx
import pytest
from conftest import total, wait_for


def test_the_metrics_port_answers_while_the_application_blocks(serve):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0")
    blocker = threading.Thread(target=httpx.get, args=(f"{server.url}/block/5",), kwargs={"timeout": 20})
    before = time.monotonic()
    blocker.start()
    wait_for(
        lambda: total(server.metrics(), "http_server_active_requests") == 1, "the blocking request to begin"
    )
    slowest = 0.0
    while time.monotonic() - before < 4:
        for path in ("/metrics", "/livez"):
            asked = time.monotonic()
            assert httpx.get(server.admin_url + path, timeout=5).status_code == 200
            slowest = max(slowest, time.monotonic() - asked)
    assert blocker.is_alive(), "the application was not blocked while the metrics port was asked"
    blocker.join()
    assert slowest < 1
    (stall,) = wait_for(lambda: server.events("loop.stall"), "the stall to be logged")
    assert "time.sleep(seconds)" in stall["stack"]
    assert "/block/5" in stall["requests"][0]
    samples = server.metrics()
    assert total(samples, "obsserve_event_loop_stalls_total") == 1
    (line,) = server.access_lines(1)
    assert line["loop_lag_max_seconds"] > 4
    assert server.stop() == 0


def test_readiness_turns_when_the_loop_is_blocked_for_long(serve):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0", "--ready-max-stall", "0.5")
    assert httpx.get(f"{server.admin_url}/readyz").status_code == 200
    blocker = threading.Thread(target=httpx.get, args=(f"{server.url}/block/3",), kwargs={"timeout": 20})
    blocker.start()
    answer = wait_for(
        lambda: (found := httpx.get(f"{server.admin_url}/readyz")).status_code == 503 and found,
        "readyz to fail",
    )
    assert "unresponsive" in answer.text
    assert httpx.get(f"{server.admin_url}/livez").status_code == 200
    blocker.join()
    wait_for(lambda: httpx.get(f"{server.admin_url}/readyz").status_code == 200, "readyz to recover")


def test_a_full_pipe_loses_lines_and_nothing_else(serve):
    """20,000 requests while nobody reads stdout."""
    requests = 20_000
    reader, writer = os.pipe()
    try:
        server = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--log-buffer-bytes", "262144", stdout=writer
        )
        host, port = server.url.removeprefix("http://").split(":")

        async def drive(count):
            read, write = await asyncio.open_connection(host, int(port))
            request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
            slowest = 0.0
            for _ in range(count):
                asked = time.perf_counter()
                write.write(request)
                head = await read.readuntil(b"\r\n\r\n")
                await read.readexactly(13)
                assert head.startswith(b"HTTP/1.1 200 ")
                slowest = max(slowest, time.perf_counter() - asked)
            write.close()
            await write.wait_closed()
            return slowest

        async def drive_all():
            return max(await asyncio.gather(*[drive(requests // 8) for _ in range(8)]))

        assert asyncio.run(drive_all()) < 2

        def reconciled():
            samples = server.metrics()
            results = {
                result: total(samples, "obsserve_log_records_total", stream="access", result=result)
                for result in ("written", "dropped", "failed")
            }
            waiting = total(samples, "obsserve_log_queue_records")
            return results if sum(results.values()) + waiting == requests else None

        results = wait_for(reconciled, "every line to be accounted for")
        assert results["dropped"] > requests / 2
        assert total(server.metrics(), "http_server_request_duration_seconds_count") == requests
        assert server.stop() == 0
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_running_out_of_descriptors_is_survived_told_once_and_counted(serve, loop):
    arguments = ["--port", "0", "--metrics-port", "0", "--loop", loop, "--timeout-keep-alive", "60"]
    server = serve("exhausting_app:app", *arguments)
    host, port = server.url.removeprefix("http://").split(":")
    with httpx.Client(base_url=server.url, timeout=20) as kept:
        kept.get("/exhaust")
        metrics = tuple(server.metrics_url.removeprefix("http://").removesuffix("/metrics").split(":"))
        # The kernel takes them, the server cannot.
        with socket.create_connection((host, int(port)), 20), socket.create_connection(metrics, 20):
            wait_for(lambda: server.events("accept.failed"), "the report")
            assert kept.get("/").status_code == 200, "whoever is there is served"
            kept.get("/free")
    assert httpx.get(server.url, timeout=20).status_code == 200
    wait_for(lambda: server.events("accept.recovered"), "the all-clear")
    assert len(server.events("accept.failed")) == 1
    assert 1 <= total(server.metrics(), "obsserve_accept_errors_total", error="emfile") <= 10
    assert server.stop() == 0
    assert "Traceback" not in server.stderr_path.read_text()
    assert len(server.stderr_path.read_bytes()) < 20_000
