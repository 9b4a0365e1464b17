"""The global tracer provider for an application that has none: its spans become children of ours.

The SDK, a standard batch processor and an unchanged official exporter do the work. They are made in the
background or when the first tracer is asked for, because importing them takes 0.3 s and many applications
make no spans. Where the SDK is imported already its provider itself becomes the global one; else this
module's stands for it and passes on whatever is asked of it.
"""

from __future__ import annotations

import copy
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import SpanKind

from obsserve.telemetry.correlation import current_exchange
from obsserve.telemetry.otlp import make_exporter
from obsserve.telemetry.redact import AttributePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import Attributes

    from obsserve.telemetry.sampling import Sampling
    from obsserve.telemetry.traceconfig import TracingConfiguration


class _Outlet:
    """The provider's span processor: leads to a batch processor, or nowhere.

    A process has one global provider for ever; a server that is started in it again gets a new processor.
    """

    def __init__(self, policy: AttributePolicy) -> None:
        self.target: Any = None
        self.policy = policy

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002 - the SDK's form
        """Make a second SERVER span of a request an INTERNAL child of ours.

        Frameworks that instrument themselves (FastAPI from 0.165) make one from the request's headers,
        whatever span is current. One request has one SERVER span: the server's own.
        """
        ours = _server_span() if span.kind is SpanKind.SERVER else None
        if ours is None or not (span.parent is None or span.parent.is_remote):
            return
        made = span.get_span_context()
        with suppress(AttributeError):  # private to the SDK: without them the span stays as it is
            span._kind = SpanKind.INTERNAL  # noqa: SLF001
            span._parent = ours.get_span_context()  # noqa: SLF001
            span._context = trace.SpanContext(  # noqa: SLF001
                ours.trace_id, made.span_id, is_remote=False, trace_flags=made.trace_flags,
                trace_state=made.trace_state,
            )  # fmt: skip

    def _on_ending(self, span: Any) -> None:
        """Do nothing, as above."""

    def on_end(self, span: Any) -> None:
        target = self.target
        if target is not None:
            target.on_end(_redacted(span, self.policy))

    def shutdown(self) -> None:
        target, self.target = self.target, None
        if target is not None:
            target.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        target = self.target
        return target is None or bool(target.force_flush(timeout_millis))


def _redacted(span: Any, policy: AttributePolicy) -> Any:
    """Return the span as it may leave: a copy where something is hidden, for the application may export it elsewhere."""
    attributes = span.attributes
    shown = attributes if attributes is None else policy.apply(attributes)
    if shown is attributes:
        return span
    bounded = BoundedAttributes(attributes=shown, immutable=False)
    bounded.dropped = span.dropped_attributes
    copied = copy.copy(span)
    copied._attributes = bounded  # noqa: SLF001 - a finished span has no other way
    return copied


def _server_span() -> Any:
    """Return the server's span of the request that the running code serves, None outside one."""
    exchange = current_exchange()
    return None if exchange is None else exchange.trace


def _following(sampler: Any) -> Any:
    """Return a sampler that keeps what would be a request's second SERVER span if the first one is kept."""
    from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult  # noqa: PLC0415 - see above

    class Following(Sampler):
        def should_sample(self, *args: Any, **facts: Any) -> SamplingResult:
            # By position or name: parent context, trace id, name, kind, attributes, links, trace state.
            kind = args[3] if len(args) > 3 else facts.get("kind")
            ours = _server_span() if kind is SpanKind.SERVER else None
            if ours is None:
                result: SamplingResult = sampler.should_sample(*args, **facts)
                return result
            decision = Decision.RECORD_AND_SAMPLE if ours.sampled else Decision.DROP
            attributes = args[4] if len(args) > 4 else facts.get("attributes")
            return SamplingResult(decision, attributes, ours.get_span_context().trace_state)

        def get_description(self) -> str:
            return str(sampler.get_description())

    return Following()


class ApplicationProvider(trace.TracerProvider):
    """Stands for the SDK's provider until it is needed.

    Args:
        configuration: where spans go.
        resource: the resource's attributes.
        sampling: how root spans of the application are decided.
    """

    def __init__(
        self, configuration: TracingConfiguration, resource: Mapping[str, Any], sampling: Sampling
    ) -> None:
        self._configuration: TracingConfiguration | None = configuration
        self._resource = resource
        self._sampling = sampling
        self._lock = threading.Lock()
        self._outlet = _Outlet(AttributePolicy(configuration.query))
        self._provider: Any = None

    def prepare(self) -> Any:
        """Return the SDK's provider; make it, and its way to the collector, if they are not there."""
        with self._lock:
            if self._provider is None:
                self._provider = self._make_provider()
            if self._outlet.target is None and self._configuration is not None:
                self._outlet.target = _batch_processor(self._configuration)
            return self._provider

    def _make_provider(self) -> Any:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

        # Its own handler at exit would wait for a dead collector for half a minute.
        provider: Any = TracerProvider(
            sampler=_following(self._sampling.official()),
            resource=Resource.create(self._resource),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._outlet)
        return provider

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        tracer: trace.Tracer = self.prepare().get_tracer(
            instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        )
        return tracer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.prepare(), name)

    def install(self) -> None:
        """Become the global provider."""
        is_imported = "opentelemetry.sdk.trace" in sys.modules
        provider = self.prepare() if is_imported else self
        trace.set_tracer_provider(provider)
        _installed[:] = [(provider, self)]

    def reopen(self, configuration: TracingConfiguration) -> None:
        """Export again, for a server that is started in this process again."""
        self._configuration = configuration
        self._outlet.policy = AttributePolicy(configuration.query)
        if self._provider is not None:
            self.prepare()

    def shutdown_in_background(self) -> threading.Thread | None:
        """Begin to export what waits and stop; return the thread that does, to be waited for.

        The SDK's own shutdown knows no deadline of ours, so it gets a thread that the process does not wait for.
        """
        self._configuration = None
        if self._provider is None:
            return None
        thread = threading.Thread(target=self._provider.shutdown, name="obsserve-span-shutdown", daemon=True)
        thread.start()
        return thread


# The global provider that is ours, as OpenTelemetry knows it, and what stands behind it.
_installed: list[tuple[Any, ApplicationProvider]] = []


def _batch_processor(configuration: TracingConfiguration) -> Any:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above

    return BatchSpanProcessor(
        make_exporter(configuration),
        max_queue_size=configuration.queue_size,
        schedule_delay_millis=configuration.schedule_delay * 1e3,
        max_export_batch_size=configuration.batch_size,
    )


def foreign_provider() -> Any:
    """Return the provider that the application has set, None when it has set none."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider) or any(provider is ours for ours, _ in _installed):
        return None
    return provider


def application_provider(
    configuration: TracingConfiguration, resource: Mapping[str, Any], sampling: Sampling
) -> ApplicationProvider:
    """Return the provider for the application's spans, made the global one if there is none.

    Args:
        configuration: where spans go.
        resource: the resource's attributes.
        sampling: how root spans of the application are decided.
    """
    current = trace.get_tracer_provider()
    for provider, ours in _installed:
        if provider is current:
            ours.reopen(configuration)
            return ours
    made = ApplicationProvider(configuration, resource, sampling)
    made.install()
    return made
