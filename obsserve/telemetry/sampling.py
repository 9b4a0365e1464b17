"""Whether a request's span is kept: the samplers of OTEL_TRACES_SAMPLER, decided before anything is made.

All six standard samplers come down to one number and one question: below which `bound` the lower half
of the trace id has to lie, and whether the parent's flag is asked first. That takes 40 ns, the official
objects 1 to 3 µs. Any other sampler is asked through its own `should_sample`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol

from obsserve.telemetry.logpolicy import path_expression

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable

    from obsserve.telemetry.observer import ExchangeView, TargetView
    from obsserve.telemetry.otlp_encode import SpanRecord

# The official ratio sampler looks at so many bits of the trace id.
LOWER_BITS: Final = (1 << 64) - 1
ALWAYS: Final = 1 << 64
NEVER: Final = 0

_STANDARD: Final = {
    "always_on": (ALWAYS, False),
    "always_off": (NEVER, False),
    "parentbased_always_on": (ALWAYS, True),
    "parentbased_always_off": (NEVER, True),
}
_RATIO: Final = {"traceidratio": False, "parentbased_traceidratio": True}
_REMEMBERED_TARGETS: Final = 1024
_ENTRY_POINTS: Final = "opentelemetry_traces_sampler"


class PathShare(Protocol):
    """Which share of the traces at some paths is kept."""

    @property
    def pattern(self) -> str: ...
    @property
    def ratio(self) -> float: ...


class PathSampling:
    """Which share of the spans is kept at which path.

    Args:
        rules: the first whose pattern fits a path counts.
    """

    def __init__(self, rules: Iterable[PathShare]) -> None:
        self._rules: list[tuple[re.Pattern[bytes], int]] = [
            (expression, round(rule.ratio * ALWAYS))
            for rule in rules
            if (expression := path_expression([rule.pattern])) is not None
        ]
        self._known: dict[TargetView, int | None] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def bound(self, view: ExchangeView) -> int | None:
        """Return below what the lower half of the trace id has to be; None where no rule fits.

        With ALWAYS and NEVER nobody else is asked; for any other bound a parent's flag counts more.
        """
        target = view.parts
        if target is None:
            return None
        try:
            return self._known[target]
        except KeyError:
            pass
        path = target.raw_path
        found = next((bound for expression, bound in self._rules if expression.fullmatch(path)), None)
        if len(self._known) >= _REMEMBERED_TARGETS:
            self._known.clear()
        self._known[target] = found
        return found


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decide.

    Args:
        bound: the lower half of the trace id has to be below it.
        parent_based: a parent's flag decides instead, when there is a parent whose flag counts.
        custom: an official Sampler that decides instead of both.
        name: of the sampler in use.
        ratio: what the bound comes from.
    """

    bound: int = ALWAYS
    parent_based: bool = True
    custom: Any = None
    name: str = "parentbased_always_on"
    ratio: float = 1.0

    def samples(self, trace_id: int, parent_flags: int | None, bound: int | None = None) -> bool:
        """Return whether the span is kept; not for a custom sampler.

        Args:
            trace_id: of the span.
            parent_flags: the parent's, None without a parent or when its flag does not count.
            bound: in place of the sampler's own.
        """
        if parent_flags is not None and self.parent_based:
            return bool(parent_flags & 1)
        return trace_id & LOWER_BITS < (self.bound if bound is None else bound)

    def keeps_root(self, record: SpanRecord) -> bool:
        """Return whether a root span is kept that no request brings about; asks a custom sampler, too."""
        if self.custom is None:
            return self.samples(record.trace_id, None)
        from opentelemetry.context.context import Context  # noqa: PLC0415 - most samplers need none
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        result = self.custom.should_sample(
            Context(), record.trace_id, record.name, SpanKind.INTERNAL, record.attributes, ()
        )
        return bool(result.decision.is_sampled())

    def official(self) -> Any:
        """Return the official sampler that decides alike, for spans of the application."""
        from opentelemetry.sdk.trace import sampling  # noqa: PLC0415 - takes 50 ms

        if self.custom is not None:
            return self.custom
        root: sampling.Sampler = sampling.TraceIdRatioBased(self.ratio)
        if self.bound in (ALWAYS, NEVER):
            root = sampling.ALWAYS_ON if self.bound else sampling.ALWAYS_OFF
        return sampling.ParentBased(root) if self.parent_based else root


def sampling_of(name: str, argument: str, note: Callable[[str], None]) -> Sampling:
    """Return how a sampler decides.

    Args:
        name: as in OTEL_TRACES_SAMPLER: a standard one, or an entry point of OpenTelemetry's group.
        argument: as in OTEL_TRACES_SAMPLER_ARG.
        note: told of what is not understood; then the default holds, as the specification wants it.
    """
    word = name.lower()
    if word in _STANDARD:
        bound, parent_based = _STANDARD[word]
        return Sampling(bound, parent_based, name=word, ratio=bound / ALWAYS)
    if word in _RATIO:
        ratio = _ratio(argument, note)
        return Sampling(round(ratio * ALWAYS), _RATIO[word], name=word, ratio=ratio)
    try:
        (found, *_) = entry_points(group=_ENTRY_POINTS, name=name)
        return Sampling(custom=found.load()(argument), name=name)
    except Exception as fault:  # noqa: BLE001 - whatever a foreign package does, requests are served
        note(
            f"the sampler {name!r} cannot be had ({type(fault).__name__}: {fault}); parentbased_always_on is used"
        )
        return Sampling()


def _ratio(argument: str, note: Callable[[str], None]) -> float:
    try:
        ratio = float(argument)
    except ValueError:
        ratio = -1.0
    if 0.0 <= ratio <= 1.0:
        return ratio
    note(f"the sampling ratio {argument!r} is no number from 0 to 1; 1 is used")
    return 1.0
