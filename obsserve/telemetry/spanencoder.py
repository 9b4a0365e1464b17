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
from typing import TYPE_CHECKING, Any, Final

from obsserve.speedups import native
from obsserve.telemetry.catalogue import LAG_FLAG_SECONDS
from obsserve.telemetry.lightspan import ChildSpan, RootSpan
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
    from collections.abc import Callable

    from obsserve.telemetry.lightspan import LightSpan
    from obsserve.telemetry.observer import Address, ExchangeView, LoopLag, TargetView, WallClock
    from obsserve.telemetry.spanrecord import AnswerKey, SpanProjection

_CACHE_ENTRIES: Final = 1024
_KEY_LIMIT: Final = 512
_VALUE_LIMIT: Final = 4096
# The longest path that is reported whole.
_PATH_LIMIT: Final = 2048
# A request's id has no more characters: the server has checked it.
LONGEST_REQUEST_ID: Final = 128
LONGEST_VARINT: Final = 9  # of what an OTLP integer can hold without a sign


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
        self._starts: dict[int, bytes] = {}

    def start(self, length: int) -> bytes:
        """Return what stands before a number whose varint has this length."""
        start = self._starts.get(length)
        if start is None:
            start = self._starts[length] = attribute(self._name, 1 << 7 * (length - 1) if length > 1 else 0)[
                :-length
            ]
        return start

    def __missing__(self, number: int) -> bytes:
        content = varint(number)
        start = self.start(len(content))
        if len(self) >= _CACHE_ENTRIES:
            self.clear()
        encoded = self[number] = start + content
        return encoded


_from_hex: Final = bytes.fromhex  # as these spans hold their ids
_PATHS: Final = _Texts("url.path")
_REQUEST_IDS: Final = _Texts("obsserve.request_id")
_REQUEST_BODY_SIZES: Final = _Numbers("http.request.body.size")
_RESPONSE_BODY_SIZES: Final = _Numbers("http.response.body.size")
_CONNECTION_REQUESTS: Final = _Numbers("obsserve.connection.request")

_TTFB: Final = _double_key("obsserve.ttfb")
_QUEUE: Final = _double_key("obsserve.queue")
_LAG: Final = _double_key("obsserve.loop_lag_max")
# What stands between two numbers is one piece: fields may stand in any order, those of an event, too. An ordinary
# response never waited for its reader. The event comes last but for its time.
_EVENT_NAME: Final = delimited(b"\x12", RESPONSE_START.encode())
_EVENT: Final = b"\x5a" + varint(9 + len(_EVENT_NAME)) + _EVENT_NAME + b"\x09"
_BEFORE_LAG: Final = attribute("obsserve.write_blocked", 0.0) + _LAG
_AFTER_LAG: Final = attribute("obsserve.response_origin", "app") + _EVENT
_NO_LAG: Final = _BEFORE_LAG + bytes(8) + _AFTER_LAG
_ROOT_STATUS: Final = status(0) + parent_flags(is_remote=False)
_CHILD_STATUS: Final = status(0) + parent_flags(is_remote=True)

# The same for `speedups`: what stands between the numbers, and what before each whole number, by its varint's length.
_PIECES: Final = (_TTFB, _QUEUE, _NO_LAG, _ROOT_STATUS, _CHILD_STATUS)
_NUMBERS: Final = tuple(
    (b"", *(numbers.start(length) for length in range(1, LONGEST_VARINT + 1)))
    for numbers in (_REQUEST_BODY_SIZES, _RESPONSE_BODY_SIZES, _CONNECTION_REQUESTS)
)

# Ids and the tag of the beginning, beginning, tag of the end and end, two stages, lag and event.
_root: Final = Struct(f"<29sQBQ{len(_TTFB)}sd{len(_QUEUE)}sd{len(_NO_LAG)}sQ").pack
_child: Final = Struct(f"<39sQBQ{len(_TTFB)}sd{len(_QUEUE)}sd{len(_NO_LAG)}sQ").pack
_double: Final = Struct("<d").pack


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
        self.encode: Callable[[Any, Any], bytes] = self._encode
        if projection.captures_headers:
            self.encode = self._encode_whole
        elif native is not None:
            self.encode = native.Encoder(
                answers=self._answers,
                targets=self._targets,
                senders=self._senders,
                pieces=_PIECES,
                numbers=_NUMBERS,
                texts=tuple(_REQUEST_IDS[length] for length in range(LONGEST_REQUEST_ID + 1)),
                clock=clock,
                lag=lag,
                otherwise=self._encode,
                root=RootSpan,
                child=ChildSpan,
            ).encode

    @property
    def offset(self) -> float:
        """What turns `perf_counter` seconds into epoch seconds."""
        return self._clock.offset

    def _encode(self, view: ExchangeView, span: Any) -> bytes:
        """Return the span of an exchange that has ended.

        Longer and flatter than a function should be, because everybody pays for it with every sampled request.
        """
        began = view.began
        ended = view.ended
        lag = self._lag.max_between(began, ended)
        target = view.parts
        if not view.ordinary or target is None or lag > LAG_FLAG_SECONDS or span.extras is not None:
            return self._encode_record(view, span, lag)

        offset = self._clock.offset
        if offset != self._offset:
            self._offset = offset
            self._offset_nanos = int(offset * 1e9)
        nanos = self._offset_nanos
        head_done = view.head_done
        first_byte = view.first_byte
        end = int(ended * 1e9) + nanos
        # Most responses leave in one piece.
        first = end if first_byte == ended else int(first_byte * 1e9) + nanos
        before_event = _NO_LAG if not lag else b"".join((_BEFORE_LAG, _double(lag), _AFTER_LAG))
        kind = span.__class__
        if kind is ChildSpan or (kind is not RootSpan and span.parent is not None):
            status_and_flags = _CHILD_STATUS
            if kind is ChildSpan:
                parent_hex = span.parent_hex
            else:
                parent_hex = f"{span.parent.span_id:016x}"
                if state := span.state_text:
                    status_and_flags += delimited(b"\x1a", state.encode("ascii", "replace"))
            fixed = _child(
                _from_hex(f"0a10{span.trace_id_hex}1208{span.span_id_hex}2208{parent_hex}39"),
                int(began * 1e9) + nanos, 0x41, end,
                _TTFB, first_byte - head_done, _QUEUE, view.app_started - head_done, before_event, first,
            )  # fmt: skip
        else:
            status_and_flags = _ROOT_STATUS
            fixed = _root(
                _from_hex(f"0a10{span.trace_id_hex}1208{span.span_id_hex}39"),
                int(began * 1e9) + nanos, 0x41, end,
                _TTFB, first_byte - head_done, _QUEUE, view.app_started - head_done, before_event, first,
            )  # fmt: skip
        fields = view.fields
        connection = view.connection
        answer = (view.method, view.scheme, view.route, view.status, view.http_version, fields.get(b"host"))
        sender = (connection.serial, view.forwarded_client, fields.get(b"user-agent"))
        request_id = view.request_id
        return b"".join(
            (
                fixed,
                status_and_flags,
                self._answers.get(answer) or self._answer(answer),
                self._targets.get(target) or self._target(target),
                self._senders.get(sender) or self._sender(sender, view),
                _REQUEST_BODY_SIZES[view.request_body_size],
                _RESPONSE_BODY_SIZES[view.response_body_size],
                _CONNECTION_REQUESTS[view.connection_request],
                _REQUEST_IDS[len(request_id)],
                request_id.encode(),
            )
        )

    def _encode_whole(self, view: ExchangeView, span: LightSpan) -> bytes:
        return self._encode_record(view, span, self._lag.max_between(view.began, view.ended))

    def encode_kept(self, view: ExchangeView, span: LightSpan, reason: str) -> bytes:
        """Return the span of an exchange that is exported although its sampler did not keep it."""
        lag = self._lag.max_between(view.began, view.ended)
        record = self._projection.record(view, span, offset=self._clock.offset, lag=lag)
        record.attributes = {**record.attributes, "obsserve.sampling.reason": reason}
        return encode_span(record)

    def _encode_record(self, view: ExchangeView, span: LightSpan, lag: float) -> bytes:
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
