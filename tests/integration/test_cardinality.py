"""Whatever clients make up, series stay under their cap, nothing is lost, and memory does not grow."""

from __future__ import annotations

import asyncio
import random
import subprocess

import pytest
from conftest import total, wait_for

from obsserve.telemetry import catalogue

COUNT = "http_server_request_duration_seconds_count"
CAP = 400
PER_CONNECTION = 50
CONNECTIONS = 8


def word(rng):
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(5, 20)))


def request(rng, method, path):
    return (
        f"{method} {path}?{word(rng)}={word(rng)} HTTP/1.1\r\nHost: {word(rng)}.example\r\n"
        f"X-{word(rng)}: {word(rng)}\r\nUser-Agent: {word(rng)}\r\nX-Request-ID: {word(rng)}\r\n\r\n"
    ).encode()


def connection(rng):
    """What one client sends: requests that keep the connection, and one that does not, of each kind in turn."""
    known = [method for method in catalogue.KNOWN_METHODS if method not in ("CONNECT", "HEAD")]
    parts = [
        request(rng, rng.choice(known), f"/{rng.randint(200, 599)}/{word(rng)}")
        for _ in range(PER_CONNECTION - 1)
    ]
    last = rng.choice([(word(rng).upper(), "/200"), ("GET", f"/raise/{word(rng)}")])
    return b"".join(parts) + request(rng, *last).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


async def drive(address, requests, rng):
    host, port = address.removeprefix("http://").split(":")
    left = requests // PER_CONNECTION
    answered = 0

    async def client():
        nonlocal left, answered
        while left > 0:
            left -= 1
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(connection(rng))
            answers = await reader.read(-1)
            answered += answers.count(b"HTTP/1.1 ")
            writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return answered


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(30_000, id="30,000"),
        pytest.param(1_000_000, id="1,000,000", marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
    ],
)
def test_nothing_that_clients_make_up_becomes_more_series_than_allowed(serve, requests):
    server = serve(
        "cardinality_app:echo", "--port", "0", "--metrics-port", "0", "--metrics-max-series", str(CAP),
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    rng = random.Random(1)
    third = requests // 3 // PER_CONNECTION * PER_CONNECTION
    assert asyncio.run(drive(server.url, third, rng)) == third
    half_way = server.metrics()
    assert asyncio.run(drive(server.url, requests - third, rng)) == requests - third
    wait_for(lambda: total(server.metrics(), COUNT) == requests, "every request to be counted")
    samples = server.metrics()

    # Each label set of exchanges, the overflow set among them.
    assert len(samples[COUNT]) <= CAP + 1
    overflow = total(samples, COUNT, otel_metric_overflow="true")
    assert 0 < overflow < requests
    assert (
        total(samples, "obsserve_metrics_overflow_total", metric="http_server_request_duration_seconds")
        == overflow
    )
    values = {
        label: {labels.get(label, "") for labels, _ in samples[name]}
        for name, label in ((COUNT, "http_route"), (COUNT, "http_request_method"), (COUNT, "error_type"))
    }
    assert len(values["http_route"]) <= catalogue.ROUTE_LIMIT + 2
    assert values["http_request_method"] <= {*catalogue.KNOWN_METHODS, catalogue.OTHER, ""}
    exceptions = {labels["exception_type"] for labels, _ in samples["obsserve_http_app_exceptions_total"]}
    assert catalogue.EXCEPTION_TYPE_LIMIT < len(exceptions) <= catalogue.EXCEPTION_TYPE_LIMIT + 1
    assert catalogue.OTHER in exceptions
    # It was full after a third: what came after has added nothing.
    (series,) = (value for _, value in samples["obsserve_metrics_series"])
    (before,) = (value for _, value in half_way["obsserve_metrics_series"])
    assert series - before <= 20
    grown = total(samples, "process_resident_memory_bytes") - total(half_way, "process_resident_memory_bytes")
    assert grown < 16 * 1024 * 1024
