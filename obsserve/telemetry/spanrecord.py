"""What a span says of an exchange: the record that every form of it shares.

`SpanProjection` is the reference: names, values and caps are those of the access line, put together by
the same functions, so that log and span cannot disagree. The fast encoder writes the same from cached
fragments, and a test holds the two equal.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from obsserve.telemetry.accessfields import AccessRecord, Fields, put_answer, put_method, put_peer
from obsserve.telemetry.catalogue import (
    COMPLETE,
    KNOWN_METHODS,
    LAG_FLAG_SECONDS,
    OTHER,
    SPAN_ATTRIBUTES,
    error_type_of,
)
from obsserve.telemetry.lightspan import exception_attributes
from obsserve.telemetry.otlp_encode import ERROR, INTERNAL, OK, SERVER, UNSET, SpanEvent, SpanLink, SpanRecord
from obsserve.telemetry.redact import REDACTED, SENSITIVE_WORD, AttributePolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from obsserve.telemetry.lightspan import Edits, LightSpan, TraceIdentity
    from obsserve.telemetry.observer import ExchangeView, Headers, SessionView
    from obsserve.telemetry.traceconfig import TracingConfiguration

# method, scheme, route, status, version, Host
AnswerKey = tuple[str, str, str, int | None, str, bytes | None]

RESPONSE_START: Final = "obsserve.response.start"

# A log field and its attribute are one name in two spellings.
_NAMES: Final = {attribute.name.replace(".", "_"): attribute.name for attribute in SPAN_ATTRIBUTES}
_METHODS: Final = frozenset(KNOWN_METHODS)
_FAILURES: Final = frozenset({"app_error", "server_error", "shutdown", "timeout"})
_HEADER_CAP: Final = 256
_REMEMBERED_HEADERS: Final = 256
_LOAD_TEST: Final = re.compile(rb"locust", re.IGNORECASE)


def nanoseconds(seconds: float, offset: float) -> int:
    """Return `perf_counter` seconds as nanoseconds since the epoch.

    The parts are converted before they are added: their sum is too large to keep a microsecond's tenth.
    """
    return int(seconds * 1e9) + int(offset * 1e9)


def span_name(method: str, route: str) -> str:
    """Return a span's name; an unknown method is no part of it, because a client chooses it."""
    word = method if method in _METHODS else "HTTP"
    return f"{word} {route}" if route else word


def is_failure(view: ExchangeView) -> bool:
    """Return whether the span's status is Error.

    A client that left, or closed a stream, is no failure of the service: its `error.type` says so.
    """
    return (view.status is not None and view.status >= 500) or view.outcome in _FAILURES


def kept_for(view: ExchangeView, slow: float) -> str:
    """Return why an exchange's span is exported although it was not to be kept; nothing if it is not.

    Args:
        view: an exchange that has ended.
        slow: from how many seconds on it is slow.
    """
    if is_failure(view):
        return "error"
    return "slow" if view.ended - view.began >= slow else ""


def _dotted(fields: Fields) -> dict[str, Any]:
    return {_NAMES[name]: value for name, value in fields.values.items() if value is not None}


class HeaderCapture:
    """Which headers become attributes.

    Args:
        start: of the attributes' names.
        patterns: regular expressions of header names.
        sensitive: regular expressions of names whose values are hidden.
    """

    def __init__(self, start: str, patterns: Iterable[str], sensitive: Iterable[str]) -> None:
        self._start = start
        self._wanted = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]
        self._sensitive = [re.compile(pattern, re.IGNORECASE) for pattern in sensitive]
        self._verdicts: dict[bytes, tuple[str, bool] | None] = {}

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def of(self, headers: Headers) -> dict[str, list[str]]:
        """Return the attributes for these headers."""
        found: dict[str, list[str]] = {}
        for name, value in headers:
            verdict = self._verdict(name)
            if verdict is not None:
                attribute, hidden = verdict
                text = REDACTED if hidden else value.decode("utf-8", "backslashreplace")[:_HEADER_CAP]
                found.setdefault(attribute, []).append(text)
        return found

    def _verdict(self, name: bytes) -> tuple[str, bool] | None:
        if name not in self._verdicts:
            if len(self._verdicts) >= _REMEMBERED_HEADERS:
                self._verdicts.clear()
            self._verdicts[name] = self._judge(name.decode("latin-1").lower())
        return self._verdicts[name]

    def _judge(self, name: str) -> tuple[str, bool] | None:
        if not any(pattern.fullmatch(name) for pattern in self._wanted):
            return None
        hidden = SENSITIVE_WORD.search(name) is not None or any(word.search(name) for word in self._sensitive)
        return f"{self._start}{name}", hidden


class SpanProjection:
    """Makes span records of exchanges.

    Args:
        configuration: redaction, captured headers, how exceptions are told.
    """

    def __init__(self, configuration: TracingConfiguration) -> None:
        sensitive = configuration.sensitive_headers
        self._access = AccessRecord(service={}, policy=configuration.query)
        self._foreign = AttributePolicy(configuration.query)
        self._address = configuration.address
        self._shows_messages = configuration.query.mode == "keep"
        self._exception_events = configuration.exception_events
        self._request_headers = HeaderCapture(
            "http.request.header.", configuration.request_headers, sensitive
        )
        self._response_headers = HeaderCapture(
            "http.response.header.", configuration.response_headers, sensitive
        )
        self.captures_headers = bool(self._request_headers) or bool(self._response_headers)

    # --- Attributes, in the order in which they stand ----------------------------------------

    def answer(self, key: AnswerKey) -> dict[str, Any]:
        method, scheme, route, status, version, host = key
        fields = Fields()
        put_method(fields, method, scheme)
        put_answer(fields, route, status, version, host)
        return _dotted(fields)

    def target(self, raw_path: bytes, query: bytes) -> dict[str, Any]:
        fields = Fields()
        self._access.put_target(fields, raw_path, query)
        return _dotted(fields)

    def _put_client(self, fields: Fields, view: ExchangeView) -> None:
        if view.client is not None:
            fields.text("client_address", view.client[0])
        self._hide(fields, "client_address")

    def _hide(self, fields: Fields, name: str) -> None:
        """Leave of an address what the options let be seen."""
        address = fields.values.get(name)
        if self._address is not None and address is not None:
            fields.values[name] = self._address.apply(address)

    def sender(self, view: ExchangeView) -> dict[str, Any]:
        fields = Fields()
        self._put_client(fields, view)
        put_peer(fields, view.connection)
        self._hide(fields, "network_peer_address")
        values = {**_dotted(fields), "obsserve.connection.id": view.connection.id}
        agent = view.fields.get(b"user-agent")
        return values if agent is None else {**values, **self._agent(agent)}

    def _agent(self, agent: bytes) -> dict[str, Any]:
        fields = Fields()
        fields.text("user_agent_original", agent)
        synthetic = {"user_agent.synthetic.type": "test"} if _LOAD_TEST.search(agent) else {}
        return {**_dotted(fields), **synthetic}

    def at_start(self, view: ExchangeView) -> dict[str, Any]:
        """Return what is known when the request arrives: what a sampler decides by."""
        fields = Fields()
        self._put_client(fields, view)
        agent = view.fields.get(b"user-agent")
        return {
            **self.answer((view.method, view.scheme, "", None, "", view.fields.get(b"host"))),
            **self.target(view.raw_path, view.query_string),
            **_dotted(fields),
            **({} if agent is None else self._agent(agent)),
            **self._request_headers.of(view.request_headers),
        }

    def at_end(self, view: ExchangeView, lag: float) -> dict[str, Any]:
        """Return all attributes of an exchange that has ended."""
        host = view.fields.get(b"host")
        values: dict[str, Any] = {}
        if view.first_byte and view.head_done:
            values["obsserve.ttfb"] = view.first_byte - view.head_done
        if view.app_started and view.head_done:
            values["obsserve.queue"] = view.app_started - view.head_done
        if view.first_byte:
            values["obsserve.write_blocked"] = float(view.write_blocked)
        values["obsserve.loop_lag_max"] = float(lag)
        values["obsserve.response_origin"] = view.response_origin
        values.update(
            self.answer((view.method, view.scheme, view.route, view.status, view.http_version, host))
        )
        values.update(self.target(view.raw_path, view.query_string))
        values.update(self.sender(view))
        values["http.request.body.size"] = view.request_body_size
        values["http.response.body.size"] = view.response_body_size
        values["obsserve.connection.request"] = view.connection_request
        values["obsserve.request_id"] = view.request_id
        flags = [*view.flags, "LG"] if lag > LAG_FLAG_SECONDS else list(view.flags)
        if flags:
            values["obsserve.flags"] = flags
        if view.error_type is not None:
            values["error.type"] = view.error_type[:_HEADER_CAP]
        if self.captures_headers:
            values.update(self._request_headers.of(view.request_headers))
            values.update(self._response_headers.of(view.response_headers))
        return values

    # --- Records -----------------------------------------------------------------------------

    def record(self, view: ExchangeView, span: LightSpan, *, offset: float, lag: float) -> SpanRecord:
        """Return the span of an exchange that has ended.

        Args:
            view: the exchange.
            span: its ids, and what the application has set.
            offset: what turns its times into epoch seconds.
            lag: worst lag of the event loop meanwhile, in seconds.
        """
        record = SpanRecord(
            trace_id=span.trace_id,
            span_id=span.span_id,
            name=span_name(view.method, view.route),
            kind=SERVER,
            start=nanoseconds(view.began, offset),
            end=nanoseconds(view.ended, offset),
            trace_state=span.state_text,
            attributes=self.at_end(view, lag),
            events=self.events(view, offset),
            status=ERROR if is_failure(view) else UNSET,
            description=self.description(view),
        )
        if span.parent is not None:
            record.parent_id = span.parent.span_id
            record.parent_is_remote = True
        if span.link is not None:
            record.links = [SpanLink(span.link.trace_id, span.link.span_id)]
        if span.sampler_attributes:
            record.attributes = {**span.sampler_attributes, **record.attributes}
        if span.edits is not None:
            apply_edits(record, span.edits, self._foreign.apply(span.edits.attributes))
        recorded = span.edits.recorded if span.edits is not None else ()
        if view.exception is not None and id(view.exception) not in recorded and self._exception_events:
            told = exception_attributes(view.exception)
            record.events = [*record.events, SpanEvent("exception", record.end, told)]
        return record

    def events(self, view: ExchangeView, offset: float) -> list[SpanEvent]:
        if not view.first_byte:
            return []
        return [SpanEvent(RESPONSE_START, nanoseconds(view.first_byte, offset))]

    def description(self, view: ExchangeView) -> str:
        """Return the status description: the exception's message, where redaction lets values be seen."""
        if view.exception is None or not self._shows_messages:
            return ""
        return exception_attributes(view.exception)["exception.message"]

    @property
    def exception_events(self) -> bool:
        """Whether an exception becomes an event of the span."""
        return self._exception_events


def apply_edits(record: SpanRecord, edits: Edits, attributes: Mapping[str, Any]) -> None:
    """Add what the application has set; of what both say, the server's word counts."""
    record.attributes = {**attributes, **record.attributes}
    record.dropped_attributes = edits.attributes.dropped
    record.events = [*record.events, *edits.events]
    record.dropped_events = edits.dropped_events
    record.links = [*record.links, *edits.links]
    if edits.name is not None:
        record.name = edits.name
    if edits.status == OK or (edits.status == ERROR and record.status == UNSET):
        record.status = edits.status
        record.description = edits.description
    elif edits.status == ERROR and not record.description:
        record.description = edits.description


def session_record(
    session: SessionView, handshake: TraceIdentity, span_id: int, *, offset: float, state: str = ""
) -> SpanRecord:
    """Return the span of a WebSocket session, from its handshake's 101 to its close.

    Args:
        session: a session that has ended.
        handshake: the parent.
        span_id: its own.
        offset: what turns its times into epoch seconds.
        state: the trace's tracestate.
    """
    attributes: dict[str, Any] = {
        "obsserve.websocket.messages_received": session.messages_received,
        "obsserve.websocket.messages_sent": session.messages_sent,
        "obsserve.websocket.bytes_received": session.bytes_received,
        "obsserve.websocket.bytes_sent": session.bytes_sent,
        "obsserve.websocket.close_code": session.close_code,
        "obsserve.websocket.close_initiator": session.close_initiator,
        "obsserve.connection.id": session.exchange.connection.id,
        "obsserve.request_id": session.exchange.request_id,
    }
    if session.route:
        attributes["http.route"] = session.route
    error_type = session.error_type
    if error_type is not None:
        attributes["error.type"] = error_type[:_HEADER_CAP]
    return SpanRecord(
        trace_id=handshake.trace_id,
        span_id=span_id,
        name=f"websocket {session.route}".rstrip(),
        kind=INTERNAL,
        start=nanoseconds(session.opened_at, offset),
        end=nanoseconds(session.closed_at, offset),
        parent_id=handshake.span_id,
        trace_state=state,
        attributes=attributes,
        status=ERROR if error_type is not None else UNSET,
    )


def lifespan_record(
    phase: str,
    began: float,
    ended: float,
    *,
    trace_id: int,
    span_id: int,
    failed: bool,
    exception: BaseException | None,
) -> SpanRecord:
    """Return the span of a phase of the application's lifespan, a root.

    Args:
        phase: startup or shutdown.
        began: epoch seconds.
        ended: the same.
        trace_id: its own.
        span_id: its own.
        failed: whether the application did not get through it.
        exception: what it raised, if it did.
    """
    record = SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        name=f"lifespan.{phase}",
        kind=INTERNAL,
        start=int(began * 1e9),
        end=int(ended * 1e9),
    )
    if failed:
        name = error_type_of(COMPLETE, None, exception) if exception is not None else None
        record.status = ERROR
        record.attributes = {"error.type": name or OTHER}
    if exception is not None:
        record.events = [SpanEvent("exception", record.end, exception_attributes(exception))]
    return record
