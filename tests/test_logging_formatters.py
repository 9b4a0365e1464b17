import io
import logging

import pytest

from obsserve.logging import AccessFormatter, ColourizedFormatter, DefaultFormatter


def record(level=logging.INFO, message="said", *arguments, **extra):
    made = logging.LogRecord("obsserve.error", level, __file__, 1, message, arguments, None)
    vars(made).update(extra)
    return made


def access(status=200, **extra):
    arguments = ("192.0.2.1:5", "GET", "/a?b=1", "1.1", status)
    return record(logging.INFO, '%s - "%s %s HTTP/%s" %d', *arguments, **extra)


FORMAT = "%(levelprefix)s %(message)s"


def test_the_prefix_is_as_wide_for_every_level():
    shown = DefaultFormatter(FORMAT, use_colors=False)
    assert shown.format(record()) == "INFO:     said"
    assert shown.format(record(logging.CRITICAL)) == "CRITICAL: said"


def test_colours():
    shown = DefaultFormatter(FORMAT, use_colors=True)
    assert shown.format(record(logging.ERROR)) == "\x1b[31mERROR\x1b[0m:    said"
    assert shown.format(record(25)) == "Level 25: said"
    assert shown.format(record(message="plain", color_message="bold")).endswith(" bold")


def test_a_color_message_is_for_colours_only():
    shown = DefaultFormatter(FORMAT, use_colors=False)
    assert shown.format(record(message="plain", color_message="bold")).endswith(" plain")


def test_an_access_record():
    shown = AccessFormatter(
        '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s', use_colors=False
    )
    assert shown.format(access()) == 'INFO:     192.0.2.1:5 - "GET /a?b=1 HTTP/1.1" 200 OK'
    assert shown.format(access(499)).endswith(" 499 ")


def test_an_access_record_in_colour():
    shown = AccessFormatter("%(request_line)s %(status_code)s", use_colors=True)
    assert shown.format(access(404)) == "\x1b[1mGET /a?b=1 HTTP/1.1\x1b[0m \x1b[31m404 Not Found\x1b[0m"
    assert shown.format(access(999)).endswith(" 999 ")


def test_the_record_stays_as_it_is_for_the_next_handler():
    given = access()
    before = dict(vars(given))
    AccessFormatter("%(levelprefix)s %(status_code)s", use_colors=True).format(given)
    assert {key: vars(given)[key] for key in before} == before
    assert vars(given).keys() - before.keys() <= {"message"}


def test_styles():
    assert AccessFormatter("{client_addr} {status_code}", style="{", use_colors=False).format(access()) == (
        "192.0.2.1:5 200 OK"
    )


@pytest.mark.parametrize(
    ("formatter", "stream"), [(ColourizedFormatter, "stdout"), (DefaultFormatter, "stderr")]
)
def test_a_terminal_decides(monkeypatch, formatter, stream):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(f"sys.{stream}", terminal)
    assert formatter().use_colors
    terminal.isatty = lambda: False
    assert not formatter().use_colors
    monkeypatch.setattr(f"sys.{stream}", None)
    assert not formatter().use_colors
