"""SERVER spans by the application's own tracer provider, when importing the application has set one.

Standard SDK spans with its samplers, processors and exporters; our own export is off. Attributes, names,
status and events are those of our own spans. It costs what the SDK costs.

A parent that is not trusted becomes a link here: a foreign sampler cannot be told to take its trace id
and not its flag.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from opentelemetry.context.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode, set_span_in_context

from obsserve.telemetry.lightspan import TraceIdentity, answering, exception_attributes
from obsserve.telemetry.otlp_encode import ERROR
from obsserve.telemetry.spanfigures import KEPT, LEFT_OUT, LOCAL, NONE, RECORDED, REMOTE
from obsserve.telemetry.spanrecord import is_failure, lifespan_record, nanoseconds, session_record, span_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from obsserve.telemetry.messagespans import MessageSpans
    from obsserve.telemetry.observer import ExchangeView, LoopLag, SessionView, WallClock
    from obsserve.telemetry.propagation import Propagation
    from obsserve.telemetry.spanfigures import TraceFigures
    from obsserve.telemetry.spanrecord import SpanProjection
    from obsserve.telemetry.tracing import TracedExchange


class ProviderSpan(TraceIdentity):
    """The SDK's span of an exchange, and its ids for logs and exemplars."""

    __slots__ = ("flags", "name", "span", "span_id", "trace_id", "was_recording")

    def __init__(self, span: Any, name: str) -> None:
        context = span.get_span_context()
        self.trace_id = context.trace_id
        self.span_id = context.span_id
        self.flags = int(context.trace_flags)
        self.span = span
        self.name = name
        self.was_recording: bool = span.is_recording()


class ProviderTracing:
    """Observer that makes spans through a provider that is not ours.

    Args:
        tracer: of that provider.
        projection: what a span says.
        propagation: reads what requests bring.
        figures: of the serving thread.
        attach: makes an OpenTelemetry context current, in the context that it runs in.
        clock: the server's, refreshed by its ticker.
        lag: what is known of the event loop's lag.
        response_fields: response headers that tell a client the ids of its request's span.
    """

    def __init__(
        self,
        tracer: Any,
        *,
        projection: SpanProjection,
        propagation: Propagation,
        figures: TraceFigures,
        attach: Callable[[Context], object],
        clock: WallClock,
        lag: LoopLag,
        response_fields: Sequence[str] = (),
    ) -> None:
        self._tracer = tracer
        self._projection = projection
        self._propagation = propagation
        self._figures = figures
        self._attach = attach
        self._clock = clock
        self._lag = lag
        self.exchange_started: Callable[[TracedExchange], None] = self._start
        if response_fields:
            self.exchange_started = answering(self._start, response_fields)

    # --- Hooks -------------------------------------------------------------------------------

    def _start(self, view: TracedExchange) -> None:
        incoming = self._propagation.read(view)
        context = incoming.parent_context()
        link = incoming.link
        if incoming.parent is not None and not incoming.flag_counts:
            link = incoming.parent
        name = span_name(view.method, "")
        span = self._tracer.start_span(
            name,
            context=context,
            kind=SpanKind.SERVER,
            attributes=self._projection.at_start(view),
            links=() if link is None else (Link(link.span_context()),),
            start_time=nanoseconds(view.began, self._clock.offset),
        )
        view.trace = ours = ProviderSpan(span, name)
        has_parent = incoming.parent is not None and incoming.flag_counts
        decision = KEPT if ours.sampled else RECORDED if ours.was_recording else LEFT_OUT
        origin = REMOTE if has_parent else NONE
        self._figures.count_started(origin, decision, is_recording=ours.was_recording)
        if view.context is not None:
            view.context.run(self._attach, set_span_in_context(span, context))

    def exchange_ended(self, view: TracedExchange) -> None:
        ours = view.trace
        if not isinstance(ours, ProviderSpan) or not ours.was_recording:
            return
        self._figures.slots[self._figures.live] -= 1.0
        span = ours.span
        offset = self._clock.offset
        end = nanoseconds(view.ended, offset)
        span.set_attributes(self._projection.at_end(view, self._lag.max_between(view.began, view.ended)))
        if getattr(span, "name", ours.name) == ours.name:  # else the application has named it
            span.update_name(span_name(view.method, view.route))
        for event in self._projection.events(view, offset):
            span.add_event(event.name, timestamp=event.time)
        if view.exception is not None and self._projection.exception_events and not _is_recorded(span, view):
            span.record_exception(view.exception, timestamp=end)
        if is_failure(view):
            span.set_status(StatusCode.ERROR, self._projection.description(view) or None)
        span.end(end_time=end)

    def session_started(self, session: SessionView) -> None:
        handshake = _trace_of(session)
        if handshake is not None:
            kept = handshake.sampled
            self._figures.count_started(LOCAL, KEPT if kept else LEFT_OUT, is_recording=kept)

    def session_ended(self, session: SessionView) -> None:
        handshake = _trace_of(session)
        if handshake is None or not handshake.sampled:
            return
        record = session_record(session, handshake, 0, offset=self._clock.offset)
        span = self._tracer.start_span(
            record.name,
            context=set_span_in_context(handshake.span),
            kind=SpanKind.INTERNAL,
            attributes=record.attributes,
            start_time=record.start,
        )
        if record.status == ERROR:
            span.set_status(StatusCode.ERROR)
        span.end(end_time=record.end)
        self._figures.slots[self._figures.live] -= 1.0

    def lifespan_finished(
        self, phase: str, seconds: float, *, failed: bool = False, exception: BaseException | None = None
    ) -> None:
        """Make the span of a phase of the application's lifespan that has just ended.

        Args:
            phase: startup or shutdown.
            seconds: how long it took.
            failed: whether the application did not get through it.
            exception: what it raised, if it did.
        """
        ended = perf_counter() + self._clock.offset
        record = lifespan_record(
            phase, ended - seconds, ended, trace_id=0, span_id=0, failed=failed, exception=exception
        )
        span = self._tracer.start_span(
            record.name, context=Context(), attributes=record.attributes, start_time=record.start
        )
        kept = span.get_span_context().trace_flags.sampled
        self._figures.count_started(NONE, KEPT if kept else LEFT_OUT, is_recording=False)
        if exception is not None:
            span.record_exception(exception, timestamp=record.end)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(end_time=record.end)

    # --- What the server asks of tracing -----------------------------------------------------

    def message_spans(self) -> MessageSpans:
        """Return an observer that makes spans of WebSocket messages."""
        from obsserve.telemetry.messagespans import ProviderMessageSpans  # noqa: PLC0415 - for hardly anybody

        return ProviderMessageSpans(
            self._tracer, self._figures, self._clock, exception_events=self._projection.exception_events
        )

    def tick(self) -> None:
        """Do nothing: the queue is the provider's."""

    def flush(self, timeout: float) -> bool:
        """Do nothing, as above."""
        return timeout >= 0

    def shutdown(self, timeout: float) -> None:
        """Do nothing: the provider belongs to the application."""


def _trace_of(session: SessionView) -> ProviderSpan | None:
    found = getattr(session.exchange, "trace", None)
    return found if isinstance(found, ProviderSpan) else None


def _is_recorded(span: Any, view: ExchangeView) -> bool:
    """Return whether the application, or a framework's instrumentation, has recorded this exception."""
    told = exception_attributes(view.exception) if view.exception is not None else {}
    return any(
        event.name == "exception"
        and event.attributes.get("exception.type") == told["exception.type"]
        and str(event.attributes.get("exception.message"))[:1024] == told["exception.message"]
        for event in getattr(span, "events", ())
    )
