"""WebSockets in the cells: handshakes by result, sessions, messages, closes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.sessionmetrics import SessionMetrics


class Session(SimpleNamespace):
    __hash__ = object.__hash__


def session(**facts):
    counts = dict.fromkeys(
        ("messages_received", "messages_sent", "bytes_received", "bytes_sent", "text_received", "text_sent",
         "text_bytes_received", "text_bytes_sent", "queued_messages"), 0,
    )  # fmt: skip
    ends = {"opened_at": 1.0, "closed_at": 3.0, "close_code": 1000, "close_initiator": "client"}
    return Session(**{"route": "/r", "ping_timed_out": False, **counts, **ends, **facts})


def handshake(status, ending):
    return SimpleNamespace(status=status, ending=ending, route="/r")


@pytest.fixture
def region():
    region = Cells.create(512)
    yield region
    region.close()


@pytest.fixture
def read(region):
    reader = region.reader()

    def values(metric, *labels):
        rows = [row for row in reader.rows() if row.metric == metric.name and row.labels == labels]
        return sum(row.values[0] for row in rows)

    yield values
    reader.close()


@pytest.mark.parametrize(
    ("status", "ending", "result"),
    [
        (101, catalogue.COMPLETE, "accepted"),
        (403, catalogue.COMPLETE, "denied"),
        (400, catalogue.BAD_UPGRADE, "bad_request"),
        (426, catalogue.UPGRADE_REQUIRED, "bad_request"),
        (503, catalogue.CONCURRENCY_LIMIT, "limit"),
        (500, catalogue.APP_EXCEPTION, "app_error"),
        (504, catalogue.RESPONSE_TIMEOUT, "timeout"),
        (None, catalogue.CLIENT_DISCONNECTED, "denied"),
    ],
)
def test_handshakes_by_result(region, read, status, ending, result):
    SessionMetrics(region).handshake_ended(handshake(status, ending))
    assert read(catalogue.WEBSOCKET_HANDSHAKES, result, "/r") == 1


def test_open_sessions_rise_and_fall(region, read):
    metrics = SessionMetrics(region)
    one, two = session(), session()
    metrics.session_started(one)
    metrics.session_started(two)
    assert read(catalogue.WEBSOCKET_OPEN, "/r") == 2
    metrics.session_ended(one)
    assert read(catalogue.WEBSOCKET_OPEN, "/r") == 1


def test_messages_are_counted_once_while_the_session_is_open_and_at_its_end(region, read):
    metrics = SessionMetrics(region)
    it = session()
    metrics.session_started(it)
    it.messages_received, it.text_received, it.bytes_received, it.text_bytes_received = 3, 1, 30, 10
    it.queued_messages = 2
    metrics.sample()
    metrics.sample()
    assert read(catalogue.WEBSOCKET_MESSAGES, "received", "text") == 1
    assert read(catalogue.WEBSOCKET_MESSAGES, "received", "binary") == 2
    assert read(catalogue.WEBSOCKET_MESSAGE_BYTES, "received", "binary") == 20
    assert read(catalogue.WEBSOCKET_QUEUED) == 2
    it.messages_sent, it.text_sent, it.bytes_sent, it.text_bytes_sent = 5, 5, 55, 55
    metrics.session_ended(it)
    metrics.sample()
    assert read(catalogue.WEBSOCKET_MESSAGES, "received", "binary") == 2
    assert read(catalogue.WEBSOCKET_MESSAGES, "sent", "text") == 5
    assert read(catalogue.WEBSOCKET_MESSAGE_BYTES, "sent", "text") == 55
    assert read(catalogue.WEBSOCKET_QUEUED) == 0


@pytest.mark.parametrize(
    ("code", "label"), [(1000, "1000"), (3001, "3xxx"), (4999, "4xxx"), (1004, "_OTHER")]
)
def test_close_codes_are_bounded(region, read, code, label):
    metrics = SessionMetrics(region)
    it = session(close_code=code, close_initiator="app")
    metrics.session_started(it)
    metrics.session_ended(it)
    assert read(catalogue.WEBSOCKET_CLOSES, label, "app") == 1


def test_routes_are_bounded(region, read):
    metrics = SessionMetrics(region)
    for number in range(catalogue.WEBSOCKET_ROUTE_LIMIT + 10):
        metrics.session_started(session(route=f"/{number}"))
    assert read(catalogue.WEBSOCKET_OPEN, "_OTHER") == 10


def test_pings(region, read):
    metrics = SessionMetrics(region)
    metrics.ping_answered(0.002)
    it = session(ping_timed_out=True)
    metrics.session_started(it)
    metrics.session_ended(it)
    assert read(catalogue.WEBSOCKET_PING_TIMEOUTS) == 1
