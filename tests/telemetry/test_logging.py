"""Server and application logs: their form, that they never disturb, and whose logging is whose."""

import errno
import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from obsserve.telemetry import logging as server_logging
from obsserve.telemetry.logging import (
    LOGGERS,
    TRACE,
    adopt_structlog,
    configure_logging,
    level_number,
    server_logger,
    server_sink,
)


@dataclass
class FakeSettings:
    log_level: Any = "info"
    log_format: str = "json"
    log_query: str = "auto"
    log_query_allow: tuple = ()
    log_buffer_bytes: int = 1 << 20
    use_colors: Any = None
    service_name: str = "shop.main:app"


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Give back the process-wide logging state."""
    monkeypatch.setattr(server_logging, "_state", server_logging._State())
    last_resort = logging.lastResort
    yield
    logging.lastResort = last_resort
    for name in (*LOGGERS, server_logging.APP_LOGGER):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    structlog.reset_defaults()


def stderr_is(monkeypatch, stream):
    # Not sys.stderr itself, which pytest exchanges between the phases of a test.
    monkeypatch.setattr(server_logging, "sys", SimpleNamespace(stderr=stream, exc_info=sys.exc_info))


@pytest.fixture
def err(monkeypatch):
    stream = io.StringIO()
    stderr_is(monkeypatch, stream)
    return stream


def without_handlers(monkeypatch):
    """Take pytest's own handlers off the root logger."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def refuse(constant):
    raise AssertionError(constant)


def parsed(stream):
    text = stream.getvalue()
    assert text.isascii()
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def last(stream):
    return parsed(stream)[-1]


# --- Form ---------------------------------------------------------------------------------------


def test_a_server_event(err):
    configure_logging(FakeSettings())
    server_logger().info("server.start", message="Serving", port=8000)
    values = last(err)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", values.pop("timestamp"))
    assert values == {
        "level": "info",
        "event": "server.start",
        "logger": "obsserve.error",
        "service_name": "shop.main:app",
        "process_pid": os.getpid(),
        "message": "Serving",
        "port": 8000,
    }


def test_a_field_cannot_replace_one_of_the_envelope(err):
    configure_logging(FakeSettings())
    server_logger().info("server.start", level="x", service_name="y")
    values = last(err)
    assert (values["level"], values["service_name"], values["message"]) == (
        "info",
        "shop.main:app",
        "server.start",
    )


def test_an_exception(err):
    configure_logging(FakeSettings())
    try:
        raise KeyError("a\nb")
    except KeyError as error:
        caught = error
    server_logger().error("app.exception", message="The application raised", exc_info=caught)
    server_logger().error("app.exception", message="no exception", exc_info=None)
    first, second = parsed(err)
    assert first["exception_type"] == "KeyError"
    assert first["exception_message"] == "'a\\nb'"
    assert first["exception_stacktrace"].startswith("Traceback")
    assert first["exception_stacktrace"].endswith("KeyError: 'a\\nb'\n")
    assert "exception_type" not in second


def test_an_exception_of_a_standard_library_logger(err):
    configure_logging(FakeSettings())

    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError

    try:
        raise BrokenError
    except BrokenError:
        logging.getLogger("obsserve.error").exception("failed", stack_info=True)
    values = last(err)
    assert values["event"] == "log"
    assert values["message"] == "failed"
    assert values["exception_type"].endswith("BrokenError")
    assert values["exception_message"] == "(its text cannot be had: RuntimeError)"
    assert "test_an_exception_of_a_standard" in values["stack"]


def test_the_stack_can_be_asked_for(err):
    configure_logging(FakeSettings())
    server_logger().info("loop.stall", stack_info=True)
    assert "test_the_stack_can_be_asked_for" in last(err)["stack"]


def test_what_json_cannot_hold_becomes_text(err):
    configure_logging(FakeSettings())

    class Broken:
        def __repr__(self):
            raise RuntimeError

    deep = [[[[[1]]]]]
    server_logger().info(
        "x",
        nan=float("nan"),
        bad=Broken(),
        path=os.devnull.encode(),
        lone="\ud800",
        deep=deep,
        keys={1: (2, {3})},
    )
    values = last(err)
    assert values["nan"] == "nan"
    assert values["bad"] == "(Broken)"
    assert values["path"] == repr(os.devnull.encode())
    assert values["lone"] == "?"
    assert values["deep"] == [[[["[1]"]]]]
    assert values["keys"] == {"1": [2, [3]]}


def test_a_wrong_call_still_leaves_a_line(err, monkeypatch):
    without_handlers(monkeypatch)
    configure_logging(FakeSettings())
    logging.getLogger("obsserve.error").warning("%d items", "x")
    first = last(err)
    assert first["message"] == "'%d items' (log call failed: TypeError)"
    assert first["level"] == "warning"

    class Broken:
        def __repr__(self):
            raise RuntimeError

    logging.getLogger("shop").error(Broken())
    assert last(err)["message"] == "'(Broken)' (log call failed: RuntimeError)"


@pytest.mark.parametrize("size", [100, 4000, 9000, 100_000])
@pytest.mark.parametrize("filler", ["x", "\x00", "\U0001f600"])
def test_a_line_is_no_longer_than_the_sink_allows(size, filler):
    for limit in (4096, 16384):
        render = server_logging._Json(limit)
        stack = "".join(f"frame {number}\n" for number in range(2000))
        values = {
            "event": "e",
            "message": filler * size,
            "exception_stacktrace": stack,
            "app": {"k": filler * size},
        }
        line = render(None, "", values)
        assert len(line) < limit
        got = json.loads(line, parse_constant=refuse)
        assert got["event"] == "e"
        assert "exception_stacktrace" in got["truncated"]
        assert got["exception_stacktrace"].endswith("frame 1999\n")
        assert isinstance(got["app"], dict) or "app" in got["truncated"]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: (
                st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5)
            ),
            max_leaves=20,
        ),
        max_size=8,
    )
)
def test_any_values_leave_one_strict_line(values):
    line = server_logging._Json(4096)(None, "", {"event": "e", **values})
    assert len(line) < 4096
    assert line.isascii()
    assert "\n" not in line
    json.loads(line, parse_constant=refuse)


# --- Console ------------------------------------------------------------------------------------


def test_console_lines(err, monkeypatch):
    configure_logging(FakeSettings(log_format="console"))
    server_logger().info("server.start", message="Serving", port=8000, host="a\x1b[1m")
    without_handlers(monkeypatch)
    logging.getLogger("shop.views").warning("one\nINFO forged\x1b[2J", extra={"user": 3})
    try:
        raise ValueError("bad")
    except ValueError:
        server_logger().exception("app.exception", message="It raised")
    lines = err.getvalue().splitlines()
    clock = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} ")
    assert clock.sub("", lines[0]) == "INFO    Serving port=8000 host=a\\x1b[1m"
    assert clock.sub("", lines[1]) == "WARNING [shop.views] one"
    assert lines[2] == "    INFO forged\\x1b[2J user=3"
    assert clock.sub("", lines[3]) == "ERROR   It raised"
    assert lines[4] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: bad"
    assert "\x1b" not in err.getvalue()


def test_colours_when_asked(err):
    configure_logging(FakeSettings(log_format="console", use_colors=True))
    server_logger().warning("x")
    server_logger().debug("not shown")
    assert "\x1b[33mWARNING\x1b[0m" in err.getvalue()
    assert len(err.getvalue().splitlines()) == 1


# --- Levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "number"),
    [("info", 20), ("TRACE", 5), ("trace", 5), (10, 10), ("critical", 50), (logging.ERROR, 40)],
)
def test_level_numbers(level, number):
    assert level_number(level) == number


def test_levels_of_the_servers_loggers(err):
    configure_logging(FakeSettings(log_level="warning"))
    assert {logging.getLogger(name).level for name in LOGGERS} == {30}
    log = server_logger()
    log.info("hidden")
    log.trace("hidden")
    log.warning("shown")
    configure_logging(FakeSettings(log_level="trace"))
    log.trace("seen", message="deep", n=1)
    log.debug("seen")
    assert [(values["event"], values["level"]) for values in parsed(err)] == [
        ("shown", "warning"),
        ("seen", "trace"),
        ("seen", "debug"),
    ]
    assert logging.getLevelName(TRACE) == "TRACE"


def test_configuring_again_replaces_and_does_not_double(err):
    other = logging.NullHandler()
    logging.getLogger("obsserve").addHandler(other)
    for _ in range(3):
        configure_logging(FakeSettings())
    server_logger().info("once")
    assert len(parsed(err)) == 1
    assert other in logging.getLogger("obsserve").handlers
    assert len(logging.getLogger("obsserve").handlers) == 2
    assert not logging.getLogger("obsserve").propagate
    assert not logging.getLogger("obsserve.access").propagate


# --- The application's lines --------------------------------------------------------------------


def test_lines_that_nobody_handles_get_our_form(err, monkeypatch):
    without_handlers(monkeypatch)
    configure_logging(FakeSettings())
    logging.getLogger("shop").info("hidden, as Python would")
    logging.getLogger("shop").warning("low stock: %s", 3, extra={"level": "x", "user": 7})
    assert not logging.getLogger().handlers
    values = last(err)
    assert len(parsed(err)) == 1
    assert (values["event"], values["message"], values["logger"]) == ("log", "low stock: 3", "shop")
    assert values["level"] == "warning"
    assert values["app"] == {"level": "x", "user": 7}


def test_an_application_that_configures_logging_is_left_alone(err, monkeypatch):
    without_handlers(monkeypatch)
    configure_logging(FakeSettings())
    own = io.StringIO()
    logging.basicConfig(stream=own, format="%(message)s", level=logging.INFO)
    logging.getLogger("shop").info("mine")
    server_logger().info("server.start")
    assert own.getvalue() == "mine\n"
    assert [values["event"] for values in parsed(err)] == ["server.start"]


def test_structlog_left_alone_gets_our_form_after_the_import(err, capsys):
    configure_logging(FakeSettings())
    adopt_structlog()
    log = structlog.get_logger("shop.views")
    with structlog.contextvars.bound_contextvars(tenant="t1"):
        log.info("paid", amount=3, level="forged")
    structlog.get_logger().warning("%s left", 2)
    log.debug("hidden")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed")
    first, second, third = parsed(err)
    assert (first["logger"], first["event"], first["message"], first["level"]) == (
        "shop.views",
        "log",
        "paid",
        "info",
    )
    assert first["app"] == {"tenant": "t1", "amount": 3, "level": "forged"}
    assert (second["logger"], second["message"]) == ("obsserve.app", "2 left")
    assert third["exception_type"] == "ValueError"
    assert capsys.readouterr().out == ""


def test_a_configured_structlog_is_left_alone(err):
    configure_logging(FakeSettings())
    own = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(own))
    adopt_structlog()
    structlog.get_logger().info("mine")
    assert "mine" in own.getvalue()
    assert err.getvalue() == ""


# --- Standard error -----------------------------------------------------------------------------


def test_without_standard_error_lines_are_dropped_and_counted(monkeypatch):
    stderr_is(monkeypatch, None)
    counted = Counted()
    configure_logging(FakeSettings(), counted)
    server_logger().error("x")
    server_sink().flush()
    assert counted.results == [("server", "dropped", 1)]
    assert counted.errors == [errno.EBADF]


def test_a_standard_error_that_fails_is_not_the_callers_problem(monkeypatch):
    closed = io.StringIO()
    stderr_is(monkeypatch, closed)
    configure_logging(FakeSettings())
    server_logger().error("before")
    assert "before" in closed.getvalue()
    closed.close()
    server_logger().error("x")


class Descriptor(io.StringIO):
    def __init__(self, fd):
        super().__init__()
        self.fd = fd

    def fileno(self):
        return self.fd


class Counted:
    def __init__(self):
        self.results = []
        self.errors = []

    def add(self, stream, result, n=1):
        self.results.append((stream, result, n))

    def write_error(self, error, n=1):
        self.errors += [error.errno] * n

    def write_seconds(self, seconds):
        pass


def test_lines_go_through_a_sink_and_are_counted(monkeypatch):
    without_handlers(monkeypatch)
    reader, writer = os.pipe()
    stderr_is(monkeypatch, Descriptor(writer))
    configure_logging(FakeSettings())
    sink = server_sink()
    counted = Counted()
    configure_logging(FakeSettings(), counted)
    assert server_sink() is sink
    configure_logging(FakeSettings())
    server_logger().info("server.start")
    logging.getLogger("shop").error("app line")
    sink.close(10)
    assert sorted(counted.results) == [("app", "written", 1), ("server", "written", 1)]
    os.close(writer)
    with os.fdopen(reader) as file:
        lines = file.read().splitlines()
    assert [json.loads(line)["logger"] for line in lines] == ["obsserve.error", "shop"]
    other_reader, other_writer = os.pipe()
    stderr_is(monkeypatch, Descriptor(other_writer))
    configure_logging(FakeSettings())
    assert server_sink() is not sink
    server_logging._close_sink()
    assert server_sink().closed
    os.close(other_reader)
    os.close(other_writer)


def test_another_standard_error_gets_another_sink(monkeypatch):
    reader, writer = os.pipe()
    other_reader, other_writer = os.pipe()
    stderr_is(monkeypatch, Descriptor(writer))
    configure_logging(FakeSettings())
    server_logger().warning("to the first")
    first = server_sink()
    stderr_is(monkeypatch, Descriptor(other_writer))
    configure_logging(FakeSettings())
    assert first.closed
    assert b"to the first" in os.read(reader, 4096)
    server_logger().warning("to the second")
    server_sink().close(10)
    assert b"to the second" in os.read(other_reader, 4096)
    for fd in (reader, writer, other_reader, other_writer):
        os.close(fd)


def test_a_standard_error_that_somebody_closes_is_not_mistaken_for_what_gets_its_number(monkeypatch):
    reader, writer = os.pipe()
    stderr_is(monkeypatch, Descriptor(writer))
    configure_logging(FakeSettings())
    os.close(writer)
    other_reader, other_writer = os.pipe()
    assert writer in {other_reader, other_writer}
    server_logger().warning("to the first")
    server_sink().close(10)
    os.close(other_writer)
    assert not os.read(other_reader, 4096)
    assert b"to the first" in os.read(reader, 4096)
    for fd in (reader, other_reader):
        os.close(fd)


def test_with_nobody_reading_standard_error_the_caller_goes_on(monkeypatch):
    reader, writer = os.pipe()
    stderr_is(monkeypatch, Descriptor(writer))
    counted = Counted()
    configure_logging(FakeSettings(log_buffer_bytes=20_000), counted)
    log = server_logger()
    for number in range(2000):
        log.error("x", message="m" * 200, n=number)
    server_sink().close(0)
    found = Counter()
    for _, result, n in counted.results:
        found[result] += n
    assert found.total() == 2000, "each line has become something"
    assert found["dropped"] > 1000
    os.close(reader)
    os.close(writer)


PROGRAM = """
import sys
from obsserve.telemetry.logging import configure_logging, server_logger
class Settings:
    log_level = "info"; log_format = "auto"; log_query = "auto"; log_query_allow = ()
    log_buffer_bytes = 1 << 20; use_colors = None; service_name = "s"
configure_logging(Settings())
log = server_logger()
"""


def run(program, **how):
    return subprocess.run([sys.executable, "-c", PROGRAM + textwrap.dedent(program)], timeout=30, **how)


def test_the_last_line_gets_out_before_the_process_ends():
    ended = run(
        "log.error('startup.failed', message='port in use'); sys.exit(3)", capture_output=True, text=True
    )
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert json.loads(ended.stderr)["event"] == "startup.failed"


def test_the_process_ends_although_nobody_reads_its_standard_error():
    reader, writer = os.pipe()
    ended = run(
        "for _ in range(5000): log.error('x', message='m' * 500)\nprint('done')", stdout=-1, stderr=writer
    )
    os.close(reader)
    os.close(writer)
    assert (ended.returncode, ended.stdout) == (0, b"done\n")


def test_standard_error_may_be_closed_from_the_start():
    ended = subprocess.run(
        [
            "/bin/sh",
            "-c",
            'exec "$0" -c "$1" 2>&-',
            sys.executable,
            PROGRAM + "log.error('x'); print('done')",
        ],
        stdout=-1,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (0, b"done\n")
