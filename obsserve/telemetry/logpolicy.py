"""Which exchanges leave a line: decided when they have ended, so that how they ended can decide.

Rules, in this order; the first that applies counts:

| exchange | line |
|---|---|
| level warning or error | written |
| took as long as `--log-slow`, or longer | written |
| ended well at a path of `--access-log-exclude` | filtered |
| its trace is sampled | written: a trace must find its line |
| at a path of `--log-sample-path` | written with that share |
| any other | written with the share `--log-sample-ratio` |

A share below 1 stands in the line as `sample_rate`: 1/`sample_rate` is how many exchanges the line stands for.
Every exchange is counted as exactly one of written, dropped, failed, sampled_out and filtered.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from obsserve.telemetry.accessfields import level_of, session_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from obsserve.telemetry.accessextras import LineExtras
    from obsserve.telemetry.logsink import LogCounters
    from obsserve.telemetry.observer import ExchangeView, SessionView

# What a verdict can be besides a share: nothing, because the operator does not want it.
FILTERED: Final = -1.0
ALWAYS: Final = 1.0


class SelectionSettings(Protocol):
    """What decides which lines are written."""

    @property
    def access_log_exclude(self) -> tuple[str, ...]: ...
    @property
    def log_sample_ratio(self) -> float: ...
    @property
    def log_sample_path(self) -> tuple[Any, ...]: ...
    @property
    def log_slow(self) -> float | None: ...


def path_expression(patterns: Iterable[str]) -> re.Pattern[bytes] | None:
    """Return what matches the whole of a raw path that fits one of the patterns; None for no pattern."""
    parts = [
        b".*".join(re.escape(piece.encode("utf-8", "surrogateescape")) for piece in pattern.split("*"))
        for pattern in patterns
    ]
    return re.compile(b"|".join(parts), re.DOTALL) if parts else None


class Selection:
    """Decides for each exchange with which share lines like its are written.

    Args:
        settings: the options.
    """

    def __init__(self, settings: SelectionSettings) -> None:
        self._ratio = settings.log_sample_ratio
        self._slow = float("inf") if settings.log_slow is None else settings.log_slow
        self._excluded = path_expression(settings.access_log_exclude)
        self._shares: list[tuple[re.Pattern[bytes], float]] = [
            (expression, rule.ratio)
            for rule in settings.log_sample_path
            if (expression := path_expression([rule.pattern])) is not None
        ]

    @staticmethod
    def needed(settings: SelectionSettings) -> bool:
        """Return whether the options leave any line out."""
        return bool(settings.access_log_exclude or settings.log_sample_path) or settings.log_sample_ratio < 1

    def share(self, view: ExchangeView) -> float:
        """Return the share of an exchange that has ended; ALWAYS, FILTERED, or what lies between."""
        if level_of(view) != "info" or view.ended - view.began >= self._slow:
            return ALWAYS
        return self._ordinary_share(view, ended_well=view.outcome == "ok")

    def session_share(self, session: SessionView) -> float:
        """Return the share of a WebSocket's session; a long one is nothing unusual."""
        level = session_level(session)
        return ALWAYS if level != "info" else self._ordinary_share(session.exchange, ended_well=True)

    def _ordinary_share(self, view: ExchangeView, *, ended_well: bool) -> float:
        path = view.raw_path
        if ended_well and self._excluded is not None and self._excluded.fullmatch(path) is not None:
            return FILTERED
        trace = view.trace
        if trace is not None and trace.sampled:
            return ALWAYS
        for expression, share in self._shares:
            if expression.fullmatch(path) is not None:
                return share
        return self._ratio


class SelectedAccess:
    """Observer in front of the access log's other observers: lets through what is selected.

    Args:
        selection: decides.
        observers: of what is let through; each exchange is told to all of them or to none.
        extras: told the share, which the line says.
        counters: told of each line that is left out.
        draw: returns a number from 0 up to 1. Not from the trace's id: what the trace's sampler has decided by
            is no longer random, and lines would not stand for `1/sample_rate` exchanges.
    """

    def __init__(
        self,
        selection: Selection,
        observers: Sequence[Any],
        *,
        extras: LineExtras,
        counters: LogCounters,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._selection = selection
        self._extras = extras
        self._counters = counters
        # A generator of our own: an application that seeds the module's would choose its lines.
        self._draw = random.Random().random if draw is None else draw  # noqa: S311 - no secret
        self._exchanges = [
            observer.exchange_ended for observer in observers if hasattr(observer, "exchange_ended")
        ]
        self._sessions = [
            observer.session_ended for observer in observers if hasattr(observer, "session_ended")
        ]

    def exchange_ended(self, view: ExchangeView) -> None:
        self._tell(self._selection.share(view), self._exchanges, view)

    def session_ended(self, session: SessionView) -> None:
        self._tell(self._selection.session_share(session), self._sessions, session)

    def _tell(self, share: float, calls: Sequence[Callable[[Any], None]], view: Any) -> None:
        if share < ALWAYS:
            if share == FILTERED:
                self._counters.add("access", "filtered")
                return
            if self._draw() >= share:
                self._counters.add("access", "sampled_out")
                return
        self._extras.sample_rate = share
        for call in calls:
            call(view)
