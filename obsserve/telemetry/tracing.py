"""One span for each request: the observer, and what starts and stops around it.

`Tracing` makes our own light spans and exports them through `SpanQueue`; it is also the global provider
of an application that has none. `ProviderTracing` stands in when importing the application has set a
global provider: then its tracer makes the SERVER spans, and our export is off.

Rules: the decision to keep a span comes before everything that costs; ids and context are there for each
request, kept or not. Instrumentation in the application (opentelemetry-instrumentation-asgi and its like)
finds our span current and makes its own an INTERNAL child, so that there is one SERVER span.

`exchange_started` and `exchange_ended` together take 0.6 µs not sampled and 2.5 µs sampled, encoding and
queueing included; a parent adds 1.1 (`python tests/telemetry/measure_tracing.py`, CPython 3.11). That is with warm
caches: among everything else that a request does it is more.
"""

from __future__ import annotations

import contextvars
import random
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.trace import SpanKind

from obsserve.speedups import native
from obsserve.telemetry.appspans import application_provider, foreign_provider
from obsserve.telemetry.lightspan import (
    RANDOM,
    SAMPLED,
    ChildSpan,
    IdPool,
    LightSpan,
    RootSpan,
    Span,
    answering,
)
from obsserve.telemetry.observer import ExchangeView
from obsserve.telemetry.otlp import SCOPE, ExporterNoise, make_carrier
from obsserve.telemetry.otlp_encode import RequestFrame, encode_span
from obsserve.telemetry.propagation import (
    BAGGAGE,
    SPAN_KEY,
    TRACEPARENT,
    TRACESTATE,
    Propagation,
    TrustPolicy,
    UntrustedHint,
    attach_call,
    ordinary_parent,
)
from obsserve.telemetry.providertracing import ProviderTracing
from obsserve.telemetry.sampling import ALWAYS, NEVER, PathSampling, Sampling, sampling_of
from obsserve.telemetry.spanencoder import ExchangeEncoder
from obsserve.telemetry.spanfigures import KEPT, LEFT_OUT, LOCAL, NONE, RECORDED, REMOTE, TraceFigures
from obsserve.telemetry.spanqueue import SENDER, SpanQueue, make_spans
from obsserve.telemetry.spanrecord import (
    SpanProjection,
    kept_for,
    lifespan_record,
    session_record,
    span_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from obsserve.telemetry.appspans import ApplicationProvider
    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.messagespans import MessageSpans
    from obsserve.telemetry.observer import LoopLag, SessionView, WallClock
    from obsserve.telemetry.propagation import Incoming
    from obsserve.telemetry.spanqueue import Carrier
    from obsserve.telemetry.traceconfig import TracingConfiguration

# Events for the server's log.
NOT_UNDERSTOOD: Final = "telemetry.trace_option"


_ROOT_KEPT: Final = SAMPLED | RANDOM


class TracedExchange(ExchangeView, Protocol):
    """What an exchange offers to be traced. `trace` is set here, and None until then."""

    trace: Any
    # The line that tells the client its ids, and whether the response's head is an ordinary one without it.
    trace_line: bytes
    plain: bool

    @property
    def context(self) -> contextvars.Context | None:
        """The context that its task will run in, not entered yet; None when no task will run."""
        ...


def start_tracing(
    configuration: TracingConfiguration,
    *,
    resource: Mapping[str, Any],
    version: str,
    region: Cells | None,
    clock: WallClock,
    lag: LoopLag,
    trusted: Container[str] = (),
    report: Callable[[str, str], None],
) -> Tracing | ProviderTracing:
    """Start to trace: after the application was imported, before its lifespan.

    Args:
        configuration: from `tracing_configuration`.
        resource: from `resource`.
        version: of this server.
        region: the cells of this process; None when nobody reads them.
        clock: the server's, refreshed by its ticker.
        lag: what is known of the event loop's lag.
        trusted: peers whose trace context is believed besides those near by.
        report: takes event and message for the server's log; called from any thread.
    """
    for note in configuration.notes:
        report(NOT_UNDERSTOOD, note)
    figures = TraceFigures(region)
    hint = UntrustedHint(figures, report)
    propagation = Propagation(
        TrustPolicy(configuration.trust, trusted), lambda reason: figures.invalid.add(1.0, reason), hint
    )
    projection = SpanProjection(configuration)
    provider = foreign_provider()
    if provider is not None:
        tracer = provider.get_tracer(SCOPE, version)
        return ProviderTracing(
            tracer,
            projection=projection,
            propagation=propagation,
            figures=figures,
            attach=attach_call(),
            clock=clock,
            lag=lag,
            response_fields=configuration.response_fields,
        )
    sampling = sampling_of(
        configuration.sampler, configuration.sampler_argument, lambda note: report(NOT_UNDERSTOOD, note)
    )
    noise = ExporterNoise(report, SENDER)
    noise.install()
    application = application_provider(configuration, resource, sampling)
    frame = RequestFrame(resource, SCOPE, version)

    def carrier() -> Carrier:
        made = make_carrier(configuration, frame, resource, noise)
        application.prepare()
        return made

    queue = SpanQueue(
        carrier,
        figures,
        report,
        capacity=configuration.queue_size,
        batch_size=configuration.batch_size,
        schedule_delay=configuration.schedule_delay,
        spans=make_spans(),
    )
    queue.start()
    return Tracing(
        configuration,
        sampling=sampling,
        propagation=propagation,
        projection=projection,
        encoder=ExchangeEncoder(projection, clock, lag),
        queue=queue,
        figures=figures,
        application=application,
        noise=noise,
    )


def current_trace_ids() -> tuple[str, str, str] | None:
    """Return trace id, span id and flags of the current span, for a log line of the application."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{context.trace_flags:02x}"


class Tracing:
    """Observer that makes one span for each exchange.

    Args:
        configuration: limits of what the application may set.
        sampling: which spans are kept.
        propagation: reads what requests bring.
        projection: what a span says.
        encoder: makes bytes of it.
        queue: takes them to the collector.
        figures: of the serving thread.
        application: the provider for the application's spans.
        noise: what keeps exporters out of the logs.
    """

    def __init__(
        self,
        configuration: TracingConfiguration,
        *,
        sampling: Sampling,
        propagation: Propagation,
        projection: SpanProjection,
        encoder: ExchangeEncoder,
        queue: SpanQueue,
        figures: TraceFigures,
        application: ApplicationProvider,
        noise: ExporterNoise,
    ) -> None:
        self._configuration = configuration
        self._sampling = sampling
        self._bound = sampling.bound
        self._propagation = propagation
        self._projection = projection
        self._encoder = encoder
        self._queue = queue
        self._spans = queue.spans
        self._figures = figures
        self._application = application
        self._noise = noise
        self._attach = attach_call()
        self._paths = PathSampling(configuration.path_shares)
        # Not the module's function: an application that seeds it would repeat its ids, and so would the
        # children of a process that forks.
        self._getrandbits = random.Random().getrandbits  # noqa: S311 - ids, no secrets
        self._ids = IdPool()
        self._slots = figures.slots
        # How many are open; the ticker publishes it, which spares each request two changes of a cell.
        self._open = 0
        # By whether there is a parent, and by the decision.
        self._started = {
            (origin == REMOTE, decision): figures.started.row(origin, decision)
            for origin in (NONE, REMOTE)
            for decision in (KEPT, RECORDED, LEFT_OUT)
        }
        self._root_kept = self._started[False, KEPT]
        self._root_left_out = self._started[False, LEFT_OUT]
        self._child_kept = self._started[True, KEPT]
        self._child_left_out = self._started[True, LEFT_OUT]
        self._continues = propagation.reads_parents_only
        self._parent_based = sampling.parent_based
        # Decided once: with a foreign propagator or sampler there is no short way.
        self.exchange_started: Callable[[TracedExchange], None] = self._start
        self.exchange_ended: Callable[[TracedExchange], None] = self._end
        self._native: Any = None
        if propagation.names is None or sampling.custom is not None:
            self.exchange_started = self._start_any
        elif native is not None:
            self._native = tracer = self._native_tracer()
            self.exchange_started = tracer.start
            self.exchange_ended = tracer.end
        if self._paths:
            self._start_elsewhere = self.exchange_started
            self.exchange_started = self._start_by_path
        if configuration.response_fields:
            self.exchange_started = answering(self.exchange_started, configuration.response_fields)
        if configuration.keep_errors:
            self.exchange_ended = self._end_keeping

    def _native_tracer(self) -> Any:
        """Return what begins and ends the spans of ordinary exchanges in C."""
        variable = getattr(self._attach, "__self__", None)
        return native.Tracer(
            ids=self._ids,
            fill=self._ids.fill,
            slots=self._slots,
            limits=self._configuration,
            variable=variable if isinstance(variable, contextvars.ContextVar) else None,
            attach=self._attach,
            queue=self._queue,
            waiting=self._spans,
            append=self._spans.append,
            wake=self._queue.wake_sender,
            refuse=self._queue.refuse,
            encode=self._encoder.encode,
            start_otherwise=self._start,
            end_otherwise=self._end,
            root=RootSpan,
            child=ChildSpan,
            root_kept=self._root_kept,
            root_left_out=self._root_left_out,
            bound=self._bound,
        )

    # --- Hooks -------------------------------------------------------------------------------

    def _start(self, view: TracedExchange) -> None:
        """Give a request its ids and its context, and decide whether its span is kept."""
        fields = view.fields
        if TRACEPARENT in fields or BAGGAGE in fields:
            if (
                not self._continues
                or BAGGAGE in fields
                or TRACESTATE in fields
                or len(fields) != len(view.request_headers)
                or not self._continue(view, fields[TRACEPARENT])
            ):
                self._start_any(view)
            return
        ids = self._ids
        if not ids:
            ids.fill()
        span = RootSpan()
        lower, span.trace_hex, span.span_hex = ids.pop()
        span.limits = self._configuration
        span.ended = False
        span.extras = None
        if lower < self._bound:
            span.flags = _ROOT_KEPT
            self._open += 1
            self._slots[self._root_kept] += 1.0
        else:
            span.flags = RANDOM
            self._slots[self._root_left_out] += 1.0
        view.trace = span
        context = view.context
        if context is not None:
            context.run(self._attach, span)

    def _continue(self, view: TracedExchange, traceparent: bytes) -> bool:
        """Do the same for a request that brings a traceparent of the usual form, from a trusted peer, and no more.

        Returns:
            False when it is another one; then nothing was done.
        """
        found = ordinary_parent(traceparent)
        if found is None or not self._propagation.trust.believes(view.connection.peer):
            return False
        ids = self._ids
        if not ids:
            ids.fill()
        span = ChildSpan()
        _, _, span.span_hex = ids.pop()
        span.trace_hex, span.parent_hex, flags = found
        span.parent_flags = flags
        span.limits = self._configuration
        span.ended = False
        span.extras = None
        kept = flags & SAMPLED if self._parent_based else int(span.trace_hex[16:], 16) < self._bound
        if kept:
            span.flags = flags & RANDOM | SAMPLED
            self._open += 1
            self._slots[self._child_kept] += 1.0
        else:
            span.flags = flags & RANDOM
            self._slots[self._child_left_out] += 1.0
        view.trace = span
        context = view.context
        if context is not None:
            context.run(self._attach, span)
        return True

    def _start_by_path(self, view: TracedExchange) -> None:
        """Do the same with the share of the request's path."""
        bound = self._paths.bound(view)
        if bound is None:
            self._start_elsewhere(view)
        else:
            self._start_any(view, bound)

    def _start_any(self, view: TracedExchange, bound: int | None = None) -> None:
        """Do the same for a request that brings a context, or with a sampler that is not ours.

        Args:
            view: the request.
            bound: from its path's rule, where there is one.
        """
        incoming = self._propagation.read(view)
        parent = incoming.parent
        if parent is None:
            trace_id = self._getrandbits(128) or 1
            flags = RANDOM
        else:
            trace_id = parent.trace_id
            flags = parent.flags & RANDOM
        span = Span(trace_id, self._getrandbits(64) or 1, flags, parent, self._configuration)
        if bound is not None and bound in (ALWAYS, NEVER):
            decision = KEPT if bound else LEFT_OUT
        elif self._sampling.custom is not None:
            decision = self._ask(view, span, incoming)
        else:
            parent_flags = parent.flags if parent is not None and incoming.flag_counts else None
            decision = KEPT if self._sampling.samples(trace_id, parent_flags, bound) else LEFT_OUT
        # A span that would only be recorded has nobody to read it here.
        kept = decision == KEPT
        if kept:
            span.flags = flags | SAMPLED
        if incoming.link is not None:
            span.take_link(incoming.link)
        view.trace = span
        slots = self._slots
        slots[self._started[parent is not None, decision]] += 1.0
        if kept:
            self._open += 1
        context = view.context
        if context is not None:
            held = span if not incoming.context else Context({**incoming.context, SPAN_KEY: span})
            context.run(self._attach, held)

    def _ask(self, view: TracedExchange, span: Span, incoming: Incoming) -> str:
        """Return the decision of an official sampler."""
        result = self._sampling.custom.should_sample(
            incoming.parent_context(),
            span.trace_id,
            span_name(view.method, ""),
            SpanKind.SERVER,
            self._projection.at_start(view),
            (),
        )
        span.take_sampling(result.attributes, result.trace_state)
        if result.decision.is_sampled():
            return KEPT
        return RECORDED if result.decision.is_recording() else LEFT_OUT

    def _end(self, view: TracedExchange) -> None:
        """Queue the span of an exchange, if it is kept."""
        span = view.trace
        if span is None or not span.flags & SAMPLED:
            return
        self._open -= 1
        spans, queue = self._spans, self._queue
        waiting = len(spans)
        if waiting < queue.room:
            spans.append(self._encoder.encode(view, span))
            if waiting + 1 >= queue.wake_at:
                queue.wake_sender()
        else:
            queue.refuse()
        span.ended = True

    def _end_keeping(self, view: TracedExchange) -> None:
        """Do the same, and queue the span of what failed or was slow although it is not kept."""
        span = view.trace
        if span is None or span.flags & SAMPLED:
            self._end(view)
            return
        reason = kept_for(view, self._configuration.slow)
        if reason:
            self._queue_record(lambda: self._encoder.encode_kept(view, span, reason))
        span.ended = True

    def _queue_record(self, encode: Callable[[], bytes]) -> None:
        if len(self._spans) >= self._queue.room:
            self._queue.refuse()
            return
        self._spans.append(encode())
        if len(self._spans) >= self._queue.wake_at:
            self._queue.wake_sender()

    def session_started(self, session: SessionView) -> None:
        """Count the span of a WebSocket session; it is kept if its handshake's is."""
        handshake = _trace_of(session)
        if handshake is not None:
            kept = handshake.sampled
            self._figures.count_started(LOCAL, KEPT if kept else LEFT_OUT, is_recording=False)
            self._open += kept

    def session_ended(self, session: SessionView) -> None:
        """Queue the span of a WebSocket session, if it is kept."""
        handshake = _trace_of(session)
        if handshake is None or not handshake.sampled:
            return
        self._open -= 1
        span_id = self._getrandbits(64) or 1
        offset, state = self._encoder.offset, handshake.state_text
        self._queue_record(
            lambda: encode_span(session_record(session, handshake, span_id, offset=offset, state=state))
        )

    def lifespan_finished(
        self, phase: str, seconds: float, *, failed: bool = False, exception: BaseException | None = None
    ) -> None:
        """Queue the span of a phase of the application's lifespan that has just ended, if it is kept.

        Args:
            phase: startup or shutdown.
            seconds: how long it took.
            failed: whether the application did not get through it.
            exception: what it raised, if it did.
        """
        ended = perf_counter() + self._encoder.offset
        record = lifespan_record(
            phase,
            ended - seconds,
            ended,
            trace_id=self._getrandbits(128) or 1,
            span_id=self._getrandbits(64) or 1,
            failed=failed,
            exception=exception,
        )
        kept = self._sampling.keeps_root(record)
        self._figures.count_started(NONE, KEPT if kept else LEFT_OUT, is_recording=False)
        if kept:
            self._queue_record(lambda: encode_span(record))

    # --- What the server asks of tracing -----------------------------------------------------

    def message_spans(self) -> MessageSpans:
        """Return an observer that makes spans of WebSocket messages."""
        from obsserve.telemetry.messagespans import OwnMessageSpans  # noqa: PLC0415 - for hardly anybody

        return OwnMessageSpans(
            self._configuration, self._queue, self._figures, self._encoder, self._count_open
        )

    def _count_open(self, more: int) -> None:
        self._open += more

    def _open_spans(self) -> int:
        return self._open + (0 if self._native is None else self._native.open)

    def tick(self) -> None:
        """Publish how many spans are open and how many wait; meant for ten times a second."""
        self._slots[self._figures.live] = self._open_spans()
        self._queue.tick()

    def flush(self, timeout: float) -> bool:
        """Try to export what waits now; return whether that was over within so many seconds."""
        return self._queue.flush(timeout)

    def shutdown(self, timeout: float) -> None:
        """Export what waits, the application's spans too, and stop; all within so many seconds."""
        deadline = monotonic() + timeout
        application = self._application.shutdown_in_background()
        stopped = self._queue.shutdown(timeout)
        self._slots[self._figures.live] = self._open_spans()
        if application is not None:
            application.join(max(deadline - monotonic(), 0.0))
            stopped = stopped and not application.is_alive()
        if stopped:  # else the exporter has still something to say
            self._noise.remove()


def _trace_of(session: SessionView) -> LightSpan | None:
    found = getattr(session.exchange, "trace", None)
    return found if isinstance(found, LightSpan) else None
