"""The load generators: wrk for as much as a server can do, h2load for a constant rate, sockets that idle."""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from .arithmetic import percentile
from .servers import HOST, ROOT, BenchError, Case, Running

SCRIPT = Path(__file__).with_name("wrk.lua")
DEBIAN_PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "valgrind": "valgrind"}
RATE_CONNECTIONS = 8


def require_program(name: str) -> None:
    if shutil.which(name) is None:
        raise BenchError(f"{name} is not installed: apt-get install {DEBIAN_PACKAGES[name]}")


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Latencies:
    requests: int
    p50: float  # seconds
    p99: float
    problems: tuple[str, ...]


def run_generator(command: list[str], seconds: float, *, interrupt: bool = False) -> str:
    """Run a generator and return what it printed.

    Args:
        command: the program and its arguments.
        seconds: for how long it is to run.
        interrupt: whether to end it then by SIGINT, after which it prints its figures all the same.
    """
    require_program(command[0])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as generator:
        try:
            if interrupt:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    generator.wait(seconds)
                generator.send_signal(signal.SIGINT)
            output, errors = generator.communicate(timeout=seconds + 30)
        except subprocess.TimeoutExpired as error:
            generator.kill()
            raise BenchError(f"{command[0]} did not end") from error
    if generator.returncode != 0:
        said = (errors or output).strip().splitlines() or ["nothing"]
        raise BenchError(f"{command[0]} ended with code {generator.returncode}: {said[-1]}")
    return output


def parse_wrk(text: str) -> Load:
    """Read the line that wrk.lua writes at the end."""
    found = re.search(r"^result (.+)$", text, re.MULTILINE)
    if found is None:
        raise BenchError("wrk printed no result")
    figures = {name: int(value) for name, value in (pair.split("=") for pair in found[1].split())}
    bad = {"connect": "connect errors", "read": "read errors", "write": "write errors"}
    bad |= {"status": "answers that are not 2xx or 3xx", "timeout": "timeouts"}
    problems = [f"{figures[name]} {what}" for name, what in bad.items() if figures[name]]
    if not figures["requests"]:
        problems.append("no request was answered")
    return Load(figures["requests"], figures["microseconds"] / 1e6, tuple(problems))


def full_load(running: Running, case: Case, seconds: float) -> Load:
    """Send as many requests as the server takes, for that long; wrk rounds it up to tenths of a second."""
    if case.message_bytes:
        return echo_load(running, case, seconds)
    command = ["wrk", "-t1", f"-c{case.connections}", f"-d{ceil(seconds)}s", f"-s{SCRIPT}"]
    command += [f"http://{HOST}:{running.port}{case.path}"]
    command += ["--", case.method, str(case.body_bytes), str(case.pipelined)]
    return parse_wrk(run_generator(command, seconds, interrupt=seconds != ceil(seconds)))


def echo_load(running: Running, case: Case, seconds: float) -> Load:
    """Send messages over WebSockets, each when the last one has come back, for that long."""
    command = [sys.executable, "-m", f"{__package__}.echo", str(running.port), "--path", case.path]
    command += ["--connections", str(case.connections), "--seconds", str(seconds)]
    return parse_wrk(run_generator([*command, "--size", str(case.message_bytes)], seconds))


def parse_h2load_log(text: str) -> Latencies:
    """Read h2load's log: start in microseconds, status, microseconds to the end of the response."""
    rows = [line.split("\t") for line in text.splitlines()]
    if not rows:
        raise BenchError("h2load logged no request")
    bad = sum(row[1] != "200" for row in rows)
    seconds = [int(row[2]) / 1e6 for row in rows]
    problems = (f"{bad} answers that are not 200",) if bad else ()
    return Latencies(len(rows), percentile(seconds, 0.5), percentile(seconds, 0.99), problems)


def constant_rate(running: Running, case: Case, seconds: float, rate: int, directory: Path) -> Latencies:
    """Send `rate` requests a second, far below what the server could do."""
    log = directory / "h2load.log"
    command = [
        "h2load",
        "--h1",
        "-t1",
        f"-c{RATE_CONNECTIONS}",
        f"-D{round(seconds * 1000)}ms",
        f"--log-file={log}",
    ]
    command += [f"--rps={rate / RATE_CONNECTIONS:g}", f"http://{HOST}:{running.port}{case.path}"]
    try:
        run_generator(command, seconds)
        return parse_h2load_log(log.read_text())
    finally:
        log.unlink(missing_ok=True)


def request_bytes(case: Case) -> bytes:
    return f"{case.method} {case.path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def read_answer(connection: socket.socket, case: Case) -> None:
    """Read up to the end of the answer that the case expects."""
    received = b""
    while not received.endswith(b"\r\n\r\n" + case.answer):
        try:
            block = connection.recv(65536)
        except TimeoutError as error:
            raise BenchError("a request was not answered in time") from error
        if not block:
            raise BenchError("the server closed a connection that should stay")
        received += block


@contextlib.contextmanager
def idle_connections(running: Running, case: Case, count: int) -> Iterator[list[socket.socket]]:
    """Keep connections open that have each had one request."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection((HOST, running.port), timeout=30))
            request_on_all([connection], case)
            opened.append(connection)
        yield opened


def request_on_all(connections: list[socket.socket], case: Case) -> None:
    """Send a request over every connection, then read all the answers."""
    for connection in connections:
        connection.sendall(request_bytes(case))
    for connection in connections:
        read_answer(connection, case)


def still_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
