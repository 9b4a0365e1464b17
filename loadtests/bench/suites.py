"""What is measured, as data: for each suite its servers, requests, quantities and gates."""

from collections.abc import Callable
from dataclasses import dataclass

from . import meters
from .apps import HELLO, STREAM_CHUNK, STREAM_CHUNKS
from .arithmetic import Gate, Pair
from .meters import Place, Reading
from .servers import Case, Running, Server

REFERENCE = "uvicorn"
OFF, METRICS, METRICS_LOG = "obsserve-off", "obsserve-metrics", "obsserve-metrics-log"
ONE_PERCENT, EVERYTHING = "obsserve-1%", "obsserve-100%"
OBSSERVE = (OFF, METRICS, METRICS_LOG)
TWINS = (REFERENCE, "uvicorn-again")
PAIR = Pair(*TWINS)

# Of servers that are all up at once, or of one that is started for the sample alone.
StandingMeter = Callable[[Running, Case, Place], Reading]
FreshMeter = Callable[[Server, Case, Place], Reading]


@dataclass(frozen=True)
class Quantity:
    key: str
    title: str
    digits: int
    compared: bool = True  # as a ratio to the reference


@dataclass(frozen=True)
class Suite:
    name: str
    about: str
    app: str
    cases: tuple[Case, ...]
    servers: tuple[str, ...]
    quantities: tuple[Quantity, ...]  # the A/A pair must agree on the first
    gates: tuple[Gate, ...]
    standing: StandingMeter | None = None
    fresh: FreshMeter | None = None
    rounds: int = 9
    seconds: float = 2
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    pair: Pair = PAIR


CPU = Quantity("cpu", "CPU µs/request", 1)
THROUGHPUT = Quantity("throughput", "requests/s", 0)
CORE_BUSY = Quantity("busy", "core busy", 2, compared=False)
P99, P50 = Quantity("p99", "p99 ms", 2), Quantity("p50", "p50 ms", 2)
IDLE = Quantity("idle", "bytes/idle connection", 0)
STARTUP = Quantity("startup", "ms to the first response", 0)
STARTUP_CPU = Quantity("startup-cpu", "CPU ms of it", 0)
INSTRUCTIONS = Quantity("instructions", "instructions/request", 0)
UNDER_LOAD = (CPU, THROUGHPUT, CORE_BUSY)

GET_HELLO = Case("hello", answer=HELLO)

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "hello",
            "a raw ASGI application that answers 13 bytes",
            "loadtests.bench.apps:hello",
            (GET_HELLO,),
            (*TWINS, *OBSSERVE, "granian"),
            UNDER_LOAD,
            (
                Gate(OFF, "cpu", 0.65),
                Gate(METRICS_LOG, "cpu", 0.85),
                Gate(OFF, "throughput", 1.4, against="granian", at_least=True),
            ),
            standing=meters.under_full_load,
            programs=("wrk",),
        ),
        Suite(
            "otlp",
            "everything on: metrics, a JSON line for each request to a file, 1 % and 100 % of spans to a collector",
            "loadtests.bench.apps:hello",
            (GET_HELLO,),
            (*TWINS, "granian", ONE_PERCENT, EVERYTHING, "assembled-1%", "assembled-100%"),
            UNDER_LOAD,
            (
                Gate(ONE_PERCENT, "cpu", 0.85),
                Gate(EVERYTHING, "cpu", 1.0),
                Gate(EVERYTHING, "cpu", 0.1, against="assembled-100%"),
            ),
            standing=meters.under_full_load,
            programs=("wrk",),
            packages=("opentelemetry", "structlog", "orjson"),
        ),
        Suite(
            "post",
            "a raw ASGI application that reads the body",
            "loadtests.bench.apps:post",
            (
                Case("1 KiB", method="POST", body_bytes=1024, answer=b"1024"),
                Case("64 KiB", method="POST", body_bytes=65536, answer=b"65536"),
            ),
            (*TWINS, *OBSSERVE, "granian"),
            UNDER_LOAD,
            (Gate(OFF, "cpu", 0.75, case="1 KiB"), Gate(OFF, "cpu", 0.55, case="64 KiB")),
            standing=meters.under_full_load,
            programs=("wrk",),
        ),
        Suite(
            "stream",
            "a raw ASGI application that sends 1 MiB in 16 chunks of unannounced length",
            "loadtests.bench.apps:stream",
            (Case("1 MiB", connections=16, answer_bytes=len(STREAM_CHUNK) * STREAM_CHUNKS),),
            (*TWINS, *OBSSERVE, "granian"),
            UNDER_LOAD,
            (Gate(OFF, "cpu", 1.0),),
            standing=meters.under_full_load,
            programs=("wrk",),
        ),
        Suite(
            "pipeline",
            "16 requests in each write, to the application of hello",
            "loadtests.bench.apps:hello",
            (Case("x 16", pipelined=16, answer=HELLO),),
            (*TWINS, *OBSSERVE, "granian"),
            UNDER_LOAD,
            (Gate(OFF, "cpu", 0.65),),
            standing=meters.under_full_load,
            programs=("wrk",),
        ),
        Suite(
            "fastapi",
            "a FastAPI route with two parameters that answers JSON",
            "loadtests.bench.apps:fastapi",
            (Case("JSON", path="/items/7?q=seven", answer=b'{"item_id":7,"q":"seven"}'),),
            (*TWINS, *OBSSERVE, "granian"),
            UNDER_LOAD,
            (Gate(METRICS_LOG, "cpu", 1.0),),
            standing=meters.under_full_load,
            programs=("wrk",),
            packages=("fastapi",),
        ),
        Suite(
            "websocket",
            "a raw ASGI application that sends each text message back, over 64 WebSockets",
            "loadtests.bench.apps:echo",
            (Case("32 B", message_bytes=32, answer=HELLO), Case("4 KiB", message_bytes=4096, answer=HELLO)),
            (*TWINS, OFF, METRICS_LOG, "obsserve-wsproto", "granian"),
            (Quantity("cpu", "CPU µs/message", 1), Quantity("throughput", "messages/s", 0), CORE_BUSY),
            (Gate(OFF, "cpu", 0.95), Gate(METRICS_LOG, "cpu", 0.95)),
            standing=meters.under_full_load,
            packages=("uvloop", "websockets"),
        ),
        Suite(
            "latency",
            f"{meters.RATE} requests a second over 8 connections, to the application of hello",
            "loadtests.bench.apps:hello",
            (GET_HELLO,),
            (*TWINS, *OBSSERVE, "granian"),
            (P99, P50),
            (Gate(METRICS_LOG, "p99", 1.3),),
            standing=meters.at_constant_rate,
            programs=("h2load",),
            rounds=15,
            seconds=1,
        ),
        Suite(
            "signals",
            "what each signal adds to a request of the application of hello, by itself",
            "loadtests.bench.apps:hello",
            (GET_HELLO,),
            (
                OFF,
                "obsserve-off-again",
                METRICS,
                "obsserve-log",
                METRICS_LOG,
                "obsserve-spans-1%",
                "obsserve-spans",
                EVERYTHING,
            ),
            UNDER_LOAD,
            (),
            standing=meters.under_full_load,
            programs=("wrk",),
            packages=("opentelemetry",),
            pair=Pair(OFF, "obsserve-off-again"),
        ),
        Suite(
            "scrape",
            f"{meters.RATE} requests a second to a server with {meters.SERIES} series, scraped 10 times a second or not",
            "loadtests.bench.apps:routes",
            (GET_HELLO,),
            ("obsserve-unscraped", "obsserve-unscraped-again", "obsserve-scraped"),
            (P99, P50),
            (Gate("obsserve-scraped", "p99", 1.2, against="obsserve-unscraped"),),
            standing=meters.while_scraped,
            programs=("h2load",),
            rounds=15,
            seconds=1,
            pair=Pair("obsserve-unscraped", "obsserve-unscraped-again"),
        ),
        Suite(
            "idle",
            f"private memory of {meters.IDLE_CONNECTIONS} idle connections that had one request each",
            "loadtests.bench.apps:hello",
            (GET_HELLO,),
            (*TWINS, *OBSSERVE, "granian"),
            (IDLE,),
            (Gate(METRICS_LOG, "idle", 4000, against=""),),
            fresh=meters.of_idle_connections,
            rounds=3,
        ),
        Suite(
            "startup",
            "from the command to its first answer, with bytecode; --python names an environment with the servers alone",
            "loadtests.bench.apps:hello",
            (GET_HELLO,),
            (*TWINS, *OBSSERVE, "granian"),
            (STARTUP, STARTUP_CPU),
            (Gate(OFF, "startup", 1.1), Gate(METRICS_LOG, "startup", 1.3)),
            fresh=meters.of_startup,
        ),
        Suite(
            "instructions",
            "callgrind's count outside the kernel, 16 connections: to compare two versions of the code",
            "loadtests.bench.apps:hello",
            (GET_HELLO,),
            (*TWINS, *OBSSERVE),
            (INSTRUCTIONS,),
            (),
            fresh=meters.of_instructions,
            programs=("valgrind",),
            rounds=1,
        ),
    )
}
