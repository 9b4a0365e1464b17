"""One span for each request: ids, decisions, the application's view, and the providers around it."""

import asyncio
import contextvars
import random
import threading
from time import monotonic

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import attach, get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace import sampling as official
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, TraceState
from opentelemetry.util._once import Once

from obsserve.telemetry import appspans, catalogue, propagation, tracing
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.otlp import SCOPE
from obsserve.telemetry.providertracing import ProviderTracing
from obsserve.telemetry.redact import QueryPolicy
from obsserve.telemetry.sampling import Sampling
from obsserve.telemetry.traceconfig import TracingConfiguration
from obsserve.telemetry.tracing import Tracing, attach_call, current_trace_ids, start_tracing
from obsserve.testing_otlp import Answer, OTLPSink
from tracedoubles import Clock, Exchange, Figures, Lag, connection, session, with_headers
from tests.anyvalues import attributes
from tests.parts import package

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
UNSAMPLED_PARENT = (b"traceparent", PARENT[1][:-1] + b"0")
OUTSIDE = connection(peer=("203.0.113.9", 4))
STARTED = catalogue.SPANS_STARTED
KEPT, LEFT_OUT = "RECORD_AND_SAMPLE", "DROP"


@pytest.fixture(autouse=True)
def no_global_provider(monkeypatch):
    """Each test begins as a process does."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())


@pytest.fixture(scope="module")
def collector():
    with OTLPSink("grpc") as sink:
        yield sink


@pytest.fixture
def sink(collector):
    collector.answer = Answer()
    collector._received.clear()
    return collector


class Traced:
    """A running tracing, and what came of it."""

    def __init__(self, sink, **configured):
        self.sink = sink
        self.region = Cells.create(300)
        self.figures = Figures(self.region)
        self.reports = []
        trusted = configured.pop("trusted", ())
        self.configuration = TracingConfiguration(
            endpoint=sink.endpoint, destination=sink.endpoint, **{"schedule_delay": 3600.0} | configured
        )
        self.tracing = start_tracing(
            self.configuration, resource={"service.name": "shop"}, version="1", region=self.region, clock=Clock(),
            lag=Lag(), trusted=trusted, report=lambda *report: self.reports.append(report),
        )  # fmt: skip

    def start(self, view=None):
        view = view or Exchange()
        self.tracing.exchange_started(view)
        return view

    def serve(self, view=None, app=lambda: None):
        view = self.start(view)
        if view.context is not None:
            view.context.run(app)
        self.tracing.exchange_ended(view)
        return view

    def spans(self, count=1):
        assert self.tracing.flush(10.0)
        return self.sink.wait_for(count)

    def span(self):
        (span,) = self.spans()
        return span


@pytest.fixture
def make(sink):
    made = []

    def build(**configured):
        made.append(Traced(sink, **configured))
        return made[-1]

    yield build
    for traced in made:
        traced.tracing.shutdown(5.0)


class TestASpan:
    def test_what_arrives(self, make):
        traced = make()
        view = traced.serve()
        span = traced.span()
        assert span.trace_id == view.trace.trace_id.to_bytes(16, "big")
        assert span.span_id == view.trace.span_id.to_bytes(8, "big")
        assert (span.name, span.kind, span.parent_span_id) == ("GET /items/{id}", 2, b"")
        assert attributes(span)["http.response.status_code"] == 200
        scope = traced.sink.requests[0].resource_spans[0].scope_spans[0].scope
        assert (scope.name, scope.version) == (SCOPE, "1")

    def test_ids_differ(self, make):
        traced = make()
        random.seed(1)
        first = traced.start().trace
        random.seed(1)
        second = traced.start().trace
        assert first.trace_id != second.trace_id
        assert first.span_id != second.span_id
        assert (first.sampled, first.flags_hex) == (True, "03")

    def test_it_continues_a_trace(self, make):
        traced = make()
        view = traced.serve(with_headers(PARENT, (b"tracestate", b"a=1")))
        span = traced.span()
        assert view.trace.trace_id_hex == PARENT[1][3:35].decode()
        assert span.parent_span_id == SPAN.to_bytes(8, "big")
        assert (span.trace_state, span.flags) == ("a=1", 0x300)
        assert view.trace.flags_hex == "01", "the parent does not say that its id is random"

    def test_a_request_that_no_application_sees(self, make):
        traced = make()
        view = traced.serve(
            Exchange(context=None, method="", route="", status=400, ending=catalogue.BAD_REQUEST_LINE)
        )
        assert traced.span().name == "HTTP"
        assert view.trace.sampled

    def test_one_that_was_not_announced_has_none(self, make):
        traced = make()
        traced.tracing.exchange_ended(Exchange())
        assert traced.sink.spans == []

    def test_reported_options(self, make):
        traced = make(notes=("OTEL_BSP_MAX_QUEUE_SIZE is odd",), sampler="no_such_sampler")
        assert [event for event, _ in traced.reports] == ["telemetry.trace_option"] * 2


class TestDecisions:
    def test_not_sampled(self, make):
        traced = make(sampler="always_off")
        view = traced.serve()
        assert (view.trace.sampled, view.trace.flags_hex) == (False, "02")
        assert view.trace.get_span_context().is_valid
        assert traced.tracing.flush(10.0)
        assert traced.sink.spans == []
        assert traced.figures(STARTED, "none", LEFT_OUT) == 1

    def test_the_parents_word(self, make):
        traced = make(sampler="parentbased_always_off")
        assert traced.serve(with_headers(PARENT)).trace.sampled
        traced = make()
        assert not traced.serve(with_headers(UNSAMPLED_PARENT)).trace.sampled
        assert traced.figures(STARTED, "remote", LEFT_OUT) == 1

    def test_a_ratio(self, make):
        traced = make(sampler="traceidratio", sampler_argument="0.5")
        kept = sum(traced.serve().trace.sampled for _ in range(400))
        assert 120 < kept < 280
        assert traced.figures(STARTED, "none", KEPT) == kept

    def test_an_unknown_peers_flag_does_not_count(self, make):
        traced = make(sampler="parentbased_always_off")
        view = traced.serve(with_headers(PARENT, connection=OUTSIDE))
        assert (view.trace.trace_id, view.trace.sampled) == (TRACE, False)
        view = make().serve(with_headers(UNSAMPLED_PARENT, connection=OUTSIDE))
        assert view.trace.sampled, "nor can it hide a request"

    def test_that_is_hinted_once(self, make):
        traced = make()
        for _ in range(3):
            traced.serve(with_headers(PARENT, connection=OUTSIDE))
        assert [event for event, _ in traced.reports] == ["telemetry.trace_untrusted"]
        assert "203.0.113.9" in traced.reports[0][1]
        assert traced.figures(catalogue.TRACE_CONTEXT_UNTRUSTED) == 3

    def test_a_named_proxy_is_trusted(self, make):
        traced = make(trusted={"203.0.113.9"}, sampler="parentbased_always_off")
        assert traced.serve(with_headers(PARENT, connection=OUTSIDE)).trace.sampled

    def test_trust_none_links(self, make):
        traced = make(trust="none")
        view = traced.serve(with_headers(PARENT))
        span = traced.span()
        assert view.trace.trace_id != TRACE
        assert span.parent_span_id == b""
        assert span.links[0].trace_id == TRACE.to_bytes(16, "big")

    def test_malformed_contexts_are_counted(self, make):
        traced = make()
        view = traced.serve(with_headers((b"traceparent", b"00-zz")))
        assert view.trace.parent is None
        assert traced.figures(catalogue.TRACE_CONTEXT_INVALID, "malformed_traceparent") == 1


class Picky(official.Sampler):
    """An official sampler of somebody else's."""

    decision = official.Decision.RECORD_AND_SAMPLE

    def should_sample(
        self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None
    ):
        self.asked = (parent_context, trace_id, name, kind, attributes)
        return official.SamplingResult(self.decision, {"rule": "7"}, TraceState([("picky", "1")]))

    def get_description(self):
        return "Picky"


class TestForeignSamplers:
    @pytest.fixture
    def picky(self, monkeypatch):
        sampler = Picky()
        monkeypatch.setattr(tracing, "sampling_of", lambda *_: Sampling(custom=sampler))
        return sampler

    def test_it_is_asked(self, make, picky):
        traced = make()
        view = traced.serve(with_headers(PARENT, query_string=b"a=1"))
        context, trace_id, name, kind, seen = picky.asked
        assert (trace_id, name, kind) == (TRACE, "GET", SpanKind.SERVER)
        assert trace.get_current_span(context).get_span_context().span_id == SPAN
        assert seen["url.path"] == "/items/7"
        span = traced.span()
        assert attributes(span)["rule"] == "7"
        assert span.trace_state == "picky=1"
        assert view.trace.get_span_context().trace_state.get("picky") == "1"

    def test_its_other_answers(self, make, picky):
        traced = make()
        picky.decision = official.Decision.RECORD_ONLY
        assert not traced.serve().trace.sampled
        picky.decision = official.Decision.DROP
        assert not traced.serve().trace.sampled
        assert traced.figures(STARTED, "none", "RECORD_ONLY") == 1
        assert traced.figures(STARTED, "none", LEFT_OUT) == 1


class TestTheApplicationsView:
    def test_the_current_span(self, make):
        traced = make()
        seen = []
        view = traced.serve(app=lambda: seen.append((trace.get_current_span(), current_trace_ids())))
        assert seen == [(view.trace, (view.trace.trace_id_hex, view.trace.span_id_hex, "03"))]
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert current_trace_ids() is None

    def test_an_unsampled_request_has_one_too(self, make):
        seen = []
        view = make(sampler="always_off").serve(app=lambda: seen.append(current_trace_ids()))
        assert seen == [(view.trace.trace_id_hex, view.trace.span_id_hex, "02")]

    def test_the_lifespans_span_is_not_inherited(self, make):
        context = contextvars.Context()
        context.run(
            lambda: attach(
                trace.set_span_in_context(trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False)))
            )
        )
        traced = make()
        view = traced.serve(Exchange(context=context))
        assert traced.span().parent_span_id == b""
        assert context.run(trace.get_current_span) is view.trace

    def test_baggage(self, make):
        seen = []
        make().serve(
            with_headers((b"baggage", b"user=7")), app=lambda: seen.append(baggage.get_baggage("user"))
        )
        make().serve(
            with_headers((b"baggage", b"user=7"), connection=OUTSIDE),
            app=lambda: seen.append(baggage.get_baggage("user")),
        )
        assert seen == ["7", None]

    def test_what_it_sets(self, make):
        def app():
            span = trace.get_current_span()
            span.set_attribute("user.id", "7")
            span.set_attribute("http.response.status_code", 999)
            span.add_event("cache.miss")
            span.update_name("checkout")
            span.end()

        traced = make()
        traced.serve(app=app)
        span = traced.span()
        assert span.name == "checkout"
        assert attributes(span)["user.id"] == "7"
        assert attributes(span)["http.response.status_code"] == 200, "the wire's word counts"
        assert [event.name for event in span.events] == ["obsserve.response.start", "cache.miss"]

    def test_nothing_can_be_set_afterwards(self, make):
        traced = make()
        view = traced.serve()
        assert not view.trace.is_recording()

    def test_an_exception(self, make):
        error = LookupError("gone")
        traced = make(query=QueryPolicy("keep"))
        traced.serve(
            Exchange(ending=catalogue.APP_EXCEPTION, status=500, exception=error, error_type="LookupError")
        )
        span = traced.span()
        assert (span.status.code, span.status.message) == (2, "gone")
        assert [event.name for event in span.events] == ["obsserve.response.start", "exception"]

    def test_requests_that_overlap(self, make):
        traced = make()

        async def serve(n):
            view = traced.start(Exchange(raw_path=b"/%d" % n, context=contextvars.copy_context()))

            async def app():
                await asyncio.sleep(0)
                trace.get_current_span().set_attribute("n", n)

            await asyncio.get_running_loop().create_task(app(), context=view.context)
            traced.tracing.exchange_ended(view)

        async def main():
            await asyncio.gather(*map(serve, range(50)))

        asyncio.run(main())
        for span in traced.spans(50):
            assert attributes(span)["url.path"] == f"/{attributes(span)['n']}"


class TestFigures:
    def test_begun_is_ended(self, make):
        traced = make()
        views = [traced.start() for _ in range(5)]
        traced.tracing.tick()
        assert traced.figures(catalogue.SPANS_LIVE) == 5
        for view in views:
            traced.tracing.exchange_ended(view)
        traced.tracing.tick()
        assert traced.figures(catalogue.SPANS_LIVE) == 0
        assert traced.figures(STARTED, "none", KEPT) == 5
        assert traced.figures(catalogue.SPAN_QUEUE) == 5

    def test_a_full_queue(self, make):
        traced = make()
        traced.tracing._queue.room = 3
        for _ in range(5):
            traced.serve()
        assert traced.figures(catalogue.SPANS_PROCESSED, "queue_full") == 2
        traced.tracing.tick()
        assert traced.figures(catalogue.SPANS_LIVE) == 0


class TestSessions:
    def serve(self, traced, **facts):
        handshake = traced.serve(Exchange(status=101))
        ended = session(handshake, **facts)
        traced.tracing.session_started(ended)
        traced.tracing.session_ended(ended)
        return handshake

    def test_a_child_of_the_handshake(self, make):
        traced = make()
        handshake = self.serve(traced)
        _, span = traced.spans(2)
        assert (span.name, span.kind) == ("websocket /ws", 1)
        assert span.trace_id == handshake.trace.trace_id.to_bytes(16, "big")
        assert span.parent_span_id == handshake.trace.span_id.to_bytes(8, "big")
        assert traced.figures(STARTED, "local", KEPT) == 1
        traced.tracing.tick()
        assert traced.figures(catalogue.SPANS_LIVE) == 0

    def test_not_sampled(self, make):
        traced = make(sampler="always_off")
        self.serve(traced)
        assert traced.figures(STARTED, "local", LEFT_OUT) == 1
        assert traced.tracing.flush(10.0)
        assert traced.sink.spans == []

    def test_a_handshake_without_a_trace(self, make):
        traced = make()
        traced.tracing.session_started(session(Exchange()))
        traced.tracing.session_ended(session(Exchange()))
        assert traced.tracing.flush(10.0)
        assert traced.sink.spans == []
        assert traced.figures(catalogue.SPANS_LIVE) == 0

    def test_after_the_end(self, make):
        traced = make()
        handshake = traced.serve(Exchange(status=101))
        traced.tracing.session_started(session(handshake))
        traced.tracing.shutdown(5.0)
        traced.tracing.session_ended(session(handshake))
        assert traced.figures(catalogue.SPANS_PROCESSED, "already_shutdown") == 1


class TestSpansOfTheApplication:
    def test_they_are_children_of_ours(self, make):
        traced = make()

        def app():
            with trace.get_tracer("shop").start_as_current_span("query") as span:
                span.set_attribute("db.system", "sqlite")

        view = traced.serve(app=app)
        traced.tracing.shutdown(10.0)
        spans = {span.name: span for span in traced.sink.wait_for(2)}
        assert spans["query"].parent_span_id == view.trace.span_id.to_bytes(8, "big")
        assert spans["query"].trace_id == spans["GET /items/{id}"].trace_id
        resources = [request.resource_spans[0].resource for request in traced.sink.requests]
        assert all("shop" in str(resource) for resource in resources)

    def test_urls_in_them_leave_under_the_policy_for_queries(self, make):
        """Instrumentation, FastAPI's own included, writes the URL as it came."""
        traced = make()
        elsewhere = InMemorySpanExporter()
        urls = {"http.url": "http://me:pw@shop/?token=s3cret", "url.query": "token=s3cret"}

        def app():
            trace.get_current_span().set_attribute("url.full", urls["http.url"])
            with trace.get_tracer("shop").start_as_current_span("query", attributes=urls) as span:
                span.set_attribute("db.system", "sqlite")

        trace.get_tracer("shop")
        traced.tracing._application.prepare().add_span_processor(SimpleSpanProcessor(elsewhere))
        traced.serve(app=app)
        traced.tracing.shutdown(10.0)
        spans = {span.name: attributes(span) for span in traced.sink.wait_for(2)}
        assert spans["query"] == {
            "http.url": "http://shop/?token=REDACTED", "url.query": "token=REDACTED", "db.system": "sqlite",
        }  # fmt: skip
        assert spans["GET /items/{id}"]["url.full"] == "http://shop/?token=REDACTED"
        assert "s3cret" not in str(traced.sink.requests)
        (own,) = elsewhere.get_finished_spans()
        assert own.attributes["http.url"] == urls["http.url"], (
            "what the application exports itself is its own"
        )

    def test_of_an_unsampled_request_are_not_kept(self, make):
        traced = make(sampler="parentbased_always_off")

        def app():
            with trace.get_tracer("shop").start_as_current_span("query") as span:
                assert not span.is_recording()

        traced.serve(app=app)

    def test_where_the_sdk_is_imported_its_provider_is_the_global_one(self, make):
        make()
        assert isinstance(trace.get_tracer_provider(), TracerProvider)

    def test_where_it_is_not_ours_stands_for_it(self, make, monkeypatch):
        monkeypatch.setattr(appspans, "sys", type("sys", (), {"modules": {}}))
        traced = make()
        provider = trace.get_tracer_provider()
        assert type(provider) is appspans.ApplicationProvider
        assert provider.resource.attributes["service.name"] == "shop"
        with provider.get_tracer("shop").start_as_current_span("job"):
            pass
        traced.tracing.shutdown(10.0)
        assert [span.name for span in traced.sink.wait_for(1)] == ["job"]
        with pytest.raises(AttributeError):
            provider.__wrapped__

    def test_a_server_that_is_started_again(self, make):
        for n in range(2):
            traced = make()
            assert isinstance(traced.tracing, Tracing), "our own provider is not taken for the application's"
            traced.serve(app=lambda: trace.get_tracer("shop").start_span(f"query {n}").end())
            traced.tracing.shutdown(10.0)
        spans = traced.sink.wait_for(4)
        assert {"query 0", "query 1"} <= {span.name for span in spans}

    def test_a_provider_that_is_made_after_the_end_exports_nothing(self, sink):
        provider = appspans.ApplicationProvider(TracingConfiguration(endpoint=sink.endpoint), {}, Sampling())
        assert provider.shutdown_in_background() is None
        with provider.get_tracer("late").start_as_current_span("late"):
            pass
        assert provider.force_flush()
        provider.shutdown()

    def test_a_hanging_collector_does_not_hold_the_end(self, make):
        traced = make()
        traced.sink.answer = Answer(hang=True)
        traced.serve(app=lambda: trace.get_tracer("shop").start_span("query").end())
        began = monotonic()
        traced.tracing.shutdown(0.3)
        assert monotonic() - began < 4.0
        traced.sink._closing.set()  # lets the exports of this test go
        for thread in threading.enumerate():
            if thread.name in ("obsserve-spans", "obsserve-span-shutdown"):
                thread.join(10.0)
        traced.sink._closing.clear()


@pytest.fixture
def provider():
    provider = TracerProvider(shutdown_on_exit=False)
    provider.memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(provider.memory))
    trace.set_tracer_provider(provider)
    return provider


class TestTheApplicationsProvider:
    def test_it_makes_the_spans(self, make, provider):
        traced = make()
        assert isinstance(traced.tracing, ProviderTracing)
        seen = []
        view = traced.serve(
            with_headers((b"user-agent", b"curl/8")), app=lambda: seen.append(trace.get_current_span())
        )
        (span,) = provider.memory.get_finished_spans()
        assert seen[0].get_span_context() == span.context
        assert (view.trace.trace_id, view.trace.span_id) == (span.context.trace_id, span.context.span_id)
        assert (span.name, span.kind) == ("GET /items/{id}", SpanKind.SERVER)
        assert span.attributes["http.response.status_code"] == 200
        assert span.status.status_code is StatusCode.UNSET
        assert [event.name for event in span.events] == ["obsserve.response.start"]
        assert abs(span.end_time - span.start_time - 1_500_000) <= 1
        assert traced.figures(STARTED, "none", KEPT) == 1
        assert traced.figures(catalogue.SPANS_LIVE) == 0
        traced.tracing.tick()
        assert traced.tracing.flush(1.0)
        assert traced.sink.spans == []

    def test_ours_and_its_are_alike(self, make, provider):
        view = with_headers((b"user-agent", b"curl/8"), query_string=b"a=1")
        traced = make()
        traced.serve(view)
        (span,) = provider.memory.get_finished_spans()
        expected = traced.tracing._projection.at_end(view, Lag.value)
        assert {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in span.attributes.items()
        } == expected

    def test_a_parent(self, make, provider):
        traced = make()
        traced.serve(with_headers(PARENT))
        (span,) = provider.memory.get_finished_spans()
        assert (span.context.trace_id, span.parent.span_id, span.parent.is_remote) == (TRACE, SPAN, True)
        assert traced.figures(STARTED, "remote", KEPT) == 1

    @pytest.mark.parametrize("trust", ["peers", "none"])
    def test_a_parent_that_is_not_trusted_becomes_a_link(self, make, provider, trust):
        traced = make(trust=trust)
        traced.serve(with_headers(PARENT, connection=OUTSIDE))
        (span,) = provider.memory.get_finished_spans()
        assert (span.parent, span.links[0].context.trace_id) == (None, TRACE)

    def test_a_failure(self, make, provider):
        error = LookupError("gone")
        facts = {
            "ending": catalogue.APP_EXCEPTION,
            "status": 500,
            "exception": error,
            "error_type": "LookupError",
        }
        traced = make()
        traced.serve(Exchange(**facts))
        traced.serve(Exchange(**facts), app=lambda: trace.get_current_span().record_exception(error))
        for span in provider.memory.get_finished_spans():
            assert span.status.status_code is StatusCode.ERROR
            assert [event.name for event in span.events].count("exception") == 1

    def test_its_sampler_decides(self, make, provider):
        provider.sampler = official.ALWAYS_OFF
        traced = make()
        view = traced.serve(Exchange(context=None))
        assert not view.trace.sampled
        assert provider.memory.get_finished_spans() == ()
        assert traced.figures(STARTED, "none", LEFT_OUT) == 1

    def test_the_applications_name_stays(self, make, provider):
        make().serve(app=lambda: trace.get_current_span().update_name("checkout"))
        assert provider.memory.get_finished_spans()[0].name == "checkout"

    def test_sessions(self, make, provider):
        traced = make()
        handshake = traced.serve(Exchange(status=101))
        ended = session(handshake, error_type="1006")
        traced.tracing.session_started(ended)
        traced.tracing.session_ended(ended)
        server, span = provider.memory.get_finished_spans()
        assert (span.name, span.kind, span.parent.span_id) == (
            "websocket /ws",
            SpanKind.INTERNAL,
            server.context.span_id,
        )
        assert span.status.status_code is StatusCode.ERROR
        assert span.end_time - span.start_time == 1_500_000_000
        traced.tracing.session_started(session(Exchange()))
        traced.tracing.session_ended(session(Exchange()))

    def test_one_that_was_not_announced(self, make, provider):
        make().tracing.exchange_ended(Exchange())
        assert provider.memory.get_finished_spans() == ()


class TestInstrumentationInTheApplication:
    """opentelemetry-instrumentation-asgi finds a current span and makes its own an INTERNAL child."""

    @pytest.fixture
    def middleware(self):
        asgi = package("opentelemetry.instrumentation.asgi")

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return lambda: asgi.OpenTelemetryMiddleware(app)

    def serve(self, traced, middleware, view):
        scope = {"type": "http", "method": "GET", "path": "/items/7", "headers": [PARENT], "scheme": "http"}
        scope |= {
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 5),
            "http_version": "1.1",
            "query_string": b"",
        }

        async def send(message):
            pass

        async def main():
            traced.start(view)
            await asyncio.get_running_loop().create_task(middleware(scope, None, send), context=view.context)
            traced.tracing.exchange_ended(view)

        asyncio.run(main())

    def test_there_is_one_server_span(self, make, middleware):
        traced = make()
        view = with_headers(PARENT)
        self.serve(traced, middleware(), view)
        traced.tracing.shutdown(10.0)
        spans = traced.sink.wait_for(2)
        (server,) = [span for span in spans if span.kind == 2]
        assert server.parent_span_id == SPAN.to_bytes(8, "big")
        assert server.span_id == view.trace.span_id.to_bytes(8, "big")
        (child,) = [span for span in spans if span.parent_span_id == server.span_id]
        assert child.kind == 1

    def test_also_with_the_applications_provider(self, make, middleware, provider):
        traced = make()
        self.serve(traced, middleware(), with_headers(PARENT))
        kinds = [span.kind for span in provider.memory.get_finished_spans()]
        assert kinds.count(SpanKind.SERVER) == 1


class TestAttaching:
    def test_the_variables_own_set(self):
        assert isinstance(attach_call().__self__, contextvars.ContextVar)

    def test_another_runtime_context(self, monkeypatch):
        variables = [contextvars.ContextVar("a"), contextvars.ContextVar("b")]

        def foreign(context):
            for variable in variables:
                variable.set(context)

        monkeypatch.setattr(propagation, "attach", foreign)
        assert attach_call() is foreign
        monkeypatch.setattr(propagation, "attach", lambda context: variables[0].set("something else"))
        assert attach_call() is propagation.attach

    def test_what_propagators_are_configured_counts(self, make):
        before = propagate.get_global_textmap()
        try:
            propagate.set_global_textmap(CompositePropagator([]))
            assert make().serve(with_headers(PARENT)).trace.trace_id != TRACE
        finally:
            propagate.set_global_textmap(before)
        assert get_current() == {}


def test_it_is_an_observer(make):
    assert isinstance(make().tracing, Tracing)
