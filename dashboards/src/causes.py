"""Alerts on causes: what is about to become a symptom, by resource. They warn and never page."""

from __future__ import annotations

from typing import Final

from .alert import BY, Alert, Series, access, event, increase
from .config import CONFIG
from .promql import REQUESTS, TTFB

_REQUEST: Final = f'{REQUESTS}{{http_response_status_code="200"}}'
_MANY: Final[Series] = {_REQUEST: "0+60x2000"}
# Of RFC 6455 and its registry: those that tell of a failure.
_ABNORMAL: Final = 'code=~"1002|1006|1007|1008|1009|1011"'


def _quantile(histogram: str, share: float, by: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({histogram}_bucket[5m])))"


def _slow(histogram: str, bound: str, *, labels: str = "", bad: bool) -> Series:
    """Return a histogram of which all observations lie above, or all below, a bound."""
    between = f"{labels}, " if labels else ""
    below = "0x40" if bad else "0+60x40"
    return {
        f'{histogram}_bucket{{{between}le="{bound}"}}': below,
        f'{histogram}_bucket{{{between}le="{float(bound) * 5:g}"}}': "0+60x40",
        f'{histogram}_bucket{{{between}le="+Inf"}}': "0+60x40",
    }


def _runtime() -> list[Alert]:
    resident = "process_resident_memory_bytes"
    requests = "obsserve_worker_requests_total"
    each = f"rate({requests}[10m])"
    return [
        Alert(
            "GcPauseHigh",
            "warning",
            "5m",
            f"{_quantile('obsserve_gc_pause_seconds', 0.99, 'job, instance, generation')} > {CONFIG.pause_bound}",
            "Garbage collections of {{ $labels.instance }} take long",
            "p99 {{ $value | humanizeDuration }} in generation {{ $labels.generation }}",
            "workers",
            "Every request of that worker waits for the collection.",
            (
                "sum by (generation) (rate(obsserve_gc_pause_seconds_sum[5m]))",
                "sum by (generation) (rate(python_gc_collections_total[5m]))",
            ),
            "gc.freeze() after start-up keeps what was loaded out of the collections; then fewer cyclic objects.",
            _slow("obsserve_gc_pause_seconds", "0.1", labels='generation="2"', bad=True),
            _slow("obsserve_gc_pause_seconds", "0.1", labels='generation="2"', bad=False),
        ),
        Alert(
            "QueueWaitHigh",
            "warning",
            "5m",
            f"{_quantile('obsserve_http_queue_seconds', 0.95, 'job, instance')} > {CONFIG.queue_bound}",
            "Requests of {{ $labels.instance }} wait before the application starts",
            "p95 {{ $value | humanizeDuration }}",
            "workers",
            "The event loops have more to do than they can: every request is late by that much.",
            (
                "max by (instance, worker) (obsserve_event_loop_lag_max_seconds)",
                "sum by (instance, worker) (rate(process_cpu_seconds_total[5m]))",
                "sum by (instance) (http_server_active_requests)",
            ),
            "More workers while there are cores, then instances; less work on the loop.",
            _slow("obsserve_http_queue_seconds", "0.1", bad=True),
            _slow("obsserve_http_queue_seconds", "0.1", bad=False),
            commands=(access(".queue_seconds // 0 > 0.1"),),
        ),
        Alert(
            "MemoryGrowth",
            "warning",
            "1h",
            f"predict_linear({resident}[6h], 86400) > 2 * {resident}"
            f" and {resident} - {resident} offset 6h > {64 << 20}"
            " and on (job, instance, worker) time() - process_start_time_seconds > 21600"
            " and on (job, instance) obsserve_build_info",
            "Worker {{ $labels.worker }} of {{ $labels.instance }} grows without end",
            "{{ $value | humanize1024 }}B in a day, if it goes on",
            "workers",
            "The machine runs out of memory; then the kernel kills a worker with its requests.",
            (
                "process_resident_memory_bytes",
                "delta(process_resident_memory_bytes[6h])",
                "rate(python_gc_objects_uncollectable_total[1h])",
                "obsserve_event_loop_tasks",
            ),
            "--limit-max-requests recycles workers meanwhile; tracemalloc in a test finds the leak.",
            {
                f'{resident}{{worker="0"}}': "100000000+1000000x600",
                'process_start_time_seconds{worker="0"}': "0x600",
                "obsserve_build_info": "1x600",
            },
            {
                f'{resident}{{worker="0"}}': "100000000+1000x600",
                'process_start_time_seconds{worker="0"}': "0x600",
                "obsserve_build_info": "1x600",
            },
            "9h",
        ),
        Alert(
            "WorkerImbalance",
            "info",
            "30m",
            f"max by (job, instance) ({each}) / avg by (job, instance) ({each}) > {CONFIG.imbalance}"
            f" and max by (job, instance) ({each}) > 1",
            "One worker of {{ $labels.instance }} does the work of the others",
            "the busiest has {{ $value | humanize }} times the mean",
            "workers",
            "Its requests wait while other workers are idle.",
            (
                "sum by (instance, worker) (rate(obsserve_worker_requests_total[10m]))",
                "sum by (instance, worker) (obsserve_worker_connections_open)",
            ),
            "Few long-lived connections: shorter --timeout-keep-alive, or a proxy that spreads requests.",
            {f'{requests}{{worker="0"}}': "0+600x90", f'{requests}{{worker="1"}}': "0+6x90"},
            {f'{requests}{{worker="0"}}': "0+600x90", f'{requests}{{worker="1"}}': "0+500x90"},
            "80m",
        ),
    ]


def _connections() -> list[Alert]:
    backlog = "obsserve_listener_backlog_connections"
    here = 'listener="127.0.0.1:8000"'
    interrupted = "obsserve_drain_interrupted_requests_total"
    return [
        Alert(
            "BacklogGrowing",
            "warning",
            "2m",
            f"min_over_time({backlog}[5m]) > 0",
            "Connections to {{ $labels.listener }} of {{ $labels.instance }} wait in the kernel",
            "never fewer than {{ $value }} in 5 minutes",
            "connections",
            "New clients wait before anybody sees them; when the backlog is full they are refused.",
            (
                "obsserve_listener_backlog_connections",
                "sum by (instance) (rate(obsserve_connections_accepted_total[5m]))",
                "max by (instance, worker) (obsserve_event_loop_lag_max_seconds)",
            ),
            "The loops do not come to accept: see their lag and CPU; more workers or instances.",
            {f"{backlog}{{{here}}}": "0x5 7x40"},
            {f"{backlog}{{{here}}}": "0 0 7 0 0 7 0 0 9 0 0 0 0 7 7 0 0 0 0 7 0 0 7 0 0 0 0 7 0 0 7 0"},
        ),
        Alert(
            "AcceptErrors",
            "warning",
            "0m",
            f"{increase('obsserve_accept_errors_total', '5m', 'job, instance, error')} > 0",
            "{{ $labels.instance }} cannot accept connections: {{ $labels.error }}",
            "{{ $value }} in 5 minutes",
            "connections",
            "Clients wait in the backlog or are refused.",
            ("process_open_fds", "process_max_fds", "sum by (state) (obsserve_connections_open)"),
            "emfile: raise LimitNOFILE or find the leak; enfile: the whole machine has none left.",
            {'obsserve_accept_errors_total{error="emfile"}': "0+1x40"},
            {'obsserve_accept_errors_total{error="emfile"}': "3x40"},
            commands=('grep "open files" "/proc/$PID/limits"',),
        ),
        Alert(
            "ConnectionsNearLimit",
            "warning",
            "5m",
            f'{BY} (obsserve_connections_open) / {BY} (obsserve_limit{{limit="connections"}}) > {CONFIG.near_limit}',
            "{{ $labels.instance }} is near its limit of connections",
            "{{ $value | humanizePercentage }} of the limit",
            "connections",
            "The next clients are answered 503.",
            ("sum by (state) (obsserve_connections_open)", "obsserve_limit"),
            "Idle ones: shorter --timeout-keep-alive. Active ones: more instances, or a higher limit.",
            {
                'obsserve_connections_open{state="idle"}': "90x40",
                'obsserve_limit{limit="connections"}': "100x40",
            },
            {
                'obsserve_connections_open{state="idle"}': "20x40",
                'obsserve_limit{limit="connections"}': "100x40",
            },
        ),
        Alert(
            "DrainInterrupted",
            "warning",
            "0m",
            f"{increase(interrupted, '15m')} > 0",
            "{{ $labels.instance }} ended requests when its grace was over",
            "{{ $value }} in 15 minutes",
            "connections",
            "Those clients got a 503 or a reply that was cut short.",
            (f"increase({interrupted}[1h])", "increase(obsserve_worker_restarts_total[1h])"),
            "Raise --timeout-graceful-shutdown (and terminationGracePeriodSeconds) above the slowest request.",
            {interrupted: "0+1x40"},
            {interrupted: "4x40"},
            commands=(access('.outcome == "shutdown"'),),
        ),
    ]


def _application() -> list[Alert]:
    seen = "sum by (job, exception_type) (obsserve_http_app_exceptions_total)"
    before = (
        "sum by (job, exception_type) (last_over_time(obsserve_http_app_exceptions_total[1d] offset 10m))"
    )
    rate = "sum by (job, exception_type) (rate(obsserve_http_app_exceptions_total[{window}]))"
    raised = 'obsserve_http_app_exceptions_total{exception_type="KeyError", phase="before_response"}'
    return [
        Alert(
            "AppExceptions",
            "warning",
            "0m",
            f"{seen} > 0 unless {before} > 0 and on (job) group by (job) (obsserve_build_info offset 10m)"
            f" or {rate.format(window='10m')} > 5 * {rate.format(window='1d')}"
            f" and {rate.format(window='10m')} > {CONFIG.minimum_rate}",
            "{{ $labels.exception_type }} is new in {{ $labels.job }}, or much more frequent than in the last day",
            "{{ $value }} (so many, or so many a second)",
            "routes",
            "Those requests fail with a 500 or a reply that is cut short.",
            ("topk(5, sum by (exception_type, phase) (rate(obsserve_http_app_exceptions_total[5m])))",),
            "The log event app.exception has the traceback; was something deployed?",
            {raised: "_x20 1+3x20", "obsserve_build_info": "1x40"},
            {raised: "1+1x40", "obsserve_build_info": "1x40"},
            "25m",
            commands=(event("app.exception"), access('.outcome == "app_error"')),
        ),
    ]


def _clients() -> list[Alert]:
    requests = f"sum by (job) (rate({REQUESTS}[10m]))"
    found: list[Alert] = []
    for name, metric, label, meaning, remedy in (
        (
            "ClientDisconnectSpike",
            "obsserve_http_client_disconnects_total",
            'phase="waiting"',
            "Clients give up: responses are too slow for them, or something between cuts connections.",
            "phase waiting: they lost patience, see the time to first byte; phase response: a proxy's time limit.",
        ),
        (
            "ProtocolErrorSpike",
            "obsserve_http_protocol_errors_total",
            'reason="bad_header"',
            "What arrives is not HTTP as it should be: a scanner, a broken client, or a broken proxy.",
            "network_peer_address of those access lines: one address is a scanner, all of them a proxy.",
        ),
    ):
        ratio = f"sum by (job) (rate({metric}[10m])) / {requests}"
        key = metric + "{" + label + "}"
        wanted = label.partition("=")[0]
        condition = (
            '.outcome == "client_disconnected"' if "disconnects" in metric else '.outcome == "protocol_error"'
        )
        found.append(
            Alert(
                name,
                "warning",
                "10m",
                f"{ratio} > 0.1 unless {ratio} < 3 * ({ratio.replace('[10m]', '[10m] offset 1d')})"
                f" and on (job) {requests} > {CONFIG.minimum_rate}",
                f"{'Clients leave' if 'disconnects' in metric else 'Malformed requests come to'} {{{{ $labels.job }}}}"
                " far more often than yesterday",
                "{{ $value | humanizePercentage }} of requests",
                "connections",
                meaning,
                (f"sum by ({wanted}) (rate({metric}[5m]))", _quantile(TTFB, 0.95, "job")),
                remedy,
                {key: "0x1440 0+20x60", **_MANY},
                {key: "0+20x1500", **_MANY},
                "1485m",
                commands=(access(condition),),
            )
        )
    opened, closes = "obsserve_websocket_connections_open", "obsserve_websocket_closes_total"
    return [
        *found,
        Alert(
            "WebsocketAbnormalCloses",
            "warning",
            "10m",
            f"sum by (job) (rate({closes}{{{_ABNORMAL}}}[10m])) / sum by (job) (rate({closes}[10m])) > 0.25"
            f" and on (job) sum by (job) (rate({closes}[10m])) > {CONFIG.minimum_rate}",
            "WebSockets of {{ $labels.job }} end abnormally",
            "{{ $value | humanizePercentage }} of those that end",
            "websockets",
            "Clients lose their session and come again, all at once.",
            (
                f"sum by (code, initiator) (rate({closes}[5m]))",
                "rate(obsserve_websocket_ping_timeouts_total[5m])",
            ),
            "1006: cut on the way, see the proxy's time limits; 1011: the application failed, see app.exception.",
            {f'{closes}{{code="1006", initiator="none"}}': "0+6x40"},
            {
                f'{closes}{{code="1000", initiator="client"}}': "0+6x40",
                f'{closes}{{code="1006", initiator="none"}}': "0x40",
            },
            commands=(access('.event == "websocket.session" and .websocket_close_code == 1006'),),
        ),
        Alert(
            "WebsocketConnectionsDropped",
            "warning",
            "1m",
            f"sum by (job) ({opened}) < 0.5 * sum by (job) ({opened} offset 5m)"
            f" and on (job) sum by (job) ({opened} offset 5m) > 20",
            "WebSockets of {{ $labels.job }} fell by more than half within 5 minutes",
            "{{ $value }} are left",
            "websockets",
            "Users were cut off; they may come again in a herd.",
            (f"sum by (job) ({opened})", "increase(obsserve_worker_restarts_total[10m])"),
            "A restart, a proxy, or the network: the closes by code say who ended them.",
            {f'{opened}{{http_route="/ws"}}': "100x25 10x20"},
            {f'{opened}{{http_route="/ws"}}': "100x25 90x20"},
            "28m",
        ),
    ]


def _telemetry() -> list[Alert]:
    queue, capacity = "otel_sdk_processor_span_queue_size", "otel_sdk_processor_span_queue_capacity"
    failed = "obsserve_metrics_scrape_errors_total"
    spent, used = "obsserve_telemetry_self_seconds_total", "process_cpu_seconds_total"
    age = "obsserve_metrics_snapshot_age_seconds"
    return [
        Alert(
            "TelemetryExpensive",
            "warning",
            "15m",
            f"{BY} (rate({spent}[5m])) / {BY} (rate({used}[5m])) > {CONFIG.telemetry_share}"
            f" and {BY} (rate({used}[5m])) > 0.1",
            "Telemetry takes much of the processor on {{ $labels.instance }}",
            "{{ $value | humanizePercentage }} of the time that the processes use",
            "telemetry",
            "The same machine could serve more requests.",
            (f"sum by (signal) (rate({spent}[5m]))", f"sum by (instance) (rate({used}[5m]))"),
            "tracing: a smaller --trace-sample-ratio; access_log: fewer of --log-request-header and --log-response-header, or "
            "--log-sample-ratio; metrics: fewer routes.",
            {f'{spent}{{signal="tracing"}}': "0+12x60", f'{used}{{worker="0"}}': "0+30x60"},
            {f'{spent}{{signal="tracing"}}': "0+1x60", f'{used}{{worker="0"}}': "0+30x60"},
            "50m",
        ),
        Alert(
            "SnapshotStale",
            "warning",
            "1m",
            f"{age} > 30",
            "Metrics of the application in worker {{ $labels.worker }} of {{ $labels.instance }} are old",
            "{{ $value | humanizeDuration }} old",
            "telemetry",
            "What the application counts itself stands still; the server's own metrics do not.",
            (
                age,
                "time() - (obsserve_worker_last_heartbeat_timestamp_seconds > 0)",
                "obsserve_worker_pid",
            ),
            "Heartbeat old, state T or D in ps: the process is stopped or waits for a disk. Heartbeat fresh: a collector that the "
            "application gave to prometheus_client's registry does not return (a blocked event loop is no cause: a thread of its "
            "own answers); `py-spy dump --pid WORKER` shows where the thread obsserve-app-metrics stands.",
            {f'{age}{{worker="0"}}': "60x40"},
            {f'{age}{{worker="0"}}': "1x40"},
            commands=('ps -o pid,stat,etime,args -p "$PID" --ppid "$PID"',),
        ),
        Alert(
            "SpanQueueNearFull",
            "warning",
            "5m",
            f"{BY} ({queue}) / {BY} ({capacity}) > {CONFIG.near_limit}",
            "The queue of spans on {{ $labels.instance }} is nearly full",
            "{{ $value | humanizePercentage }} full",
            "telemetry",
            "Soon spans are dropped; requests are not affected.",
            (
                queue,
                "histogram_quantile(0.95, sum by (le) (rate(otel_sdk_exporter_operation_duration_seconds_bucket[5m])))",
            ),
            "A slow collector, or too many spans: sample, or raise OTEL_BSP_MAX_QUEUE_SIZE.",
            {queue: "1900x40", capacity: "2048x40"},
            {queue: "100x40", capacity: "2048x40"},
            commands=(event("telemetry.export_failed"),),
        ),
        Alert(
            "ScrapeErrors",
            "warning",
            "5m",
            f"{increase(failed, '5m')} > 0",
            "Collectors of {{ $labels.instance }} fail during scrapes",
            "{{ $value }} failures in 5 minutes",
            "telemetry",
            "Some metrics are missing; the others are right.",
            (failed, "obsserve_metrics_series"),
            "A collector that the application registered raises: the log event telemetry.fault names it.",
            {failed: "0+4x40"},
            {failed: "4x40"},
            commands=(event("telemetry.fault"),),
        ),
    ]


def causes() -> list[Alert]:
    """Return the alerts on causes."""
    return [*_runtime(), *_connections(), *_application(), *_clients(), *_telemetry()]
