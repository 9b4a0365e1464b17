"""What operators choose about spans: shares by path, keeping failures, ids in responses, hidden addresses, phases."""

import pytest
from opentelemetry.sdk.trace import sampling as official
from opentelemetry.trace import StatusCode
from test_tracing import (  # noqa: F401 - fixtures
    KEPT,
    LEFT_OUT,
    OUTSIDE,
    PARENT,
    STARTED,
    UNSAMPLED_PARENT,
    attributes,
    collector,
    make,
    no_global_provider,
    provider,
    sink,
)
from tracedoubles import OFFSET, Exchange, connection, with_headers

from obsserve.logoptions import PathRatio
from obsserve.telemetry import catalogue
from obsserve.telemetry.redact import AddressPolicy
from obsserve.telemetry.sampling import ALWAYS, NEVER, PathSampling, Sampling

RULES = (PathRatio("/healthz", 0.0), PathRatio("/pay/*", 1.0), PathRatio("/half", 0.5))


class TestSharesByPath:
    @pytest.mark.parametrize(
        ("path", "bound"),
        [
            (b"/healthz", NEVER),
            (b"/healthz/x", None),
            (b"/pay/7", ALWAYS),
            (b"/half", ALWAYS // 2),
            (b"/", None),
        ],
    )
    def test_the_first_rule_that_fits(self, path, bound):
        paths = PathSampling(RULES)
        view = Exchange(raw_path=path)
        assert [paths.bound(view), paths.bound(view)] == [bound, bound]
        assert paths.bound(Exchange(method="")) is None, "a request whose target could not be read"

    def test_no_rules(self):
        assert not PathSampling(())

    @pytest.mark.parametrize("parent", [(), (PARENT,), (UNSAMPLED_PARENT,)])
    def test_never_and_always_count_more_than_the_caller(self, make, parent):
        traced = make(path_shares=RULES)
        assert not traced.start(with_headers(*parent, raw_path=b"/healthz")).trace.sampled
        assert traced.start(with_headers(*parent, raw_path=b"/pay/1")).trace.sampled

    def test_a_share_holds_for_new_traces(self, make):
        traced = make(path_shares=(PathRatio("/half", 0.0000001),))
        assert not traced.start(Exchange(raw_path=b"/half")).trace.sampled
        assert traced.start(with_headers(PARENT, raw_path=b"/half")).trace.sampled
        assert traced.start(Exchange(raw_path=b"/other")).trace.sampled

    def test_before_a_foreign_sampler(self, make, monkeypatch):
        from obsserve.telemetry import tracing

        monkeypatch.setattr(tracing, "sampling_of", lambda *_: Sampling(custom=official.ALWAYS_ON))
        traced = make(path_shares=RULES)
        assert not traced.start(Exchange(raw_path=b"/healthz")).trace.sampled
        assert traced.start(Exchange(raw_path=b"/x")).trace.sampled

    def test_many_targets(self):
        paths = PathSampling(RULES)
        for number in range(5000):
            paths.bound(Exchange(raw_path=b"/pay/%d" % number))
        assert len(paths._known) <= 1024


FAILED = {"status": 500, "error_type": "500"}
SLOW = {"ended": 102.0}


class TestKeepingFailures:
    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            (FAILED, "error"),
            (SLOW, "slow"),
            (FAILED | SLOW, "error"),
            ({"ending": catalogue.APP_EXCEPTION}, "error"),
        ],
    )
    def test_it_is_exported_although_it_was_left_out(self, make, facts, reason):
        traced = make(sampler="always_off", keep_errors=True, slow=1.0)
        view = traced.serve(Exchange(**facts))
        span = traced.span()
        assert span.span_id == view.trace.span_id.to_bytes(8, "big")
        assert attributes(span)["obsserve.sampling.reason"] == reason
        assert attributes(span)["http.route"] == "/items/{id}"
        assert not view.trace.sampled
        assert not view.trace.is_recording()

    @pytest.mark.parametrize(
        "facts",
        [{}, {"status": 404}, {"ending": catalogue.CLIENT_DISCONNECTED, "error_type": "client_disconnected"}],
    )
    def test_nothing_else_is(self, make, facts):
        traced = make(sampler="always_off", keep_errors=True, slow=1.0)
        traced.serve(Exchange(**facts))
        traced.serve(Exchange(**FAILED))
        assert attributes(traced.span())["obsserve.sampling.reason"] == "error"

    def test_what_is_kept_anyway_needs_no_reason(self, make):
        traced = make(keep_errors=True)
        traced.serve(Exchange(**FAILED))
        assert "obsserve.sampling.reason" not in attributes(traced.span())

    def test_not_unless_it_is_asked_for(self, make):
        traced = make(sampler="always_off")
        traced.serve(Exchange(**FAILED))
        assert traced.tracing.flush(10.0)
        assert traced.sink.spans == []

    def test_a_full_queue_is_counted(self, make):
        traced = make(sampler="always_off", keep_errors=True)
        traced.tracing._queue.room = 0
        traced.serve(Exchange(**FAILED))
        assert traced.figures(catalogue.SPANS_PROCESSED, "queue_full") == 1

    def test_a_request_that_was_not_announced(self, make):
        traced = make(keep_errors=True)
        traced.tracing.exchange_ended(Exchange(**FAILED))
        assert traced.tracing.flush(10.0)
        assert traced.sink.spans == []


class TestIdsInResponses:
    def test_traceresponse(self, make):
        view = make(response_fields=("traceresponse",)).start()
        trace = view.trace
        assert (
            view.trace_line.decode() == f"traceresponse: 00-{trace.trace_id_hex}-{trace.span_id_hex}-03\r\n"
        )
        assert not view.plain, "its head is put together line by line"

    def test_server_timing(self, make):
        view = make(sampler="always_off", response_fields=("traceresponse", "server-timing")).start()
        ids = f"00-{view.trace.trace_id_hex}-{view.trace.span_id_hex}-02"
        first, second, end = view.trace_line.decode().split("\r\n")
        assert (first, second, end) == (
            f"traceresponse: {ids}",
            f'server-timing: traceparent;desc="{ids}"',
            "",
        )

    def test_with_the_applications_provider(self, make, provider):
        view = make(response_fields=("traceresponse",)).start()
        assert view.trace.span_id_hex in view.trace_line.decode()

    def test_not_unless_they_are_asked_for(self, make):
        assert not hasattr(make().start(), "trace_line")


class TestAddresses:
    @pytest.mark.parametrize(
        ("policy", "shown"),
        [(AddressPolicy("mask"), "203.0.113.0"), (AddressPolicy("drop"), None)],
    )
    def test_what_the_log_may_not_say_no_span_says(self, make, policy, shown):
        traced = make(address=policy)
        traced.serve(Exchange(connection=connection(peer=("203.0.113.9", 4)), client=("203.0.113.9", 4)))
        traced.serve(Exchange(connection=OUTSIDE, client=("203.0.113.9", 4), **FAILED))
        for span in traced.spans(2):
            found = attributes(span)
            assert (found.get("client.address"), found.get("network.peer.address")) == (shown, shown)
            assert "203.0.113.9" not in str(span)

    def test_no_sampler_sees_it(self, make):
        projection = make(address=AddressPolicy("drop")).tracing._projection
        assert "client.address" not in projection.at_start(Exchange())


class TestPhasesOfTheLifespan:
    def test_a_span_of_its_own(self, make):
        traced = make()
        traced.tracing.lifespan_finished("startup", 1.5)
        span = traced.span()
        assert (span.name, span.kind, span.parent_span_id, span.status.code) == (
            "lifespan.startup",
            1,
            b"",
            0,
        )
        assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(1.5e9, abs=1e3)
        assert span.start_time_unix_nano > OFFSET * 1e9
        assert traced.figures(STARTED, "none", KEPT) == 1

    def test_that_failed(self, make):
        traced = make()
        traced.tracing.lifespan_finished("startup", 0.5, failed=True, exception=ValueError("no database"))
        traced.tracing.lifespan_finished("shutdown", 0.5, failed=True)
        first, second = traced.spans(2)
        assert (first.status.code, attributes(first)) == (2, {"error.type": "ValueError"})
        assert first.events[0].name == "exception"
        assert (second.name, second.status.code, attributes(second)) == (
            "lifespan.shutdown", 2, {"error.type": "_OTHER"},
        )  # fmt: skip

    def test_left_out(self, make):
        traced = make(sampler="always_off")
        traced.tracing.lifespan_finished("startup", 1.5)
        assert traced.tracing.flush(10.0)
        assert traced.sink.spans == []
        assert traced.figures(STARTED, "none", LEFT_OUT) == 1

    def test_with_the_applications_provider(self, make, provider):
        make().tracing.lifespan_finished("startup", 1.5, failed=True, exception=ValueError("no database"))
        (span,) = provider.memory.get_finished_spans()
        assert (span.name, span.status.status_code) == ("lifespan.startup", StatusCode.ERROR)
        assert span.end_time - span.start_time == pytest.approx(1.5e9, abs=1e3)
        assert span.events[0].name == "exception"
