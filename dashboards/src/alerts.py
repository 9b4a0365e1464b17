"""The alerts: symptoms page, causes warn. Each with its runbook and with series that fire it and that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from .config import CONFIG
from .promql import REQUESTS, TTFB

Series = dict[str, str]  # selector without job and instance → values, one each minute


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Args:
        name: without the prefix Obsserve.
        severity: critical pages, warning and info do not.
        hold: for how long the expression must hold.
        expr: PromQL.
        summary: one line, with the labels.
        value: how `$value` reads in the description.
        page: the dashboard to open.
        meaning: what it means for users.
        look: expressions to look at next.
        remedy: what to do.
        fires: series that fire it.
        quiet: series that do not.
        at: when to look at them.
    """

    name: str
    severity: Literal["critical", "warning", "info"]
    hold: str
    expr: str
    summary: str
    value: str
    page: str
    meaning: str
    look: tuple[str, ...]
    remedy: str
    fires: Series
    quiet: Series
    at: str = "30m"
    labels: tuple[tuple[str, str], ...] = ()


_BY: Final = "sum by (job, instance)"
_REQUEST_OK: Final = f'{REQUESTS}{{http_response_status_code="200"}}'
_REQUEST_BAD: Final = f'{REQUESTS}{{http_response_status_code="500", error_type="500"}}'


def _increase(metric: str, window: str, by: str = "job, instance", only: str = "") -> str:
    return f"sum by ({by}) (increase({metric}{{{only}}}[{window}]))".replace("{}", "")


def _burn() -> list[Alert]:
    pairs = (
        (14.4, "1h", "5m", "2m", "critical"),
        (6, "6h", "30m", "15m", "critical"),
        (3, "1d", "2h", "1h", "warning"),
        (1, "3d", "6h", "3h", "warning"),
    )
    slow = f"{TTFB}_count", f'{TTFB}_bucket{{le="{CONFIG.latency_bound}"}}'
    kinds: tuple[tuple[str, str, float, Series, Series], ...] = (
        (
            "ErrorBudgetBurn",
            "errors",
            1 - CONFIG.availability,
            {_REQUEST_OK: "0+60x300", _REQUEST_BAD: "0+20x300"},
            {_REQUEST_OK: "0+60x300", _REQUEST_BAD: "0x300"},
        ),
        (
            "LatencyBudgetBurn",
            "ttfb_slow",
            1 - CONFIG.latency,
            {_REQUEST_OK: "0+60x300", slow[0]: "0+60x300", slow[1]: "0+30x300"},
            {_REQUEST_OK: "0+60x300", slow[0]: "0+60x300", slow[1]: "0+60x300"},
        ),
    )
    found: list[Alert] = []
    for name, kind, budget, fires, quiet in kinds:
        for factor, long, short, hold, severity in pairs:
            bound = f"{factor * budget:.6g}"
            found.append(
                Alert(
                    name,
                    "critical" if severity == "critical" else "warning",
                    hold,
                    f"job:obsserve_{kind}:ratio_rate{long} > {bound} and job:obsserve_{kind}:ratio_rate{short} > {bound}"
                    f" and on (job) job:obsserve_requests:rate5m > {CONFIG.minimum_rate}",
                    f"{{{{ $labels.job }}}} spends its budget of {kind} {factor:g} times too fast",
                    f"{{{{ $value | humanizePercentage }}}} over {long}",
                    "overview",
                    "Users see failures, or wait too long, more often than the objective allows.",
                    (
                        f"job:obsserve_{kind}:ratio_rate5m",
                        f'topk(5, sum by (http_route, error_type) (rate({REQUESTS}{{error_type!=""}}[5m])))',
                        f"topk(5, histogram_quantile(0.95, sum by (http_route, le) (rate({TTFB}_bucket[5m]))))",
                    ),
                    "Find the route and the error type, roll back what was deployed, shed load if it is overload.",
                    fires,
                    quiet,
                    "5h",
                    (("long", long), ("short", short)),
                )
            )
    return found


def alerts() -> list[Alert]:
    """Return every alert."""
    restarts = 'reason=~"crash|exit_code|signal|oom_kill|unresponsive|startup_failed"'
    exported = "otel_sdk_exporter_span_exported_total"
    return [
        Alert(
            "Down",
            "critical",
            "5m",
            "up == 0 and on (job, instance) last_over_time(obsserve_build_info[1d]) or absent(obsserve_build_info)",
            "{{ $labels.instance }} of {{ $labels.job }} does not answer scrapes",
            "up = {{ $value }}",
            "overview",
            "Nothing is known of this instance; most likely it serves nobody.",
            ("up", "last_over_time(obsserve_build_info[1d])"),
            "Is the process there (`ps`), does the metrics port answer (`curl -sS $OBSSERVE/livez`), what was its last log line?",
            {"up": "1x5 0x30", "obsserve_build_info": "1x5 _x30"},
            {"up": "1x40", "obsserve_build_info": "1x40"},
        ),
        Alert(
            "NotReady",
            "critical",
            "2m",
            "obsserve_ready == 0",
            "{{ $labels.instance }} is not ready",
            "ready = {{ $value }}",
            "workers",
            "Load balancers send this instance nothing.",
            ("obsserve_ready", "obsserve_workers"),
            "`curl -sS $OBSSERVE/readyz` names the reasons: starting, draining, unresponsive, no_ready_workers.",
            {"obsserve_ready": "0x40"},
            {"obsserve_ready": "1x40"},
        ),
        Alert(
            "WorkersMissing",
            "warning",
            "5m",
            f'{_BY} (obsserve_workers{{state="ready"}}) < {_BY} (obsserve_workers_desired)',
            "{{ $labels.instance }} has fewer ready workers than wanted",
            "{{ $value }} ready",
            "workers",
            "Less capacity than configured.",
            ("obsserve_workers", "increase(obsserve_worker_restarts_total[1h])"),
            "The log event worker.exit says why a worker left; restarts by reason.",
            {'obsserve_workers{state="ready"}': "1x40", "obsserve_workers_desired": "2x40"},
            {'obsserve_workers{state="ready"}': "2x40", "obsserve_workers_desired": "2x40"},
        ),
        Alert(
            "WorkerCrashLooping",
            "critical",
            "0m",
            f"{_increase('obsserve_worker_restarts_total', '15m', only=restarts)} > 3",
            "Workers of {{ $labels.instance }} crash again and again",
            "{{ $value }} in 15 minutes",
            "workers",
            "Requests in those workers are lost at each crash.",
            ("sum by (reason) (increase(obsserve_worker_restarts_total[15m]))",),
            "oom_kill: more memory or --max-rss; signal or exit_code: see worker.exit in the log; roll back.",
            {'obsserve_worker_restarts_total{reason="crash"}': "0+1x40"},
            {'obsserve_worker_restarts_total{reason="max_requests"}': "0+1x40"},
        ),
        Alert(
            "WorkerUnresponsive",
            "critical",
            "1m",
            "time() - obsserve_worker_last_heartbeat_timestamp_seconds > 10",
            "Worker {{ $labels.worker }} of {{ $labels.instance }} does not answer",
            "{{ $value | humanizeDuration }} since its last heartbeat",
            "workers",
            "Every request on that worker hangs.",
            ("time() - obsserve_worker_last_heartbeat_timestamp_seconds", "obsserve_worker_pid"),
            "The log event loop.stall has the stack that blocks the loop.",
            {'obsserve_worker_last_heartbeat_timestamp_seconds{worker="0"}': "0x40"},
            {'obsserve_worker_last_heartbeat_timestamp_seconds{worker="0"}': "0+60x40"},
        ),
        Alert(
            "StartupFailing",
            "warning",
            "0m",
            f"{_increase('obsserve_lifespan_failures_total', '10m')} > 0",
            "The application of {{ $labels.instance }} fails in its lifespan",
            "{{ $value }} failures",
            "workers",
            "A new version does not come up.",
            ("obsserve_lifespan_failures_total",),
            "The traceback is in the server's log; roll back.",
            {'obsserve_lifespan_failures_total{phase="startup"}': "0+1x40"},
            {'obsserve_lifespan_failures_total{phase="startup"}': "0x40"},
        ),
        Alert(
            "EventLoopLagHigh",
            "warning",
            "5m",
            f"histogram_quantile(0.99, sum by (job, instance, worker, le) (rate(obsserve_event_loop_lag_seconds_bucket[5m]))) > {CONFIG.lag_bound}",
            "The event loop of worker {{ $labels.worker }} on {{ $labels.instance }} is late",
            "p99 {{ $value | humanizeDuration }}",
            "workers",
            "All requests of that worker wait that long.",
            ("obsserve_event_loop_lag_max_seconds", "rate(process_cpu_seconds_total[5m])"),
            "Lag without CPU is a blocking call: look for loop.stall. With CPU: too much work, add workers.",
            {
                'obsserve_event_loop_lag_seconds_bucket{worker="0", le="0.25"}': "0x40",
                'obsserve_event_loop_lag_seconds_bucket{worker="0", le="1"}': "0+600x40",
                'obsserve_event_loop_lag_seconds_bucket{worker="0", le="+Inf"}': "0+600x40",
            },
            {
                'obsserve_event_loop_lag_seconds_bucket{worker="0", le="0.25"}': "0+600x40",
                'obsserve_event_loop_lag_seconds_bucket{worker="0", le="+Inf"}': "0+600x40",
            },
        ),
        Alert(
            "EventLoopStalled",
            "warning",
            "0m",
            f"{_increase('obsserve_event_loop_stalls_total', '5m', 'job, instance, worker')} > 0",
            "The event loop of worker {{ $labels.worker }} on {{ $labels.instance }} was blocked",
            "{{ $value }} stalls",
            "workers",
            "Requests of that worker stood still for more than a second.",
            ("increase(obsserve_event_loop_stalls_total[1h])",),
            "The log event loop.stall has the stack: move that call to a thread.",
            {'obsserve_event_loop_stalls_total{worker="0"}': "0+1x40"},
            {'obsserve_event_loop_stalls_total{worker="0"}': "3x40"},
        ),
        Alert(
            "ConcurrencyNearLimit",
            "warning",
            "10m",
            f'{_BY} (http_server_active_requests) / {_BY} (obsserve_limit{{limit="concurrency"}}) > {CONFIG.near_limit}',
            "{{ $labels.instance }} is near its limit of concurrent requests",
            "{{ $value | humanizePercentage }} of the limit",
            "connections",
            "The next peak is answered 503.",
            ("http_server_active_requests", "obsserve_limit"),
            "More workers or instances; a faster dependency; only then a higher limit.",
            {"http_server_active_requests": "9x40", 'obsserve_limit{limit="concurrency"}': "10x40"},
            {"http_server_active_requests": "5x40", 'obsserve_limit{limit="concurrency"}': "10x40"},
        ),
        Alert(
            "RejectingRequests",
            "critical",
            "2m",
            'sum by (job) (rate(obsserve_http_rejected_requests_total{reason!="draining"}[2m])) > 0',
            "{{ $labels.job }} rejects requests",
            "{{ $value }} a second",
            "overview",
            "Users get 503.",
            (
                "sum by (reason) (rate(obsserve_http_rejected_requests_total[5m]))",
                "http_server_active_requests",
            ),
            "Which limit, is it load or slowness? Add capacity or speed up what requests wait for.",
            {'obsserve_http_rejected_requests_total{reason="concurrency_limit"}': "0+9x40"},
            {'obsserve_http_rejected_requests_total{reason="draining"}': "0+9x40"},
        ),
        Alert(
            "FdsNearLimit",
            "warning",
            "5m",
            f"process_open_fds / process_max_fds > {CONFIG.near_limit} and on (job, instance) obsserve_build_info",
            "{{ $labels.instance }} runs out of file descriptors",
            "{{ $value | humanizePercentage }} used",
            "workers",
            "Soon no connection can be accepted.",
            ("process_open_fds", "obsserve_connections_open"),
            "Raise LimitNOFILE; find the leak with `ls -l /proc/PID/fd`.",
            {
                'process_open_fds{worker="0"}': "900x40",
                'process_max_fds{worker="0"}': "1024x40",
                "obsserve_build_info": "1x40",
            },
            {
                'process_open_fds{worker="0"}': "90x40",
                'process_max_fds{worker="0"}': "1024x40",
                "obsserve_build_info": "1x40",
            },
        ),
        Alert(
            "AppProtocolErrors",
            "warning",
            "5m",
            "sum by (job, reason) (rate(obsserve_http_app_protocol_errors_total[5m])) > 0",
            "The application of {{ $labels.job }} breaks ASGI: {{ $labels.reason }}",
            "{{ $value }} a second",
            "routes",
            "Those requests get a 500 or a broken reply.",
            ("sum by (reason) (rate(obsserve_http_app_protocol_errors_total[5m]))",),
            "The access lines with that termination_detail name the route.",
            {'obsserve_http_app_protocol_errors_total{reason="no_response"}': "0+6x40"},
            {'obsserve_http_app_protocol_errors_total{reason="no_response"}': "6x40"},
        ),
        Alert(
            "LogsDropped",
            "warning",
            "0m",
            'sum by (job, instance, stream) (rate(obsserve_log_records_total{result="dropped"}[5m])) > 0',
            "{{ $labels.instance }} drops log records",
            "{{ $value }} a second",
            "telemetry",
            "The logs are not complete; requests are not affected.",
            ("obsserve_log_queue_records", "rate(obsserve_log_records_total[5m])"),
            "Whoever reads standard output is too slow, or the disk is full.",
            {'obsserve_log_records_total{stream="access", result="dropped"}': "0+6x40"},
            {'obsserve_log_records_total{stream="access", result="written"}': "0+6x40"},
        ),
        Alert(
            "LogWriteErrors",
            "warning",
            "0m",
            "sum by (job, instance, error) (rate(obsserve_log_write_errors_total[5m])) > 0",
            "{{ $labels.instance }} cannot write its log: {{ $labels.error }}",
            "{{ $value }} a second",
            "telemetry",
            "Log lines are lost.",
            ("rate(obsserve_log_write_errors_total[5m])",),
            "enospc: `df -h`; epipe: the reader has gone.",
            {'obsserve_log_write_errors_total{error="enospc"}': "0+6x40"},
            {'obsserve_log_write_errors_total{error="enospc"}': "6x40"},
        ),
        Alert(
            "SpansDropped",
            "warning",
            "5m",
            f'{_BY} (rate(otel_sdk_processor_span_processed_total{{error_type!=""}}[5m])) > 0',
            "{{ $labels.instance }} drops spans",
            "{{ $value }} a second",
            "telemetry",
            "Traces are not complete; requests are not affected.",
            ("otel_sdk_processor_span_queue_size", "otel_sdk_processor_span_queue_capacity"),
            "A slow collector, or too many spans: sample, or raise OTEL_BSP_MAX_QUEUE_SIZE.",
            {'otel_sdk_processor_span_processed_total{error_type="queue_full"}': "0+6x40"},
            {"otel_sdk_processor_span_processed_total": "0+6x40"},
        ),
        Alert(
            "ExporterFailing",
            "warning",
            "10m",
            f'{_BY} (rate({exported}{{error_type!=""}}[5m])) / {_BY} (rate({exported}[5m])) > 0.5',
            "{{ $labels.instance }} cannot export spans",
            "{{ $value | humanizePercentage }} fail",
            "telemetry",
            "Traces are lost.",
            (f"sum by (error_type) (rate({exported}[5m]))",),
            "Does the collector listen at the configured endpoint? The error_type is a gRPC code, a status or an exception.",
            {exported + '{error_type="UNAVAILABLE"}': "0+6x40"},
            {exported: "0+6x40"},
        ),
        Alert(
            "MetricsOverflow",
            "warning",
            "0m",
            "sum by (job, instance, metric) (increase(obsserve_metrics_overflow_total[10m])) > 0",
            "{{ $labels.metric }} of {{ $labels.instance }} has too many label sets",
            "{{ $value }} observations",
            "telemetry",
            "New label sets are counted together.",
            ("obsserve_metrics_series",),
            "Set templates of routes, not paths; see set_route() in docs/telemetry.md.",
            {'obsserve_metrics_overflow_total{metric="x"}': "0+6x40"},
            {'obsserve_metrics_overflow_total{metric="x"}': "6x40"},
        ),
        Alert(
            "ScrapeSlow",
            "warning",
            "5m",
            "obsserve_metrics_scrape_duration_seconds > 1",
            "Scraping {{ $labels.instance }} is slow",
            "{{ $value | humanizeDuration }}",
            "telemetry",
            "Metrics may time out.",
            ("obsserve_metrics_series",),
            "Fewer series, or a slow collector of the application.",
            {"obsserve_metrics_scrape_duration_seconds": "2x40"},
            {"obsserve_metrics_scrape_duration_seconds": "0.01x40"},
        ),
        Alert(
            "ReloadFailed",
            "warning",
            "0m",
            "obsserve_config_last_reload_successful == 0",
            "The last reload of {{ $labels.instance }} failed",
            "successful = {{ $value }}",
            "workers",
            "It goes on with the old configuration.",
            ("obsserve_config_reloads_total",),
            "`obsserve --check-config` says what is wrong.",
            {"obsserve_config_last_reload_successful": "0x40"},
            {"obsserve_config_last_reload_successful": "1x40"},
        ),
        Alert(
            "VersionSkew",
            "warning",
            "1h",
            "count by (job) (count by (job, version) (obsserve_build_info)) > 1",
            "{{ $labels.job }} runs several versions",
            "{{ $value }} versions",
            "overview",
            "A deploy has stopped half-way.",
            ("count by (instance, version) (obsserve_build_info)",),
            "Finish it, or roll back.",
            {'obsserve_build_info{version="1"}': "1x200", 'obsserve_build_info{version="2"}': "1x200"},
            {'obsserve_build_info{version="1"}': "1x200"},
            "3h",
        ),
        *_burn(),
    ]
