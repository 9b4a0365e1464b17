"""Access records for the handlers of the user, and the gate in front of the server's own line."""

import contextvars
import json
import logging
import logging.config
import threading
import time

import pytest
from fakes_access import CLOCK, LAG, T0, WALL, AccessSettings, Counted, View, exchange

from obsserve.telemetry.accesslog import AccessLog
from obsserve.telemetry.accessoutput import AccessOutput
from obsserve.telemetry.logformats import FormattedAccessLog
from obsserve.telemetry.logrecords import AccessGate, AccessRecords, record_arguments
from redactions import of_query
from tests.parts import package

LOGGER = logging.getLogger("obsserve.access")
KEEP = of_query("keep")


class Collect(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []
        self.threads = set()

    def emit(self, record):
        self.records.append(record)
        self.threads.add(threading.current_thread())


@pytest.fixture(autouse=True)
def logger():
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    yield LOGGER
    LOGGER.handlers.clear()
    LOGGER.filters.clear()
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.propagate = True
    LOGGER.disabled = False


@pytest.fixture
def collected(logger):
    handler = Collect()
    logger.addHandler(handler)
    return handler


def records(counters=None, **settings):
    return AccessRecords(AccessSettings(**settings), clock=CLOCK, lag=LAG, counters=counters)


def session(**facts):
    """A WebSocket that has closed."""
    ordinary = {
        **{"exchange": exchange(status=101, websocket=True), "route": "/chat", "exception": None},
        **{"opened_at": T0, "closed_at": T0 + 2, "close_code": 1001, "close_initiator": "client"},
        **{"messages_received": 1, "messages_sent": 2, "bytes_received": 3, "bytes_sent": 4},
    }
    return View(**ordinary | facts)


class TestArguments:
    def test_uvicorns_order(self):
        assert record_arguments(exchange(), KEEP) == (
            "192.0.2.7:40123", "GET", "/items/17?q=s3cr3t&page=2", "1.1", 200
        )  # fmt: skip

    def test_the_query_follows_its_policy(self):
        assert record_arguments(exchange(), of_query("drop"))[2] == "/items/17"
        assert record_arguments(exchange(query_string=b""), KEEP)[2] == "/items/17"

    @pytest.mark.parametrize(
        ("outcome", "status", "number"),
        [("ok", 204, 204), ("client_disconnected", None, 499), ("app_error", None, 0)],
    )
    def test_the_status_is_always_a_number(self, outcome, status, number):
        view = exchange(outcome=outcome, status=status)
        assert record_arguments(view, KEEP)[4] == number
        assert '%s - "%s %s HTTP/%s" %d' % record_arguments(view, KEEP)

    def test_what_could_not_be_read(self):
        view = exchange(client=None, method="", raw_path=b"", query_string=b"", http_version="", status=400)
        assert record_arguments(view, KEEP) == ("", "-", "-", "-", 400)

    def test_a_unix_socket_and_a_strange_path(self):
        view = exchange(client=("/run/s", None), raw_path=b"/\x1b[2J\xff", query_string=b"")
        assert record_arguments(view, KEEP)[::2] == ("/run/s", "/\\x1b[2J\\xff", 200)


class TestRecords:
    def test_one_for_each_exchange_and_never_on_the_loop(self, collected):
        log = records()
        log.exchange_ended(exchange())
        log.close(5.0)
        (record,) = collected.records
        assert record.getMessage() == '192.0.2.7:40123 - "GET /items/17?q=REDACTED&page=2 HTTP/1.1" 200'
        assert (record.name, record.levelname) == ("obsserve.access", "INFO")
        assert record.created == pytest.approx(WALL + 1.2345)
        assert record.msecs == 234
        assert collected.threads != {threading.current_thread()}

    def test_the_whole_record(self, collected):
        log = records()
        log.exchange_ended(exchange(status=503, outcome="server_error", response_origin="app"))
        log.close(5.0)
        values = collected.records[0].obsserve
        assert values["http_response_status_code"] == 503
        assert values["level"] == "error"
        assert values["duration_seconds"] == pytest.approx(1.2345)
        assert values["http_route"] == "/items/{id}"
        assert values["service_name"] == "shop"

    def test_a_websocket_that_has_closed(self, collected):
        log = records(log_query="keep")
        log.session_ended(session())
        log.close(5.0)
        (record,) = collected.records
        assert record.getMessage() == (
            '192.0.2.7:40123 - "WEBSOCKET /items/17?q=s3cr3t&page=2 HTTP/1.1" 1001'
        )
        assert record.obsserve["event"] == "websocket.session"
        assert record.obsserve["websocket_close_code"] == 1001

    def test_filters_and_handlers_see_the_requests_context(self, collected):
        correlation = contextvars.ContextVar("correlation", default=None)

        def add_id(record):
            record.correlation_id = correlation.get()
            return True

        LOGGER.addFilter(add_id)
        log = records()

        def serve(value):
            correlation.set(value)
            log.exchange_ended(exchange())

        for value in ("a", "b"):
            contextvars.copy_context().run(serve, value)
        log.close(5.0)
        assert [record.correlation_id for record in collected.records] == ["a", "b"]

    def test_what_became_of_them_is_counted(self, collected):
        counted = Counted()
        LOGGER.addFilter(lambda record: record.args[4] != 404)
        log = records(counted)
        for status in (200, 404, 500):
            log.exchange_ended(exchange(status=status))
        log.close(5.0)
        assert counted.results == {"written": 2, "filtered": 1}
        log.flush()
        assert counted.results.total() == 3, "each is told once"

    def test_a_filter_may_return_another_record(self, collected):
        def anonymous(record):
            changed = logging.makeLogRecord(vars(record))
            changed.args = ("-", *record.args[1:])
            return changed

        LOGGER.addFilter(anonymous)
        log = records()
        log.exchange_ended(exchange())
        log.close(5.0)
        import sys

        expected = "-" if sys.version_info >= (3, 12) else "192.0.2.7:40123"
        assert collected.records[0].args[0] == expected

    @pytest.mark.parametrize("how", ["level", "disabled"])
    def test_a_logger_that_is_silenced(self, collected, how):
        counted = Counted()
        if how == "level":
            LOGGER.setLevel(logging.WARNING)
        else:
            LOGGER.disabled = True
        log = records(counted)
        log.exchange_ended(exchange())
        log.close(5.0)
        assert not collected.records
        assert counted.results == {"filtered": 1}

    def test_a_filter_that_raises_is_told_once_and_counted(self, collected, caplog):
        def broken(record):
            raise LookupError("no such key")

        LOGGER.addFilter(broken)
        counted = Counted()
        log = records(counted)
        for _ in range(3):
            log.exchange_ended(exchange())
        log.close(5.0)
        assert counted.results == {"failed": 3}
        assert [record.message for record in caplog.records if record.name == "obsserve.error"] == [
            "A filter or handler of obsserve.access raised; it may do so again"
        ]

    def test_a_slow_handler_delays_nobody_and_loses_the_newest(self, logger):
        entered, release = threading.Event(), threading.Event()

        class Slow(Collect):
            def emit(self, record):
                entered.set()
                release.wait(10)
                super().emit(record)

        handler = Slow()
        logger.addHandler(handler)
        counted = Counted()
        log = records(counted, log_buffer_bytes=16384)
        log.exchange_ended(exchange(status=200))
        assert entered.wait(10)
        for status in range(201, 300):
            log.exchange_ended(exchange(status=status))
        release.set()
        log.close(10.0)
        assert [record.args[4] for record in handler.records] == list(range(200, 200 + log.capacity))
        assert counted.results == {"written": log.capacity, "dropped": 100 - log.capacity}

    def test_a_handler_that_hangs_does_not_hold_the_end_up(self, logger):
        release = threading.Event()

        class Hangs(Collect):
            def emit(self, record):
                release.wait(30)

        logger.addHandler(Hangs())
        counted = Counted()
        log = records(counted)
        log.exchange_ended(exchange())
        log.close(0.01)
        log.exchange_ended(exchange())
        log.flush()
        assert counted.results == {"dropped": 2}
        release.set()

    def test_no_thread_to_be_had(self, collected, monkeypatch):
        def refuse(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        counted = Counted()
        log = records(counted)
        log.exchange_ended(exchange())
        log.close(1.0)
        assert counted.results == {"dropped": 1}


class TestPasted:
    """A configuration that was written for uvicorn, with the names changed."""

    def test_json_of_python_json_logger(self, capsys, logger):
        package("pythonjsonlogger")
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {
                    "json": {
                        "()": "pythonjsonlogger.json.JsonFormatter",
                        "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
                    }
                },
                "handlers": {
                    "out": {
                        "class": "logging.StreamHandler",
                        "formatter": "json",
                        "stream": "ext://sys.stdout",
                    }
                },
                "loggers": {"obsserve.access": {"handlers": ["out"], "level": "INFO", "propagate": False}},
            }
        )
        log = records()
        log.exchange_ended(exchange())
        log.close(5.0)
        said = json.loads(capsys.readouterr().out)
        assert said["message"] == '192.0.2.7:40123 - "GET /items/17?q=REDACTED&page=2 HTTP/1.1" 200'
        assert said["obsserve"]["http_response_status_code"] == 200

    def test_a_formatter_that_indexes_the_arguments(self, logger):
        shown = []

        class Fields(logging.Formatter):
            def format(self, record):
                client_addr, method, full_path, http_version, status_code = record.args
                return f"{client_addr}|{method}|{full_path}|{http_version}|{status_code}"

        handler = Collect()
        handler.setFormatter(Fields())
        handler.emit = lambda record: shown.append(handler.format(record))
        logger.addHandler(handler)
        log = records(log_query="keep")
        log.exchange_ended(exchange())
        log.close(5.0)
        assert shown == ["192.0.2.7:40123|GET|/items/17?q=s3cr3t&page=2|1.1|200"]


class TestGate:
    class Line:
        def __init__(self):
            self.views = []

        def exchange_ended(self, view):
            self.views.append(view)

    def gate(self, counted=None):
        self.line = self.Line()
        return AccessGate(self.line, KEEP, counted)

    def test_the_filter_of_everybody_who_hides_health_checks(self):
        LOGGER.addFilter(lambda record: "/health" not in record.getMessage())
        counted = Counted()
        gate = self.gate(counted)
        gate.exchange_ended(exchange(raw_path=b"/health"))
        gate.exchange_ended(exchange(raw_path=b"/items"))
        assert [view.raw_path for view in self.line.views] == [b"/items"]
        assert counted.results == {"filtered": 1}

    def test_the_arguments_are_there_for_filters(self):
        LOGGER.addFilter(lambda record: record.args[2].startswith("/items") and record.args[4] == 200)
        gate = self.gate()
        gate.exchange_ended(exchange())
        assert len(self.line.views) == 1

    def test_a_level_keeps_back_what_is_below(self):
        LOGGER.setLevel(logging.WARNING)
        gate = self.gate()
        gate.exchange_ended(exchange())
        gate.exchange_ended(exchange(status=500, outcome="server_error"))
        assert [view.status for view in self.line.views] == [500]

    def test_a_filter_that_raises_loses_no_line(self, caplog):
        LOGGER.addFilter(lambda record: record.nothing)
        gate = self.gate()
        gate.exchange_ended(exchange())
        gate.exchange_ended(exchange())
        assert len(self.line.views) == 2
        assert len(caplog.records) == 1

    def test_sessions_are_asked_for_too(self):
        class Both(self.Line):
            def session_ended(self, session):
                self.views.append(session)

        both, counted = Both(), Counted()
        gate = AccessGate(both, KEEP, counted)
        LOGGER.addFilter(lambda record: record.args[1] != "WEBSOCKET" or record.args[4] != 1000)
        ordinary, lost = session(close_code=1000), session(close_code=1006, close_initiator="none")
        gate.session_ended(ordinary)
        gate.session_ended(lost)
        assert both.views == [lost]
        LOGGER.filters.clear()
        LOGGER.setLevel(logging.WARNING)
        gate.session_ended(ordinary)
        gate.session_ended(lost)
        assert both.views == [lost, lost]
        assert counted.results == {"filtered": 2}
        assert not hasattr(self.gate(), "session_ended")


class TestOutput:
    def output(self, **settings):
        # pytest puts a handler of its own on loggers that do not propagate.
        LOGGER.handlers[:] = [handler for handler in LOGGER.handlers if isinstance(handler, Collect)]
        made = AccessOutput(AccessSettings(**settings), stdout=None, clock=CLOCK, lag=LAG, counters=Counted())
        made.flush()
        made.close(1.0)
        return [type(observer) for observer in made.observers]

    def test_a_line(self):
        assert self.output() == [AccessLog]

    def test_a_line_in_a_given_format(self):
        assert self.output(access_log_format="common") == [FormattedAccessLog]

    def test_nothing(self):
        assert self.output(access_log=False) == []

    def test_a_handler_gets_records_beside_the_line(self, collected):
        assert self.output() == [AccessLog, AccessRecords]

    def test_a_configuration_of_the_user_gets_records_in_its_place(self, collected):
        assert self.output(log_config={"version": 1}) == [AccessRecords]
        assert self.output(log_config=None) == [AccessRecords]

    def test_a_configuration_without_a_handler_for_it(self, monkeypatch):
        assert self.output(log_config={"version": 1}) == []
        monkeypatch.setattr(LOGGER, "propagate", True)
        assert self.output(log_config=None) == [AccessRecords], "pytest's own handler is on the root logger"

    def test_a_filter_or_a_level_puts_the_gate_in_front(self):
        LOGGER.addFilter(lambda record: True)
        assert self.output() == [AccessGate]
        LOGGER.filters.clear()
        LOGGER.setLevel(logging.WARNING)
        assert self.output() == [AccessGate]

    def test_what_is_changed_later_counts(self):
        LOGGER.handlers[:] = [handler for handler in LOGGER.handlers if isinstance(handler, Collect)]
        made = AccessOutput(AccessSettings(), stdout=None, clock=CLOCK, lag=LAG, counters=Counted())
        (line,) = made.observers
        assert not made.follow()
        handler = Collect()
        LOGGER.addHandler(handler)
        assert made.follow()
        assert made.observers[0] is line
        assert isinstance(made.observers[1], AccessRecords)
        made.observers[1].exchange_ended(exchange())
        until = time.monotonic() + 20
        while not handler.records and time.monotonic() < until:
            made.flush()
            time.sleep(0.01)
        LOGGER.removeHandler(handler)
        LOGGER.addFilter(lambda record: True)
        assert made.follow()
        assert [type(observer) for observer in made.observers] == [AccessGate]
        LOGGER.filters.clear()
        assert made.follow()
        assert made.observers == [line]
        made.close(5.0)
        assert len(handler.records) == 1

    def test_no_access_log_stays_off(self, collected):
        made = AccessOutput(
            AccessSettings(access_log=False), stdout=None, clock=CLOCK, lag=LAG, counters=Counted()
        )
        assert not made.follow()
        assert made.observers == []

    def test_an_exchange_is_counted_once(self, collected):
        counted = Counted()
        made = AccessOutput(AccessSettings(), stdout=None, clock=CLOCK, lag=LAG, counters=counted)
        assert len(made.observers) == 2
        view = exchange()
        for observer in made.observers:
            observer.exchange_ended(view)
        made.close(5.0)
        assert len(collected.records) == 1
        assert counted.results.total() == 1
        assert T0
