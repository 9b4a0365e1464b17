"""Our bytes are the official encoder's message."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from obsserve.telemetry.otlp_encode import (
    RequestFrame,
    SpanEvent,
    SpanLink,
    SpanRecord,
    any_value,
    attributes,
    encode_span,
    varint,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SCALARS = (
    st.booleans()
    | TEXTS
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=9)
)
VALUES = st.recursive(
    SCALARS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
ATTRIBUTES = st.dictionaries(TEXTS.filter(bool), VALUES, max_size=4)
TIMES = st.integers(0, 2**63)
TRACE_IDS, SPAN_IDS = st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1)
COUNTS = st.integers(0, 500)
STATES = st.dictionaries(
    st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True), max_size=3
)

RECORDS = st.builds(
    SpanRecord,
    trace_id=TRACE_IDS,
    span_id=SPAN_IDS,
    name=TEXTS,
    kind=st.integers(1, 5),
    start=TIMES,
    end=TIMES,
    parent_id=st.just(0) | SPAN_IDS,
    parent_is_remote=st.booleans(),
    trace_state=STATES.map(lambda state: ",".join(f"{key}={value}" for key, value in state.items())),
    attributes=ATTRIBUTES,
    events=st.lists(st.builds(SpanEvent, TEXTS, TIMES, ATTRIBUTES), max_size=2),
    links=st.lists(st.builds(SpanLink, TRACE_IDS, SPAN_IDS, st.booleans(), ATTRIBUTES), max_size=2),
    status=st.integers(0, 2),
    description=TEXTS,
)


def official(record, resource, scope, version):
    def context(span_id, *, remote):
        state = TraceState.from_header([record.trace_state])
        return SpanContext(record.trace_id, span_id, remote, TraceFlags(1), state)

    span = ReadableSpan(
        name=record.name,
        context=context(record.span_id, remote=False),
        parent=context(record.parent_id, remote=record.parent_is_remote) if record.parent_id else None,
        resource=Resource(resource),
        attributes=record.attributes,
        events=[Event(event.name, event.attributes, event.time) for event in record.events],
        links=[
            Link(SpanContext(link.trace_id, link.span_id, link.is_remote), link.attributes)
            for link in record.links
        ],
        kind=SpanKind(record.kind - 1),
        status=Status(StatusCode(record.status), record.description or None),
        start_time=record.start,
        end_time=record.end,
        instrumentation_scope=InstrumentationScope(scope, version),
    )
    return encode_spans([span])


def ours(record, resource, scope="obsserve", version="1"):
    return ExportTraceServiceRequest.FromString(
        RequestFrame(resource, scope, version).request([encode_span(record)])
    )


@given(RECORDS, st.dictionaries(TEXTS.filter(bool), SCALARS, max_size=3))
def test_every_span(record, resource):
    record.description = record.description if record.status == 2 else ""
    record.parent_is_remote = record.parent_is_remote and bool(record.parent_id)
    resource = dict(Resource(resource).attributes)
    assert ours(record, resource) == official(record, resource, "obsserve", "1")


def test_dropped_counts():
    record = SpanRecord(
        trace_id=1, span_id=2, name="n", kind=2, start=1, end=2, dropped_attributes=3, dropped_events=300,
        events=[SpanEvent("e", 1, {}, 4)],
    )  # fmt: skip
    (span,) = ours(record, {}).resource_spans[0].scope_spans[0].spans
    assert (span.dropped_attributes_count, span.dropped_events_count) == (3, 300)
    assert span.events[0].dropped_attributes_count == 4


@given(VALUES)
def test_every_value(value):
    message = AnyValue.FromString(any_value(value))
    assert AnyValue.FromString(message.SerializeToString()) == message


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, object(), [object()], {"a": {1}}])
def test_what_otlp_cannot_hold_is_left_out(value):
    with pytest.raises(ValueError):
        any_value(value)
    assert attributes(b"\x4a", {"bad": value, "good": 1}) == attributes(b"\x4a", {"good": 1})


@pytest.mark.timeout(10)
def test_numbers_with_a_name():
    """An application sets `HTTPStatus.OK` as it sets 200, and gets an answer as soon."""
    assert AnyValue.FromString(any_value(HTTPStatus.OK)).int_value == 200


def test_lone_surrogates_do_not_spoil_the_request():
    assert AnyValue.FromString(any_value("a\ud800b")).string_value == "a?b"


@given(st.integers(0, 2**64 - 1))
def test_varint(number):
    encoded = varint(number)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == number
    assert all(byte & 0x80 for byte in encoded[:-1])
    assert not encoded[-1] & 0x80


def test_several_spans_in_one_request():
    records = [
        SpanRecord(trace_id=n, span_id=n, name=f"span {n}", kind=1, start=n, end=n) for n in range(1, 4)
    ]
    frame = RequestFrame({"service.name": "s"}, "obsserve", "1")
    request = ExportTraceServiceRequest.FromString(frame.request([encode_span(record) for record in records]))
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    assert [span.name for span in scope.spans] == ["span 1", "span 2", "span 3"]
    assert (scope.scope.name, scope.scope.version) == ("obsserve", "1")
