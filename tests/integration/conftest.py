"""Real servers in processes of their own, and real clients for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests import parts
from tests.waiting import DEADLINE, wait_for

HERE = Path(__file__).parent


class ServerProcess:
    """`obsserve` as an operator runs it: stdout and stderr go to files that the test reads."""

    def __init__(self, folder, *arguments, stdout=None, environment=None):
        self._has_metrics = "--metrics-port" in arguments
        self.stdout_path, self.stderr_path = folder / "stdout", folder / "stderr"
        self._stdout, self._stderr = self.stdout_path.open("wb"), self.stderr_path.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "obsserve", *arguments],
            stdout=self._stdout if stdout is None else stdout,
            stderr=self._stderr,
            cwd=HERE,
            env={**os.environ, **(environment or {})},
        )

    def events(self, name=None):
        """The server's own log lines."""
        lines = self.stderr_path.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if name in (None, record["event"])]

    def started(self):
        def ready():
            assert self.process.poll() is None, self.stderr_path.read_text()
            return (not self._has_metrics or self.events("metrics.start")) and self.events("server.start")

        self.address = wait_for(ready, "server start")[0]["address"]
        self.url = self.address
        found = self.events("metrics.start")
        self.metrics_url = found[0]["address"] if found else None
        self.admin_url = self.metrics_url.removesuffix("/metrics") if found else None
        return self

    def access_lines(self, expected=None):
        """The access lines, once there are as many as expected."""

        def lines():
            text = self.stdout_path.read_text()
            complete = text.endswith("\n") or not text
            found = text.splitlines()
            return (
                complete and (expected is None or len(found) >= expected) and [json.loads(x) for x in found]
            )

        if expected == 0 or expected is None:
            return lines() or []
        return wait_for(lines, f"{expected} access lines")

    def metrics(self):
        return parse_metrics(httpx.get(self.metrics_url, timeout=5).text)

    def stop(self, sig=signal.SIGTERM, timeout=DEADLINE):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(timeout)
        self._stdout.close()
        self._stderr.close()
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._stdout.close()
        self._stderr.close()


def parse_metrics(text):
    """Samples by name: a list of (labels, value)."""
    from prometheus_client.parser import text_string_to_metric_families

    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def total(samples, name, **labels):
    """The sum of a metric's samples that carry these labels."""
    return sum(
        value
        for found, value in samples.get(name, [])
        if all(found.get(key, "") == wanted for key, wanted in labels.items())
    )


def flags_of(line):
    """The flags of an access line, without that of a lagging loop, which says how busy the machine was."""
    return [flag for flag in line.get("flags", ()) if flag != "LG"]


@pytest.fixture
def serve(tmp_path):
    """Start servers; whatever is left is ended by process id."""
    servers = []

    def start(*arguments, wait=True, **options):
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        server = ServerProcess(folder, *arguments, **options)
        servers.append(server)
        return server.started() if wait else server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def program():
    """Find a real program; without it the test is skipped, in CI it fails."""

    return lambda name, package=None: parts.program(name, f"apt-get install {package or name}")
