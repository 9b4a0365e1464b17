"""Exchanges as encoded spans, on the serving thread, when they end.

Owns the caches of encoded fragments. A span is encoded at once rather than in batches: 1 µs in each
request pauses nobody, while a batch on the loop is a pause, and a batch in another thread holds the
interpreter for up to 5 ms (its switch interval) against the loop. It also lets the exchange go.

Rules: `SpanProjection` says what a span holds; `_encode` puts the same together from fragments
(a test holds the two equal). What is unusual, or touched by the application, is encoded from its record.
Caches are bounded by count and by size of key and value, and are emptied when full.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from obsserve.telemetry.catalogue import COMPLETE, LAG_FLAG_SECONDS
from obsserve.telemetry.otlp_encode import (
    SERVER,
    attribute,
    attributes,
    delimited,
    encode_span,
    named,
    parent_flags,
    status,
    varint,
)
from obsserve.telemetry.spanrecord import RESPONSE_START, span_name

if TYPE_CHECKING:
    from obsserve.telemetry.lightspan import Span
    from obsserve.telemetry.observer import Address, ExchangeView, TargetView
    from obsserve.telemetry.spanrecord import AnswerKey, SpanProjection

_CACHE_ENTRIES: Final = 1024
_KEY_LIMIT: Final = 512
_VALUE_LIMIT: Final = 4096
# The longest path that is reported whole.
_PATH_LIMIT: Final = 2048


class WallClock(Protocol):
    """Turns `time.perf_counter` seconds into wall-clock time: epoch seconds = offset + t."""

    @property
    def offset(self) -> float: ...


class LoopLag(Protocol):
    def max_between(self, t0: float, t1: float) -> float: ...


def _double_key(name: str) -> bytes:
    """Return an attribute that holds a float, up to the eight bytes of the float."""
    return attribute(name, 0.0)[:-8]


class _Texts(dict[int, bytes]):
    """An attribute that holds text, up to the text, by the text's length."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, length: int) -> bytes:
        # Without text there is no attribute.
        start = self[length] = attribute(self._name, "x" * length)[:-length] if length else b""
        return start


class _Numbers(dict[int, bytes]):
    """An attribute that holds a whole number, by number."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        # What stands before the number, by the length of its varint.
        self._starts: dict[int, bytes] = {}

    def __missing__(self, number: int) -> bytes:
        content = varint(number)
        start = self._starts.get(len(content))
        if start is None:
            start = self._starts[len(content)] = attribute(self._name, number)[: -len(content)]
        if len(self) >= _CACHE_ENTRIES:
            self.clear()
        encoded = self[number] = start + content
        return encoded


_from_hex: Final = bytes.fromhex  # as a root span holds its ids
_PATHS: Final = _Texts("url.path")
_REQUEST_IDS: Final = _Texts("obsserve.request_id")
_REQUEST_BODY_SIZES: Final = _Numbers("http.request.body.size")
_RESPONSE_BODY_SIZES: Final = _Numbers("http.response.body.size")
_CONNECTION_REQUESTS: Final = _Numbers("obsserve.connection.request")

_TTFB: Final = _double_key("obsserve.ttfb")
_QUEUE: Final = _double_key("obsserve.queue")
_BLOCKED: Final = _double_key("obsserve.write_blocked")
_LAG: Final = _double_key("obsserve.loop_lag_max")
_ORIGIN: Final = attribute("obsserve.response_origin", "app")
_EVENT_NAME: Final = delimited(b"\x12", RESPONSE_START.encode())
_EVENT: Final = b"\x5a" + varint(9 + len(_EVENT_NAME)) + b"\x09"
_ROOT_TAIL: Final = _EVENT_NAME + status(0) + parent_flags(is_remote=False)
_CHILD_TAIL: Final = _EVENT_NAME + status(0) + parent_flags(is_remote=True)

# Everything of fixed length: ids, times, the four floats and the origin, the event up to its name. Fields
# may stand in any order, so that all of it is packed by one call.
_IDS: Final = "2s16s2s8s"
_STAGES: Final = (
    f"BQBQ{len(_TTFB)}sd{len(_QUEUE)}sd{len(_BLOCKED)}sd{len(_LAG)}sd{len(_ORIGIN)}s{len(_EVENT)}sQ"
)
_root: Final = Struct(f"<{_IDS}{_STAGES}{len(_ROOT_TAIL)}s").pack
_child: Final = Struct(f"<{_IDS}2s8s{_STAGES}{len(_CHILD_TAIL)}s").pack


class ExchangeEncoder:
    """Encodes spans of exchanges.

    Args:
        projection: what a span says.
        clock: the server's, refreshed by its ticker.
        lag: what is known of the event loop's lag.
    """

    def __init__(self, projection: SpanProjection, clock: WallClock, lag: LoopLag) -> None:
        self._projection = projection
        self._clock = clock
        self._lag = lag
        self._offset = 0.0
        self._offset_nanos = 0
        self._answers: dict[AnswerKey, bytes] = {}
        self._targets: dict[TargetView, bytes] = {}
        self._senders: dict[tuple[int, Address | None, bytes | None], bytes] = {}
        # Decided once: captured headers have no short way.
        self.encode = self._encode_whole if projection.captures_headers else self._encode

    @property
    def offset(self) -> float:
        """What turns `perf_counter` seconds into epoch seconds."""
        return self._clock.offset

    def _encode(self, view: ExchangeView, span: Span) -> bytes:
        """Return the span of an exchange that has ended.

        Longer and flatter than a function should be, because everybody pays for it with every sampled request.
        """
        began = view.began
        ended = view.ended
        head_done = view.head_done
        app_started = view.app_started
        first_byte = view.first_byte
        lag = self._lag.max_between(began, ended)
        target = view.parts
        if (
            view.ending is not COMPLETE
            or view.error_type is not None
            or view.response_origin != "app"
            or not (first_byte and app_started and head_done)
            or target is None
            or lag > LAG_FLAG_SECONDS
            or span.has_extras
        ):
            return self._encode_record(view, span, lag)

        offset = self._clock.offset
        if offset != self._offset:
            self._offset = offset
            self._offset_nanos = int(offset * 1e9)
        nanos = self._offset_nanos
        parent = span.parent
        if parent is None:
            fixed = _root(
                b"\x0a\x10", _from_hex(span.trace_id_hex),
                b"\x12\x08", _from_hex(span.span_id_hex),
                0x39, int(began * 1e9) + nanos,
                0x41, int(ended * 1e9) + nanos,
                _TTFB, first_byte - head_done,
                _QUEUE, app_started - head_done,
                _BLOCKED, view.write_blocked,
                _LAG, lag,
                _ORIGIN,
                _EVENT, int(first_byte * 1e9) + nanos,
                _ROOT_TAIL,
            )  # fmt: skip
        else:
            fixed = _child(
                b"\x0a\x10", span.trace_id.to_bytes(16, "big"),
                b"\x12\x08", span.span_id.to_bytes(8, "big"),
                b"\x22\x08", parent.span_id.to_bytes(8, "big"),
                0x39, int(began * 1e9) + nanos,
                0x41, int(ended * 1e9) + nanos,
                _TTFB, first_byte - head_done,
                _QUEUE, app_started - head_done,
                _BLOCKED, view.write_blocked,
                _LAG, lag,
                _ORIGIN,
                _EVENT, int(first_byte * 1e9) + nanos,
                _CHILD_TAIL,
            )  # fmt: skip
            if state := span.state_text:
                fixed += delimited(b"\x1a", state.encode("ascii", "replace"))
        fields = view.fields
        connection = view.connection
        answer = (view.method, view.scheme, view.route, view.status, view.http_version, fields.get(b"host"))
        sender = (connection.serial, view.forwarded_client, fields.get(b"user-agent"))
        request_id = view.request_id
        return b"".join(
            (
                fixed,
                self._answers.get(answer) or self._answer(answer),
                self._targets.get(target) or self._target(target),
                self._senders.get(sender) or self._sender(sender, view),
                _REQUEST_BODY_SIZES[view.request_body_size],
                _RESPONSE_BODY_SIZES[view.response_body_size],
                _CONNECTION_REQUESTS[view.connection_request],
                _REQUEST_IDS[len(request_id)],
                request_id.encode("ascii", "replace"),
            )
        )

    def _encode_whole(self, view: ExchangeView, span: Span) -> bytes:
        return self._encode_record(view, span, self._lag.max_between(view.began, view.ended))

    def encode_kept(self, view: ExchangeView, span: Span, reason: str) -> bytes:
        """Return the span of an exchange that is exported although its sampler did not keep it."""
        lag = self._lag.max_between(view.began, view.ended)
        record = self._projection.record(view, span, offset=self._clock.offset, lag=lag)
        record.attributes = {**record.attributes, "obsserve.sampling.reason": reason}
        return encode_span(record)

    def _encode_record(self, view: ExchangeView, span: Span, lag: float) -> bytes:
        """Return the same from the exchange's record."""
        return encode_span(self._projection.record(view, span, offset=self._clock.offset, lag=lag))

    # --- Fragments ---------------------------------------------------------------------------

    def _answer(self, key: AnswerKey) -> bytes:
        method, _, route, *_, host = key
        fragment = named(span_name(method, route), SERVER) + _encoded(self._projection.answer(key))
        return _remember(self._answers, key, len(method) + len(route) + len(host or b""), fragment)

    def _target(self, target: TargetView) -> bytes:
        path, query = target.raw_path, target.query_string
        if not query and 0 < len(path) <= _PATH_LIMIT and path.isascii():
            fragment = _PATHS[len(path)] + path  # a path with an id in it is often new
        else:
            fragment = _encoded(self._projection.target(path, query))
        return _remember(self._targets, target, 0, fragment)

    def _sender(self, key: tuple[int, Address | None, bytes | None], view: ExchangeView) -> bytes:
        fragment = _encoded(self._projection.sender(view))
        return _remember(self._senders, key, len(key[2] or b""), fragment)


def _encoded(values: dict[str, Any]) -> bytes:
    return attributes(b"\x4a", values)


def _remember(cache: dict[Any, bytes], key: object, size: int, fragment: bytes) -> bytes:
    if size <= _KEY_LIMIT and len(fragment) <= _VALUE_LIMIT:
        if len(cache) >= _CACHE_ENTRIES:
            cache.clear()
        cache[key] = fragment
    return fragment
