"""The ids of a request on the application's own log lines, without any set-up.

Owns the context variable that holds the exchange which the running code belongs to. Standard logging: each
record takes the ids when it is formatted, under the names `request_id`, `trace_id` and `span_id`, unless the
application has put a field of that name there. structlog: the ids are bound like the application's own
context variables, which `merge_contextvars` picks up.
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

    The ids become attributes when the record is formatted, not when it is made: `extra` may hold fields of
    the same name, which logging would refuse as overwriting the record's.
    """

    # Not in the instance's dict, of which JSON formatters write every item.
    __slots__ = ("_exchange",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exchange = _current.get()

    def ids(self) -> dict[str, str]:
        """Return the ids of the request during which it was made; empty outside one."""
        return ids_of(self._exchange)

    def getMessage(self) -> str:  # noqa: N802 - logging's name; every formatter begins with it
        for name, value in self.ids().items():
            self.__dict__.setdefault(name, value)
        return super().getMessage()


class Correlation:
    """Observer that puts the ids where log lines of the application find them.

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
    bind_contextvars(**ids_of(view))
