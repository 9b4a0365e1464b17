"""The record behind each access line, in its parts; its lines are tested with the access log."""

import pytest

from obsserve.telemetry.accessfields import (
    AccessRecord,
    Fields,
    decimal,
    members,
    printable,
    put_answer,
    timestamp,
)
from obsserve.telemetry.redact import QueryPolicy


def test_text_is_cleaned_and_cut():
    fields = Fields()
    fields.text("a", b"\xff\xc3\xa9")
    fields.text("b", "x\udc80y")
    fields.text("c", "c" * 257)
    fields.text("url_path", "p" * 2048)
    assert fields.values == {"a": "\\xff\u00e9", "b": "x\ufffdy", "c": "c" * 256, "url_path": "p" * 2048}
    assert fields.cut == ["c"]


def test_a_divisor_lowers_the_caps_but_not_to_nothing():
    fields = Fields(256)
    fields.text("url_path", "p" * 100)
    fields.text("listener", "l" * 100)
    assert {name: len(value) for name, value in fields.values.items()} == {"url_path": 8, "listener": 8}


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0.0, "0.000000"), (12.0, "0.000012"), (61_500_000.0, "61.500000"), (float("inf"), "0.000000")],
)
def test_decimals(micros, text):
    assert decimal(micros) == text


def test_members():
    values = {"a": None, "b": True, "c": False, "d": 7, "e": 0.25, "f": "x\n", "g": ["h", "i"]}
    assert members(values) == ',"a":null,"b":true,"c":false,"d":7,"e":0.250000,"f":"x\\n","g":["h","i"]'


def test_timestamps():
    assert timestamp(0.0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1_700_000_000.999999) == "2023-11-14T22:13:20.999999Z"


def test_an_answer_without_route_or_status_says_so():
    fields = Fields()
    put_answer(fields, "", None, "", None)
    assert fields.values == {"http_route": None, "http_response_status_code": None}


def test_a_dropped_query_leaves_no_field():
    fields = Fields()
    AccessRecord({}, QueryPolicy("drop")).put_target(fields, b"/x", b"a=1")
    assert fields.values == {"url_path": "/x"}


def test_printable_escapes_what_a_terminal_obeys():
    assert printable("a\x1b[0m\u202e\u2028\x9b") == "a\\x1b[0m\\u202e\\u2028\\x9b"
    assert printable("\u00e9") == "\u00e9"
