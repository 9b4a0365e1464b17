"""What the application and the peers do wrong, told to the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obsserve.telemetry.catalogue import LOOP_OVERLOAD

if TYPE_CHECKING:
    from obsserve.telemetry.catalogue import Ending
    from obsserve.telemetry.metrics import Metrics
    from obsserve.telemetry.observer import Address, ExchangeView, SessionView


class Reporter:
    """Logs exceptions, misuse of ASGI and what is ignored or refused of peers, and counts what no exchange's record carries.

    Args:
        log: the server's logger.
        metrics: None when metrics are off.
    """

    def __init__(self, log: Any, metrics: Metrics | None) -> None:
        self._log = log
        self._metrics = metrics
        self._told_of_forwarded = False

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

    def forwarded_ignored(self, exchange: ExchangeView) -> None:
        if self._metrics is not None:
            self._metrics.forwarded_ignored()
        if self._told_of_forwarded:
            return
        self._told_of_forwarded = True
        client = exchange.client
        peer = "A peer on a unix socket" if client is None or client[1] is None else client[0]
        self._log.warning(
            "forwarded.untrusted",
            message=f"{peer} sends forwarding headers and is not trusted: they are ignored. If it is your proxy, "
            "name it with --forwarded-allow-ips. Said once; obsserve_forwarded_untrusted_total counts on",
            **_where(exchange),
        )

    def overload_changed(self, strain: Ending | None) -> None:
        if strain is None:
            self._log.info("overload.leave", message="Requests are served again")
            return
        option = "limit_loop_lag" if strain is LOOP_OVERLOAD else "limit_memory"
        self._log.warning(
            "overload.enter",
            message=f"Requests are answered 503: {option} is exceeded. "
            f'obsserve_http_rejected_requests_total{{reason="{strain.rejection}"}} counts them',
            reason=strain.rejection,
        )

    def websocket_checkpoint(self, session: SessionView, age: float) -> None:
        trace = session.exchange.trace
        ids = {} if trace is None else {"trace_id": trace.trace_id_hex, "span_id": trace.span_id_hex}
        self._log.info(
            "websocket.checkpoint",
            message=f"A WebSocket has been open for {age:.0f} s",
            **_where(session.exchange),
            **ids,
            http_route=session.route or None,
            duration_seconds=round(age, 6),
            websocket_messages_received=session.messages_received,
            websocket_messages_sent=session.messages_sent,
            websocket_bytes_received=session.bytes_received,
            websocket_bytes_sent=session.bytes_sent,
        )

    def proxy_protocol_failed(self, peer: Address | None, reason: str, message: str) -> None:
        """Tell of a connection that was closed because of its PROXY protocol header.

        Args:
            peer: the other end.
            reason: a word of the catalogue.
            message: what is wrong, for people.
        """
        if self._metrics is not None:
            self._metrics.proxy_protocol_failed(reason)
        self._log.warning(
            "proxy_protocol.refused",
            message=message,
            reason=reason,
            network_peer_address=peer[0] if peer is not None else None,
        )


def _where(exchange: ExchangeView) -> dict[str, str]:
    return {
        "request_id": exchange.request_id,
        "http_request_method": exchange.method,
        "url_path": exchange.raw_path.decode("latin-1"),
    }
