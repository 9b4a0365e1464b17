"""A line as a record: what the official message says of our bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from obsserve.telemetry.otlp_logs import encode_log
from tests.anyvalues import attributes

NOW = 1_800_000_000_000_000_000
LINE = {
    "timestamp": "2026-11-21T02:28:35.540820Z",
    "start_time": "2026-11-21T02:28:35.534851Z",
    "level": "warning",
    "event": "http.request",
    "schema": 1,
    "service_name": "shop",
    "service_instance_id": "8b1f",
    "worker": 0,
    "process_pid": 7,
    "request_id": "abc-1",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "a0f3ae1e59118120",
    "trace_flags": "01",
    "http_request_method": "GET",
    "url_path": "/x/2",
    "http_route": None,
    "http_response_status_code": 404,
    "duration_seconds": 0.005969,
    "flags": ["LG"],
    "http_request_header_x_tenant": ["a", "b"],
    "forwarded_trusted": True,
    "app": {"user": 7},
}


def decoded(line):
    return LogRecord.FromString(encode_log(json.dumps(line).encode(), NOW))


def test_an_access_line():
    record = decoded(LINE)
    assert record.time_unix_nano == 1795228115540820000
    assert record.observed_time_unix_nano == NOW
    assert (record.severity_number, record.severity_text) == (13, "WARNING")
    assert record.event_name == "http.request"
    assert record.body.string_value == "GET /x/2 404"
    assert record.trace_id.hex() == LINE["trace_id"]
    assert record.span_id.hex() == LINE["span_id"]
    assert record.flags == 1
    assert attributes(record) == {
        "start_time": LINE["start_time"],
        "schema": 1,
        "obsserve.request_id": "abc-1",
        "http.request.method": "GET",
        "url.path": "/x/2",
        "http.route": None,
        "http.response.status_code": 404,
        "duration_seconds": 0.005969,
        "obsserve.flags": ["LG"],
        "http.request.header.x-tenant": ["a", "b"],
        "forwarded_trusted": True,
        "app": {"user": 7},
    }


def test_a_message_is_no_event():
    record = decoded({"level": "error", "event": "log", "message": "hello", "exception_type": "ValueError"})
    assert record.event_name == ""
    assert record.body.string_value == "hello"
    assert attributes(record) == {"exception.type": "ValueError"}
    assert record.time_unix_nano == NOW


@pytest.mark.parametrize("change", [{"timestamp": "REDACTED"}, {"trace_id": "REDACTED"}, {"level": "loud"}])
def test_a_field_that_was_hidden_or_is_strange(change):
    record = decoded(LINE | change)
    assert record.body.string_value == "GET /x/2 404"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))  # fmt: skip
def test_whatever_an_application_binds_there_is_a_record(bound):
    record = decoded({"event": "log", "message": "m", "app": {"bound": bound}, "trace_flags": bound})
    assert record.body.string_value == "m"
