"""The servers that are compared, and how one is started, watched and ended."""

import contextlib
import importlib.util
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import MappingProxyType

from . import proc
from .failure import BenchError
from .sink import SpanCounter

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
READY_SECONDS = 60.0
END_SECONDS = 8.0
# More than the lines of a slice: of a second, and at least.
FILLED_MIB, LEAST_FILLED_MIB = 96, 64
_MIB = bytes(1 << 20)


@dataclass(frozen=True)
class Case:
    """One kind of request, and the answer that shows that the work was done."""

    name: str
    path: str = "/"
    method: str = "GET"
    body_bytes: int = 0
    pipelined: int = 1
    message_bytes: int = 0  # of each message of a WebSocket, which then takes the place of requests
    connections: int = 64
    answer: bytes = b""
    answer_bytes: int = 0  # for answers too long to be written here

    @property
    def in_flight(self) -> int:
        """Requests that a server may have begun when the generator stopped counting."""
        return self.connections * self.pipelined

    def wrong(self, status: int, body: bytes) -> str:
        """Return what is wrong with an answer, or nothing."""
        if status != 200:
            return f"status {status}"
        if self.answer_bytes and len(body) != self.answer_bytes:
            return f"{len(body)} bytes instead of {self.answer_bytes}"
        if self.answer and body != self.answer:
            return f"{body[:40]!r} instead of {self.answer!r}"
        return ""


@dataclass(frozen=True)
class Server:
    name: str
    arguments: str  # after "python"; {app}, {port} and {metrics_port} are filled in
    package: str
    environment: Mapping[str, str] = field(default_factory=dict)
    logs_lines: bool = False  # each request is a line of its standard output
    counts_requests: bool = False  # each request is in its /metrics
    sampled: float = 0.0  # the share of requests whose span arrives at a collector
    app: str = ""  # instead of the suite's
    scrapes: int = 0  # of its /metrics, a second, in a suite that scrapes


UVICORN = "-m uvicorn {app} --host 127.0.0.1 --port {port} --loop uvloop --http httptools"
GRANIAN = (
    "-m granian {app} --host 127.0.0.1 --port {port} --interface asgi --loop uvloop --http 1"
    " --backpressure 4096"  # its default lets 1,024 connections in; idle holds more
)
OBSSERVE = "-m obsserve {app} --host 127.0.0.1 --port {port}"
METRICS = f"{OBSSERVE} --metrics-port {{metrics_port}} --no-access-log"
EVERYTHING = f"{OBSSERVE} --metrics-port {{metrics_port}} --log-format json"
ASSEMBLED = "loadtests.bench.assembled:app"
# As much as a server can do is more than any queue of 2,048 spans is made for: both sides get a longer one,
# and send what is no full batch soon, so that each slice can be checked.
QUEUE = {"OTEL_BSP_MAX_QUEUE_SIZE": "65536", "OTEL_BSP_SCHEDULE_DELAY": "200"}
ONE_IN_A_HUNDRED = {
    **QUEUE,
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.01",
}

SERVERS = {
    server.name: server
    for server in (
        Server("uvicorn", f"{UVICORN} --no-access-log --log-level warning", "uvicorn"),
        Server("uvicorn-again", f"{UVICORN} --no-access-log --log-level warning", "uvicorn"),
        Server("uvicorn-log", UVICORN, "uvicorn", logs_lines=True),
        Server("granian", f"{GRANIAN} --no-access-log --log-level warning", "granian"),
        Server("obsserve-off", f"{OBSSERVE} --no-access-log", "obsserve"),
        Server("obsserve-off-again", f"{OBSSERVE} --no-access-log", "obsserve"),
        Server("obsserve-log", f"{OBSSERVE} --log-format json", "obsserve", logs_lines=True),
        Server(
            "obsserve-spans-1%", f"{OBSSERVE} --no-access-log", "obsserve", ONE_IN_A_HUNDRED, sampled=0.01
        ),
        Server("obsserve-spans", f"{OBSSERVE} --no-access-log", "obsserve", QUEUE, sampled=1.0),
        Server("obsserve-unscraped", METRICS, "obsserve", counts_requests=True),
        Server("obsserve-unscraped-again", METRICS, "obsserve", counts_requests=True),
        Server("obsserve-scraped", METRICS, "obsserve", counts_requests=True, scrapes=10),
        Server(
            "obsserve-metrics",
            METRICS,
            "obsserve",
            counts_requests=True,
        ),
        Server(
            "obsserve-metrics-log",
            f"{OBSSERVE} --metrics-port {{metrics_port}} --log-format json",
            "obsserve",
            logs_lines=True,
            counts_requests=True,
        ),
        Server("obsserve-wsproto", f"{OBSSERVE} --no-access-log --ws wsproto", "wsproto"),
        Server("obsserve-1%", EVERYTHING, "obsserve", ONE_IN_A_HUNDRED, True, True, sampled=0.01),
        Server("obsserve-100%", EVERYTHING, "obsserve", QUEUE, True, True, sampled=1.0),
        Server(
            "assembled-1%",
            f"{UVICORN} --no-access-log",
            "starlette_exporter",
            ONE_IN_A_HUNDRED,
            True,
            sampled=0.01,
            app=ASSEMBLED,
        ),
        Server(
            "assembled-100%",
            f"{UVICORN} --no-access-log",
            "starlette_exporter",
            QUEUE,
            True,
            sampled=1.0,
            app=ASSEMBLED,
        ),
    )
}


def require_package(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        extra = "test" if name == "fastapi" else "bench"
        raise BenchError(f"{name} is not installed: pip install -e .[{extra}]")


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, each another one."""
    with contextlib.ExitStack() as sockets:
        found = []
        for _ in range(count):
            listener = sockets.enter_context(socket.socket())
            listener.bind((HOST, 0))
            found.append(listener.getsockname()[1])
        return found


@dataclass
class Running:
    server: Server
    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int
    output: Path
    errors: Path
    began: float  # time.monotonic() at its command
    collector: SpanCounter | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        return proc.cpu_seconds(self.pid)

    def last_words(self) -> str:
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no word on standard error"

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            code = self.process.returncode
            raise BenchError(f"{self.server.name} ended with code {code}: {self.last_words()}")

    def probe(self, case: Case) -> str:
        """Send the case's request once, and return what is wrong with the answer, or nothing."""
        connection = HTTPConnection(HOST, self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request(case.method, case.path, b"x" * case.body_bytes if case.body_bytes else None)
            response = connection.getresponse()
            return case.wrong(response.status, response.read())

    def wait_until_ready(self, case: Case, poll_seconds: float = 0.02) -> None:
        """Return when the first request was answered, rightly."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                wrong = self.probe(case)
            except (OSError, HTTPException):
                time.sleep(poll_seconds)
                continue
            if wrong:
                raise BenchError(f"{self.server.name} answers {case.method} {case.path} with {wrong}")
            return
        raise BenchError(f"{self.server.name} did not answer within {READY_SECONDS:g} s")

    def count_lines(self) -> int:
        with self.output.open("rb") as output:
            return sum(block.count(b"\n") for block in iter(lambda: output.read(1 << 20), b""))

    def forget_lines(self, seconds: float) -> None:
        """Empty the file that the server appends to: a run writes more than a disk should hold.

        It is filled first, by the harness: a virtual machine gets each page of memory from its host only when it
        is first written to, and again some seconds after it was last in use. That takes longer than all else that
        a line costs, and is no server's doing.

        Args:
            seconds: how long it is going to be written to.
        """
        with self.output.open("ab", buffering=0) as output:
            for _ in range(max(round(FILLED_MIB * seconds), LEAST_FILLED_MIB)):
                output.write(_MIB)
        os.truncate(self.output, 0)

    def scraped(self, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """Return a page of the server's own metrics, as it comes over the wire."""
        connection = HTTPConnection(HOST, self.metrics_port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics", headers=dict(headers))
            return connection.getresponse().read()

    def counted_requests(self) -> float:
        """Return how many requests the server's own metrics have seen."""
        return sum_of_counts(self.scraped().decode())


def sum_of_counts(exposition: str) -> float:
    """Add the counts of all label sets of the request histogram in a page of /metrics."""
    name = "http_server_request_duration_seconds_count"
    lines = (line for line in exposition.splitlines() if line.startswith((name + "{", name + " ")))
    # A value may be followed by an exemplar or a time; labels may hold blanks.
    return sum(
        float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1]) for line in lines
    )


def command_of(
    server: Server, app: str, port: int, metrics_port: int, python: str = sys.executable
) -> list[str]:
    arguments = server.arguments.format(app=app, port=port, metrics_port=metrics_port)
    return [python, *shlex.split(arguments)]


@contextlib.contextmanager
def started(
    server: Server,
    app: str,
    core: int,
    directory: Path,
    prefix: Sequence[str] = (),
    python: str = sys.executable,
) -> Iterator[Running]:
    """Start a server on one core, and end it and all its children, whatever happens meanwhile."""
    if python == sys.executable:
        require_package(server.package)
    port, metrics_port = free_ports(2)
    collector = SpanCounter() if server.sampled else None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **server.environment}
    # As anybody starts a server: with the bytecode that an earlier start has left.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if collector is not None:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{HOST}:{collector.port}"
    output, errors = directory / f"{server.name}.out", directory / f"{server.name}.err"
    with output.open("ab") as out, errors.open("wb") as err:
        # Appending: only then may the file be emptied under the writer.
        began = time.monotonic()
        process = subprocess.Popen(
            [*prefix, *command_of(server, server.app or app, port, metrics_port, python)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - no threads here
            start_new_session=True,  # Ctrl-C is for the harness, which then ends the servers in order
        )
    try:
        yield Running(server, process, port, metrics_port, output, errors, began, collector)
    finally:
        end(process)
        if collector is not None:
            collector.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants by their ids: politely, then not."""
    family = proc.tree(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for member in family:
        if member.pid != process.pid and proc.is_alive(member):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
