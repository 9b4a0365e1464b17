"""Whether spans are exported, where to and how: read from the options and OpenTelemetry's variables.

Imports nothing of OpenTelemetry, so that a server without tracing does not pay for it.
"""

from __future__ import annotations

import math
import os
import platform
import socket
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

from obsserve.errors import StartupError
from obsserve.resource import SERVICE_INSTANCE_ID, SERVICE_NAME, resource_attributes
from obsserve.telemetry.otlpdestination import (
    DEFAULT_ENDPOINTS,
    destination_of,
    is_exported,
    number_of,
    words_of,
)
from obsserve.telemetry.redact import QueryPolicy, redaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from obsserve.telemetry.otlpdestination import Protocols
    from obsserve.telemetry.redact import AddressPolicy
    from obsserve.telemetry.sampling import PathShare

TrustMode = Literal["peers", "all", "none"]
ExemplarFilter = Literal["trace_based", "always_on", "always_off"]

EXEMPLAR_FILTER: Final = "OTEL_METRICS_EXEMPLAR_FILTER"

# The specification's defaults. Half the batch would cost half as much again for each span: a request has its price.
_BATCH_SIZE: Final = 512
_QUEUE_SIZE: Final = 2048
_SCHEDULE_DELAY_MILLIS: Final = 5000
_ATTRIBUTE_LIMIT: Final = 128
_EVENT_LIMIT: Final = 128


class TracingSettings(Protocol):
    """The options that tracing reads."""

    @property
    def otlp_endpoint(self) -> str | None: ...
    @property
    def otlp_protocol(self) -> str | None: ...
    @property
    def trace_sample_ratio(self) -> float | None: ...
    @property
    def trace_trust(self) -> TrustMode: ...
    @property
    def service_name(self) -> str: ...
    @property
    def log_query(self) -> str: ...
    @property
    def log_query_allow(self) -> tuple[str, ...]: ...
    @property
    def log_client_ip(self) -> str: ...
    @property
    def log_hash_key(self) -> str | None: ...
    @property
    def log_slow(self) -> float | None: ...
    @property
    def trace_sample_path(self) -> tuple[PathShare, ...]: ...
    @property
    def trace_keep_errors(self) -> bool: ...
    @property
    def trace_response(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfiguration:
    """How to trace.

    Args:
        endpoint: for the exporter; None lets it read its own variables.
        destination: the same for people, always there.
        protocol: how OTLP is spoken.
        service_name: resource attribute `service.name`.
        sampler: a name as in OTEL_TRACES_SAMPLER.
        sampler_argument: as in OTEL_TRACES_SAMPLER_ARG.
        trust: whose trace context is believed.
        path_shares: other shares for some paths.
        keep_errors: whether what fails or is slow is exported although it was not to be kept.
        slow: from how many seconds on a request is slow.
        response_fields: response headers that tell a client the ids of its request's span.
        query: what a span says of a query.
        address: what a span says of a client's address; None for all of it.
        request_headers: patterns of header names to capture, as in OpenTelemetry's variable.
        response_headers: the same of responses.
        sensitive_headers: patterns of header names whose values are hidden, besides our own.
        exception_events: whether a span carries the exception as an event.
        queue_size: how many spans may wait.
        batch_size: how many are exported at once.
        schedule_delay: seconds after which fewer are exported too.
        attribute_limit: how many attributes the application may set on a span.
        attribute_length: how long they may be, None for no limit.
        event_limit: how many events the application may add to a span.
        exemplars: which traces the metrics name.
        notes: what was not understood, for the server's log.
    """

    endpoint: str | None = None
    destination: str = DEFAULT_ENDPOINTS["grpc"]
    protocol: Protocols = "grpc"
    service_name: str = "unknown_service:obsserve"
    sampler: str = "parentbased_always_on"
    sampler_argument: str = ""
    trust: TrustMode = "peers"
    path_shares: tuple[PathShare, ...] = ()
    keep_errors: bool = False
    slow: float = math.inf
    response_fields: tuple[str, ...] = ()
    query: QueryPolicy = QueryPolicy("redact-all")  # noqa: RUF009 - it cannot change
    address: AddressPolicy | None = None
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    sensitive_headers: tuple[str, ...] = ()
    exception_events: bool = True
    queue_size: int = _QUEUE_SIZE
    batch_size: int = _BATCH_SIZE
    schedule_delay: float = _SCHEDULE_DELAY_MILLIS / 1e3
    attribute_limit: int = _ATTRIBUTE_LIMIT
    attribute_length: int | None = None
    event_limit: int = _EVENT_LIMIT
    exemplars: ExemplarFilter = "trace_based"
    notes: tuple[str, ...] = ()


def tracing_configuration(
    settings: TracingSettings, environ: Mapping[str, str] = os.environ
) -> TracingConfiguration | None:
    """Return how to trace, None when tracing is off.

    Args:
        settings: the options.
        environ: the environment.

    Raises:
        StartupError: tracing is asked for and cannot be done.
    """
    in_environment = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    if not is_exported("TRACES", environ, wanted=bool(settings.otlp_endpoint or in_environment)):
        return None
    exporters = words_of(environ.get("OTEL_TRACES_EXPORTER", ""))
    if exporters and "otlp" not in exporters:
        raise StartupError(
            f"OTEL_TRACES_EXPORTER={','.join(exporters)}: spans are exported over OTLP only; set it to otlp, or to "
            "none to turn tracing off"
        )
    destination = destination_of("TRACES", settings, environ)
    notes: list[str] = []
    policy = redaction(settings, "json")
    sampler, argument = _sampler(settings, environ)
    queue_size = number_of(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE_SIZE, notes)
    batch_size = number_of(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH_SIZE, notes)
    return TracingConfiguration(
        **destination._asdict(),
        service_name=settings.service_name,
        sampler=sampler,
        sampler_argument=argument,
        trust=settings.trace_trust,
        path_shares=tuple(settings.trace_sample_path),
        keep_errors=settings.trace_keep_errors,
        slow=math.inf if settings.log_slow is None else settings.log_slow,
        response_fields=settings.trace_response,
        query=policy.query,
        address=policy.address,
        request_headers=words_of(environ.get("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", "")),
        response_headers=words_of(
            environ.get("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", "")
        ),
        sensitive_headers=words_of(
            environ.get("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", "")
        ),
        exception_events=environ.get("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "").strip().lower() != "logs",
        queue_size=queue_size,
        batch_size=min(batch_size, queue_size),
        schedule_delay=number_of(environ, "OTEL_BSP_SCHEDULE_DELAY", _SCHEDULE_DELAY_MILLIS, notes) / 1e3,
        attribute_limit=_limit(environ, "ATTRIBUTE_COUNT", _ATTRIBUTE_LIMIT, notes) or 0,
        attribute_length=_limit(environ, "ATTRIBUTE_VALUE_LENGTH", None, notes),
        event_limit=number_of(environ, "OTEL_SPAN_EVENT_COUNT_LIMIT", _EVENT_LIMIT, notes, least=0),
        exemplars=_exemplar_filter(environ, notes),
        notes=tuple(notes),
    )


def _exemplar_filter(environ: Mapping[str, str], notes: list[str]) -> ExemplarFilter:
    text = environ.get(EXEMPLAR_FILTER, "").strip()
    for known in get_args(ExemplarFilter):
        if text.lower() == known:
            chosen: ExemplarFilter = known
            return chosen
    if text:
        notes.append(
            f"{EXEMPLAR_FILTER}={text!r} is not known; use {', '.join(get_args(ExemplarFilter))}; "
            "trace_based is used"
        )
    return "trace_based"


def _sampler(settings: TracingSettings, environ: Mapping[str, str]) -> tuple[str, str]:
    if settings.trace_sample_ratio is not None:
        return "parentbased_traceidratio", str(settings.trace_sample_ratio)
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_always_on"
    return name, environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()


def _limit(environ: Mapping[str, str], name: str, default: int | None, notes: list[str]) -> int | None:
    for variable in (f"OTEL_SPAN_{name}_LIMIT", f"OTEL_{name}_LIMIT"):
        if environ.get(variable, "").strip():
            found = number_of(environ, variable, -1 if default is None else default, notes, least=0)
            return default if found < 0 else found
    return default


# --- The resource -----------------------------------------------------------------------------


def resource(
    service_name: str,
    *,
    service_instance_id: str,
    worker: int | None,
    version: str,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str | int]:
    """Return the resource attributes that all spans and log records of this process share.

    Args:
        service_name: names the service.
        service_instance_id: one for all workers of a server, as in its logs and metrics.
        worker: slot of this worker, None for the main process.
        version: of this server.
        environ: the environment.
    """
    info = sys.version_info
    runtime = f"{info.major}.{info.minor}.{info.micro}"
    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": _version_of("opentelemetry-sdk"),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        "process.runtime.name": platform.python_implementation().lower(),
        "process.runtime.version": runtime,
        "process.runtime.description": sys.version,
        **resource_attributes(environ),
        SERVICE_NAME: service_name,
        SERVICE_INSTANCE_ID: service_instance_id,
        "webengine.name": "obsserve",
        "webengine.version": version,
        **({} if worker is None else {"obsserve.worker": worker}),
    }


def _version_of(distribution: str, lookup: Callable[[str], str] = metadata.version) -> str:
    try:
        return lookup(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
