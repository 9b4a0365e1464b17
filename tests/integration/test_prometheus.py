"""What real Prometheus makes of a real scrape: no complaint, and exemplars that lead to spans of a real collector."""

from __future__ import annotations

import subprocess
import time

import httpx
from conftest import total, wait_for
from test_reconciliation import DURATION, prometheus  # noqa: F401 - a fixture

from obsserve.testing_otlp import OTLPSink

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def drive(server, rounds=10):
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(rounds):
            for path in ("/items/7", "/items/none", "/stream/5", "/raise", "/nowhere"):
                client.get(path)
            client.post("/upload", json={"a": 1})
    return rounds * 6


def test_promtool_has_nothing_to_say(serve, program):
    promtool = program("promtool", "prometheus")
    with OTLPSink() as sink:
        server = serve(
            "apps:fastapi", "--port", "0", "--metrics-port", "0", "--workers", "2", "--metrics-profile", "full",
            "--otlp-endpoint", sink.endpoint,
        )  # fmt: skip
        sent = drive(server)
        wait_for(lambda: total(server.metrics(), f"{DURATION}_count") == sent, "every request to be counted")
        page = httpx.get(server.metrics_url).content
        checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60)
    complaints = checked.stdout.decode() + checked.stderr.decode()
    # Names that are not ours to choose: those of the Prometheus client library and of OpenTelemetry's conventions.
    ours = [line for line in complaints.splitlines() if not line.startswith(("target_info", "python_info"))]
    assert ours == []


def test_exemplars_of_errors_arrive_and_lead_to_spans(serve, prometheus):  # noqa: F811
    with OTLPSink() as sink:
        server = serve(
            "apps:fastapi", "--port", "0", "--metrics-port", "0", "--workers", "2",
            "--otlp-endpoint", sink.endpoint,
        )  # fmt: skip
        real = prometheus(server.metrics_url.removeprefix("http://").removesuffix("/metrics"))
        began = time.time()

        def exemplars():
            drive(server, 1)
            query = {
                "query": "obsserve_http_app_exceptions_total",
                "start": began - 60,
                "end": time.time() + 60,
            }
            try:
                answer = httpx.get(f"{real.url}/api/v1/query_exemplars", params=query, timeout=5).json()
            except (httpx.TransportError, ValueError):
                return None
            return answer.get("data")

        (series,) = wait_for(exemplars, "exemplars of exceptions in Prometheus", 45)
        assert series["seriesLabels"]["exception_type"] == "ValueError"
        ids = {found["labels"]["span_id"] for found in series["exemplars"]}
        spans = wait_for(
            lambda: ids <= (found := {s.span_id.hex(): s for s in sink.spans}).keys() and found,
            "the exemplars' spans",
            45,
        )
    for span in map(spans.get, ids):
        assert span.status.code == 2
        assert {pair.key: pair.value.string_value for pair in span.attributes}["error.type"] == "ValueError"


def test_exemplars_arrive_and_lead_to_spans(serve, prometheus, tmp_path):  # noqa: F811
    with OTLPSink() as sink:
        server = serve(
            "apps:fastapi", "--port", "0", "--metrics-port", "0", "--workers", "2",
            "--otlp-endpoint", sink.endpoint,
        )  # fmt: skip
        real = prometheus(server.metrics_url.removeprefix("http://").removesuffix("/metrics"))
        began = time.time()

        def exemplars():
            drive(server, 1)
            query = {"query": f"{DURATION}_bucket", "start": began - 60, "end": time.time() + 60}
            try:
                answer = httpx.get(f"{real.url}/api/v1/query_exemplars", params=query, timeout=5).json()
            except (httpx.TransportError, ValueError):
                return None
            found = [
                (series["seriesLabels"], exemplar)
                for series in answer.get("data") or ()
                for exemplar in series["exemplars"]
            ]
            routes = {labels.get("http_route") for labels, _ in found}
            return found if {"/items/{item_id}", "/stream/{parts}"} <= routes else None

        found = wait_for(exemplars, "exemplars in Prometheus", 45)
        ids = {(exemplar["labels"]["trace_id"], exemplar["labels"]["span_id"]) for _, exemplar in found}
        wait_for(
            lambda: ids <= {(s.trace_id.hex(), s.span_id.hex()) for s in sink.spans},
            "the exemplars' spans",
            45,
        )
        routes = {
            span.span_id.hex(): {pair.key: pair.value.string_value for pair in span.attributes}.get(
                "http.route", ""
            )
            for span in sink.spans
        }
    for labels, exemplar in found:
        assert routes[exemplar["labels"]["span_id"]] == labels.get("http_route", "")
        assert float(exemplar["value"]) <= float(labels["le"])
