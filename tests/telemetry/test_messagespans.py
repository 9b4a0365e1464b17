"""Spans of WebSocket messages: their trace, what is current meanwhile, what is counted, and who exports them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, get_current
from opentelemetry.sdk.trace import sampling as official
from opentelemetry.trace import SpanKind, StatusCode
from test_tracing import (  # noqa: F401 - fixtures
    KEPT,
    LEFT_OUT,
    STARTED,
    UNSAMPLED_PARENT,
    attributes,
    collector,
    make,
    no_global_provider,
    provider,
    sink,
)
from tracedoubles import Exchange, session, with_headers

from obsserve.telemetry import catalogue

RECEIVED, SENT = "websocket receive /ws", "websocket send /ws"


def message(of, **facts):
    ordinary = {
        **{"session": of, "received": True, "is_text": True, "size": 5, "began": 101.0, "handed": 101.25},
        **{"ended": 101.5, "exception": None, "trace": None, "previous": None},
    }
    return SimpleNamespace(**ordinary | facts)


class Conversation:
    """A WebSocket whose handshake has been served, and what observes its messages."""

    def __init__(self, traced, handshake=None):
        self.handshake = traced.serve(handshake or Exchange(status=101))
        self.session = session(self.handshake, handling=None)
        self.spans = traced.tracing.message_spans()

    def do(self, work, *arguments):
        """Run in the application's context."""
        return self.handshake.context.run(work, *arguments)

    def receive(self, **facts):
        one = message(self.session, **facts)
        self.do(self.spans.message_received, one)
        return one

    def handled(self, one):
        self.do(self.spans.message_handled, one)

    def send(self, **facts):
        one = message(self.session, **{"received": False, "handed": 0.0, "ended": 101.4} | facts)
        self.do(self.spans.message_sent, one)
        return one

    def current(self):
        return self.do(lambda: trace.get_current_span().get_span_context())


@pytest.fixture
def talk(make):  # noqa: F811
    conversations = []

    def build(handshake=None, **configured):
        traced = make(**configured)
        conversations.append(Conversation(traced, handshake))
        conversations[-1].traced = traced
        return conversations[-1]

    return build


def named(spans, name):
    return [span for span in spans if span.name == name]


def test_it_is_current_while_it_is_handled_and_the_handshake_again_afterwards(talk):
    one = talk()
    before = one.current()
    first = one.receive()
    during = one.current()
    assert during.trace_id != before.trace_id
    assert during.trace_flags.sampled
    one.handled(first)
    assert one.current() == before
    (span,) = named(one.traced.spans(2), RECEIVED)
    assert span.trace_id == during.trace_id.to_bytes(16, "big")
    assert (span.end_time_unix_nano - span.start_time_unix_nano) == 500_000_000
    assert attributes(span)["obsserve.websocket.message.waited"] == pytest.approx(0.25)
    (link,) = span.links
    assert int.from_bytes(link.trace_id, "big") == before.trace_id
    assert link.flags & 0x300 == 0x100, "the handshake is of this process"


def test_what_the_application_has_put_into_its_context_stays(talk):
    one = talk()
    first = one.receive()
    one.do(lambda: attach(baggage.set_baggage("user", "7")))
    one.handled(first)
    assert one.do(lambda: baggage.get_baggage("user")) == "7"
    assert one.current().trace_id == one.handshake.trace.trace_id


def test_a_span_of_the_applications_own_is_not_taken_from_it(talk):
    one = talk()
    first = one.receive()
    own = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    one.do(lambda: attach(trace.set_span_in_context(own, get_current())))
    one.handled(first)
    assert one.current().trace_id == 1


def test_contexts_do_not_grow(talk):
    one = talk()
    sizes = set()
    for _ in range(10):
        one.handled(one.receive())
        sizes.add(one.do(lambda: len(get_current())))
    assert sizes == {1}


def test_what_is_sent_meanwhile_is_a_child_and_what_is_sent_otherwise_is_not(talk):
    one = talk()
    one.send()
    first = one.receive()
    one.send()
    one.handled(first)
    spans = one.traced.spans(4)
    alone, answer = named(spans, SENT)
    (received,) = named(spans, RECEIVED)
    assert not alone.parent_span_id
    assert (answer.trace_id, answer.parent_span_id) == (received.trace_id, received.span_id)
    assert len({span.trace_id for span in (alone, received)} | {spans[0].trace_id}) == 3
    assert all(len(span.links) == 1 for span in (alone, answer, received))
    figures = one.traced.figures
    assert (figures(STARTED, "none", KEPT), figures(STARTED, "local", KEPT)) == (3, 1)


def test_one_that_is_sent_for_a_trace_that_is_not_kept_is_not_kept(talk):
    one = talk()
    other = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    one.do(lambda: attach(trace.set_span_in_context(other)))
    one.send()
    assert one.traced.tracing.flush(10.0)
    assert named(one.traced.sink.spans, SENT) == []
    assert one.traced.figures(STARTED, "local", LEFT_OUT) == 1


@pytest.mark.parametrize("handshake", [with_headers(UNSAMPLED_PARENT, status=101), None])
def test_of_a_handshake_that_is_not_kept_there_is_none(talk, handshake):
    one = talk(handshake, **({} if handshake else {"sampler": "always_off"}))
    before = one.current()
    first = one.receive()
    assert one.current() == before
    one.handled(first)
    one.send()
    one.spans.session_ended(one.session)
    assert one.traced.tracing.flush(10.0)
    assert one.traced.sink.spans == []
    assert one.traced.figures(STARTED, "local", LEFT_OUT) == 0


def test_the_end_of_the_session_ends_it_once(talk):
    one = talk()
    one.session.handling = one.receive(ended=0.0)
    one.traced.tracing.tick()
    assert one.traced.figures(catalogue.SPANS_LIVE) == 1
    one.spans.session_ended(one.session)
    one.handled(one.session.handling)
    (span,) = named(one.traced.spans(2), RECEIVED)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_000_000
    one.traced.tracing.tick()
    assert one.traced.figures(catalogue.SPANS_LIVE) == 0
    assert one.current().trace_id == one.handshake.trace.trace_id


def test_what_the_application_sets_on_it(talk):
    one = talk()
    first = one.receive()

    def work():
        current = trace.get_current_span()
        current.set_attribute("app.kind", "order")
        current.update_name("order")
        current.add_event("checked")

    one.do(work)
    one.handled(first)
    (span,) = named(one.traced.spans(2), "order")
    assert attributes(span)["app.kind"] == "order"
    assert [event.name for event in span.events] == ["checked"]
    assert len(span.links) == 1


@pytest.mark.parametrize(("recorded", "events"), [(False, 1), (True, 1)])
def test_an_exception_is_told_once(talk, recorded, events):
    one = talk()
    error = LookupError("gone")
    first = one.receive()
    if recorded:
        one.do(lambda: trace.get_current_span().record_exception(error))
    first.exception = error
    one.handled(first)
    (span,) = named(one.traced.spans(2), RECEIVED)
    assert (span.status.code, attributes(span)["error.type"]) == (2, "LookupError")
    assert len(span.events) == events


def test_without_exception_events_it_has_none(talk):
    one = talk(exception_events=False)
    first = one.receive(exception=LookupError("gone"))
    one.handled(first)
    (span,) = named(one.traced.spans(2), RECEIVED)
    assert (span.status.code, len(span.events)) == (2, 0)


def test_they_take_half_of_the_places(talk):
    one = talk(queue_size=8, batch_size=8)
    for _ in range(20):
        one.handled(one.receive())
    for _ in range(4):
        one.traced.serve()
    assert one.traced.figures(catalogue.SPANS_PROCESSED, "queue_full") == 20 - 3
    spans = one.traced.spans(8)
    assert len(named(spans, RECEIVED)) == 3
    assert len(spans) == 8


def test_after_the_end_they_are_counted(talk):
    one = talk()
    first = one.receive()
    one.traced.tracing.shutdown(5.0)
    one.handled(first)
    one.send()
    assert one.traced.figures(catalogue.SPANS_PROCESSED, "already_shutdown") == 2


class TestByTheApplicationsProvider:
    def test_they_are_its_spans(self, talk, provider):  # noqa: F811
        one = talk()
        first = one.receive()
        one.send(is_text=False)
        one.handled(first)
        one.send()
        server, answer, received, alone = provider.memory.get_finished_spans()
        assert [span.name for span in (answer, received, alone)] == [SENT, RECEIVED, SENT]
        assert (received.kind, answer.kind) == (SpanKind.CONSUMER, SpanKind.PRODUCER)
        assert received.parent is None
        assert answer.parent.span_id == received.context.span_id
        assert alone.parent is None
        for span in (answer, received, alone):
            assert [link.context.span_id for link in span.links] == [server.context.span_id]
        assert answer.attributes["obsserve.websocket.message.type"] == "binary"
        assert received.end_time - received.start_time == 500_000_000
        assert one.current().trace_id == server.context.trace_id
        assert one.traced.figures(catalogue.SPANS_LIVE) == 0

    def test_a_failure(self, talk, provider):  # noqa: F811
        one = talk()
        one.session.handling = one.receive(exception=LookupError("gone"), ended=0.0)
        one.spans.session_ended(one.session)
        one.handled(one.session.handling)
        _, span = provider.memory.get_finished_spans()
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "LookupError"
        assert [event.name for event in span.events] == ["exception"]
        assert one.traced.figures(catalogue.SPANS_LIVE) == 0

    def test_its_sampler_decides(self, talk, provider):  # noqa: F811
        one = talk()
        provider.sampler = official.ALWAYS_OFF
        one.spans._tracer.sampler = official.ALWAYS_OFF
        one.handled(one.receive())
        one.send()
        assert len(provider.memory.get_finished_spans()) == 1
        assert one.traced.figures(STARTED, "none", LEFT_OUT) == 2
        assert one.traced.figures(catalogue.SPANS_LIVE) == 0
