"""How an exchange can end, and what each signal says about it: status, error type, outcome, flag, reasons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Outcome = Literal[
    "ok",
    "client_error",
    "server_error",
    "rejected",
    "protocol_error",
    "timeout",
    "client_disconnected",
    "app_error",
    "shutdown",
]
DisconnectPhase = Literal["request_body", "waiting", "response", "stream"]
ResponseOrigin = Literal["app", "server", "none"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ending:
    """One way in which an exchange ends, with everything that each signal says about it.

    Args:
        detail: stable snake_case word, the log's `termination_detail`.
        outcome: the log's `outcome`; None when it follows from the response's status.
        status: the status that the server sends by itself, None when it sends none of its own.
        error_type: the `error_type` of all signals; None when it follows from the response's
            status or from the exception that the application raised.
        flag: the log's two-letter flag.
        rejection: `reason` in `obsserve_http_rejected_requests_total`.
        protocol_error: `reason` in `obsserve_http_protocol_errors_total`.
        app_protocol_error: `reason` in `obsserve_http_app_protocol_errors_total`.
        close_reason: `reason` in `obsserve_connections_closed_total` when the connection ends with it.
    """

    detail: str
    outcome: Outcome | None = None
    status: int | None = None
    error_type: str | None = None
    flag: str | None = None
    rejection: str | None = None
    protocol_error: str | None = None
    app_protocol_error: str | None = None
    close_reason: str = "negotiated"


def _malformed(reason: str, status: int = 400, error_type: str | None = None) -> Ending:
    return Ending(
        reason,
        "protocol_error",
        status,
        error_type,
        "DPE",
        protocol_error=reason,
        close_reason="protocol_error",
    )


def _rejected(reason: str, flag: str, error_type: str) -> Ending:
    return Ending(reason, "rejected", 503, error_type, flag, rejection=reason, close_reason="limit")


COMPLETE: Final = Ending("complete")
STREAM_CLOSED_BY_CLIENT: Final = Ending(
    "stream_closed_by_client", "ok", flag="SC", close_reason="client_closed"
)
CLIENT_DISCONNECTED: Final = Ending(
    "client_disconnected",
    "client_disconnected",
    error_type="client_disconnected",
    flag="DC",
    close_reason="client_closed",
)

BAD_REQUEST_LINE: Final = _malformed("bad_request_line")
BAD_HEADER: Final = _malformed("bad_header")
BAD_HOST: Final = _malformed("bad_host")
BAD_CHUNK: Final = _malformed("bad_chunk")
LENGTH_CONFLICT: Final = _malformed("length_conflict")
TE_CL_CONFLICT: Final = _malformed("te_cl_conflict")
BODY_TOO_LARGE: Final = _malformed("body_too_large", 413)
URI_TOO_LONG: Final = _malformed("uri_too_long", 414)
HEADER_TOO_LARGE: Final = _malformed("header_too_large", 431)
UNKNOWN_METHOD: Final = _malformed("unknown_method", 501, "501")
UNKNOWN_TRANSFER_CODING: Final = _malformed("unknown_transfer_coding", 501, "501")
UNSUPPORTED_VERSION: Final = _malformed("unsupported_version", 505, "505")
BAD_UPGRADE: Final = _malformed("bad_upgrade")
UPGRADE_REQUIRED: Final = replace(_malformed("bad_upgrade", 426), detail="upgrade_required")

HEADER_TIMEOUT: Final = Ending(
    "header_timeout",
    "timeout",
    408,
    "request_timeout",
    "HT",
    protocol_error="header_timeout",
    close_reason="header_timeout",
)
BODY_TIMEOUT: Final = Ending(
    "body_timeout",
    "timeout",
    408,
    "request_timeout",
    "BT",
    protocol_error="body_timeout",
    close_reason="body_timeout",
)
WRITE_TIMEOUT: Final = Ending(
    "write_timeout", "timeout", error_type="write_timeout", flag="WT", close_reason="write_timeout"
)
RESPONSE_TIMEOUT: Final = Ending(
    "response_timeout", "timeout", 504, "response_timeout", "DT", close_reason="app_error"
)

CONCURRENCY_LIMIT: Final = _rejected("concurrency_limit", "CL", "concurrency_limit")
CONNECTION_LIMIT: Final = _rejected("connection_limit", "CL", "concurrency_limit")
QUEUE_FULL: Final = _rejected("queue_full", "QF", "queue_full")
QUEUE_TIMEOUT: Final = replace(QUEUE_FULL, detail="queue_timeout")
LOOP_OVERLOAD: Final = _rejected("loop_overload", "OM", "loop_overload")
MEMORY_OVERLOAD: Final = _rejected("memory_overload", "OM", "memory_overload")
DRAINING: Final = _rejected("draining", "DR", "draining")

APP_EXCEPTION: Final = Ending("app_exception", "app_error", 500, flag="AX", close_reason="app_error")
APP_EXCEPTION_AFTER_START: Final = Ending(
    "app_exception_after_start", "app_error", flag="AP", close_reason="app_error"
)
APP_NO_RESPONSE: Final = Ending(
    "app_no_response",
    "app_error",
    500,
    "app_no_response",
    "AN",
    app_protocol_error="no_response",
    close_reason="app_error",
)
APP_INCOMPLETE_RESPONSE: Final = Ending(
    "app_incomplete_response",
    "app_error",
    error_type="app_incomplete_response",
    flag="AI",
    app_protocol_error="incomplete_response",
    close_reason="app_error",
)
APP_BODY_TOO_LONG: Final = Ending(
    "app_body_too_long",
    "app_error",
    error_type="app_content_length_mismatch",
    flag="AL",
    app_protocol_error="body_too_long",
    close_reason="app_error",
)
APP_BODY_TOO_SHORT: Final = Ending(
    "app_body_too_short",
    "app_error",
    error_type="app_content_length_mismatch",
    flag="AL",
    app_protocol_error="body_too_short",
    close_reason="app_error",
)
WORKER_SHUTDOWN: Final = Ending(
    "worker_shutdown", "shutdown", 503, "worker_shutdown", "KS", close_reason="shutdown"
)

ENDINGS: Final[dict[str, Ending]] = {
    ending.detail: ending for ending in tuple(globals().values()) if isinstance(ending, Ending)
}


# The close codes (RFC 6455 7.4.1) that tell of a failure; the session's span is then an error.
WEBSOCKET_ERROR_CODES: Final = frozenset((1002, 1006, 1007, 1008, 1009, 1011))


def outcome_of(ending: Ending, status: int | None) -> Outcome:
    """Return the outcome that log and span report for an exchange that ended so with this status."""
    if ending.outcome is not None:
        return ending.outcome
    if status is None or status < 400:
        return "ok"
    return "client_error" if status < 500 else "server_error"


def error_type_of(ending: Ending, status: int | None, exception: BaseException | None) -> str | None:
    """Return the `error_type` that metric, log and span share; None when there is no error."""
    if ending.error_type is not None:
        return ending.error_type
    if exception is not None:
        kind = type(exception)
        module = kind.__module__
        return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    if status is not None and status >= 500:
        return str(status)
    return None
