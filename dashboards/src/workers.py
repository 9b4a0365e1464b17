"""Workers and runtime: utilisation, saturation and errors of each serving process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import AMBER, CONFIG, GREEN, GREY, RED
from .page import Row, page, query_variable
from .panels import (
    NEUTRAL,
    PLAIN,
    QUANTILE_COLORS,
    WORKER_LINKS,
    Doc,
    Query,
    colored,
    falling,
    lines,
    logs_link,
    never,
    outlined,
    page_link,
    quantiles,
    rising,
    stat,
)
from .promql import increase, mean, now, rate, series, total

if TYPE_CHECKING:
    from .panels import Json

WORKER = 'worker=~"$worker"'
_LINKS = (page_link("telemetry", "Telemetry health"), page_link("overview", "Overview"), logs_link())
_STARTUP = 'phase="startup"'
# The worker first: a long name of an instance is cut at its end.
_EACH = "{{worker}} @ {{instance}}"


def _state() -> Row:
    restarts = "obsserve_worker_restarts_total"
    return Row(
        "State",
        (
            stat(
                "Answering",
                Doc(
                    "Share of serving processes whose last heartbeat is not older than 10 seconds.",
                    "100 % is all of them.",
                    "Anything less.",
                    "Runbook of ObsserveWorkerUnresponsive.",
                ),
                "percentunit",
                falling(0.5, 1),
                Query(
                    f"avg(time() - ({series('obsserve_worker_last_heartbeat_timestamp_seconds')} > 0) < bool 10)",
                    "answering",
                ),
                links=_LINKS,
                height=8,
            ),
            lines(
                "Workers by state",
                Doc(
                    "Workers that start, are ready, drain or do not answer, and how many are wanted.",
                    "ready should equal wanted; starting and draining are brief.",
                    "unresponsive at all; starting that stays.",
                    "Runbooks of ObsserveWorkersMissing and ObsserveWorkerUnresponsive.",
                ),
                "short",
                NEUTRAL,
                Query(now("obsserve_workers", "state"), "{{state}}"),
                Query(now("obsserve_workers_desired"), "wanted"),
                links=_LINKS,
                overrides=(
                    colored("ready", GREEN),
                    colored("unresponsive", RED),
                    colored("starting|draining", AMBER),
                    outlined("wanted", GREY),
                ),
                width=6,
            ),
            lines(
                "Restarts by reason",
                Doc(
                    "Workers that were replaced, by reason, in each interval of the graph.",
                    "max_requests, max_lifetime and reload are wanted; crash, signal, oom_kill and unresponsive are not.",
                    "oom_kill: too little memory; crash: a bug in C code or an exit in the application.",
                    "The log event worker.exit has signal, exit code and memory of each.",
                ),
                "short",
                never(0.5),
                Query(increase(restarts, "reason"), "{{reason}}"),
                links=_LINKS,
                width=5,
            ),
            lines(
                "Age of the last heartbeat",
                Doc(
                    "Seconds since each worker last said that its loop turns.",
                    "Below two seconds all is well.",
                    "Above 10 s: the loop of that worker is blocked or the process is stopped.",
                    "Runbook of ObsserveWorkerUnresponsive; the stack is in the log event loop.stall.",
                ),
                "s",
                rising(2, 10),
                Query(
                    # 0 is a worker that starts and has had no heartbeat yet.
                    f"time() - ({series('obsserve_worker_last_heartbeat_timestamp_seconds', WORKER)} > 0)",
                    _EACH,
                ),
                links=_LINKS,
                width=5,
            ),
            lines(
                "Age of the workers",
                Doc(
                    "Seconds since each process began.",
                    "A saw-tooth is recycling; all at once is a reload or a deploy.",
                    "Teeth of seconds: it crashes as soon as it is up.",
                    "Restarts by reason, at the left.",
                ),
                "s",
                NEUTRAL,
                Query(f"time() - {series('process_start_time_seconds', WORKER)}", _EACH),
                links=_LINKS,
                width=5,
            ),
        ),
    )


def _balance() -> Row:
    each = f"sum by (instance, worker) ({rate('obsserve_worker_requests_total', WORKER)})"
    return Row(
        "Balance between workers",
        (
            lines(
                "Requests by worker",
                Doc(
                    "Requests each second that each worker served.",
                    "Lines together are a fair share.",
                    "One line far above the others: long-lived connections sit on one worker.",
                    "Imbalance, at the right; --max-requests or shorter keep-alive spread them anew.",
                ),
                "reqps",
                NEUTRAL,
                Query(each, _EACH),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Active requests by worker",
                Doc(
                    "Requests in progress in each worker.",
                    "The same height everywhere is a fair share of the waiting.",
                    "One worker full while others are idle.",
                    "Its loop lag and CPU below.",
                ),
                "short",
                NEUTRAL,
                Query(
                    f"sum by (instance, worker) ({series('obsserve_worker_active_requests', WORKER)})", _EACH
                ),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Connections by worker",
                Doc(
                    "Open connections of each worker.",
                    "Keep-alive and WebSockets stay where they were accepted.",
                    "A growing difference: clients that never reconnect.",
                    "Connections and protocol: age of connections.",
                ),
                "short",
                NEUTRAL,
                Query(
                    f"sum by (instance, worker) ({series('obsserve_worker_connections_open', WORKER)})", _EACH
                ),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Imbalance",
                Doc(
                    "Rate of the busiest worker divided by the mean of all.",
                    "1 is perfect; 2 means that one does twice its share.",
                    "Above 2 for half an hour.",
                    "Runbook of ObsserveWorkerImbalance.",
                ),
                "short",
                rising(1.5, 2),
                Query(f"max by (instance) ({each}) / avg by (instance) ({each})", "{{instance}}"),
                links=_LINKS,
                width=6,
            ),
        ),
    )


def _loop() -> Row:
    lag = total("obsserve_event_loop_lag_seconds_bucket", "le", "instance", "worker", only=WORKER)
    return Row(
        "Event loop",
        (
            lines(
                "Event loop lag, p99",
                Doc(
                    "p99 of how late timers run, by worker; measured ten times a second.",
                    "It is waiting time that every request of that worker shares.",
                    f"Above {CONFIG.lag_bound} s for minutes.",
                    "Runbook of ObsserveEventLoopLagHigh.",
                ),
                "s",
                rising(0.1, CONFIG.lag_bound),
                Query(f"histogram_quantile(0.99, {lag})", _EACH, exemplar=True),
                links=_LINKS,
            ),
            lines(
                "Stalls",
                Doc(
                    "Times that a loop was blocked for more than a second, by worker.",
                    "Each has a log event loop.stall with the stack that blocked it.",
                    "Any.",
                    "Runbook of ObsserveEventLoopStalled.",
                ),
                "short",
                never(0.5),
                Query(increase("obsserve_event_loop_stalls_total", "instance", "worker", only=WORKER), _EACH),
                links=_LINKS,
            ),
            lines(
                "Wait from head to application",
                Doc(
                    "Median, p95 and p99 of the time between a complete request head and the start of the application.",
                    "It is milliseconds or less until a loop is saturated.",
                    "p95 above 100 ms: the process has more to do than it can.",
                    "Runbook of ObsserveQueueWaitHigh: more workers, or less work on the loop.",
                ),
                "s",
                rising(0.05, 0.1),
                *quantiles(total("obsserve_http_queue_seconds_bucket", "le")),
                links=_LINKS,
                overrides=QUANTILE_COLORS,
            ),
            lines(
                "Tasks on the loop",
                Doc(
                    "asyncio tasks of each worker.",
                    "About one for each active request and WebSocket, and the application's own.",
                    "Growth without more requests: tasks that nobody awaits.",
                    "Ask the process: /-/stacks where it is enabled.",
                ),
                "short",
                NEUTRAL,
                Query(series("obsserve_event_loop_tasks", WORKER), _EACH),
                links=_LINKS,
            ),
            lines(
                "Pauses of the garbage collector",
                Doc(
                    "Median, p95 and p99 of how long a collection held everything up.",
                    "Generation 2 is the long one.",
                    "p99 above 100 ms.",
                    "Runbook of ObsserveGcPauseHigh: gc.freeze() after start-up is the first remedy.",
                ),
                "s",
                rising(0.05, 0.1),
                *quantiles(total("obsserve_gc_pause_seconds_bucket", "le")),
                links=_LINKS,
                overrides=QUANTILE_COLORS,
            ),
            lines(
                "Time spent in garbage collection",
                Doc(
                    "Share of a second that collections take, by generation; and collections each second.",
                    "1 % is normal.",
                    "Above 5 %: the application allocates cyclic garbage.",
                    "tracemalloc in a test; weak references; fewer cycles.",
                ),
                "percentunit",
                rising(0.02, 0.05),
                Query(total("obsserve_gc_pause_seconds_sum", "generation"), "generation {{generation}}"),
                links=_LINKS,
            ),
        ),
    )


def _process() -> Row:
    return Row(
        "Processes",
        (
            lines(
                "CPU",
                Doc(
                    "Seconds of CPU that each process uses each second: 1 is a core.",
                    "A Python process does not use more than one core for long.",
                    "Above 0.9: this worker is at its end.",
                    "Add workers up to the number of cores, then instances.",
                ),
                "short",
                rising(0.75, 0.9),
                Query(f"sum by (instance, worker) ({rate('process_cpu_seconds_total', WORKER)})", _EACH),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Resident memory",
                Doc(
                    "Memory that each process occupies.",
                    "It rises after the start and should then stay.",
                    "A slope that does not end.",
                    "Runbook of ObsserveMemoryGrowth; --max-rss or --max-requests recycle meanwhile.",
                ),
                "bytes",
                NEUTRAL,
                Query(series("process_resident_memory_bytes", WORKER), _EACH),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Open file descriptors",
                Doc(
                    "Open file descriptors as a share of what the process may open.",
                    "Each connection is one.",
                    f"Above {CONFIG.near_limit:.0%}: accept() will fail.",
                    "Runbook of ObsserveFdsNearLimit.",
                ),
                "percentunit",
                rising(0.6, CONFIG.near_limit),
                Query(f"{series('process_open_fds', WORKER)} / {series('process_max_fds', WORKER)}", _EACH),
                links=_LINKS,
                high=1,
                width=6,
            ),
            lines(
                "Collections",
                Doc(
                    "Garbage collections each second, by generation.",
                    "Each generation is rarer than the one before it.",
                    "Generation 2 every second.",
                    "Time spent in garbage collection, above.",
                ),
                "ops",
                NEUTRAL,
                Query(
                    total("python_gc_collections_total", "generation", only=WORKER),
                    "generation {{generation}}",
                ),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Virtual memory",
                Doc(
                    "Address space of each process.",
                    "Much larger than resident memory is normal.",
                    "Growth beside a flat resident memory: mappings that nobody closes.",
                    "Resident memory, above.",
                ),
                "bytes",
                NEUTRAL,
                Query(series("process_virtual_memory_bytes", WORKER), _EACH),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Objects collected",
                Doc(
                    "Objects freed by the collector each second, and those that it could not free.",
                    "Cyclic garbage alone; reference counting frees the rest.",
                    "Uncollectable ones at all.",
                    "gc.garbage in that process.",
                ),
                "ops",
                NEUTRAL,
                Query(total("python_gc_objects_collected_total", only=WORKER), "collected"),
                Query(total("python_gc_objects_uncollectable_total", only=WORKER), "uncollectable"),
                links=_LINKS,
                overrides=(colored("uncollectable", RED),),
                width=6,
            ),
            stat(
                "Start-up time",
                Doc(
                    "How long the application's lifespan start-up took, the slowest worker.",
                    "It is the time for which a replacement is not there yet.",
                    "More than the probes allow: pods are killed while they start.",
                    "Raise the start-up probe's failureThreshold, or make it faster.",
                ),
                "s",
                rising(10, 30),
                Query(f"max({series('obsserve_lifespan_duration_seconds', _STARTUP)})", "start-up"),
                links=_LINKS,
                width=3,
                height=8,
            ),
            stat(
                "Lifespan failures",
                Doc(
                    "Times that the application failed in its lifespan, since the server began.",
                    "0 is right.",
                    "Any: start-up fails, or shutdown leaves something behind.",
                    "Runbook of ObsserveStartupFailing.",
                ),
                "none",
                never(0.5),
                Query(f"sum({series('obsserve_lifespan_failures_total')}) or vector(0)", "failures"),
                links=_LINKS,
                width=3,
                height=8,
            ),
            stat(
                "Mean GC pause",
                Doc(
                    "Mean pause of a collection.",
                    "Below a millisecond is normal.",
                    "Above 10 ms.",
                    "Pauses of the garbage collector, above.",
                ),
                "s",
                rising(0.01, 0.1),
                Query(mean("obsserve_gc_pause_seconds"), "mean"),
                links=_LINKS,
                width=3,
                height=8,
            ),
            stat(
                "Runtime",
                Doc(
                    "Event loop, parser and Python that serve.",
                    "uvloop and httptools are the fast ones.",
                    "asyncio or h11 where the fast ones should be: not installed.",
                    "`pip install uvloop httptools` in the image.",
                ),
                "none",
                PLAIN,
                Query(
                    f"count by (event_loop, http_parser, python_version) ({series('obsserve_build_info')})",
                    "{{event_loop}} {{http_parser}} {{python_version}}",
                ),
                links=_LINKS,
                text="name",
                width=3,
                height=8,
            ),
        ),
    )


def _small() -> Row:
    only = 'worker="$worker"'
    return Row(
        "Each worker by itself",
        (
            lines(
                "Worker $worker",
                Doc(
                    "CPU, worst loop lag and share of file descriptors of one worker.",
                    "The three curves of a healthy worker are flat and low.",
                    "Lag without CPU: blocking calls. CPU without lag: real work.",
                    "Its stalls and their stacks in the log.",
                ),
                "short",
                rising(0.75, 0.9),
                Query(f"sum({rate('process_cpu_seconds_total', only)})", "CPU cores"),
                Query(f"max({series('obsserve_event_loop_lag_max_seconds', only)})", "loop lag, s"),
                Query(
                    f"max({series('process_open_fds', only)} / {series('process_max_fds', only)})",
                    "fds, share",
                ),
                links=WORKER_LINKS,
                repeat="worker",
                width=6,
                height=8,
            ),
        ),
    )


def build() -> Json:
    """Return the page."""
    return page(
        "workers",
        "Utilisation, saturation and errors of each serving process.",
        (_state(), _balance(), _loop(), _process(), _small()),
        query_variable(
            "worker",
            "Worker",
            'process_start_time_seconds{job=~"$job", instance=~"$instance"}',
            "worker",
            "Slots, not process ids; main is the supervising process.",
        ),
    )
