"""A span for each WebSocket message, for those who ask for it: `--trace-websocket-messages`.

A message that the application receives begins a trace of its own, linked to the handshake's span: a session may be
open for days, and no trace should be. Its span is current while the application handles it, so that the spans
the application makes are its children, and a message sent meanwhile (to whichever WebSocket) is one too. A
message sent out of nothing begins a trace likewise. Kinds are those of messaging in OpenTelemetry's conventions:
CONSUMER for what is handled, PRODUCER for what is sent.

Rules: only messages of WebSockets whose handshake is kept have spans, so that a link always leads somewhere. They
take half of the queue at most: however much is said, the spans of requests have their places. Never a content.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span, set_span_in_context

from obsserve.telemetry.catalogue import APP_EXCEPTION, OTHER, error_type_of
from obsserve.telemetry.lightspan import RANDOM, SAMPLED, Span, exception_attributes
from obsserve.telemetry.otlp_encode import (
    CONSUMER,
    ERROR,
    PRODUCER,
    UNSET,
    SpanEvent,
    SpanLink,
    SpanRecord,
    encode_span,
)
from obsserve.telemetry.propagation import attach_call
from obsserve.telemetry.redact import AttributePolicy
from obsserve.telemetry.spanfigures import KEPT, LEFT_OUT, LOCAL, NONE
from obsserve.telemetry.spanrecord import apply_edits, nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import SpanContext

    from obsserve.telemetry.lightspan import TraceIdentity
    from obsserve.telemetry.observer import MessageView, SessionView, WallClock
    from obsserve.telemetry.spanfigures import TraceFigures
    from obsserve.telemetry.spanqueue import SpanQueue
    from obsserve.telemetry.traceconfig import TracingConfiguration

_KINDS: Final = {CONSUMER: SpanKind.CONSUMER, PRODUCER: SpanKind.PRODUCER}
# Of the places in the queue.
_SHARE: Final = 2


def message_record(
    message: MessageView,
    *,
    trace_id: int = 0,
    span_id: int = 0,
    parent: SpanContext | None = None,
    offset: float = 0.0,
) -> SpanRecord:
    """Return the span of a message, without its link.

    Args:
        message: one that is over, for a received one at least handed over.
        trace_id: its own, or its parent's.
        span_id: its own.
        parent: of a message that was sent while another one was handled.
        offset: what turns its times into epoch seconds.
    """
    session = message.session
    exchange = session.exchange
    attributes: dict[str, Any] = {
        "obsserve.websocket.message.direction": "received" if message.received else "sent",
        "obsserve.websocket.message.type": "text" if message.is_text else "binary",
        "obsserve.websocket.message.size": message.size,
        "obsserve.connection.id": exchange.connection.id,
        "obsserve.request_id": exchange.request_id,
    }
    if message.received:
        attributes["obsserve.websocket.message.waited"] = message.handed - message.began
    if session.route:
        attributes["http.route"] = session.route
    record = SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        name=f"websocket {'receive' if message.received else 'send'} {session.route}".rstrip(),
        kind=CONSUMER if message.received else PRODUCER,
        start=nanoseconds(message.began, offset),
        end=nanoseconds(message.ended or session.closed_at, offset),
        attributes=attributes,
    )
    if parent is not None:
        record.parent_id = parent.span_id
        record.trace_state = parent.trace_state.to_header()
    if message.exception is not None:
        attributes["error.type"] = error_type_of(APP_EXCEPTION, None, message.exception) or OTHER
        record.status = ERROR
    return record


class MessageSpans:
    """Observer that makes spans of messages, whoever exports them.

    Args:
        figures: of the serving thread.
    """

    def __init__(self, figures: TraceFigures) -> None:
        self._figures = figures
        self._attach = attach_call()

    # --- Hooks -------------------------------------------------------------------------------

    def message_received(self, message: MessageView) -> None:
        """Begin the span of a message that the application is about to handle, in its own context."""
        handshake = _kept(message.session)
        if handshake is not None:
            message.previous = get_current_span()
            message.trace = self._begin(message, handshake)
            self._attach(set_span_in_context(message.trace, get_current()))

    def message_handled(self, message: MessageView) -> None:
        """End it, in the same context."""
        if message.trace is None:
            return
        self._finish(message)
        # Whatever else the application has put into its context stays there.
        if get_current_span() is message.trace:
            self._attach(set_span_in_context(message.previous, get_current()))

    def message_sent(self, message: MessageView) -> None:
        """Make the span of a message that the application has sent."""
        handshake = _kept(message.session)
        if handshake is None:
            return
        current = get_current_span().get_span_context()
        if not current.is_valid or current.trace_id == handshake.trace_id:
            self._make(message, handshake, None)
        elif current.trace_flags.sampled:
            self._make(message, handshake, current)
        else:
            self._figures.count_started(LOCAL, LEFT_OUT, is_recording=False)

    def session_ended(self, session: SessionView) -> None:
        """End the span of the message that is being handled."""
        message = session.handling
        if message is not None and message.trace is not None:
            self._finish(message)

    # --- Whoever exports them ----------------------------------------------------------------

    def _begin(self, message: MessageView, handshake: Any) -> Any:
        raise NotImplementedError

    def _finish(self, message: MessageView) -> None:
        """End the span of a received message, unless it has ended."""
        raise NotImplementedError

    def _make(self, message: MessageView, handshake: Any, parent: SpanContext | None) -> None:
        raise NotImplementedError


class OwnMessageSpans(MessageSpans):
    """Makes them as light spans, and puts them into our queue.

    Args:
        configuration: limits of what the application may set.
        queue: takes them to the collector.
        figures: of the serving thread.
        clock: turns times into epoch seconds.
        opened: told how many more are open.
    """

    def __init__(
        self,
        configuration: TracingConfiguration,
        queue: SpanQueue,
        figures: TraceFigures,
        clock: WallClock,
        opened: Callable[[int], None],
    ) -> None:
        super().__init__(figures)
        self._configuration = configuration
        self._foreign = AttributePolicy(configuration.query)
        self._queue = queue
        self._clock = clock
        self._opened = opened
        self._getrandbits = random.Random().getrandbits  # noqa: S311 - ids, no secrets

    def _begin(self, message: MessageView, handshake: TraceIdentity) -> Span:  # noqa: ARG002 - linked at its end
        self._figures.count_started(NONE, KEPT, is_recording=False)
        self._opened(1)
        bits = self._getrandbits
        return Span(bits(128) or 1, bits(64) or 1, SAMPLED | RANDOM, None, self._configuration)

    def _finish(self, message: MessageView) -> None:
        span: Span = message.trace
        if span.ended:
            return
        span.ended = True
        self._opened(-1)
        record = message_record(
            message, trace_id=span.trace_id, span_id=span.span_id, offset=self._clock.offset
        )
        edits = span.edits
        if edits is not None:
            apply_edits(record, edits, self._foreign.apply(edits.attributes))
        exception = message.exception
        recorded = () if edits is None else edits.recorded
        if exception is not None and id(exception) not in recorded and self._configuration.exception_events:
            told = SpanEvent("exception", record.end, exception_attributes(exception))
            record.events = [*record.events, told]
        self._put(message, record)

    def _make(self, message: MessageView, handshake: TraceIdentity, parent: SpanContext | None) -> None:  # noqa: ARG002
        self._figures.count_started(NONE if parent is None else LOCAL, KEPT, is_recording=False)
        bits = self._getrandbits
        trace_id = (bits(128) or 1) if parent is None else parent.trace_id
        self._put(
            message,
            message_record(
                message,
                trace_id=trace_id,
                span_id=bits(64) or 1,
                parent=parent,
                offset=self._clock.offset,
            ),
        )

    def _put(self, message: MessageView, record: SpanRecord) -> None:
        queue = self._queue
        if len(queue.spans) >= queue.room // _SHARE:
            queue.refuse()
            return
        handshake: Any = message.session.exchange.trace
        record.links = [SpanLink(handshake.trace_id, handshake.span_id, is_remote=False), *record.links]
        queue.spans.append(encode_span(record))
        if len(queue.spans) >= queue.wake_at:
            queue.wake_sender()


class ProviderMessageSpans(MessageSpans):
    """Makes them through the application's own provider, whose sampler decides.

    Args:
        tracer: of that provider.
        figures: of the serving thread.
        clock: turns times into epoch seconds.
        exception_events: whether an exception becomes an event of the span.
    """

    def __init__(
        self, tracer: Any, figures: TraceFigures, clock: WallClock, *, exception_events: bool
    ) -> None:
        super().__init__(figures)
        self._tracer = tracer
        self._clock = clock
        self._exception_events = exception_events

    def _start(self, message: MessageView, handshake: Any, parent: SpanContext | None) -> Any:
        record = message_record(message, offset=self._clock.offset)
        attributes: Mapping[str, Any] = record.attributes
        span = self._tracer.start_span(
            record.name,
            context=Context() if parent is None else get_current(),
            kind=_KINDS[record.kind],
            attributes=attributes,
            links=(Link(handshake.span.get_span_context()),),
            start_time=record.start,
        )
        kept = span.get_span_context().trace_flags.sampled
        self._figures.count_started(
            NONE if parent is None else LOCAL, KEPT if kept else LEFT_OUT, is_recording=span.is_recording()
        )
        return span

    def _begin(self, message: MessageView, handshake: Any) -> Any:
        return self._start(message, handshake, None)

    def _finish(self, message: MessageView) -> None:
        span = message.trace
        if not span.is_recording():
            return
        record = message_record(message, offset=self._clock.offset)
        if record.status != UNSET:
            span.set_attribute("error.type", record.attributes["error.type"])
            span.set_status(StatusCode.ERROR)
            if self._exception_events:
                span.record_exception(message.exception, timestamp=record.end)
        self._end(span, record)

    def _make(self, message: MessageView, handshake: Any, parent: SpanContext | None) -> None:
        span = self._start(message, handshake, parent)
        if span.is_recording():
            self._end(span, message_record(message, offset=self._clock.offset))

    def _end(self, span: Any, record: SpanRecord) -> None:
        span.end(end_time=record.end)
        self._figures.slots[self._figures.live] -= 1.0


def _kept(session: SessionView) -> Any:
    """Return the span of a session's handshake, if it is kept."""
    handshake = session.exchange.trace
    return handshake if handshake is not None and handshake.sampled else None
