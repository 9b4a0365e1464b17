"""The process that carries metrics for one that forks: what arrives, how it ends, what happens when it is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

import pytest

from obsserve.telemetry.carrierprocess import ProcessCarrier
from obsserve.telemetry.metricexport import MetricExportConfiguration
from obsserve.telemetry.otlp_encode import RequestFrame, delimited
from obsserve.telemetry.spanfigures import Delivery
from obsserve.testing_otlp import Answer, OTLPSink
from tests.waiting import wait_for

FRAME = RequestFrame({"service.name": "shop"}, "obsserve", "1")


def metric(name):
    return delimited(b"\x0a", name.encode())


@pytest.fixture(params=["grpc", "http/protobuf"])
def sink(request, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with OTLPSink(request.param) as sink:
        yield sink


@pytest.fixture
def carrier(sink):
    endpoint = sink.endpoint + ("" if sink.protocol == "grpc" else "/v1/metrics")
    carrier = ProcessCarrier(
        MetricExportConfiguration(
            endpoint=endpoint,
            destination=endpoint,
            protocol=sink.protocol,
            service_name="shop",
            request_timeout=5.0,
        ),
        FRAME,
    )
    yield carrier.begin()
    carrier.shutdown()


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_arrives(sink, carrier):
    names = [f"metric.{n}" for n in range(3000)]
    assert carrier.deliver([metric(name * 40) for name in names], 7) == Delivery()  # more than a pipe holds
    assert [found.name for found in sink.metrics] == [name * 40 for name in names]
    assert carrier.deliver([metric("again")], 1) == Delivery()
    (resource,) = {
        part.resource.SerializeToString() for r in sink.metric_requests for part in r.resource_metrics
    }
    assert b"shop" in resource


def test_a_refusal_has_its_name(sink, carrier):
    sink.answer = Answer("INVALID_ARGUMENT") if sink.protocol == "grpc" else Answer(400)
    delivery = carrier.deliver([metric("one")], 1)
    assert delivery.error_type == ("INVALID_ARGUMENT" if sink.protocol == "grpc" else "400")
    assert sink.endpoint in delivery.message


def test_it_ends_when_it_is_told_and_by_no_signal_that_goes_to_all(carrier):
    pid = carrier._child.pid
    assert carrier.deliver([metric("one")], 1) == Delivery()  # it runs, and takes signals as it wants to
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(pid, sig)
    assert carrier.deliver([metric("two")], 1) == Delivery()
    carrier.shutdown()
    assert is_gone(pid)
    assert carrier.deliver([metric("late")], 1).error_type == "process_lost"


def test_it_is_started_anew_when_it_is_lost(sink, carrier):
    assert carrier.deliver([metric("one")], 1) == Delivery()
    os.kill(carrier._child.pid, signal.SIGKILL)
    lost = carrier.deliver([metric("two")], 1)
    assert lost.error_type == "process_lost"
    assert sink.endpoint in lost.message
    assert carrier.deliver([metric("three")], 1) == Delivery()
    assert [found.name for found in sink.metrics] == ["one", "three"]


def test_it_ends_with_the_one_that_pushes(carrier):
    pid = carrier._child.pid
    child = carrier._child
    child.stdin.close()  # as when that one is killed
    wait_for(lambda: child.poll() is not None, "its end")
    assert child.returncode == 0
    assert is_gone(pid)


def test_a_fork_lets_go_of_it(carrier):
    assert carrier.deliver([metric("one")], 1) == Delivery()
    pid, descriptors = carrier._child.pid, [carrier._child.stdin.fileno(), carrier._child.stdout.fileno()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which an arbiter does
        forked = os.fork()
    if not forked:
        carrier.abandon()
        closed = 0
        for descriptor in descriptors:
            try:
                os.fstat(descriptor)
            except OSError:
                closed += 1
        carrier.shutdown()
        os._exit(closed)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 2
    assert not is_gone(pid)
    assert carrier.deliver([metric("two")], 1) == Delivery()


@pytest.mark.parametrize("sink", ["grpc"], indirect=True)
def test_the_end_does_not_wait_for_a_collector_that_hangs(sink, carrier):
    assert carrier.deliver([metric("one")], 1) == Delivery()
    sink.answer = Answer(hang=True)
    began = time.monotonic()
    answers = []
    pushing = threading.Thread(target=lambda: answers.append(carrier.deliver([metric("two")], 1)))
    pushing.start()
    sink.wait_for_attempts(2)
    pid = carrier._child.pid
    carrier.shutdown()
    assert time.monotonic() - began < 5
    assert is_gone(pid)
    pushing.join(10)
    assert answers[0].error_type == "process_lost"


@pytest.mark.parametrize("sink", ["grpc"], indirect=True)
def test_an_exporter_that_cannot_be_made_is_told(carrier, sink, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "brotli")
    other = ProcessCarrier(carrier._configuration, FRAME).begin()
    delivery = other.deliver([metric("one")], 1)
    assert delivery.error_type
    assert "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION" in delivery.message
    other.shutdown()
