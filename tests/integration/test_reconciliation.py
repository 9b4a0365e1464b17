"""What the client sent is what the metrics, the access log and a real Prometheus say."""

from __future__ import annotations

import re
import subprocess

import httpx
import pytest
from conftest import total, wait_for

from tests.ports import free_port
from tests.waiting import DEADLINE

DURATION = "http_server_request_duration_seconds"


class Prometheus:
    """A real Prometheus that scrapes one target twice a second."""

    def __init__(self, program, folder, target):
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
            f"scrape_configs: [{{job_name: obsserve, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def query(self, expression):
        try:
            answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=5)
        except httpx.TransportError:
            return []
        return answer.json()["data"]["result"] if answer.status_code == 200 else []

    def value(self, expression):
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def stop(self):
        self._process.terminate()
        self._process.wait(DEADLINE)
        self._log.close()


@pytest.fixture
def prometheus(program, tmp_path):
    running = []

    def start(target):
        running.append(Prometheus(program, tmp_path, target))
        return running[-1]

    yield start
    for each in running:
        each.stop()


def drive_with_httpx(url):
    """Send one of each kind; return what the client saw: (method, route, status)."""
    sent = []
    with httpx.Client(base_url=url, timeout=10) as client:
        for _ in range(20):
            sent += [
                ("GET", "/items/{item_id}", client.get("/items/7").status_code),
                ("GET", "/items/{item_id}", client.get("/items/none").status_code),
                ("GET", "/stream/{parts}", client.get("/stream/5").status_code),
                ("GET", "/raise", client.get("/raise").status_code),
                ("GET", "/background", client.get("/background").status_code),
                ("POST", "/upload", client.post("/upload", json={"b": 1, "a": 2}).status_code),
                ("GET", "", client.get("/nowhere").status_code),
            ]
    return sent


def test_client_metrics_log_and_prometheus_agree(serve, prometheus, program):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0")
    scraper = prometheus(server.metrics_url.removeprefix("http://").removesuffix("/metrics"))

    sent = drive_with_httpx(server.url)
    wrk = subprocess.run(
        [program("wrk"), "-t1", "-c8", "-d1s", f"{server.url}/items/1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Non-2xx" not in wrk.stdout

    def settled():
        samples = server.metrics()
        return samples if total(samples, "http_server_active_requests") == 0 else None

    samples = wait_for(settled, "all requests to end")
    counted = int(total(samples, f"{DURATION}_count"))
    # wrk stops its clock with requests under way, which the server answers or sees cut off.
    by_wrk = int(re.search(r"(\d+) requests in", wrk.stdout)[1])
    assert len(sent) + by_wrk <= counted <= len(sent) + by_wrk + 8

    lines = server.access_lines(counted)
    assert len(lines) == counted
    assert {line["event"] for line in lines} == {"http.request"}

    def key(labels):
        status = labels["http_response_status_code"]
        return labels["http_request_method"], labels["http_route"], int(status) if status else None

    by_metric = {}
    for labels, value in samples[f"{DURATION}_count"]:
        by_metric[key(labels)] = by_metric.get(key(labels), 0) + int(value)
    by_line = {}
    for line in lines:
        at = (line["http_request_method"], line["http_route"] or "", line["http_response_status_code"])
        by_line[at] = by_line.get(at, 0) + 1
    assert by_line == {at: count for at, count in by_metric.items() if count}
    for each in set(sent) - {("GET", "/items/{item_id}", 200)}:
        assert by_line[each] == sent.count(each)

    # Durations: the histogram's sum is the sum of what the lines say, which are rounded to microseconds.
    summed = sum(line["duration_seconds"] for line in lines)
    assert total(samples, f"{DURATION}_sum") == pytest.approx(summed, abs=1e-6 * counted)

    errors = {line["error_type"] for line in lines if line["http_response_status_code"] == 500}
    assert errors == {"ValueError"}
    assert total(samples, f"{DURATION}_count", error_type="ValueError") == 20
    # Work after the response is not latency.
    assert max(line["duration_seconds"] for line in lines if line["http_route"] == "/background") < 0.2

    wait_for(lambda: scraper.value(f"sum({DURATION}_count)") == counted, "Prometheus to see every request")
    scraped = {
        (
            found["metric"]["http_request_method"],
            found["metric"].get("http_route", ""),
            found["metric"].get("http_response_status_code"),
        ): float(found["value"][1])
        for found in scraper.query(
            f"sum by (http_request_method, http_route, http_response_status_code) ({DURATION}_count)"
        )
    }
    assert scraped == {
        (method, route, str(status) if status else None): count
        for (method, route, status), count in by_line.items()
    }
    assert scraper.value(f"sum({DURATION}_sum)") == pytest.approx(summed, abs=1e-6 * counted)
    assert server.stop() == 0


def test_the_metrics_port_is_not_observed(serve):
    server = serve("apps:plain", "--port", "0", "--metrics-port", "0")
    for path in ("/metrics", "/livez", "/readyz", "/startupz"):
        assert httpx.get(server.admin_url + path).status_code == 200
    httpx.get(server.url)
    assert len(server.access_lines(1)) == 1
    assert total(server.metrics(), f"{DURATION}_count") == 1
