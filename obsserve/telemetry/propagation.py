"""The trace context that a request brings, and whether it is believed.

`traceparent` and `tracestate` are read here, with the judgement of the official propagator (a property
test holds the two equal) at a tenth of its price. Baggage, and whatever other propagators are
configured or set by the application, go through OpenTelemetry's own interface.

Rules: what is malformed is counted and ignored. A parent whose peer is not trusted lends its trace id
only: its sampled flag is a lever on our cost, an unset one a way to hide, so neither counts, and its
tracestate and baggage are dropped.
"""

from __future__ import annotations

import contextvars
import re
from binascii import unhexlify
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import attach
from opentelemetry.context.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from opentelemetry.propagators.textmap import TextMapPropagator

    from obsserve.telemetry.observer import Address, ExchangeView, Headers
    from obsserve.telemetry.spanfigures import TraceFigures
    from obsserve.telemetry.traceconfig import TrustMode

# An event for the server's log.
UNTRUSTED: Final = "telemetry.trace_untrusted"

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
BAGGAGE: Final = b"baggage"

# Reasons in obsserve_trace_context_invalid_total.
MALFORMED: Final = "malformed_traceparent"
UNKNOWN_VERSION: Final = "unsupported_version"
ZERO_ID: Final = "zero_id"
BAD_STATE: Final = "malformed_tracestate"
LONG_STATE: Final = "tracestate_too_long"

# The form that nearly every header has, and what else the official propagator takes.
_ORDINARY: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ORDINARY_LENGTH: Final = 55
_HEX_DIGITS: Final = b"0123456789abcdef"
_DASH: Final = ord("-")
_ZERO_TRACE: Final = "0" * 32
_ZERO_SPAN: Final = "0" * 16
_FLAGS: Final = {f"{flags:02x}".encode(): flags for flags in range(256)}
_TRACEPARENT: Final = re.compile(
    rb"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:(-.*)|[ \t]*)"
)
_LONGEST_TRACEPARENT: Final = 512
# W3C Trace Context 3.3.1.5: at least so much has to be passed on; more is not worth its price here.
_LONGEST_TRACESTATE: Final = 512
_MOST_MEMBERS: Final = 32
_MEMBER: Final = re.compile(
    r"([a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)

# Where an ingress or a neighbour in a mesh calls from: RFC 1918, 6598 (pods), 3927, 4193, 4291.
_NEAR: Final = tuple(
    map(
        ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
_REMEMBERED_PEERS: Final = 1024


class RemoteParent:
    """The span that a request belongs to, in another process.

    Args:
        trace_id: 128 bits.
        span_id: 64 bits.
        flags: as in traceparent.
    """

    __slots__ = ("flags", "span_id", "trace_id")

    def __init__(self, trace_id: int, span_id: int, flags: int) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags

    @property
    def trace_state(self) -> TraceState | None:
        """The parsed tracestate."""
        return None

    @property
    def state_text(self) -> str:
        """The tracestate as a header says it."""
        return ""

    def span_context(self) -> SpanContext:
        return SpanContext(self.trace_id, self.span_id, True, TraceFlags(self.flags), self.trace_state)

    def without_flag(self) -> RemoteParent:
        """Return what is left of it when its sender is not trusted."""
        return RemoteParent(self.trace_id, self.span_id, self.flags & ~1)


class StatefulParent(RemoteParent):
    """One that has a tracestate.

    Args:
        parent: ids and flags.
        entries: the tracestate's members.
        state: the same, where it has been parsed already.
    """

    __slots__ = ("_entries", "_state")

    def __init__(
        self, parent: RemoteParent, entries: list[tuple[str, str]], state: TraceState | None = None
    ) -> None:
        super().__init__(parent.trace_id, parent.span_id, parent.flags)
        self._entries = entries
        self._state = state

    @property
    def trace_state(self) -> TraceState | None:
        """The parsed tracestate; made when it is asked for, because few spans are."""
        if self._state is None:
            self._state = TraceState(self._entries)
        return self._state

    @property
    def state_text(self) -> str:
        return ",".join([f"{key}={value}" for key, value in self._entries])


def parse_traceparent(value: bytes) -> RemoteParent | str:
    """Return the parent that a header names, or why it names none."""
    match = _ORDINARY.fullmatch(value)
    if match is None:
        return _parse_unusual_traceparent(value)
    trace, span, flags = match.groups()
    trace_id = int.from_bytes(unhexlify(trace), "big")
    span_id = int.from_bytes(unhexlify(span), "big")
    return RemoteParent(trace_id, span_id, _FLAGS[flags]) if trace_id and span_id else ZERO_ID


def ordinary_parent(value: bytes) -> tuple[str, str, int] | None:
    """Return trace id and span id as digits, and the flags, of a traceparent that is exactly of version 00.

    None for any other, which `parse_traceparent` judges. The same as its expression, in less time: what is left
    without hexadecimal digits are three dashes, and they are where they belong.
    """
    if (
        len(value) != _ORDINARY_LENGTH
        or value.translate(None, _HEX_DIGITS) != b"---"
        or not value.startswith(b"00-")
        or value[35] != _DASH
        or value[52] != _DASH
    ):
        return None
    text = value.decode("ascii")
    trace, span = text[3:35], text[36:52]
    return None if trace == _ZERO_TRACE or span == _ZERO_SPAN else (trace, span, _FLAGS[value[53:]])


def _parse_unusual_traceparent(value: bytes) -> RemoteParent | str:
    if len(value) > _LONGEST_TRACEPARENT:
        return MALFORMED
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return MALFORMED
    version, trace, span, flags, rest = match.groups()
    if version == b"00":
        if rest is not None:
            return MALFORMED
    elif version == b"ff":
        return UNKNOWN_VERSION
    trace_id = int(trace, 16)
    span_id = int(span, 16)
    if not trace_id or not span_id:
        return ZERO_ID
    return RemoteParent(trace_id, span_id, int(flags, 16))


def parse_tracestate(values: list[str]) -> list[tuple[str, str]] | str:
    """Return the members of the tracestate headers, or why they are ignored."""
    if sum(map(len, values)) + len(values) - 1 > _LONGEST_TRACESTATE:
        return LONG_STATE
    entries: dict[str, str] = {}
    for value in values:
        for listed in value.split(","):
            member = listed.strip(" \t")
            if not member:
                continue
            match = _MEMBER.fullmatch(member)
            if match is None or match[1] in entries:
                return BAD_STATE
            entries[match[1]] = match[2]
    return list(entries.items()) if len(entries) <= _MOST_MEMBERS else BAD_STATE


class TrustPolicy:
    """Whose trace context is believed.

    Args:
        mode: `peers`, `all` or `none`, as in `--trace-trust`.
        trusted: peers that are trusted besides those on this machine and on private networks.
    """

    def __init__(self, mode: TrustMode, trusted: Container[str] = ()) -> None:
        self.mode = mode
        self._trusted = trusted
        self._verdicts: dict[str, bool] = {}

    def believes(self, peer: Address | None) -> bool:
        """Return whether the flag, the tracestate and the baggage from this peer count."""
        if self.mode != "peers":
            return self.mode == "all"
        if peer is None or peer[1] is None:  # a UNIX socket: whoever may open it is one of us
            return True
        host = peer[0]
        verdict = self._verdicts.get(host)
        if verdict is None:
            if len(self._verdicts) >= _REMEMBERED_PEERS:
                self._verdicts.clear()
            verdict = self._verdicts[host] = host in self._trusted or _is_near(host)
        return verdict


def _is_near(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in _NEAR if network.version == address.version)


class _HeaderGetter(Getter["Headers"]):
    """Reads request headers for the official propagators."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        name = key.lower().encode("latin-1", "replace")
        return [value.decode("latin-1") for field, value in carrier if field == name] or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_GETTER: Final = _HeaderGetter()


class Incoming:
    """What a request brought.

    Args:
        parent: the span to continue, None to start a trace.
        flag_counts: whether its sampled flag does.
        link: a span of a trace that is not continued.
        context: baggage and whatever else propagators have found.
    """

    __slots__ = ("context", "flag_counts", "link", "parent")

    def __init__(
        self,
        parent: RemoteParent | None = None,
        context: Context | None = None,
        *,
        flag_counts: bool = True,
        link: RemoteParent | None = None,
    ) -> None:
        self.parent = parent
        self.flag_counts = flag_counts
        self.link = link
        self.context = context

    def parent_context(self) -> Context:
        """Return a context for official samplers and tracers, with the parent when its flag counts."""
        values: dict[str, Any] = dict(self.context or {})
        if self.parent is not None and self.flag_counts:
            values[SPAN_KEY] = NonRecordingSpan(self.parent.span_context())
        return Context(values)


def _span_key() -> str:
    from opentelemetry.trace import INVALID_SPAN, set_span_in_context  # noqa: PLC0415

    (key,) = set_span_in_context(INVALID_SPAN, Context())
    return key


# Under which name a context holds its current span.
SPAN_KEY: Final = _span_key()


class Propagation:
    """Reads the trace context of requests.

    Args:
        trust: whose context is believed.
        invalid: called with the reason for each context that is ignored.
        untrusted: called for each context whose sender is not trusted.
    """

    def __init__(
        self, trust: TrustPolicy, invalid: Callable[[str], None], untrusted: Callable[[ExchangeView], None]
    ) -> None:
        self.trust = trust
        self._invalid = invalid
        self._untrusted = untrusted
        textmap = propagate.get_global_textmap()
        names = [type(part) for part in getattr(textmap, "_propagators", (textmap,))]
        ours = {TraceContextTextMapPropagator, W3CBaggagePropagator}
        self._foreign: TextMapPropagator | None = None if ours.issuperset(names) else textmap
        self._reads_parent = TraceContextTextMapPropagator in names
        self._baggage = W3CBaggagePropagator() if W3CBaggagePropagator in names else None
        # Whether a traceparent is all that counts, apart from tracestate and baggage.
        self.reads_parents_only = self._foreign is None and self._reads_parent
        # Header names without one of which a request surely brings nothing; None when that cannot be told.
        self.names: tuple[bytes, bytes] | None = (TRACEPARENT, BAGGAGE) if self._foreign is None else None

    def read(self, view: ExchangeView) -> Incoming:
        """Return what a request brought, as far as it is believed."""
        believed = self.trust.believes(view.connection.peer)
        if self._foreign is not None:
            parent, context = self._read_foreign(view, self._foreign)
        else:
            parent = self._read_parent(view) if self._reads_parent else None
            context = None
            if believed and self._baggage is not None and BAGGAGE in view.fields:
                context = self._baggage.extract(view.request_headers, Context(), _GETTER)
        if believed:
            return Incoming(parent, context)
        if parent is None:
            return Incoming()
        self._untrusted(view)
        if self.trust.mode == "none":
            return Incoming(link=parent)
        return Incoming(parent.without_flag(), flag_counts=False)

    def _read_parent(self, view: ExchangeView) -> RemoteParent | None:
        fields = view.fields
        value = fields.get(TRACEPARENT)
        if value is None:
            return None
        headers = view.request_headers
        repeated = len(fields) != len(headers)
        if repeated:  # the first counts, as for the official propagator
            value = next((found for name, found in headers if name == TRACEPARENT), value)
        parent = parse_traceparent(value)
        if isinstance(parent, str):
            self._invalid(parent)
            return None
        state = fields.get(TRACESTATE)
        if state is not None:
            values = _GETTER.get(headers, "tracestate") if repeated else None
            entries = parse_tracestate(values or [state.decode("latin-1")])
            if isinstance(entries, str):
                self._invalid(entries)
            else:
                return StatefulParent(parent, entries)
        return parent

    def _read_foreign(
        self, view: ExchangeView, textmap: TextMapPropagator
    ) -> tuple[RemoteParent | None, Context | None]:
        context = textmap.extract(view.request_headers, Context(), _GETTER)
        found = get_current_span(context).get_span_context()
        if not found.is_valid:
            return None, context
        parent = RemoteParent(found.trace_id, found.span_id, int(found.trace_flags))
        state = found.trace_state
        return StatefulParent(parent, list(state.items()), state), context


class UntrustedHint:
    """Counts contexts of peers that are not trusted, and tells of it once."""

    def __init__(self, figures: TraceFigures, report: Callable[[str, str], None]) -> None:
        self._figures = figures
        self._report = report
        self._told = False

    def __call__(self, view: ExchangeView) -> None:
        self._figures.slots[self._figures.untrusted] += 1.0
        if not self._told:
            self._told = True
            peer = view.connection.peer
            self._report(
                UNTRUSTED,
                f"{peer[0] if peer else 'a peer'} sent a trace context and is not trusted: its sampled flag is "
                "ignored. Name your proxies with --forwarded-allow-ips, or choose with --trace-trust",
            )


def attach_call() -> Callable[[Any], object]:
    """Return what makes an OpenTelemetry context current: the variable's own `set`, where there is one.

    That is one call fewer for each request. The variable is found by what `attach` leaves in an empty context.
    """
    empty = contextvars.Context()
    mark = Context()
    empty.run(attach, mark)
    if len(empty) == 1:
        ((variable, value),) = empty.items()
        if value is mark:
            return variable.set
    return attach
