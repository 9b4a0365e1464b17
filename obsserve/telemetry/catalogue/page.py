"""The catalogue as a page for people: docs/telemetry.md. `make docs` writes it, a test keeps it fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from obsserve.telemetry.catalogue.endings import ENDINGS
from obsserve.telemetry.catalogue.labels import OTHER, OVERFLOW_LABEL, SERIES_LIMIT
from obsserve.telemetry.catalogue.lines import FLAGS, LOG_FIELDS
from obsserve.telemetry.catalogue.metrics import (
    ERROR_COUNTERS,
    LABEL_NOTES,
    LABEL_VALUES,
    METRICS,
    Metric,
)
from obsserve.telemetry.catalogue.otelnames import OTEL_LABELS, OTEL_METRICS
from obsserve.telemetry.catalogue.spans import (
    MESSAGE_ATTRIBUTES,
    RELOAD_ATTRIBUTES,
    RELOAD_ERRORS,
    SESSION_ATTRIBUTES,
    SPAN_ATTRIBUTES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from obsserve.telemetry.catalogue.spans import SpanAttribute

_INTRO: Final = f"""\
# Telemetry

Everything that the server says about itself: each metric, each key of an access line, each attribute of a span.
The page is generated from the catalogue that the code reads (`make docs`); tests hold real scrapes, lines and
spans against it.

Metrics, line and span of a request are three views of one record, made when the request ends, so they agree:

    sum(http_server_request_duration_seconds_count)
      = access lines of requests and handshakes, written or counted as sampled out, filtered or dropped
      = server spans started

## Metrics

`--metrics-port` serves them as Prometheus text or OpenMetrics (with exemplars: the newest sampled trace of each latency
bucket and of each counter of what went wrong in an exchange; `OTEL_METRICS_EXEMPLAR_FILTER` chooses), compressed for those who accept gzip; `?name[]=` selects by the names of metrics or samples. **Label sets** is the most that one serving process can
bring forth; workers are summed, but for metrics with the label `worker`, which have a set for each. Beyond a
metric's bound observations go to one set with `{OVERFLOW_LABEL}="true"`, and `obsserve_metrics_overflow_total`
counts them; `--metrics-max-series` ({SERIES_LIMIT}) bounds the sets of exchanges. A histogram has one series for
each bucket and three more. `--metrics-profile` chooses how many there are: `minimal` leaves `http_route` empty,
`full` has the sizes of bodies (as `--metrics-body-size` has), `standard` is in between. The labels of `target_info`
are the resource attributes of the service.

The application's own `prometheus_client` metrics, of the library's default registry, are on the same page, and need
no set-up with several workers either (leave PROMETHEUS_MULTIPROC_DIR alone): counters, histograms and summaries are
summed, and keep what workers that are gone had counted; gauges follow their `multiprocess_mode` and vanish with their
worker; where each worker is shown for itself (the mode `all`, which is the default, enums, gauges of custom
collectors) the sample has the label `worker`. Exemplars are kept. A worker that cannot answer within a second is
shown as it was last, with `obsserve_metrics_snapshot_age_seconds`; one that is killed takes along what it counted
since the last snapshot, five seconds at most.

### Over OTLP

    obsserve app:app --otlp-metrics --otlp-endpoint http://127.0.0.1:4317

pushes all that `/metrics` shows, the application's own metrics included, to a collector: every
`OTEL_METRIC_EXPORT_INTERVAL` (60,000 ms), each push within `OTEL_METRIC_EXPORT_TIMEOUT` (30,000 ms), and once more when the
server ends, within a second. `OTEL_METRICS_EXPORTER=otlp` asks for the same; `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` and its like
say where to, over gRPC or HTTP (`/v1/metrics`). With `--otlp-endpoint` spans go there too; `OTEL_TRACES_EXPORTER=none` keeps them
back. No `--metrics-port` is needed, and it needs `obsserve[otlp]`. With several workers their main process pushes (gunicorn's
arbiter has a child process do it), once for all of them, so counters go on when workers are replaced. The resource is that of the spans. A thread of its own reads the figures as a
scrape does, without a word to a serving loop.

Everything is cumulative, since the server or, for what is counted from there, its process began: counters are monotonic sums,
histograms have the bounds below, gauges are gauges (sums where the convention has an up-down counter). A push that fails costs
a point in time and no count. Its points are counted in `otel_sdk_exporter_metric_data_point_exported_total{{error_type!=""}}`;
failure and recovery are each told once; after three failures in a row pushes pause for 5 to 60 s.

Names follow one rule, which OpenTelemetry's translation for Prometheus turns back: what that makes of a name (dots become
underscores, unit and `_total` are added) is the name in the exposition, so the same queries fit either way. What translates a
semantic convention has the convention's name, unit and instrument (`http.server.request.duration`); `obsserve_` becomes `obsserve.`
with a dot after the area, without unit and `_total`; the names of the Prometheus client libraries and of the application
stay, but for `_total`. Labels that translate a convention have its name as well; an empty label is no attribute; `target_info` is
the resource itself.
"""

_CHAPTERS: Final = (
    ("HTTP", ("http_server_", "obsserve_http_", "obsserve_drain_")),
    (
        "Connections",
        (
            "obsserve_connection",
            "obsserve_tls_",
            "obsserve_accept_",
            "obsserve_proxy_",
            "obsserve_forwarded_",
            "obsserve_listener_",
            "obsserve_limit",
        ),
    ),
    ("WebSockets", ("obsserve_websocket_",)),
    ("Runtime", ("obsserve_event_loop_", "obsserve_gc_", "python_", "process_")),
    (
        "Workers, lifecycle, health",
        ("obsserve_worker", "obsserve_config_", "obsserve_lifespan_", "obsserve_ready", "obsserve_build_"),
    ),
    (
        "Telemetry's own health",
        ("obsserve_log_", "obsserve_metrics_", "obsserve_telemetry_", "obsserve_trace_", "otel_", "target_"),
    ),
)


def reference() -> str:
    """Return the page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _INTRO
    rest = dict(METRICS)
    for chapter, prefixes in _CHAPTERS:
        metrics = [metric for name, metric in METRICS.items() if name.startswith(prefixes)]
        yield f"### {chapter}\n"
        yield from _table(
            ("Metric", "Over OTLP", "Type", "Unit", "Labels", "Buckets", "Label sets", "What it says"),
            map(_metric_row, metrics),
        )
        if not set(metrics).isdisjoint(ERROR_COUNTERS):
            yield f"With exemplars, besides the latency histograms: {', '.join(_code(metric.name) for metric in ERROR_COUNTERS)}.\n"
        for metric in metrics:
            del rest[metric.name]
    if rest:
        raise LookupError(f"no chapter for {', '.join(rest)}")
    yield from _labels()
    yield "## Access log\n\nKeys in this order; those that are not always there are left out otherwise.\n"
    yield from _table(
        ("Key", "Type", "Present", "What it says"),
        ((_code(field.name), field.type, field.present, field.help) for field in LOG_FIELDS),
    )
    yield "### Flags\n"
    yield from _table(("Flag", "What it says"), ((_code(flag), text) for flag, text in FLAGS.items()))
    yield from _endings()
    yield "## Spans\n\nOf a request (kind server):\n"
    yield from _table(("Attribute", "Type", "Present", "What it says"), _attributes(SPAN_ATTRIBUTES))
    yield (
        "Of a WebSocket's session (kind internal, child of the handshake's), besides `http.route`, `error.type`,\n"
        "`obsserve.connection.id` and `obsserve.request_id`:\n"
    )
    yield from _table(("Attribute", "Type", "Present", "What it says"), _attributes(SESSION_ATTRIBUTES))
    yield (
        "Of a WebSocket message, with `--trace-websocket-messages` (`websocket receive {route}`, kind consumer, and\n"
        "`websocket send {route}`, kind producer; each linked to the handshake's span), besides `http.route`, `error.type`,\n"
        "`obsserve.connection.id` and `obsserve.request_id`; never what it says:\n"
    )
    yield from _table(("Attribute", "Type", "Present", "What it says"), _attributes(MESSAGE_ATTRIBUTES))
    yield (
        "`lifespan.startup` and `lifespan.shutdown` (kind internal, roots) are the phases of the application's lifespan,\n"
        "in each worker; where one fails, with `error.type`. The sampler decides on them as on any root.\n"
    )
    errors = " or ".join(map(_code, RELOAD_ERRORS))
    yield (
        "`server.reload` (kind internal, a root) is a replacement of all workers by the main process, from the signal or\n"
        "from the change that was noticed to the last new worker that serves: one, if the sampler keeps it, for each that\n"
        "`obsserve_config_reloads_total` counts, and for one that the end of the server cut off. Where workers were not\n"
        f"replaced its status is Error, with `error.type` {errors}. gunicorn's arbiter, which forks, makes none.\n"
    )
    yield from _table(("Attribute", "Type", "Present", "What it says"), _attributes(RELOAD_ATTRIBUTES))
    yield (
        "Spans of the lifespan, of reloads and of messages are the only ones besides those of requests and sessions that\n"
        "`otel_sdk_span_started_total` counts.\n"
    )


def _metric_row(metric: Metric) -> Sequence[str]:
    labels = ", ".join(map(_code, metric.labels))
    buckets = " ".join(f"{bucket:.15g}" for bucket in metric.buckets)
    pushed = OTEL_METRICS.get(metric.name)
    over_otlp = "the resource" if pushed is None else _code(pushed.name)
    return (
        _code(metric.name),
        over_otlp,
        metric.type,
        metric.unit,
        labels,
        buckets,
        f"{metric.bound}",
        metric.help,
    )


def _labels() -> Iterator[str]:
    yield "### Labels\n"
    rows = [(_label(label), "", text) for label, text in LABEL_NOTES.items()]
    for (metric, label), values in LABEL_VALUES.items():
        rows.append((_label(label), _code(metric.name), ", ".join(value or "(empty)" for value in values)))
    yield from _table(("Label", "Of", "Values"), rows)


def _label(label: str) -> str:
    pushed = OTEL_LABELS.get(label, label)
    return _code(label) if pushed == label else f"{_code(label)}, over OTLP {_code(pushed)}"


def _endings() -> Iterator[str]:
    yield (
        "## How a request ends\n\nOne table for all signals. Without an `error_type` of its own an ending takes the\n"
        "exception's class, or a status from 500 on; without an outcome of its own, ok, client_error or\n"
        f"server_error by the status. `{OTHER}` stands for names beyond a bound.\n"
    )
    yield from _table(
        ("termination_detail", "Outcome", "Status", "error_type", "Flag", "Counted as"),
        (
            (
                _code(ending.detail),
                ending.outcome or "",
                "" if ending.status is None else f"{ending.status}",
                ending.error_type or "",
                ending.flag or "",
                ", ".join(
                    _code(f'{metric}{{reason="{reason}"}}')
                    for metric, reason in (
                        ("obsserve_http_rejected_requests_total", ending.rejection),
                        ("obsserve_http_protocol_errors_total", ending.protocol_error),
                        ("obsserve_http_app_protocol_errors_total", ending.app_protocol_error),
                    )
                    if reason
                ),
            )
            for ending in ENDINGS.values()
        ),
    )


def _attributes(attributes: Iterable[SpanAttribute]) -> Iterator[Sequence[str]]:
    for attribute in attributes:
        yield _code(attribute.name), attribute.type, attribute.present, attribute.help


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
    yield ""
