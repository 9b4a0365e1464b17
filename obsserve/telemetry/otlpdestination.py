"""Whether a signal is exported over OTLP, where to and how it is spoken: from the options and OpenTelemetry's variables.

Imports nothing of OpenTelemetry.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, get_args

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Mapping

Protocols = Literal["grpc", "http/protobuf"]
Signal = Literal["TRACES", "LOGS", "METRICS"]

# What is exported, and where to over HTTP.
_NOUNS: Final[dict[str, str]] = {"TRACES": "spans", "LOGS": "log records", "METRICS": "metrics"}
_PATHS: Final[dict[str, str]] = {"TRACES": "/v1/traces", "LOGS": "/v1/logs", "METRICS": "/v1/metrics"}
_EXPORTER_MODULES: Final[dict[str, str]] = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}
DEFAULT_ENDPOINTS: Final[dict[str, str]] = {
    "grpc": "http://localhost:4317",
    "http/protobuf": "http://localhost:4318",
}


class DestinationSettings(Protocol):
    """The options that this reads."""

    @property
    def otlp_endpoint(self) -> str | None: ...
    @property
    def otlp_protocol(self) -> str | None: ...


class Destination(NamedTuple):
    """Where to, and how it is spoken."""

    endpoint: str | None  # for the exporter; None lets it read its own variables
    destination: str  # the same for people, always there
    protocol: Protocols


def is_exported(signal: Signal, environ: Mapping[str, str], *, wanted: bool) -> bool:
    """Return whether a signal is exported.

    Args:
        signal: which.
        environ: the environment: OTEL_SDK_DISABLED and OTEL_<signal>_EXPORTER.
        wanted: whether something else asks for it.
    """
    exporters = words_of(environ.get(f"OTEL_{signal}_EXPORTER", ""))
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or "none" in exporters:
        return False
    return wanted or "otlp" in exporters


def destination_of(signal: Signal, settings: DestinationSettings, environ: Mapping[str, str]) -> Destination:
    """Return where a signal goes; the options count before OTEL_EXPORTER_OTLP_*.

    Args:
        signal: which.
        settings: the options.
        environ: the environment.

    Raises:
        StartupError: it cannot go there, or its exporter is not installed.
    """
    protocol = _protocol(signal, settings.otlp_protocol, environ)
    endpoint = _endpoint(settings.otlp_endpoint, protocol, _PATHS[signal])
    _require_exporter(protocol, _NOUNS[signal])
    return Destination(endpoint, endpoint or _in_environment(signal, environ, protocol), protocol)


def _protocol(signal: Signal, given: str | None, environ: Mapping[str, str]) -> Protocols:
    asked = (
        given
        or environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL")
        or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "grpc"
    )
    for known in get_args(Protocols):
        if asked == known:
            protocol: Protocols = known
            return protocol
    raise StartupError(f"OTLP protocol {asked!r} is not known; use {' or '.join(get_args(Protocols))}")


def _endpoint(given: str | None, protocol: Protocols, path: str) -> str | None:
    """Return the exporter's endpoint from the option's: over HTTP with the signal's path."""
    if not given:
        return None
    if not given.startswith(("http://", "https://")):
        if "://" in given:
            raise StartupError(f"--otlp-endpoint {given}: its scheme is neither http nor https")
        raise StartupError(f"--otlp-endpoint {given}: it is no URL; write http://{given} or https://{given}")
    if protocol == "grpc" or given.endswith(path):
        return given
    return given.removesuffix(_PATHS["TRACES"]).rstrip("/") + path


def _in_environment(signal: Signal, environ: Mapping[str, str], protocol: Protocols) -> str:
    if exact := environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"):
        return exact
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or DEFAULT_ENDPOINTS[protocol]
    return base if protocol == "grpc" else base.rstrip("/") + _PATHS[signal]


def _require_exporter(protocol: Protocols, noun: str) -> None:
    try:
        found = find_spec(_EXPORTER_MODULES[protocol]) is not None
    except ModuleNotFoundError:  # one of the packages around it
        found = False
    if not found:
        raise StartupError(
            f"exporting {noun} over OTLP ({protocol}) needs packages that are not installed: "
            "pip install 'obsserve[otlp]'"
        )


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a list that commas separate."""
    return tuple(stripped for word in text.split(",") if (stripped := word.strip()))


def number_of(
    environ: Mapping[str, str], name: str, default: int, notes: list[str], *, least: int = 1
) -> int:
    """Return the number that a variable holds; of one that is none, a note."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    if text.isascii() and text.isdigit() and int(text) >= least:
        return int(text)
    notes.append(f"{name}={text!r} is no whole number from {least}; {default} is used")
    return default
