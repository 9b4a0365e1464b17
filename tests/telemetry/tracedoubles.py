"""Exchanges, connections, sessions and a clock to trace."""

import contextvars
from itertools import count
from types import SimpleNamespace

from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import outcome_of

_serial = count(1)
OFFSET = 1_700_000_000.25


class Double(SimpleNamespace):
    __hash__ = object.__hash__


def connection(**facts):
    ordinary = {"id": "c0ffee-1", "listener": "main", "peer": ("127.0.0.1", 50000), "tls_protocol": None}
    return Double(**ordinary | {"serial": next(_serial)} | facts)


class Exchange:
    """An ordinary exchange, but for what is given; with slots and properties as dear as the real ones."""

    def __init__(self, **facts):
        self.__dict__.update(
            connection=connection(), connection_request=1, request_id="0af7651916cd43dd8448eb211c80319c",
            method="GET", raw_path=b"/items/7", query_string=b"", http_version="1.1", scheme="http",
            client=("127.0.0.1", 50000), forwarded_trusted=None, request_headers=[(b"host", b"example.org:8000")],
            response_headers=[(b"content-type", b"text/plain")], scope={"type": "http"}, route="/items/{id}",
            status=200, ending=catalogue.COMPLETE, error_type=None, exception=None, app_protocol_error=None,
            response_origin="app", disconnect_phase=None, flags=[], bound=None, pipelined=False,
            request_body_size=0, response_body_size=12, request_size=40, response_size=120, began=100.0,
            head_done=100.0001, app_started=100.0002, body_done=100.0001, response_started=100.001, first_byte=100.0012,
            ended=100.0015, write_blocked=0.0, trace=None, context=contextvars.Context(), forwarded_client=None,
            forwarded_scheme=None, websocket=False,
        )  # fmt: skip
        self.__dict__.update(facts)
        if "fields" not in facts:
            self.fields = dict(self.request_headers)
        self.parts = Double(raw_path=self.raw_path, query_string=self.query_string) if self.method else None
        if "outcome" not in facts:
            self.outcome = outcome_of(self.ending, self.status)
        if "ordinary" not in facts:
            self.ordinary = (
                self.ending is catalogue.COMPLETE and self.status is not None and self.status < 500
                and self.response_origin == "app" and self.error_type is None and self.http_version == "1.1"
                and bool(self.head_done and self.app_started and self.first_byte) and not self.write_blocked
                and not self.flags and not self.pipelined and not self.websocket
            )  # fmt: skip


def with_headers(*headers, **facts):
    return Exchange(request_headers=[(b"host", b"example.org"), *headers], **facts)


class Clock:
    offset = OFFSET


class Lag:
    value = 0.0005

    def max_between(self, t0, t1):
        return self.value


def session(handshake, **facts):
    ordinary = {
        **{"exchange": handshake, "route": "/ws", "opened_at": 101.0, "closed_at": 102.5, "close_code": 1000},
        **{"close_initiator": "client", "error_type": None, "exception": None, "messages_received": 3},
        **{"messages_sent": 2, "bytes_received": 30, "bytes_sent": 20},
    }
    return SimpleNamespace(**ordinary | facts)


def put(queue, span):
    """Put a span into a queue as the observer does."""
    if len(queue.spans) >= queue.room:
        queue.refuse()
        return
    queue.spans.append(span)
    if len(queue.spans) >= queue.wake_at:
        queue.wake_sender()


class Figures:
    """Reads back what has been counted."""

    def __init__(self, region):
        self._reader = region.reader()

    def __call__(self, metric, *labels):
        return sum(
            row.values[0] for row in self._reader.rows() if (row.metric, row.labels) == (metric.name, labels)
        )

    def histogram_count(self, metric, *labels):
        size = len(metric.buckets) + 1
        rows = [row for row in self._reader.rows() if (row.metric, row.labels) == (metric.name, labels)]
        return sum(sum(row.values[:size]) for row in rows)
