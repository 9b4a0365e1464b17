"""The real programs that the pages and the rules are for: Prometheus, Alertmanager, and a webhook that waits for them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.parts import program
from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules"
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}


def need(name):
    return program(name, f"apt-get install {PACKAGES[name]}")


class Program:
    """A program with an HTTP interface, ended by its process id."""

    def __init__(self, folder, name, ready, *arguments):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._client = httpx.Client(base_url=self.url, timeout=30)
        self._log = folder / f"{name}.log"
        command = [
            need(name),
            *(one.format(address=f"127.0.0.1:{self.port}", folder=folder) for one in arguments),
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: self._answers(ready), f"{name} to be ready", 60)
        except BaseException:
            self.close()
            raise

    def _answers(self, path):
        assert self.process.poll() is None, self._log.read_text()
        try:
            return self._client.get(path).status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, path, **parameters):
        reply = self._client.get(path, params=parameters)
        assert reply.status_code == 200, f"{parameters}: {reply.text}"
        return reply.json()

    def close(self):
        self._client.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Prometheus(Program):
    """Prometheus with the shipped rules.

    Args:
        folder: for configuration and data.
        targets: addresses of metrics ports.
        rules: text of the rule files, by name; the shipped ones by default.
        alertmanager: where alerts go.
    """

    def __init__(self, folder, *targets, rules=None, alertmanager=None):
        self.moment = self.interval = None
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (rules or {path.name: path.read_text() for path in RULES.glob("*.yml")}).items():
            (folder / name).write_text(text)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "*.yml")],
            "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": list(targets)}]}],
        }
        if alertmanager is not None:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        (folder / "prometheus.conf").write_text(json.dumps(config))
        super().__init__(
            folder,
            "prometheus",
            "/-/ready",
            "--config.file={folder}/prometheus.conf",
            "--storage.tsdb.path={folder}/data",
            "--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
        )

    def query(self, expr):
        """Return the result of an instant query, of the moment when it stands still."""
        when = {} if self.moment is None else {"time": self.moment}
        return self.get("/api/v1/query", query=expr, **when)["data"]["result"]

    def wait_for_scrapes(self, count):
        """Wait until each target has been scraped so many times more."""

        def scrapes():
            return {one["metric"]["instance"]: float(one["value"][1]) for one in self.query(successes)}

        successes = "sum_over_time(up[1h])"
        before = scrapes()
        wait_for(
            lambda: all(now >= before[instance] + count for instance, now in scrapes().items()),
            f"{count} scrapes",
            90,
        )

    def stand_still(self, began):
        """Ask from now on about this moment, one at which every target answers.

        Args:
            began: when it all did, seconds since the epoch: a rate over `interval` sees everything.
        """

        def moment():
            now = time.time()
            found = self.get("/api/v1/query", query="up", time=now)["data"]["result"]
            return now if all(one["value"][1] == "1" for one in found) else None

        self.moment = wait_for(moment, "a moment with every target up", 90)
        self.interval = f"{math.ceil(self.moment - began)}s"

    def firing(self):
        """Return the names of the alerts that fire."""
        alerts = self.get("/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def wait_for_alert(self, name, deadline=90):
        return wait_for(lambda: name in self.firing(), f"{name} to fire", deadline)


def hurried(rules, divisor=30, least=5):
    """Return rules whose every duration is a fraction of what it was, in whole seconds and at least `least`.

    Only durations change: ranges, offsets and for how long an alert must hold. A hold of nothing stays nothing.
    """
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def shorter(match):
        length = int(match[2]) * seconds[match[3]]
        return match[1] + (f"{max(least, length // divisor)}s" if length else "0s")

    duration = r"(\d+)([smhd])\b"
    text = re.sub(rf"(\[){duration}(?=\])", shorter, rules)
    text = re.sub(rf"(offset ){duration}", shorter, text)
    return re.sub(rf'("for": "){duration}', shorter, text)


class Alertmanager(Program):
    """Alertmanager with the shipped configuration, its webhooks and its waiting times replaced.

    Args:
        folder: for configuration and data.
        webhook: address that takes the place of pager and chat.
    """

    def __init__(self, folder, webhook):
        folder.mkdir(parents=True, exist_ok=True)
        text = (ROOT / "deploy/alertmanager/alertmanager.yml").read_text()
        text = text.replace("http://localhost:9095", webhook)
        text = re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", text)
        (folder / "alertmanager.conf").write_text(text)
        super().__init__(
            folder,
            "prometheus-alertmanager",
            "/-/ready",
            "--config.file={folder}/alertmanager.conf",
            "--storage.path={folder}/alerts",
            "--web.listen-address={address}",
            "--cluster.listen-address=",
        )
        self.address = f"127.0.0.1:{self.port}"


class Webhook:
    """Pager and chat at once: keeps what it is sent, by path."""

    def __init__(self):
        self.received = []
        keep = self.received

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                keep.append((self.path, json.loads(body)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def alerts(self, path):
        """Return the alerts that came to this path."""
        return [alert for found, body in list(self.received) if found == path for alert in body["alerts"]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


def look(alert, prometheus, server):
    """Run the commands of an alert's runbook as they stand there; return what they print.

    Args:
        alert: name of the alert.
        prometheus: where expressions are asked.
        server: a `ServerProcess`: its files and its metrics port.
    """
    need("promtool")
    [commands] = re.findall(r"```sh\n(.*?)```", (ROOT / f"deploy/runbooks/{alert}.md").read_text(), re.DOTALL)
    places = {
        "PROMETHEUS": prometheus.url,
        "OBSSERVE": server.admin_url,
        "LOG": str(server.stderr_path),
        "ACCESS_LOG": str(server.stdout_path),
        "PID": str(server.process.pid),
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0 and not result.stderr, f"{commands}\n{result.stdout}\n{result.stderr}"
    return result.stdout
