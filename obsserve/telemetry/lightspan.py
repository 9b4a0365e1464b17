"""The server's span as the application sees it: `opentelemetry.trace.get_current_span()`.

Holds the ids and the decision; what the exchange itself knows is added when it ends. Most spans are
never touched by the application, so whatever it sets lives in `Edits`, made when it is needed.

    open (recording, if sampled) ──the exchange ends──▶ ended: every call is ignored

`end()` by the application is ignored: the span ends when the last byte has left.
"""

from __future__ import annotations

import os
import time
import traceback
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import Span as AbstractSpan
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from obsserve.telemetry.catalogue import COMPLETE, error_type_of
from obsserve.telemetry.otlp_encode import ERROR, OK, UNSET, SpanEvent, SpanLink
from obsserve.telemetry.propagation import SPAN_KEY, RemoteParent

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView

    from opentelemetry.trace import TraceState
    from opentelemetry.util.types import Attributes

    from obsserve.telemetry.traceconfig import TracingConfiguration

SAMPLED: Final = 1
# Trace Context level 2: the trace id is random. Ours are.
RANDOM: Final = 2

_FLAGS: Final = tuple(TraceFlags(flags) for flags in range(256))
_FLAGS_HEX: Final = tuple(f"{flags:02x}" for flags in range(256))
_RESPONSE_LINES: Final = {
    "traceresponse": "traceresponse: *\r\n",
    "server-timing": 'server-timing: traceparent;desc="*"\r\n',
}
_DRAWN: Final = 128
_lower_halves: Final = Struct(">" + "8xQ" * _DRAWN).unpack
_MESSAGE_CAP: Final = 1024
_STACK_CAP: Final = 8192
_CODES: Final = {StatusCode.UNSET: UNSET, StatusCode.OK: OK, StatusCode.ERROR: ERROR}


class Edits:
    """What the application has set on a span."""

    __slots__ = (
        "attributes",
        "description",
        "dropped_events",
        "events",
        "limits",
        "links",
        "name",
        "recorded",
        "status",
    )

    def __init__(self, limits: TracingConfiguration) -> None:
        self.limits = limits
        self.attributes = self.bounded(None)
        self.events: list[SpanEvent] = []
        self.links: list[SpanLink] = []
        self.recorded: set[int] = set()
        self.name: str | None = None
        self.status = UNSET
        self.description = ""
        self.dropped_events = 0

    def bounded(self, values: Attributes) -> BoundedAttributes:
        """Return attributes as the SDK would take them: checked, cut and counted."""
        limits = self.limits
        return BoundedAttributes(limits.attribute_limit, values, False, limits.attribute_length)

    def add_event(self, name: str, attributes: Attributes, timestamp: int | None) -> None:
        if len(self.events) >= self.limits.event_limit:
            self.dropped_events += 1
            return
        values = self.bounded(attributes)
        self.events.append(SpanEvent(name, timestamp or time.time_ns(), values, values.dropped))


class TraceIdentity:
    """The ids of a span in the spellings that logs, headers and exemplars want."""

    __slots__ = ()

    trace_id: int
    span_id: int
    flags: int

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    @property
    def trace_id_hex(self) -> str:
        return f"{self.trace_id:032x}"

    @property
    def span_id_hex(self) -> str:
        return f"{self.span_id:016x}"

    @property
    def flags_hex(self) -> str:
        return _FLAGS_HEX[self.flags]

    @property
    def log_fragment(self) -> str:
        """The trace's fields of the access line, from the quote that ends the field before them."""
        return (
            f'","trace_id":"{self.trace_id:032x}","span_id":"{self.span_id:016x}"'
            f',"trace_flags":"{_FLAGS_HEX[self.flags]}'
        )


class Extras:
    """What few spans have besides their ids: a link, what a sampler adds, and what the application has set."""

    __slots__ = ("edits", "link", "sampler_attributes", "state")

    def __init__(self) -> None:
        self.link: RemoteParent | None = None
        self.sampler_attributes: Mapping[str, Any] | None = None
        self.state: TraceState | None = None
        self.edits: Edits | None = None


class LightSpan(TraceIdentity):
    """A span of the server, and the OpenTelemetry context in which it is the current one.

    It has slots only, because one is made for each request: the API's abstract class would give each a dict,
    so it is registered there instead of derived. For the same reason a request whose context holds nothing
    but its span has no dict for that: the span itself answers like one, `opentelemetry.context` asks it for `get`
    and `copy`.
    """

    __slots__ = ("__weakref__", "_context", "ended", "extras", "flags", "limits")

    parent: RemoteParent | None
    limits: TracingConfiguration
    ended: bool
    extras: Extras | None
    _context: SpanContext  # once it was asked for

    # --- For the server ----------------------------------------------------------------------

    @property
    def edits(self) -> Edits | None:
        """What the application has set."""
        return None if self.extras is None else self.extras.edits

    @property
    def link(self) -> RemoteParent | None:
        """A span of a trace that is not continued."""
        return None if self.extras is None else self.extras.link

    @property
    def sampler_attributes(self) -> Mapping[str, Any] | None:
        """What a sampler has added."""
        return None if self.extras is None else self.extras.sampler_attributes

    @property
    def trace_state(self) -> TraceState | None:
        if self.extras is not None and self.extras.state is not None:
            return self.extras.state
        return None if self.parent is None else self.parent.trace_state

    @property
    def state_text(self) -> str:
        """The tracestate as a header says it."""
        if self.extras is not None and self.extras.state is not None:
            return self.extras.state.to_header()
        return "" if self.parent is None else self.parent.state_text

    def _more(self) -> Extras:
        if self.extras is None:
            self.extras = Extras()
        return self.extras

    def take_link(self, link: RemoteParent) -> None:
        """Take a span of a trace that is not continued."""
        self._more().link = link

    def take_sampling(self, attributes: Mapping[str, Any] | None, state: TraceState | None) -> None:
        """Take what a sampler adds to the span and to the trace."""
        if attributes:
            self._more().sampler_attributes = attributes
        if state:
            self._more().state = state

    # --- As a context ------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        return self if key == SPAN_KEY else default

    def __getitem__(self, key: str) -> Any:
        if key == SPAN_KEY:
            return self
        raise KeyError(key)

    def copy(self) -> dict[str, Any]:
        return {SPAN_KEY: self}

    def keys(self) -> KeysView[str]:
        return self.copy().keys()

    def values(self) -> ValuesView[Any]:
        return self.copy().values()

    def items(self) -> ItemsView[str, Any]:
        return self.copy().items()

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def __contains__(self, key: object) -> bool:
        return key == SPAN_KEY

    def __len__(self) -> int:
        return 1

    # --- For the application -----------------------------------------------------------------

    def get_span_context(self) -> SpanContext:
        try:
            return self._context
        except AttributeError:  # a slot that every request set would cost each of them
            self._context = context = SpanContext(
                self.trace_id, self.span_id, False, _FLAGS[self.flags], self.trace_state
            )
            return context

    def is_recording(self) -> bool:
        return bool(self.flags & SAMPLED) and not self.ended

    def _edit(self) -> Edits | None:
        if not self.flags & SAMPLED or self.ended:
            return None
        extras = self._more()
        if extras.edits is None:
            extras.edits = Edits(self.limits)
        return extras.edits

    def set_attribute(self, key: str, value: Any) -> None:
        if (edits := self._edit()) is not None:
            edits.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        if (edits := self._edit()) is not None:
            for key, value in attributes.items():
                edits.attributes[key] = value

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        if (edits := self._edit()) is not None:
            edits.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        if (
            (edits := self._edit()) is not None
            and context.is_valid
            and len(edits.links) < edits.limits.event_limit
        ):
            values = edits.bounded(attributes)
            edits.links.append(SpanLink(context.trace_id, context.span_id, context.is_remote, values))

    def update_name(self, name: str) -> None:
        if (edits := self._edit()) is not None:
            edits.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        edits = self._edit()
        if edits is None or edits.status == OK:  # OK is final, as in the SDK
            return
        if isinstance(status, Status):
            code, description = status.status_code, status.description
        else:
            code = status
        if code is StatusCode.UNSET:
            return
        edits.status = _CODES[code]
        edits.description = (description or "") if edits.status == ERROR else ""

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: ARG002 - deprecated by the conventions
    ) -> None:
        if (edits := self._edit()) is not None:
            edits.recorded.add(id(exception))
            edits.add_event("exception", {**exception_attributes(exception), **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the exchange ends it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Do nothing: the exchange ends it, and what was raised goes on to the server."""


AbstractSpan.register(LightSpan)


class Span(LightSpan):
    """A span whose ids came as numbers.

    Args:
        trace_id: 128 bits.
        span_id: 64 bits.
        flags: as in traceparent.
        parent: the span of another process that it continues.
        limits: of what the application may set.
    """

    __slots__ = ("parent", "span_id", "trace_id")

    def __init__(
        self,
        trace_id: int,
        span_id: int,
        flags: int,
        parent: RemoteParent | None,
        limits: TracingConfiguration,
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.parent = parent
        self.limits = limits
        self.ended = False
        self.extras = None


class RootSpan(LightSpan):
    """A span that begins a trace, with ids from a pool: its numbers are made when they are asked for.

    Without a constructor, whose call costs more than the setting of the slots: whoever makes one
    sets `trace_hex`, `span_hex`, `flags`, `limits`, `ended` and `extras`.
    """

    __slots__ = ("span_hex", "trace_hex")

    trace_hex: str
    span_hex: str

    parent = None
    trace_id_hex = property(attrgetter("trace_hex"))  # without a frame of Python's
    span_id_hex = property(attrgetter("span_hex"))

    @property
    def trace_id(self) -> int:  # type: ignore[override]
        return int(self.trace_hex, 16)

    @property
    def span_id(self) -> int:  # type: ignore[override]
        return int(self.span_hex, 16)

    @property
    def log_fragment(self) -> str:
        return (
            f'","trace_id":"{self.trace_hex}","span_id":"{self.span_hex}"'
            f',"trace_flags":"{_FLAGS_HEX[self.flags]}'
        )


class ChildSpan(RootSpan):
    """A span that continues a trace of which nothing but the ids is known; made like `RootSpan`.

    `parent_hex` and `parent_flags` are its parent's.
    """

    __slots__ = ("parent_flags", "parent_hex")

    parent_hex: str
    parent_flags: int

    @property
    def parent(self) -> RemoteParent:  # type: ignore[override]
        return RemoteParent(self.trace_id, int(self.parent_hex, 16), self.parent_flags)


class IdPool(list[tuple[int, str, str]]):
    """Ids of new traces, drawn by the hundred: the lower half of the trace's as a number, and both as digits.

    The system's own random numbers: an application that seeds Python's would repeat its ids, and so would the
    children of a process that forks before its first request.
    """

    def fill(self) -> None:
        """Draw ids; called when there are none left."""
        traces = os.urandom(16 * _DRAWN)
        spans = os.urandom(8 * _DRAWN)
        # bytes.hex() puts the separator, split() takes it: no step of Python's for each.
        digits = traces.hex(" ", 16).split(), spans.hex(" ", 8).split()
        self.extend(zip(_lower_halves(traces), *digits, strict=True))


def exception_attributes(exception: BaseException) -> dict[str, str]:
    """Return what an exception event says; its type is the `error.type` of all signals."""
    try:
        message = str(exception)[:_MESSAGE_CAP]
    except Exception as fault:  # noqa: BLE001 - whatever the application's __str__ does
        message = f"(its text cannot be had: {type(fault).__name__})"
    return {
        "exception.type": error_type_of(COMPLETE, None, exception) or type(exception).__name__,
        "exception.message": message,
        # The end of a traceback is where it happened.
        "exception.stacktrace": "".join(traceback.format_exception(exception))[-_STACK_CAP:],
    }


def answering(start: Callable[[Any], None], fields: Sequence[str]) -> Callable[[Any], None]:
    """Return a hook that also has the response tell the client the ids of its request's span.

    Args:
        start: gives an exchange its ids.
        fields: of `traceresponse` (W3C Trace Context level 2) and `server-timing`.
    """
    lines = "".join([_RESPONSE_LINES[name] for name in fields])

    def exchange_started(view: Any) -> None:
        start(view)
        trace = view.trace
        if trace is not None:
            ids = f"00-{trace.trace_id_hex}-{trace.span_id_hex}-{trace.flags_hex}"
            view.trace_line = lines.replace("*", ids).encode()
            view.plain = False

    return exchange_started
