"""What the application does wrong, told to the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obsserve.telemetry.metrics import Metrics
    from obsserve.telemetry.observer import ExchangeView


class AppReporter:
    """Logs exceptions and misuse of ASGI, and counts what no exchange's record carries.

    Args:
        log: the server's logger.
        metrics: None when metrics are off.
    """

    def __init__(self, log: Any, metrics: Metrics | None) -> None:
        self._log = log
        self._metrics = metrics

    def app_exception(self, exchange: ExchangeView, exception: BaseException, *, after_end: bool) -> None:
        if after_end and self._metrics is not None:
            self._metrics.app_exception_after_end(exchange, exception)
        when = "after its response was complete" if after_end else "while it served a request"
        self._log.error(
            "app.exception",
            message=f"The application raised {type(exception).__name__} {when}",
            exc_info=exception,
            **_where(exchange),
        )

    def app_misuse(self, exchange: ExchangeView, reason: str, message: str) -> None:
        self._log.error("app.misuse", message=message, reason=reason, **_where(exchange))


def _where(exchange: ExchangeView) -> dict[str, str]:
    return {
        "request_id": exchange.request_id,
        "http_request_method": exchange.method,
        "url_path": exchange.raw_path.decode("latin-1"),
    }
