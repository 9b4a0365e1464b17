"""What the pages under /-/ show, as plain data that becomes JSON.

For whoever looks into a running server. Rules: no secret of the configuration, no query, no header, no value of a
variable; everything bounded. Stacks and the change of the log level have to be allowed by options.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from obsserve.settings import OPTIONS
from obsserve.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obsserve.settings import Settings

_SECRET: Final = re.compile(r"password|secret|token|_key$")
_HIDDEN: Final = "REDACTED"
# What the status sums up of the metrics: key, metric, and the label that it is told apart by.
_FIGURES: Final = (
    ("workers", "obsserve_workers", "state"),
    ("worker_restarts", "obsserve_worker_restarts_total", "reason"),
    ("requests_active", "http_server_active_requests", None),
    ("requests_ended", "http_server_request_duration_seconds_count", None),
    ("requests_rejected", "obsserve_http_rejected_requests_total", "reason"),
    ("connections_open", "obsserve_connections_open", "state"),
    ("connections_waiting", "obsserve_listener_backlog_connections", "listener"),
    ("websockets_open", "obsserve_websocket_connections_open", None),
    ("limits", "obsserve_limit", "limit"),
    ("loop_lag_max_seconds", "obsserve_event_loop_lag_max_seconds", "worker"),
    ("loop_stalls", "obsserve_event_loop_stalls_total", "worker"),
    ("cpu_seconds", "process_cpu_seconds_total", "worker"),
    ("resident_bytes", "process_resident_memory_bytes", "worker"),
    ("access_lines", "obsserve_log_records_total", "result"),
    ("spans_processed", "otel_sdk_processor_span_processed_total", "error_type"),
    ("spans_exported", "otel_sdk_exporter_span_exported_total", "error_type"),
    ("telemetry_seconds", "obsserve_telemetry_self_seconds_total", "signal"),
    ("series", "obsserve_metrics_series", None),
)


class Inspection(Protocol):
    """What the pages ask for; called on threads of the metrics port, and may take a moment."""

    @property
    def settings(self) -> Settings: ...

    def requests(self) -> list[dict[str, Any]]:
        """Return what is open, the oldest first."""
        ...

    def stacks(self, worker: int | None) -> list[dict[str, Any]]:
        """Return the stacks of a worker's tasks and of its event loop's thread; None for all workers."""
        ...

    def set_level(self, level: int) -> None:
        """Have the server log from this level on, in all its processes."""
        ...


def settings_shown(settings: Settings) -> dict[str, Any]:
    """Return the options as the status shows them: without what could be a secret."""
    return {name: _shown(name, getattr(settings, name)) for name in OPTIONS}


def _shown(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if OPTIONS[name].secret or _SECRET.search(name):
        return _HIDDEN
    if name == "headers":
        return [f"{header}: {_HIDDEN}" for header, _ in value]
    if isinstance(value, str):
        return _without_credentials(value)
    if isinstance(value, tuple):
        return [_without_credentials(str(item)) for item in value]
    return f"<{type(value).__name__}>"


def _without_credentials(text: str) -> str:
    """Return an address without user and query, any other text as it is."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return _HIDDEN
    return f"{parts.scheme}://{host}{parts.path}"


def status(settings: Settings, reasons: list[str], families: Iterable[Any]) -> dict[str, Any]:
    """Return the status page.

    Args:
        settings: the options.
        reasons: why the server is not ready.
        families: the server's own metrics, as the Prometheus client library's objects.
    """
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    figures: dict[str, Any] = {}
    for key, metric, label in _FIGURES:
        found = samples.get(metric, [])
        if metric == "obsserve_log_records_total":
            found = [(labels, value) for labels, value in found if labels.get("stream") == "access"]
        if label is None:
            figures[key] = sum(value for _, value in found)
            continue
        parts: dict[str, float] = {}
        for labels, value in found:
            parts[labels.get(label, "")] = parts.get(labels.get(label, ""), 0.0) + value
        figures[key] = parts
    return {
        "version": __version__,
        "service_name": settings.service_name,
        "ready": not reasons,
        "reasons": reasons,
        **figures,
        "settings": settings_shown(settings),
    }
