"""What a span says of an exchange: names, status, events, redaction."""

import pytest
from opentelemetry.trace import StatusCode

from obsserve.telemetry import catalogue
from obsserve.telemetry.accessfields import AccessRecord
from obsserve.telemetry.catalogue import ENDINGS, LOG_FIELDS, SESSION_ATTRIBUTES, SPAN_ATTRIBUTES
from obsserve.telemetry.lightspan import Span
from obsserve.telemetry.otlp_encode import ERROR, INTERNAL, OK, SERVER, UNSET
from obsserve.telemetry.propagation import RemoteParent
from obsserve.telemetry.redact import QueryPolicy
from obsserve.telemetry.spanrecord import SpanProjection, is_failure, nanoseconds, session_record, span_name
from obsserve.telemetry.traceconfig import TracingConfiguration
from tracedoubles import OFFSET, Exchange, session, with_headers

LIMITS = TracingConfiguration()


def span(parent=None):
    return Span(3, 4, 3, parent, LIMITS)


def record(view, traced=None, *, lag=0.0, **configured):
    projection = SpanProjection(TracingConfiguration(**configured))
    return projection.record(view, traced or span(), offset=OFFSET, lag=lag)


def raised(text="no such item"):
    try:
        raise LookupError(text)
    except LookupError as error:
        return error


def failed(ending=catalogue.APP_EXCEPTION, status=500, exception=None, **facts):
    exception = exception or raised()
    error_type = catalogue.error_type_of(ending, status, exception)
    return Exchange(ending=ending, status=status, exception=exception, error_type=error_type, **facts)


class TestNames:
    @pytest.mark.parametrize(
        ("method", "route", "name"),
        [
            ("GET", "/items/{id}", "GET /items/{id}"),
            ("GET", "", "GET"),
            ("BREW", "/pot", "HTTP /pot"),
            ("", "", "HTTP"),
        ],
    )
    def test_of_spans(self, method, route, name):
        assert span_name(method, route) == name

    def test_log_and_span_spell_alike(self):
        shared = {attribute.name.replace(".", "_") for attribute in SPAN_ATTRIBUTES}
        own = {name for name in shared if name.startswith("obsserve_")} | {"user_agent_synthetic_type"}
        assert shared - own <= {field.name for field in LOG_FIELDS}

    def test_every_attribute_is_in_the_catalogue(self):
        known = {attribute.name: attribute.type for attribute in SPAN_ATTRIBUTES}
        types = {"string": str, "int": int, "float": float, "array": list}
        seen = {}
        for view in (
            with_headers((b"user-agent", b"Locust/2"), query_string=b"a=1", method="BREW"),
            with_headers(method="GET", status=None, response_origin="none"),
            failed(flags=["AX"]),
            Exchange(method="", raw_path=b"", http_version="", fields={}, client=None),
        ):
            seen.update(record(view).attributes)
        assert {name: types[known[name]] for name in seen} == {
            name: type(value) for name, value in seen.items()
        }
        assert set(seen) == set(known) - {"obsserve.sampling.reason"}  # of spans that are kept late

    def test_of_sessions(self):
        attributes = session_record(
            session(Exchange(), error_type="1006"), span(), 9, offset=OFFSET
        ).attributes
        shared = {"http.route", "error.type", "obsserve.connection.id", "obsserve.request_id"}
        assert set(attributes) == {attribute.name for attribute in SESSION_ATTRIBUTES} | shared


class TestValues:
    def test_they_are_the_lines(self):
        view = with_headers((b"user-agent", b"curl/8"), query_string=b"a=1", client=("203.0.113.1", 5))
        line = AccessRecord({}, QueryPolicy("redact-all")).of(view, offset=OFFSET, lag=0.0)
        attributes = record(view).attributes
        shared = {name: line[name.replace(".", "_")] for name in attributes if name.replace(".", "_") in line}
        assert len(shared) > 12
        assert {name: attributes[name] for name in shared} == shared

    def test_times(self):
        found = record(Exchange())
        assert (found.start, found.end) == (nanoseconds(100.0, OFFSET), nanoseconds(100.0015, OFFSET))
        assert abs(found.end - found.start - 1_500_000) <= 1

    def test_a_request_that_was_not_understood(self):
        view = Exchange(
            method="", raw_path=b"", http_version="", fields={}, status=400, ending=catalogue.BAD_REQUEST_LINE,
            response_origin="server", app_started=0.0, head_done=0.0, route="", flags=["DPE"], scope=None,
        )  # fmt: skip
        found = record(view)
        assert (found.name, found.status) == ("HTTP", UNSET)
        assert found.attributes["obsserve.flags"] == ["DPE"]
        assert "http.request.method" not in found.attributes
        assert "obsserve.queue" not in found.attributes

    def test_a_parent(self):
        found = record(Exchange(), span(RemoteParent(3, 77, 1)))
        assert (found.parent_id, found.parent_is_remote, found.kind) == (77, True, SERVER)

    def test_lag_is_flagged(self):
        assert record(Exchange(), lag=0.2).attributes["obsserve.flags"] == ["LG"]

    def test_queries_are_redacted(self):
        view = Exchange(query_string=b"token=s3cret&page=2")
        assert record(view).attributes["url.query"] == "token=REDACTED&page=REDACTED"
        assert "url.query" not in record(view, query=QueryPolicy("drop")).attributes

    @pytest.mark.parametrize(
        ("agent", "synthetic"), [(b"locust/2.47", "test"), (b"My-LOCUST-run", "test"), (b"curl", None)]
    )
    def test_load_tests_are_marked(self, agent, synthetic):
        found = record(with_headers((b"user-agent", agent)))
        assert found.attributes.get("user_agent.synthetic.type") == synthetic


class TestStatus:
    @pytest.mark.parametrize("ending", list(ENDINGS.values()), ids=list(ENDINGS))
    def test_of_each_ending(self, ending):
        exception = raised() if ending.flag in ("AX", "AP") else None
        view = Exchange(
            ending=ending, status=ending.status or 200, exception=exception,
            error_type=catalogue.error_type_of(ending, ending.status, exception),
        )  # fmt: skip
        unset = ending.detail in ("complete", "client_disconnected", "stream_closed_by_client") or (
            ending.outcome == "protocol_error" and ending.status < 500
        )
        assert is_failure(view) is not unset

    @pytest.mark.parametrize(
        ("status", "expected"),
        [(200, UNSET), (302, UNSET), (404, UNSET), (499, UNSET), (500, ERROR), (503, ERROR)],
    )
    def test_of_the_applications_answers(self, status, expected):
        assert record(Exchange(status=status)).status == expected

    def test_an_exception_after_a_good_start(self):
        assert record(failed(catalogue.APP_EXCEPTION_AFTER_START, 200)).status == ERROR

    def test_the_message_only_where_values_may_be_seen(self):
        assert record(failed()).description == ""
        assert record(failed(), query=QueryPolicy("keep")).description == "no such item"

    def test_the_applications_word(self):
        traced = span()
        traced.set_status(StatusCode.OK)
        assert record(failed(), traced).status == OK
        traced = span()
        traced.set_status(StatusCode.ERROR, "out of stock")
        found = record(Exchange(), traced)
        assert (found.status, found.description) == (ERROR, "out of stock")
        assert record(failed(), traced).description == "out of stock"


class TestEvents:
    def names(self, found):
        return [event.name for event in found.events]

    def test_the_response_start(self):
        found = record(Exchange())
        assert self.names(found) == ["obsserve.response.start"]
        assert found.events[0].time == nanoseconds(100.0012, OFFSET)
        assert record(Exchange(first_byte=0.0)).events == []

    def test_an_exception(self):
        found = record(failed())
        assert self.names(found) == ["obsserve.response.start", "exception"]
        told = found.events[1].attributes
        assert (told["exception.type"], told["exception.message"]) == ("LookupError", "no such item")
        assert "raise LookupError" in told["exception.stacktrace"]
        assert found.attributes["error.type"] == "LookupError"

    def test_an_exception_is_told_once(self):
        traced, view = span(), failed()
        traced.record_exception(view.exception)
        assert self.names(record(view, traced)).count("exception") == 1
        traced.record_exception(raised())
        assert self.names(record(view, traced)).count("exception") == 2

    def test_or_not_as_an_event(self):
        assert self.names(record(failed(), exception_events=False)) == ["obsserve.response.start"]

    def test_long_messages_are_cut(self):
        told = record(failed(exception=raised("x" * 5000))).events[1].attributes
        assert len(told["exception.message"]) == 1024
        assert len(told["exception.stacktrace"]) <= 8192

    def test_a_message_that_cannot_be_had(self):
        class Broken(Exception):
            def __str__(self):
                raise ValueError

        told = record(failed(exception=Broken())).events[1].attributes
        assert told["exception.message"] == "(its text cannot be had: ValueError)"


class TestHeaders:
    def captured(self, **configured):
        view = with_headers(
            (b"accept", b"*/*"), (b"accept", b"text/html"), (b"authorization", b"Bearer abc"), (b"x-card", b"4111"),
            response_headers=[(b"Content-Type", b"text/plain"), (b"set-cookie", b"id=1")],
        )  # fmt: skip
        attributes = record(view, **configured).attributes
        return {name: value for name, value in attributes.items() if ".header." in name}

    def test_none_by_default(self):
        assert self.captured() == {}

    def test_by_name(self):
        found = self.captured(request_headers=("Accept",), response_headers=("content-.*",))
        assert found == {
            "http.request.header.accept": ["*/*", "text/html"],
            "http.response.header.content-type": ["text/plain"],
        }

    def test_secrets_are_hidden(self):
        found = self.captured(request_headers=(".*",), response_headers=(".*",), sensitive_headers=("card",))
        assert found["http.request.header.authorization"] == ["REDACTED"]
        assert found["http.request.header.x-card"] == ["REDACTED"]
        assert found["http.response.header.set-cookie"] == ["REDACTED"]
        assert found["http.request.header.host"] == ["example.org"]

    def test_verdicts_are_bounded(self):
        projection = SpanProjection(TracingConfiguration(request_headers=("x",)))
        for n in range(1000):
            projection.at_start(with_headers((b"h%d" % n, b"")))
        assert len(projection._request_headers._verdicts) <= 256

    def test_what_a_sampler_sees(self):
        projection = SpanProjection(TracingConfiguration(request_headers=("accept",)))
        view = with_headers((b"accept", b"*/*"), (b"user-agent", b"curl/8"), query_string=b"a=1")
        assert set(projection.at_start(view)) == {
            "http.request.method", "url.scheme", "server.address", "url.path", "url.query", "client.address",
            "user_agent.original", "http.request.header.accept",
        }  # fmt: skip


class TestSession:
    def test_a_child_of_the_handshake(self):
        found = session_record(session(Exchange()), span(), 9, offset=OFFSET, state="a=1")
        assert (found.name, found.kind, found.status) == ("websocket /ws", INTERNAL, UNSET)
        assert (found.trace_id, found.parent_id, found.span_id, found.parent_is_remote) == (3, 4, 9, False)
        assert found.trace_state == "a=1"
        assert found.attributes["obsserve.websocket.close_code"] == 1000

    def test_a_failure(self):
        found = session_record(session(Exchange(), error_type="1011", route=""), span(), 9, offset=OFFSET)
        assert (found.name, found.status, found.attributes["error.type"]) == ("websocket", ERROR, "1011")
