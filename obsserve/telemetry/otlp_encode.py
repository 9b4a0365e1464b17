"""Pure: spans as OTLP bytes (opentelemetry/proto/trace/v1/trace.proto), without building messages.

A span is encoded when its exchange ends, and a request to the collector is a join of such bytes. The
official encoder makes the same message of the same span; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final

from obsserve.speedups import native

INTERNAL: Final = 1
SERVER: Final = 2
PRODUCER: Final = 4
CONSUMER: Final = 5

UNSET: Final = 0
OK: Final = 1
ERROR: Final = 2

# SpanFlags: whether the parent is remote is known, and whether it is.
_PARENT_LOCAL: Final = b"\x85\x01\x00\x01\x00\x00"
_PARENT_REMOTE: Final = b"\x85\x01\x00\x03\x00\x00"
_LINK_FLAGS: Final = {False: b"\x35\x00\x01\x00\x00", True: b"\x35\x00\x03\x00\x00"}

_double: Final = Struct("<d").pack
_fixed64: Final = Struct("<Q").pack
_times: Final = Struct("<BQBQ").pack
_ONE_BYTE: Final = [bytes((number,)) for number in range(0x80)]
_INT64: Final = 1 << 63


@dataclass(slots=True)
class SpanEvent:
    """Something that happened during a span, at `time` nanoseconds since the epoch."""

    name: str
    time: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dropped_attributes: int = 0


@dataclass(slots=True)
class SpanLink:
    """Another span that has to do with this one."""

    trace_id: int
    span_id: int
    is_remote: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class SpanRecord:
    """A finished span; times are nanoseconds since the epoch.

    Args:
        parent_id: 0 for a root.
        trace_state: the tracestate header's text.
    """

    trace_id: int
    span_id: int
    name: str
    kind: int
    start: int
    end: int
    parent_id: int = 0
    parent_is_remote: bool = False
    trace_state: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[SpanEvent] = ()
    links: Sequence[SpanLink] = ()
    status: int = UNSET
    description: str = ""
    dropped_attributes: int = 0
    dropped_events: int = 0


def varint(number: int) -> bytes:
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(tag: bytes, content: bytes) -> bytes:
    """Return a field of bytes: text or a message."""
    return b"%b%b%b" % (tag, varint(len(content)), content)


def _text(value: str) -> bytes:
    # protobuf refuses lone surrogates, and with them the whole request.
    return value.encode("utf-8", "replace")


def any_value(value: Any) -> bytes:
    """Return an AnyValue's content.

    Raises:
        ValueError: no AnyValue can hold it.
    """
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, str):
        return delimited(b"\x0a", _text(value))
    if isinstance(value, int):
        # Not `in range(...)`: of an IntEnum, that tries one number after the other.
        if not -_INT64 <= value < _INT64:
            raise ValueError("an OTLP integer has 64 bits")
        return b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    if isinstance(value, bytes):
        return delimited(b"\x3a", value)
    if isinstance(value, Sequence):
        return delimited(b"\x2a", b"".join([delimited(b"\x0a", any_value(item)) for item in value]))
    if isinstance(value, Mapping):
        pairs = [delimited(b"\x0a", _pair(str(name), item)) for name, item in value.items()]
        return delimited(b"\x32", b"".join(pairs))
    raise ValueError(f"OTLP has no {type(value).__name__}")


def _pair(name: str, value: Any) -> bytes:
    return delimited(b"\x0a", _text(name)) + delimited(b"\x12", any_value(value))


def attributes(tag: bytes, values: Mapping[str, Any]) -> bytes:
    """Return attributes, each as a field of this tag; one that OTLP cannot hold is left out."""
    parts = []
    for name, value in values.items():
        try:
            parts.append(delimited(tag, _pair(name, value)))
        except ValueError:
            continue
    return b"".join(parts)


def attribute(name: str, value: Any) -> bytes:
    """Return one attribute of a span."""
    return delimited(b"\x4a", _pair(name, value))


def status(code: int, description: str = "") -> bytes:
    content = delimited(b"\x12", _text(description)) if description else b""
    if code:
        content += b"\x18" + varint(code)
    return delimited(b"\x7a", content)


def parent_flags(*, is_remote: bool) -> bytes:
    return _PARENT_REMOTE if is_remote else _PARENT_LOCAL


def encode_span(span: SpanRecord) -> bytes:
    """Return a span's content."""
    parts = [b"\x0a\x10", span.trace_id.to_bytes(16, "big"), b"\x12\x08", span.span_id.to_bytes(8, "big")]
    if span.trace_state:
        parts.append(delimited(b"\x1a", _text(span.trace_state)))
    if span.parent_id:
        parts += (b"\x22\x08", span.parent_id.to_bytes(8, "big"))
    parts.append(named(span.name, span.kind))
    parts.append(_times(0x39, span.start, 0x41, span.end))
    parts.append(attributes(b"\x4a", span.attributes))
    if span.dropped_attributes:
        parts.append(b"\x50" + varint(span.dropped_attributes))
    parts += [delimited(b"\x5a", _event(event)) for event in span.events]
    if span.dropped_events:
        parts.append(b"\x60" + varint(span.dropped_events))
    parts += [delimited(b"\x6a", _link(link)) for link in span.links]
    parts.append(status(span.status, span.description))
    parts.append(parent_flags(is_remote=span.parent_is_remote))
    return b"".join(parts)


def named(name: str, kind: int) -> bytes:
    return delimited(b"\x2a", _text(name)) + b"\x30" + varint(kind)


def _event(event: SpanEvent) -> bytes:
    content = b"\x09" + _fixed64(event.time) + delimited(b"\x12", _text(event.name))
    content += attributes(b"\x1a", event.attributes)
    if event.dropped_attributes:
        content += b"\x20" + varint(event.dropped_attributes)
    return content


def _link(link: SpanLink) -> bytes:
    ids = b"\x0a\x10" + link.trace_id.to_bytes(16, "big") + b"\x12\x08" + link.span_id.to_bytes(8, "big")
    return ids + attributes(b"\x22", link.attributes) + _LINK_FLAGS[link.is_remote]


class RequestFrame:
    """What stands around the spans in each request to the collector.

    Args:
        resource: the resource's attributes.
        scope: name of the instrumentation scope.
        version: its version.
    """

    def __init__(self, resource: Mapping[str, Any], scope: str, version: str) -> None:
        self._resource = delimited(b"\x0a", attributes(b"\x0a", resource))
        names = delimited(b"\x0a", _text(scope)) + delimited(b"\x12", _text(version))
        self._scope = delimited(b"\x0a", names)

    def request(self, spans: Sequence[bytes]) -> bytes:
        """Return an ExportTraceServiceRequest of encoded spans."""
        if native is not None and isinstance(spans, native.Batch):
            return native.request(self._resource, self._scope, spans)  # type: ignore[no-any-return]
        # Lengths first, so that a quarter of a megabyte is put together once and not at each level.
        parts = self._scope_spans(spans)
        size = sum(map(len, parts))
        scope_spans = b"\x12" + varint(size)
        resource_spans = b"\x0a" + varint(len(self._resource) + len(scope_spans) + size)
        return b"".join((resource_spans, self._resource, scope_spans, *parts))

    def scope_spans(self, spans: Sequence[bytes]) -> bytes:
        """Return the content of the only ScopeSpans."""
        return b"".join(self._scope_spans(spans))

    def _scope_spans(self, spans: Sequence[bytes]) -> list[bytes]:
        parts = [self._scope]
        for span in spans:
            parts += (_SPAN_STARTS[len(span)], span)
        return parts


class _SpanStarts(dict[int, bytes]):
    """What stands before a span in `ScopeSpans.spans`, by the span's length."""

    def __missing__(self, length: int) -> bytes:
        start = b"\x12" + varint(length)
        if length < _COMMON_LENGTH:
            self[length] = start
        return start


_COMMON_LENGTH: Final = 4096
_SPAN_STARTS: Final = _SpanStarts()
