"""How metrics and their labels are spelled in OpenTelemetry's own model: what is pushed over OTLP.

One rule, which goes both ways: what OpenTelemetry makes of these names for Prometheus (dots become underscores, the
unit and `_total` are added) are the names of the exposition, so the same queries work on either.
- What translates a semantic convention has the convention's name, unit and instrument.
- `obsserve_…` is `obsserve.` with a dot after the area, its first word; unit and `_total` are left out.
- The names of the Prometheus client libraries (`process_…`, `python_…`) and of the application stay, but for `_total`.
- Labels that translate a convention have its name; others stay. An empty label is no attribute.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from obsserve.telemetry.catalogue.labels import OVERFLOW_LABEL
from obsserve.telemetry.catalogue.lines import OTEL_EVENT_KEYS, OTEL_LOG_KEYS
from obsserve.telemetry.catalogue.metrics import METRICS, TARGET_INFO, Metric

Instrument = Literal["counter", "updowncounter", "gauge", "histogram"]


class OTelMetric(NamedTuple):
    """A metric in OpenTelemetry's spelling.

    Args:
        name: with dots.
        unit: as in UCUM, things that are counted in braces; empty for none.
        instrument: what it would be recorded with.
    """

    name: str
    unit: str
    instrument: Instrument


# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/ and …/semconv/otel/sdk-metrics/
_CONVENTIONS: Final = tuple(OTelMetric(*row) for row in (
    ("http.server.request.duration", "s", "histogram"),
    ("http.server.active_requests", "{request}", "updowncounter"),
    ("http.server.request.body.size", "By", "histogram"),
    ("http.server.response.body.size", "By", "histogram"),
    ("otel.sdk.span.started", "{span}", "counter"),
    ("otel.sdk.span.live", "{span}", "updowncounter"),
    ("otel.sdk.processor.span.queue.size", "{span}", "updowncounter"),
    ("otel.sdk.processor.span.queue.capacity", "{span}", "updowncounter"),
    ("otel.sdk.processor.span.processed", "{span}", "counter"),
    ("otel.sdk.exporter.span.inflight", "{span}", "updowncounter"),
    ("otel.sdk.exporter.span.exported", "{span}", "counter"),
    ("otel.sdk.processor.log.queue.size", "{log_record}", "updowncounter"),
    ("otel.sdk.processor.log.queue.capacity", "{log_record}", "updowncounter"),
    ("otel.sdk.processor.log.processed", "{log_record}", "counter"),
    ("otel.sdk.exporter.log.inflight", "{log_record}", "updowncounter"),
    ("otel.sdk.exporter.log.exported", "{log_record}", "counter"),
    ("otel.sdk.exporter.metric_data_point.inflight", "{data_point}", "updowncounter"),
    ("otel.sdk.exporter.metric_data_point.exported", "{data_point}", "counter"),
    ("otel.sdk.metric_reader.collection.duration", "s", "histogram"),
    ("otel.sdk.exporter.operation.duration", "s", "histogram"),
))  # fmt: skip
_UNITS: Final = {"seconds": "s", "bytes": "By"}
_AREAS_OF_TWO_WORDS: Final = ("event_loop", "proxy_protocol", "trace_context")


def prometheus_name(metric: OTelMetric) -> str:
    """Return what OpenTelemetry makes of a name for Prometheus.

    https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
    """
    name = metric.name.replace(".", "_")
    unit = next((word for word, symbol in _UNITS.items() if symbol == metric.unit), "")
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return f"{name}_total" if metric.instrument == "counter" else name


def _respelled(metric: Metric) -> OTelMetric:
    unit = _UNITS.get(metric.unit, "")
    name = metric.name.removesuffix("_total")
    area, _, rest = name.partition("_")
    if area != "obsserve":
        return OTelMetric(name, unit, metric.type)
    rest = rest.removesuffix(f"_{metric.unit}") if metric.unit else rest
    first = next((area for area in _AREAS_OF_TWO_WORDS if rest.startswith(area)), rest.partition("_")[0])
    detail = rest.removeprefix(first).removeprefix("_")
    return OTelMetric(".".join(filter(None, (area, first, detail))), unit, metric.type)


_BY_CONVENTION: Final = {prometheus_name(convention): convention for convention in _CONVENTIONS}
# `target_info` is the resource itself.
OTEL_METRICS: Final[dict[str, OTelMetric]] = {
    name: _BY_CONVENTION.get(name) or _respelled(metric)
    for name, metric in METRICS.items()
    if metric is not TARGET_INFO
}

_ALL_LABELS: Final = {label for metric in METRICS.values() for label in metric.labels}
OTEL_LABELS: Final[dict[str, str]] = {
    **{label: name for label, name in (OTEL_LOG_KEYS | OTEL_EVENT_KEYS).items() if label in _ALL_LABELS},
    "otel_span_parent_origin": "otel.span.parent.origin",
    "otel_span_sampling_result": "otel.span.sampling_result",
    OVERFLOW_LABEL: "otel.metric.overflow",
    "worker": "worker",  # in lines and spans `obsserve.worker`, where no metric's name goes before it
}
# Numbers, as the conventions have them.
OTEL_INTEGERS: Final = frozenset({"http_response_status_code"})
