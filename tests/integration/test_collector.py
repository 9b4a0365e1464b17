"""A collector that is away, hangs, refuses or flaps, under load: requests do not notice, and no span is lost uncounted.

Two servers take turns in slices: one exports to the collector, the other does not trace. Their latencies are
compared within the run, because a busy machine slows both.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles

import pytest
from conftest import total, wait_for

from obsserve.testing_otlp import Answer, OTLPSink

REQUESTS, SLICES, CONNECTIONS = 4800, 10, 8
EXIT_SECONDS = 5  # the graceful shutdown; nothing is running, so that only the last export can take time
FEW = 16 << 20  # bytes: far more than a full queue and a batch in flight, far less than what leaks

STARTED = "otel_sdk_span_started_total"
PROCESSED = "otel_sdk_processor_span_processed_total"
EXPORTED = "otel_sdk_exporter_span_exported_total"
WAITING = "otel_sdk_processor_span_queue_size"
INFLIGHT = "otel_sdk_exporter_span_inflight"

REFUSALS = {
    "grpc": {"unavailable": Answer("UNAVAILABLE"), "invalid": Answer("INVALID_ARGUMENT")},
    "http/protobuf": {"unavailable": Answer(503, retry_after=1), "invalid": Answer(400)},
}
WORDS = {
    "grpc": {"UNAVAILABLE", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"},
    "http/protobuf": {"503", "400"},
}


@contextmanager
def collector(protocol, behaviour):
    """The endpoint of such a collector, and the sink that it is, if there is one."""
    with ExitStack() as stack:
        if behaviour == "absent":
            nobody = stack.enter_context(socket.socket())
            nobody.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
            yield f"http://127.0.0.1:{nobody.getsockname()[1]}", None
            return
        sink = stack.enter_context(OTLPSink(protocol))
        if behaviour == "hanging":
            sink.answer = Answer(hang=True)
        elif behaviour == "flapping":
            sink.answers.extend([REFUSALS[protocol]["invalid"], Answer()] * 100)
        elif behaviour != "well":
            sink.answer = REFUSALS[protocol][behaviour]
        yield sink.endpoint, sink


async def slice_of(server, count):
    """Send that many requests over a few connections; return how long each took."""
    host, port = server.url.removeprefix("http://").split(":")
    seconds = []

    async def talk():
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(count // CONNECTIONS):
            asked = time.perf_counter()
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(13)
            seconds.append(time.perf_counter() - asked)
            assert head.startswith(b"HTTP/1.1 200 ")
        writer.close()

    await asyncio.gather(*[talk() for _ in range(CONNECTIONS)])
    return seconds


def books(samples):
    """Where the spans are, by the server's own figures."""
    exported = {labels["error_type"]: value for labels, value in samples.get(EXPORTED, [])}
    return {
        "started": total(samples, STARTED, otel_span_sampling_result="RECORD_AND_SAMPLE"),
        "exported": exported.pop("", 0),
        "failed": sum(exported.values()),
        "errors": {error for error, value in exported.items() if value},
        "dropped": total(samples, PROCESSED, error_type="queue_full"),
        "waiting": total(samples, WAITING) + total(samples, INFLIGHT),
    }


def balanced(server):
    """The books, once each span is somewhere: the queue's figure is published ten times a second."""
    found = books(server.metrics())
    parts = found["exported"] + found["failed"] + found["dropped"] + found["waiting"]
    return found if parts == found["started"] else None


@pytest.mark.parametrize("behaviour", ["well", "absent", "hanging", "unavailable", "invalid", "flapping"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_requests_do_not_notice(serve, protocol, behaviour):
    arguments = (
        "apps:plain", "--port", "0", "--metrics-port", "0", "--no-access-log",
        "--timeout-graceful-shutdown", str(EXIT_SECONDS),
    )  # fmt: skip
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with collector(protocol, behaviour) as (endpoint, sink):
        plain = serve(*arguments)
        traced = serve(
            *arguments, "--otlp-endpoint", endpoint, "--otlp-protocol", protocol, environment=environment
        )
        seconds = {plain: [], traced: []}
        resident = []

        async def drive():
            for number in range(SLICES):
                for server in (plain, traced) if number % 2 else (traced, plain):
                    seconds[server] += await slice_of(server, REQUESTS // SLICES)
                resident.append(total(traced.metrics(), "process_resident_memory_bytes"))

        asyncio.run(drive())

        # No slower: at the median and in the tail, with the room that a busy machine needs.
        middle, tail = (
            {s: f(seconds[s]) for s in seconds} for f in (median, lambda t: quantiles(t, n=100)[-1])
        )
        assert middle[traced] < 2 * middle[plain] + 0.002
        assert tail[traced] < 3 * tail[plain] + 0.05

        # Flat: what the first half has filled is not outgrown by the second.
        assert resident[-1] - resident[SLICES // 2] < FEW

        found = wait_for(lambda: balanced(traced), "every span to be accounted for")
        assert found["started"] == REQUESTS
        if behaviour == "well":
            wait_for(lambda: len(sink.spans) == REQUESTS, "every span to arrive")
            assert (found["failed"], found["dropped"]) == (0, 0)
        elif behaviour == "flapping":
            assert found["exported"]
            assert found["failed"]
        else:
            assert found["exported"] == 0
            assert found["failed"] + found["dropped"] + found["waiting"] == REQUESTS
        if behaviour in ("unavailable", "invalid"):
            assert found["errors"] <= WORDS[protocol], "the collector's own word"

        began = time.monotonic()
        assert traced.stop() == 0
        assert time.monotonic() - began < EXIT_SECONDS + 3
        assert plain.stop() == 0
        if behaviour == "well":
            assert traced.events("telemetry.export_failed") == []
        if behaviour not in ("well", "flapping"):
            # Told once, and once more when the end left spans behind.
            assert 1 <= len(traced.events("telemetry.export_failed")) <= 2
        if sink is not None and behaviour in ("well", "flapping"):
            assert len(sink.spans) >= found["exported"], "what counts as exported has arrived"
            ids = {(span.trace_id, span.span_id) for span in sink.spans}
            assert len(ids) == len(sink.spans), "and has arrived once"
