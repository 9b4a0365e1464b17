"""Telemetry health: is what the other pages show complete, and what does it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import CONFIG, RED
from .page import Row, page
from .panels import (
    NEUTRAL,
    QUANTILE_COLORS,
    Doc,
    Query,
    colored,
    counted,
    lines,
    never,
    page_link,
    quantiles,
    rising,
    stat,
)
from .promql import ERRORED, LOST, now, or_zero, series, total

if TYPE_CHECKING:
    from .panels import Json

_LINKS = (page_link("workers", "Workers and runtime"), page_link("logs", "Logs and traces"))


def _verdict() -> Row:
    return Row(
        "Is anything missing",
        (
            stat(
                "Log lines lost",
                Doc(
                    "Log records dropped or failed, each second.",
                    "0 means that the logs are complete.",
                    "Any.",
                    "Runbook of ObsserveLogsDropped.",
                ),
                "ops",
                never(),
                Query(total("obsserve_log_records_total", only=LOST), "lost"),
                links=_LINKS,
                width=4,
            ),
            stat(
                "Spans lost",
                Doc(
                    "Spans dropped before an export or lost in one that failed, each second.",
                    "0 means that the traces are complete; without tracing it is 0 too.",
                    "Any.",
                    "Runbooks of ObsserveSpansDropped and ObsserveExporterFailing.",
                ),
                "ops",
                never(),
                Query(
                    f"({total('otel_sdk_processor_span_processed_total', only=ERRORED)} or vector(0))"
                    f" + ({total('otel_sdk_exporter_span_exported_total', only=ERRORED)} or vector(0))",
                    "lost",
                ),
                links=_LINKS,
                width=4,
            ),
            stat(
                "Series that overflowed",
                Doc(
                    "Observations each second that went into an overflow series because a metric has too many label sets.",
                    "0 means that every label set is its own series.",
                    "Any: routes or exception names without bound.",
                    "Runbook of ObsserveMetricsOverflow.",
                ),
                "ops",
                never(),
                Query(f"{total('obsserve_metrics_overflow_total')} or vector(0)", "overflow"),
                links=_LINKS,
                width=4,
            ),
            stat(
                "Oldest snapshot",
                Doc(
                    "Age of the oldest figures that a worker gave to the last scrape.",
                    "Seconds at most.",
                    "Above 30 s: that worker's application metrics stand still.",
                    "Runbook of ObsserveSnapshotStale.",
                ),
                "s",
                rising(10, 30),
                Query(f"max({series('obsserve_metrics_snapshot_age_seconds')}) or vector(0)", "oldest"),
                links=_LINKS,
                width=4,
            ),
            stat(
                "Price of telemetry",
                Doc(
                    "CPU seconds that telemetry itself uses, as a share of all CPU of the server.",
                    "Timed on one of 256 requests and scaled.",
                    "Above 15 %.",
                    "By signal, below; the runbook of ObsserveTelemetryExpensive lists what to turn down.",
                ),
                "percentunit",
                rising(0.1, 0.15),
                Query(
                    f"{total('obsserve_telemetry_self_seconds_total')} / {total('process_cpu_seconds_total')}",
                    "share",
                ),
                links=_LINKS,
                width=4,
                decimals=1,
            ),
            stat(
                "Series",
                Doc(
                    "Series in the largest exposition.",
                    "docs/scaling.md has the arithmetic.",
                    "Above 20 000 on one instance.",
                    'Which: `topk(10, count by (__name__) ({instance="INSTANCE"}))`.',
                ),
                "short",
                rising(10000, 20000),
                Query(f"max({series('obsserve_metrics_series')})", "series"),
                links=_LINKS,
                width=4,
            ),
        ),
    )


def _logs() -> Row:
    return Row(
        "Logs",
        (
            lines(
                "Log records by result",
                Doc(
                    "Records each second by stream and by what became of them.",
                    "written, sampled_out and filtered are wanted; dropped and failed are losses.",
                    "dropped or failed at all.",
                    "Queue, at the right, says whether the reader is slow; errors say whether the disk is full.",
                ),
                "ops",
                NEUTRAL,
                Query(total("obsserve_log_records_total", "stream", "result"), "{{stream}} {{result}}"),
                links=_LINKS,
                overrides=(colored("dropped|failed", RED),),
                width=6,
            ),
            lines(
                "Queue of log records",
                Doc(
                    "Share of the buffer that is filled, by worker.",
                    "Near 0 %: whoever reads standard output keeps up.",
                    f"Above {CONFIG.near_limit:.0%}: lines will be dropped.",
                    "The reader: journald, the container runtime, a pipe.",
                ),
                "percentunit",
                rising(0.5, CONFIG.near_limit),
                Query(
                    f"{series('obsserve_log_queue_records')} / {series('obsserve_log_queue_capacity_records')}",
                    "{{worker}} @ {{instance}}",
                ),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Failed writes and cut lines",
                Doc(
                    "Writes that failed, each second, by error; and records cut to the longest line allowed.",
                    "enospc is a full disk, epipe a reader that left.",
                    "Any failed write.",
                    "Runbook of ObsserveLogWriteErrors.",
                ),
                "ops",
                never(),
                Query(
                    or_zero(
                        total("obsserve_log_write_errors_total", "error"),
                        "obsserve_log_write_seconds_total",
                        "error",
                    ),
                    "{{error}}",
                ),
                Query(
                    or_zero(
                        total("obsserve_log_truncated_total", "stream"),
                        "obsserve_log_write_seconds_total",
                        "stream",
                    ),
                    "cut, {{stream}}",
                ),
                shade=RED,
                links=_LINKS,
                width=6,
            ),
            lines(
                "Time spent in writing",
                Doc(
                    "Seconds each second that the writer thread spends in writing.",
                    "It is not on any request's path.",
                    "Near 1: the sink is as slow as it can be without losses.",
                    "A faster sink, or sampling.",
                ),
                "percentunit",
                rising(0.5, 0.9),
                Query(total("obsserve_log_write_seconds_total"), "writing"),
                links=_LINKS,
                width=6,
            ),
        ),
    )


def _spans() -> Row:
    return Row(
        "Traces",
        (
            lines(
                "Spans started",
                Doc(
                    "Server spans each second, by where their parent is and whether they are kept.",
                    "One for each request; kept as the sampler decides.",
                    "Fewer than requests: another instrumentation makes its own.",
                    "docs/telemetry.md: invariants.",
                ),
                "ops",
                NEUTRAL,
                Query(
                    total(
                        "otel_sdk_span_started_total", "otel_span_parent_origin", "otel_span_sampling_result"
                    ),
                    "parent {{otel_span_parent_origin}}, {{otel_span_sampling_result}}",
                ),
                links=_LINKS,
            ),
            lines(
                "Exported and lost",
                Doc(
                    "Spans exported each second, lost in failed exports by error, and dropped before an export.",
                    "Only the unnamed line should be there.",
                    "Any named line.",
                    "Runbook of ObsserveExporterFailing.",
                ),
                "ops",
                NEUTRAL,
                Query(
                    total("otel_sdk_exporter_span_exported_total", "error_type"), "exported {{error_type}}"
                ),
                Query(
                    total("otel_sdk_processor_span_processed_total", "error_type", only=ERRORED),
                    "dropped {{error_type}}",
                ),
                links=_LINKS,
                overrides=(colored("^exported .+|^dropped", RED),),
            ),
            lines(
                "Queue of spans",
                Doc(
                    "Share of the queue that is filled, spans that are open, and spans in the export under way.",
                    "Near empty: the collector keeps up.",
                    f"Above {CONFIG.near_limit:.0%}: spans will be dropped.",
                    "Runbook of ObsserveSpanQueueNearFull.",
                ),
                "percentunit",
                rising(0.5, CONFIG.near_limit),
                Query(
                    f"{now('otel_sdk_processor_span_queue_size')} / {now('otel_sdk_processor_span_queue_capacity')}",
                    "queue",
                ),
                Query(now("otel_sdk_span_live"), "open spans"),
                Query(now("otel_sdk_exporter_span_inflight"), "in export"),
                links=_LINKS,
                overrides=(counted("^(open spans|in export)"),),
            ),
            lines(
                "Duration of exports",
                Doc(
                    "Median, p95 and p99 of how long an export took, retries included.",
                    "It runs beside the requests and delays none.",
                    "Seconds: the collector is slow or away.",
                    "The collector's own metrics.",
                ),
                "s",
                rising(1, 5),
                *quantiles(total("otel_sdk_exporter_operation_duration_seconds_bucket", "le")),
                links=_LINKS,
                overrides=QUANTILE_COLORS,
                width=6,
            ),
            lines(
                "Incoming trace contexts",
                Doc(
                    "Trace contexts each second that were malformed, by reason, or whose sampled flag was not believed.",
                    "Strangers' flags are not believed by default.",
                    "Malformed ones from your own proxy.",
                    "docs/security.md: --trace-trust.",
                ),
                "ops",
                NEUTRAL,
                Query(total("obsserve_trace_context_invalid_total", "reason"), "{{reason}}"),
                Query(total("obsserve_trace_context_untrusted_total"), "flag not believed"),
                width=6,
                links=_LINKS,
            ),
            lines(
                "Price by signal",
                Doc(
                    "CPU seconds each second that each signal costs.",
                    "Stacked: the height is all of telemetry.",
                    "One signal far above the others.",
                    "Sample traces, sample logs, --metrics-profile.",
                ),
                "percentunit",
                NEUTRAL,
                Query(total("obsserve_telemetry_self_seconds_total", "signal"), "{{signal}}"),
                width=6,
                links=_LINKS,
                stacked=True,
            ),
            lines(
                "Price of a request",
                Doc(
                    "Seconds of CPU that each signal costs for one request.",
                    "Microseconds.",
                    "Growth with the same load.",
                    "More log fields, larger headers captured?",
                ),
                "s",
                NEUTRAL,
                Query(
                    f"{total('obsserve_telemetry_self_seconds_total', 'signal')} / ignoring (signal) group_left "
                    f"{total('http_server_request_duration_seconds_count')}",
                    "{{signal}}",
                ),
                width=6,
                links=_LINKS,
            ),
        ),
    )


def _metrics() -> Row:
    return Row(
        "Metrics",
        (
            lines(
                "Duration of scrapes",
                Doc(
                    "How long the last scrape took inside the server, and as Prometheus saw it.",
                    "The difference is the network.",
                    "Above 1 s.",
                    "Runbook of ObsserveScrapeSlow.",
                ),
                "s",
                rising(0.5, 1),
                Query(
                    f"max by (instance) ({series('obsserve_metrics_scrape_duration_seconds')})",
                    "inside {{instance}}",
                ),
                Query(f"max by (instance) ({series('scrape_duration_seconds')})", "Prometheus {{instance}}"),
                links=_LINKS,
            ),
            lines(
                "Series by instance",
                Doc(
                    "Series in each instance's exposition.",
                    "Flat after the first minutes.",
                    "Growth that does not end.",
                    "Runbook of ObsserveMetricsOverflow.",
                ),
                "short",
                NEUTRAL,
                Query(series("obsserve_metrics_series"), "{{instance}}"),
                links=_LINKS,
            ),
            lines(
                "Scrapes and their errors",
                Doc(
                    "Scrapes each second by format; collectors that failed; snapshots that could not be read.",
                    "openmetrics has exemplars, text has not.",
                    "Errors at all: a collector of the application raises.",
                    "The log event metrics.collector_failed names it.",
                ),
                "ops",
                NEUTRAL,
                Query(total("obsserve_metrics_scrapes_total", "format"), "{{format}}"),
                Query(total("obsserve_metrics_scrape_errors_total"), "errors"),
                Query(total("obsserve_metrics_snapshot_errors_total"), "snapshot errors"),
                links=_LINKS,
                overrides=(colored("errors", RED),),
            ),
        ),
    )


def _over_otlp() -> Row:
    return Row(
        "Log records and metrics over OTLP",
        (
            lines(
                "Log records exported and lost",
                Doc(
                    "Log records exported over OTLP each second, lost in failed exports by error, and dropped before an export.",
                    "Only the unnamed line should be there. Where the lines go otherwise is not concerned.",
                    "Any named line.",
                    "Runbook of ObsserveLogExportFailing.",
                ),
                "ops",
                NEUTRAL,
                Query(total("otel_sdk_exporter_log_exported_total", "error_type"), "exported {{error_type}}"),
                Query(
                    total("otel_sdk_processor_log_processed_total", "error_type", only=ERRORED),
                    "dropped {{error_type}}",
                ),
                links=_LINKS,
                overrides=(colored("^exported .+|^dropped", RED),),
                width=6,
            ),
            lines(
                "Queue of log records for OTLP",
                Doc(
                    "Share of the queue that is filled, and log records in the export under way.",
                    "Near empty: the collector keeps up.",
                    f"Above {CONFIG.near_limit:.0%}: records will be dropped, those of errors last.",
                    "Runbook of ObsserveLogExportFailing.",
                ),
                "percentunit",
                rising(0.5, CONFIG.near_limit),
                Query(
                    f"{now('otel_sdk_processor_log_queue_size')} / {now('otel_sdk_processor_log_queue_capacity')}",
                    "queue",
                ),
                Query(now("otel_sdk_exporter_log_inflight"), "in export"),
                links=_LINKS,
                overrides=(counted("^in export"),),
                width=6,
            ),
            lines(
                "Data points pushed and lost",
                Doc(
                    "Data points of metrics that were pushed over OTLP each second, those lost by error, and those on their way.",
                    "Only the unnamed line should be there. What is pushed is cumulative: a push that is lost costs no count.",
                    "Any named line.",
                    "Runbook of ObsserveMetricPushFailing.",
                ),
                "ops",
                NEUTRAL,
                Query(
                    total("otel_sdk_exporter_metric_data_point_exported_total", "error_type"),
                    "pushed {{error_type}}",
                ),
                Query(now("otel_sdk_exporter_metric_data_point_inflight"), "in the push"),
                links=_LINKS,
                overrides=(colored("^pushed .+", RED), counted("^in the push")),
                width=6,
            ),
            lines(
                "Time to collect a push",
                Doc(
                    "Median, p95 and p99 of how long it took to read the figures of a push.",
                    "It runs beside the requests and delays none.",
                    "Above 1 s: a worker does not answer for its application's metrics.",
                    "Panel: oldest snapshot.",
                ),
                "s",
                rising(0.5, 1),
                *quantiles(total("otel_sdk_metric_reader_collection_duration_seconds_bucket", "le")),
                links=_LINKS,
                overrides=QUANTILE_COLORS,
                width=6,
            ),
        ),
    )


def build() -> Json:
    """Return the page."""
    return page(
        "telemetry",
        "Is what the other pages show complete, and what does it cost.",
        (_verdict(), _logs(), _spans(), _metrics(), _over_otlp()),
    )
