"""What telemetry costs is published for each signal, and only where there is one."""

from __future__ import annotations

import threading

import httpx
import pytest
from conftest import total, wait_for

SECONDS = "obsserve_telemetry_self_seconds_total"


def load(server, seconds=1.5):
    stop = threading.Event()
    threading.Timer(seconds, stop.set).start()
    with httpx.Client() as client:
        count = 0
        while not stop.is_set():
            client.get(server.url)
            count += 1
    return count


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        (["--otlp-endpoint", "http://127.0.0.1:9"], {"metrics", "access_log", "tracing"}),
        (["--workers", "2"], {"metrics", "access_log"}),
        (["--no-access-log"], {"metrics"}),
    ],
)
def test_every_signal_that_is_on_has_its_cost(serve, options, signals):
    server = serve("apps:plain", "--port", "0", "--metrics-port", "0", *options)
    count = load(server)
    wait_for(
        lambda: total(server.metrics(), "http_server_request_duration_seconds_count") == count, "all counted"
    )
    samples = server.metrics()
    costs = {labels["signal"]: value for labels, value in samples[SECONDS]}
    assert set(costs) == {"metrics", "access_log", "tracing"}
    cpu = total(samples, "process_cpu_seconds_total")
    for signal, seconds in costs.items():
        if signal in signals:
            # Tens of nanoseconds at least, and no more than all that was done.
            assert count * 50e-9 < seconds < cpu, signal
        else:
            assert seconds < 0.01, signal  # the look at what is not there
