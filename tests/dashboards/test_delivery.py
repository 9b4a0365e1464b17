"""A real alert, all the way: the server's trouble, Prometheus, Alertmanager, and the webhook that takes the pager's place."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import httpx
import pytest

from tests.dashboards.stack import ROOT, RULES, Alertmanager, Prometheus, Webhook, hurried
from tests.integration.conftest import ServerProcess, wait_for


def test_hurried_rules_differ_in_their_durations_alone():
    text = '"for": "5m", "for": "0m", "expr": "a:rate5m > 1 and rate(b[1h]) offset 1d", "summary": "in 5 minutes"'
    wanted = '"for": "10s", "for": "0s", "expr": "a:rate5m > 1 and rate(b[120s]) offset 2880s", "summary": "in 5 minutes"'
    assert hurried(text) == wanted
    assert hurried('"for": "1m"') == '"for": "5s"'


@pytest.fixture
def stage(tmp_path):
    """A server of one request at a time, Prometheus that watches it, Alertmanager, and the webhook."""
    with ExitStack() as stack:
        webhook = stack.enter_context(Webhook())
        alertmanager = stack.enter_context(Alertmanager(tmp_path / "alertmanager", webhook.url))
        (tmp_path / "server").mkdir()
        server = ServerProcess(
            tmp_path / "server",
            *("obsserve.demo:app", "--port", "0", "--metrics-port", "0", "--limit-concurrency", "1"),
        )
        stack.callback(server.kill)
        server.started()
        rules = {path.name: hurried(path.read_text(), 360) for path in RULES.glob("*.yml")}
        target = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
        prometheus = stack.enter_context(
            Prometheus(tmp_path / "prometheus", target, rules=rules, alertmanager=alertmanager.address)
        )
        wait_for(lambda: prometheus.query("obsserve_ready == 1"), "the first scrape", 90)
        yield SimpleNamespace(server=server, target=target, alertmanager=alertmanager, webhook=webhook)


@pytest.mark.timeout(300)
def test_an_alert_reaches_the_pager(stage):
    with Crowd(stage.server.url):
        pages = wait_for(lambda: found(stage.webhook, "/page", "ObsserveRejectingRequests"), "a page", 60)
    assert pages[0]["status"] == "firing"
    assert pages[0]["labels"]["severity"] == "critical" and pages[0]["labels"]["job"] == "shop"
    notes = pages[0]["annotations"]
    assert notes["summary"] == "shop rejects requests."
    assert (ROOT / notes["runbook"]).exists()
    assert notes["dashboard_url"].endswith("/d/obsserve-overview?var-job=shop")


@pytest.mark.full
@pytest.mark.timeout(300)
def test_causes_wake_nobody_and_the_faster_burn_mutes_the_slower(stage):
    with Crowd(stage.server.url):
        [told, *_] = wait_for(
            lambda: found(stage.webhook, "/tell", "ObsserveEventLoopStalled"), "a warning", 60
        )
        assert told["labels"]["worker"] == "0"
        assert not found(stage.webhook, "/page", "ObsserveEventLoopStalled")
        assert wait_for(lambda: muted(stage.alertmanager), "the slow burn to be muted", 120) == {"warning"}
        assert found(stage.webhook, "/page", "ObsserveErrorBudgetBurn")
    stage.server.process.send_signal(signal.SIGKILL)
    stage.server.process.wait(30)
    downs = wait_for(lambda: found(stage.webhook, "/page", "ObsserveDown"), "the page that it is down", 60)
    assert {down["labels"].get("instance") for down in downs} == {stage.target}
    assert downs[0]["annotations"]["summary"] == f"{stage.target} of shop does not answer scrapes."


def muted(alertmanager):
    """The severities of the burn-rate alerts that Alertmanager keeps back because of another."""
    alerts = alertmanager.get("/api/v2/alerts")
    burns = [one for one in alerts if one["labels"]["alertname"] == "ObsserveErrorBudgetBurn"]
    return {one["labels"]["severity"] for one in burns if one["status"]["inhibitedBy"]}


def found(webhook, path, name):
    return [alert for alert in webhook.alerts(path) if alert["labels"]["alertname"] == name]


class Crowd:
    """Two clients at a time where one is allowed, one of them blocking the loop now and then."""

    def __init__(self, url):
        self._stop = threading.Event()
        paths = ("/slow?seconds=0.2", "/slow?seconds=0.2", "/blocking?seconds=2.5")
        self._threads = [threading.Thread(target=self._run, args=(url + path,)) for path in paths]

    def _run(self, url):
        with httpx.Client(timeout=30, verify=False) as client:
            while not self._stop.is_set():
                served = client.get(url).status_code == 200
                self._stop.wait(2 if served and "blocking" in url else 0.01)

    def __enter__(self):
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
