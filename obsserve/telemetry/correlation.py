"""The ids and the route of a request on the application's own log lines, without any set-up.

Owns the context variable that holds the exchange which the running code belongs to. Standard logging: each
record takes them when it is formatted, under the names `request_id`, `trace_id`, `span_id` and `http_route`,
unless the application has put a field of that name there. structlog: they are bound like the application's own
context variables, which `merge_contextvars` picks up; the route, which is not known yet, as `BoundRoute`.
"""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars, clear_contextvars

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.telemetry.observer import ExchangeView

_current: contextvars.ContextVar[ExchangeView | None] = contextvars.ContextVar(
    "obsserve_exchange", default=None
)


def current_exchange() -> Any:
    """Return the exchange that the running code serves, as an `ExchangeView`; None outside a request."""
    return _current.get()


class BoundRoute:
    """The route of a request whose application has yet to find it: shown as what is known by then."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: ExchangeView) -> None:
        self._exchange = exchange

    def __structlog__(self) -> str | None:
        return self._exchange.present_route or None  # what structlog's JSONRenderer writes

    def __str__(self) -> str:
        return self._exchange.present_route

    def __repr__(self) -> str:
        return repr(self._exchange.present_route)


def facts_of(view: ExchangeView | None) -> dict[str, str]:
    """Return what log lines say of an exchange: its ids, and its route as soon as it is known."""
    facts = ids_of(view)
    if view is not None and (route := view.present_route):
        facts["http_route"] = route
    return facts


def ids_of(view: ExchangeView | None) -> dict[str, str]:
    """Return an exchange's ids under the names that log lines use."""
    if view is None:
        return {}
    trace = view.trace
    if trace is None:
        return {"request_id": view.request_id}
    return {"request_id": view.request_id, "trace_id": trace.trace_id_hex, "span_id": trace.span_id_hex}


class CorrelatedLogRecord(logging.LogRecord):
    """A log record that knows the request during which it was made.

    What is known of it becomes attributes when the record is formatted, not when it is made: `extra` may hold fields of
    the same name, which logging would refuse as overwriting the record's.
    """

    # Not in the instance's dict, of which JSON formatters write every item.
    __slots__ = ("_exchange",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exchange = _current.get()

    def facts(self) -> dict[str, str]:
        """Return the ids and the route of the request during which it was made; empty outside one."""
        return facts_of(self._exchange)

    def getMessage(self) -> str:  # noqa: N802 - logging's name; every formatter begins with it
        for name, value in self.facts().items():
            self.__dict__.setdefault(name, value)
        return super().getMessage()


class Correlation:
    """Observer that puts ids and route where log lines of the application find them.

    Args:
        bind_structlog: whether the application configures structlog, so that only bound variables reach
            its lines; ours reads the current exchange instead.
    """

    def __init__(self, *, bind_structlog: bool) -> None:
        # In the request's own context: setting a variable there spares a `context.run`.
        self.exchange_running: Callable[[Any], object] = _bind_all if bind_structlog else _current.set
        if logging.getLogRecordFactory() is logging.LogRecord:
            logging.setLogRecordFactory(CorrelatedLogRecord)


def _bind_all(view: ExchangeView) -> None:
    _current.set(view)
    clear_contextvars()  # what the lifespan bound belongs to no request
    bind_contextvars(**ids_of(view), http_route=BoundRoute(view))
