"""Log lines of the application know their request: its ids, and its route as soon as it is known."""

import contextvars
import io
import json
import logging

import pytest
import structlog
from tracedoubles import Double, Exchange

from obsserve.telemetry.correlation import Correlation, CorrelatedLogRecord, current_exchange

TRACE = Double(trace_id_hex="0af7651916cd43dd8448eb211c80319c", span_id_hex="b7ad6b7169203331")
IDS = {"request_id": "r1", "trace_id": TRACE.trace_id_hex, "span_id": TRACE.span_id_hex}


def running(**facts):
    return Exchange(**{"request_id": "r1", "trace": TRACE, "route": "", "present_route": ""} | facts)


@pytest.fixture(autouse=True)
def as_before():
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def in_request(exchange, call, *, bind_structlog=False):
    logging.setLogRecordFactory(logging.LogRecord)
    observer = Correlation(bind_structlog=bind_structlog)

    def run():
        observer.exchange_running(exchange)
        return call()

    return contextvars.Context().run(run)


def a_record(**extra):
    record = logging.getLogger("shop").makeRecord("shop", logging.INFO, "f", 1, "sold", (), None, extra=extra)
    record.getMessage()
    return record


class TestStandardLogging:
    def test_a_record_knows_its_request(self):
        record = in_request(running(present_route="/items/{id}"), a_record)
        assert {name: getattr(record, name) for name in IDS} == IDS
        assert record.http_route == "/items/{id}"

    def test_a_route_that_is_not_known_yet_is_left_out(self):
        assert not hasattr(in_request(running(), a_record), "http_route")

    def test_the_applications_own_fields_stay(self):
        record = in_request(
            running(present_route="/items/{id}"), lambda: a_record(http_route="mine", request_id="mine too")
        )
        assert (record.http_route, record.request_id) == ("mine", "mine too")

    def test_outside_a_request_there_is_nothing_to_say(self):
        assert current_exchange() is None
        logging.setLogRecordFactory(CorrelatedLogRecord)
        record = a_record()
        assert record.facts() == {}

    def test_an_applications_own_factory_stays(self):
        class Own(logging.LogRecord):
            pass

        logging.setLogRecordFactory(Own)
        Correlation(bind_structlog=False)
        assert logging.getLogRecordFactory() is Own


class TestStructlogOfTheApplication:
    """It configures structlog by itself, so only what is bound reaches its lines."""

    def line(self, exchange, renderer, later=None):
        written = io.StringIO()

        def call():
            structlog.configure(
                processors=[structlog.contextvars.merge_contextvars, renderer],
                logger_factory=structlog.PrintLoggerFactory(written),
            )
            if later is not None:
                exchange.present_route = later
            structlog.get_logger().info("sold", price=3)

        in_request(exchange, call, bind_structlog=True)
        return written.getvalue()

    def test_the_route_is_the_one_that_is_known_when_it_logs(self):
        line = self.line(running(), structlog.processors.JSONRenderer(), later="/items/{id}")
        assert json.loads(line) == {**IDS, "http_route": "/items/{id}", "event": "sold", "price": 3}

    def test_none_is_known(self):
        assert json.loads(self.line(running(), structlog.processors.JSONRenderer()))["http_route"] is None

    def test_other_renderers_show_it_as_text(self):
        line = self.line(running(present_route="/a"), structlog.processors.LogfmtRenderer())
        assert "http_route=/a" in line
        line = self.line(running(present_route="/a"), structlog.processors.KeyValueRenderer())
        assert "http_route='/a'" in line

    def test_what_the_lifespan_bound_belongs_to_no_request(self):
        def bind_before():
            structlog.contextvars.bind_contextvars(phase="startup")
            return self.line(running(), structlog.processors.JSONRenderer())

        assert "phase" not in json.loads(contextvars.Context().run(bind_before))
