"""Our span in the hands of an application."""

import weakref

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.context.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags, TraceState

from obsserve.telemetry.lightspan import ChildSpan, IdPool, RootSpan, Span
from obsserve.telemetry.propagation import RemoteParent, StatefulParent
from obsserve.telemetry.traceconfig import TracingConfiguration

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


@pytest.fixture
def span():
    return Span(
        TRACE, SPAN, 3, None, TracingConfiguration(attribute_limit=3, attribute_length=5, event_limit=2)
    )


@pytest.fixture
def unsampled():
    return Span(TRACE, SPAN, 2, None, TracingConfiguration())


def use(span):
    span.set_attribute("a", 1)
    span.set_attributes({"b": 2})
    span.add_event("e")
    span.add_link(SpanContext(1, 2, is_remote=True))
    span.update_name("other")
    span.set_status(StatusCode.ERROR)
    span.record_exception(ValueError())


class TestIdentity:
    def test_spellings(self, span):
        assert (span.trace_id_hex, span.span_id_hex, span.flags_hex) == (
            "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "03",
        )  # fmt: skip
        assert span.sampled
        assert span.log_fragment == (
            '","trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331","trace_flags":"03'
        )
        assert Span(1, 2, 0, None, None).trace_id_hex == "0" * 31 + "1"

    def test_it_is_a_span(self, span):
        assert isinstance(span, trace.Span)
        context = trace.set_span_in_context(span)
        assert trace.get_current_span(context) is span

    def test_its_context(self, span):
        context = span.get_span_context()
        assert context == SpanContext(TRACE, SPAN, False, TraceFlags(3))
        assert span.get_span_context() is context
        assert context.is_valid

    def test_its_parents_tracestate(self):
        parent = StatefulParent(RemoteParent(TRACE, 7, 1), [("a", "1")])
        span = Span(TRACE, SPAN, 1, parent, TracingConfiguration())
        assert span.get_span_context().trace_state == TraceState([("a", "1")])
        assert span.state_text == "a=1"


class TestRecording:
    def test_a_sampled_one_records_until_it_ends(self, span):
        assert span.is_recording()
        span.ended = True
        assert not span.is_recording()
        use(span)
        assert span.edits is None

    def test_an_unsampled_one_does_not(self, unsampled):
        assert not unsampled.is_recording()
        use(unsampled)
        assert (unsampled.edits, unsampled.extras) == (None, None)

    def test_attributes_are_taken_as_the_sdk_takes_them(self, span):
        span.set_attribute("text", "too long")
        span.set_attributes({"n": 1, "list": ("a", "b")})
        span.set_attribute("one more", True)
        assert dict(span.edits.attributes) == {"n": 1, "list": ("a", "b"), "one more": True}
        assert span.edits.attributes.dropped == 1

    def test_events(self, span):
        span.add_event("first", {"a": 1}, 17)
        span.add_event("second")
        span.add_event("third")
        assert [event.name for event in span.edits.events] == ["first", "second"]
        assert (span.edits.events[0].time, dict(span.edits.events[0].attributes)) == (17, {"a": 1})
        assert span.edits.events[1].time > 10**18
        assert span.edits.dropped_events == 1

    def test_links(self, span):
        span.add_link(SpanContext(0, 0, is_remote=True))
        for n in range(1, 9):
            span.add_link(SpanContext(n, 2, is_remote=False), {"a": 1})
        assert [link.trace_id for link in span.edits.links] == [1, 2]

    def test_exceptions(self, span):
        error = ValueError("no")
        span.record_exception(error, {"extra": "yes"}, escaped=True)
        (event,) = span.edits.events
        assert (event.name, event.attributes["extra"]) == ("exception", "yes")
        assert id(error) in span.edits.recorded


class TestStatus:
    def test_words_and_objects(self, span):
        span.set_status(StatusCode.UNSET)
        assert span.edits.status == 0
        span.set_status(StatusCode.ERROR, "why")
        assert (span.edits.status, span.edits.description) == (2, "why")
        span.set_status(Status(StatusCode.ERROR))
        assert (span.edits.status, span.edits.description) == (2, "")

    def test_ok_is_final(self, span):
        span.set_status(Status(StatusCode.OK))
        span.set_status(StatusCode.ERROR, "late")
        assert (span.edits.status, span.edits.description) == (1, "")


def test_the_application_cannot_end_it(span):
    span.end()
    with span:
        pass
    with pytest.raises(ValueError, match="goes on"), span:
        raise ValueError("goes on")
    with pytest.raises(ValueError), trace.use_span(span, end_on_exit=True):
        raise ValueError("recorded")
    assert span.is_recording()
    assert [event.name for event in span.edits.events] == ["exception"]


def drawn(made, trace, span, flags, **more):
    """Return a span as the observer makes it."""
    facts = {"trace_hex": trace, "span_hex": span, "flags": flags, "limits": TracingConfiguration()}
    for name, value in {**facts, "ended": False, "extras": None, **more}.items():
        setattr(made, name, value)
    return made


class TestAsAContext:
    """It stands where OpenTelemetry expects a context, so it has to do what is done with one."""

    def test_it_holds_itself_as_the_current_span(self, span):
        token = context_api.attach(span)
        try:
            assert trace.get_current_span() is span
            assert context_api.get_value("something else") is None
            assert baggage.get_all() == {}
        finally:
            context_api.detach(token)

    def test_what_is_added_makes_a_context_of_it(self, span):
        more = baggage.set_baggage("user", "7", span)
        assert isinstance(more, Context)
        assert (trace.get_current_span(more), dict(baggage.get_all(more))) == (span, {"user": "7"})
        assert (
            trace.get_current_span(trace.set_span_in_context(trace.INVALID_SPAN, span)) is trace.INVALID_SPAN
        )

    def test_it_reads_as_a_mapping(self, span):
        (key,) = span
        assert span[key] is span
        assert dict(span) == {**span} == {key: span} == dict(span.items())
        assert (key in span, "other" in span, len(span), list(span.values())) == (True, False, 1, [span])
        with pytest.raises(KeyError):
            span["other"]

    def test_a_tracer_finds_its_parent_in_it(self, span):
        child = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("child", context=span)
        assert (child.parent, child.context.trace_id) == (span.get_span_context(), TRACE)

    def test_it_can_be_referred_to_weakly_and_has_no_dict(self, span):
        assert weakref.ref(span)() is span
        assert not hasattr(span, "__dict__")


class TestRoots:
    def test_it_spells_its_ids_as_any_span_does(self):
        root = drawn(RootSpan(), "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", 3)
        span = Span(0x0AF7651916CD43DD8448EB211C80319C, 0x00F067AA0BA902B7, 3, None, TracingConfiguration())
        for name in (
            "trace_id",
            "span_id",
            "trace_id_hex",
            "span_id_hex",
            "flags_hex",
            "log_fragment",
            "parent",
        ):
            assert getattr(root, name) == getattr(span, name)
        assert root.get_span_context() == span.get_span_context()
        assert root.state_text == ""

    def test_the_application_may_set_what_it_likes_until_the_end(self):
        root = drawn(RootSpan(), "1" * 32, "2" * 16, 3)
        assert root.is_recording()
        root.set_attribute("a", 1)
        root.ended = True
        root.set_attribute("b", 2)
        assert dict(root.edits.attributes) == {"a": 1}
        assert not root.is_recording()

    def test_one_that_continues_a_trace(self):
        child = drawn(ChildSpan(), f"{TRACE:032x}", "2" * 16, 3, parent_hex=f"{SPAN:016x}", parent_flags=1)
        assert (child.parent.trace_id, child.parent.span_id, child.parent.flags) == (TRACE, SPAN, 1)
        assert (child.state_text, child.get_span_context().trace_state) == ("", TraceState())

    def test_ids_from_the_pool(self):
        pool = IdPool()
        pool.fill()
        count = len(pool)
        pool.fill()
        assert len(pool) == 2 * count
        assert len({trace for _, trace, _ in pool}) == len({span for _, _, span in pool}) == 2 * count
        for lower, trace, span in pool:
            assert (len(trace), len(span)) == (32, 16)
            assert int(trace, 16) & (1 << 64) - 1 == lower
