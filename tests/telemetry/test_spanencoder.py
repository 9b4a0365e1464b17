"""The fast encoder says what the record says."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.trace import TraceState

from obsserve.telemetry import catalogue, spanencoder
from obsserve.telemetry.lightspan import ChildSpan, RootSpan, Span
from obsserve.telemetry.otlp_encode import encode_span
from obsserve.telemetry.propagation import RemoteParent, StatefulParent
from obsserve.telemetry.redact import QueryPolicy
from obsserve.telemetry.spanencoder import ExchangeEncoder
from obsserve.telemetry.spanrecord import SpanProjection
from obsserve.telemetry.traceconfig import TracingConfiguration
from tracedoubles import OFFSET, Clock, Exchange, Lag, connection, with_headers

CONFIGURATION = TracingConfiguration(query=QueryPolicy("redact-all", ("page",)))
PARENT = RemoteParent(5, 6, 1)


def encoder(configuration=CONFIGURATION, lag=None):
    return ExchangeEncoder(SpanProjection(configuration), Clock(), lag or Lag())


def span(parent=None):
    return Span(2**127 + 3, 2**63 + 5, 3, parent, CONFIGURATION)


def drawn(parent=None):
    """Return the same as it is for a request whose trace context was nothing special."""
    made = RootSpan() if parent is None else ChildSpan()
    made.trace_hex, made.span_hex = f"{2**127 + 3:032x}", f"{2**63 + 5:016x}"
    made.flags, made.limits, made.ended, made.extras = 3, CONFIGURATION, False, None
    if parent is not None:
        made.parent_hex, made.parent_flags = f"{parent.span_id:016x}", parent.flags
    return made


def message(content):
    return Message.FromString(content)


def whole(made, view, traced):
    lag = made._lag.max_between(view.began, view.ended)
    return message(encode_span(made._projection.record(view, traced, offset=OFFSET, lag=lag)))


def fast(made, view, traced):
    """Encode by the short way only."""
    made._encode_record = lambda *_: pytest.fail("the short way was not taken")
    try:
        return message(made.encode(view, traced))
    finally:
        del made._encode_record


PEERS = st.sampled_from([("10.0.0.1", 1), ("::1", 65535), ("/run/app.sock", None), None])
PATHS = st.binary(max_size=200).map(lambda raw: b"/" + raw) | st.just(b"") | st.just(b"/" + b"x" * 3000)
QUERIES = st.sampled_from([b"", b"a=1&page=2", b"\xff=1", b"x" * 3000])
AGENTS = st.sampled_from([None, b"curl/8", b"Locust/2", b"\xff" * 600, b""])
HOSTS = st.sampled_from([None, b"example.org", b"example.org:8000", b"[::1]:80", b"user@host", b"a" * 400])
TIMES = st.floats(0.0, 2.0)


@st.composite
def exchanges(draw):
    headers = []
    if (host := draw(HOSTS)) is not None:
        headers.append((b"host", host))
    if (agent := draw(AGENTS)) is not None:
        headers.append((b"user-agent", agent))
    ending = draw(st.just(catalogue.COMPLETE) | st.sampled_from(list(catalogue.ENDINGS.values())))
    status = draw(st.none() | st.sampled_from([101, 200, 204, 404, 500, 503]))
    exception = ValueError("no") if ending is catalogue.APP_EXCEPTION else None
    began = 100.0 + draw(TIMES)
    head_done, app_started, first_byte = (
        draw(st.just(0.0) | TIMES.map(lambda t: began + t)) for _ in range(3)
    )
    peer = draw(PEERS)
    return Exchange(
        connection=connection(peer=peer), client=peer, forwarded_client=None, request_headers=headers, ending=ending, status=status,
        error_type=catalogue.error_type_of(ending, status, exception), exception=exception,
        response_origin=draw(st.sampled_from(["app", "app", "server", "none"])),
        flags=[ending.flag] if ending.flag else [], method=draw(st.sampled_from(["GET", "POST", "BREW", ""])),
        raw_path=draw(PATHS), query_string=draw(QUERIES), route=draw(st.sampled_from(["", "/items/{id}", "/ü"])),
        http_version=draw(st.sampled_from(["1.0", "1.1", ""])), scheme=draw(st.sampled_from(["http", "https"])),
        began=began, head_done=head_done, app_started=app_started, first_byte=first_byte, ended=began + draw(TIMES),
        write_blocked=draw(st.just(0.0) | TIMES), request_body_size=draw(st.integers(0, 2**40)),
        response_body_size=draw(st.integers(0, 2**40)), connection_request=draw(st.integers(1, 10**6)),
        request_id=draw(st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)),
    )  # fmt: skip


@given(
    exchanges(),
    st.sampled_from([None, PARENT]),
    st.sampled_from([0.0, 0.0005, 0.2]),
    st.sampled_from([span, drawn]),
)
def test_every_exchange(view, parent, worst, span):
    lag = Lag()
    lag.value = worst
    made = encoder(lag=lag)
    expected = whole(made, view, span(parent))
    assert message(made.encode(view, span(parent))) == expected
    assert message(made.encode(view, span(parent))) == expected, "also from the caches"


class TestTheShortWay:
    @pytest.mark.parametrize("span", [span, drawn])
    @pytest.mark.parametrize("parent", [None, PARENT])
    @pytest.mark.parametrize("worst", [0.0, 0.01])
    def test_an_ordinary_exchange_takes_it(self, parent, span, worst):
        lag = Lag()
        lag.value = worst
        made = encoder(lag=lag)
        view = with_headers((b"user-agent", b"curl/8"), query_string=b"a=1", request_body_size=7)
        assert fast(made, view, span(parent)) == whole(made, view, span(parent))

    def test_a_tracestate(self):
        parent = StatefulParent(RemoteParent(5, 6, 1), [("a", "1"), ("b", "2")])
        made = encoder()
        found = fast(made, Exchange(), span(parent))
        assert found == whole(made, Exchange(), span(parent))
        assert found.trace_state == "a=1,b=2"

    def test_a_sampler_that_changes_the_tracestate(self):
        traced = span(PARENT)
        traced.take_sampling(None, TraceState([("x", "1")]))
        assert message(encoder().encode(Exchange(), traced)).trace_state == "x=1"

    def test_404_takes_it_too(self):
        made = encoder()
        view = Exchange(status=404, route="")
        assert fast(made, view, span()) == whole(made, view, span())

    def test_the_clock_is_followed(self):
        made = encoder()
        first = fast(made, Exchange(), span())
        made._clock = SimpleNamespace(offset=OFFSET + 10)
        assert fast(made, Exchange(), span()).start_time_unix_nano - first.start_time_unix_nano == 10**10

    @pytest.mark.parametrize("mode", ["redact-all", "redact-listed", "drop", "keep"])
    def test_the_query_policy(self, mode):
        made = encoder(TracingConfiguration(query=QueryPolicy(mode)))
        for _ in range(2):
            view = Exchange(query_string=b"token=1&a=2")
            assert fast(made, view, span()) == whole(made, view, span())


class TestTheLongWay:
    def test_what_the_application_has_set(self):
        made, traced = encoder(), span()
        traced.set_attribute("user.id", "7")
        found = message(made.encode(Exchange(), traced))
        assert found == whole(made, Exchange(), traced)
        assert "user.id" in [attribute.key for attribute in found.attributes]

    def test_captured_headers(self):
        made = encoder(TracingConfiguration(request_headers=("accept",)))
        view = with_headers((b"accept", b"*/*"))
        found = message(made.encode(view, span()))
        assert found == whole(made, view, span())
        assert "http.request.header.accept" in [attribute.key for attribute in found.attributes]

    def test_a_link(self):
        made, traced = encoder(), span()
        traced.take_link(RemoteParent(7, 8, 1))
        assert len(message(made.encode(Exchange(), traced)).links) == 1


class TestCaches:
    def test_they_are_bounded(self):
        made = encoder()
        for n in range(3000):
            view = with_headers(
                (b"user-agent", b"agent %d" % n), method=f"M{n}", query_string=b"%d" % n, connection=connection(),
                request_body_size=n, connection_request=n,
            )  # fmt: skip
            made.encode(view, span())
        caches = (made._answers, made._targets, made._senders, spanencoder._CONNECTION_REQUESTS)
        assert all(0 < len(cache) <= 1024 for cache in caches)

    def test_what_is_large_is_not_kept(self):
        made = encoder()
        made.encode(
            with_headers((b"user-agent", b"x" * 5000), method="M" * 5000, query_string=b"q" * 5000), span()
        )
        assert (made._answers, made._senders) == ({}, {})

    def test_a_proxys_clients_are_told_apart(self):
        made, proxy = encoder(), connection()
        for client in (("203.0.113.1", 0), ("203.0.113.2", 0)):
            view = Exchange(connection=proxy, client=client, forwarded_client=client)
            assert fast(made, view, span()) == whole(made, view, span())
