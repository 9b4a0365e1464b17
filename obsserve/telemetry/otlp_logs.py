"""Pure: log lines as OTLP bytes (opentelemetry/proto/logs/v1/logs.proto).

A line is one JSON object as it is written anywhere else: what was redacted, hashed or left out there is so here.
What the protocol has fields for goes there, what the resource says already is left out, all else are attributes
under the names of the semantic conventions.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from obsserve.telemetry.catalogue import LOG_MESSAGE_EVENT, OTEL_EVENT_KEYS, OTEL_EVENTS, OTEL_LOG_KEYS
from obsserve.telemetry.otlp_encode import any_value, attributes, delimited

# https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
SEVERITIES: Final = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OTEL_KEYS: Final = {**OTEL_LOG_KEYS, **OTEL_EVENT_KEYS}
# Said by a field of the record, or by the resource, also where `--log-keys otel` has renamed it.
_ELSEWHERE: Final = frozenset(
    name
    for key in (
        *("timestamp", "level", "event", "message", "trace_id", "span_id", "trace_flags"),
        *("service_name", "service_instance_id", "process_pid", "worker"),
    )
    for name in (key, _OTEL_KEYS.get(key, key))
)
_HEADERS: Final = ("http_request_header_", "http_response_header_")
_COMMON_TEXT: Final = 128  # characters

_fixed64: Final = Struct("<BQ").pack
_fixed32: Final = Struct("<BI").pack


def encode_log(line: bytes, observed: int) -> bytes:
    """Return a LogRecord's content.

    Args:
        line: a JSON object.
        observed: now, nanoseconds since the epoch.

    Raises:
        ValueError: it is no JSON.
    """
    values: dict[str, Any] = json.loads(line)
    level = str(values.get("level", ""))
    event = values.get("event")
    parts = [
        _fixed64(0x09, _nanoseconds(values.get("timestamp"), observed)),
        b"\x10%c" % SEVERITIES.get(level, 0),
        delimited(b"\x1a", level.upper().encode()),
        delimited(b"\x2a", any_value(_body(values))),
    ]
    for name, value in values.items():
        if name not in _ELSEWHERE:
            parts.append(_attribute(name, value))
    # Who has them redacted or hashed has no ids.
    with suppress(ValueError):
        for tag, name, size in ((b"\x4a", "trace_id", 16), (b"\x52", "span_id", 8)):
            if len(number := bytes.fromhex(str(values.get(name, "")))) == size:
                parts.append(delimited(tag, number))
        parts.append(_fixed32(0x45, int(str(values.get("trace_flags", "")), 16) & 0xFF))
    parts.append(_fixed64(0x59, observed))
    if isinstance(event, str) and event != LOG_MESSAGE_EVENT:
        parts.append(delimited(b"\x62", OTEL_EVENTS.get(event, event).encode()))
    return b"".join(parts)


def _nanoseconds(timestamp: Any, otherwise: int) -> int:
    """Return a time of RFC 3339 as a number; a line may have none, or hide it."""
    try:
        return (datetime.fromisoformat(timestamp) - _EPOCH) // _MICROSECOND * 1000
    except (TypeError, ValueError):
        return otherwise


def _body(values: dict[str, Any]) -> Any:
    """Return what a reader sees first: the message, and of an exchange the request and what it got."""
    if "message" in values:
        return values["message"]
    method = values.get("http_request_method", values.get("http.request.method"))
    path = values.get("url_path", values.get("url.path"))
    status = values.get("http_response_status_code", values.get("http.response.status_code"))
    return " ".join(str(part) for part in (method, path, status) if part is not None)


def _attribute(name: str, value: Any) -> bytes:
    if isinstance(value, str) and len(value) <= _COMMON_TEXT:
        return _common(name, value)
    return attributes(b"\x32", {_otel_name(name): value})


@lru_cache(maxsize=4096)
def _common(name: str, value: str) -> bytes:
    """Most lines say the same of most things."""
    return attributes(b"\x32", {_otel_name(name): value})


@lru_cache(maxsize=1024)
def _otel_name(name: str) -> str:
    for start in _HEADERS:
        if name.startswith(start):
            # The real spelling has hyphens; a header's name has no underscore but by accident.
            return start.replace("_", ".") + name.removeprefix(start).replace("_", "-")
    return _OTEL_KEYS.get(name, name)
