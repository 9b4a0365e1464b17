"""Off means off: what no option asks for is not even imported."""

from __future__ import annotations

import httpx
import pytest


def imported(server, package):
    httpx.get(server.url)
    return [name for name in httpx.get(server.url).json() if name.partition(".")[0] == package]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "team=a"},
    ],
    ids=["nothing", "disabled", "no exporter", "a name"],
)
def test_opentelemetry_is_not_imported_without_an_endpoint(serve, environment):
    server = serve("imports_app:app", "--port", "0", "--metrics-port", "0", environment=environment)
    assert imported(server, "opentelemetry") == []
    assert [name for name in imported(server, "obsserve") if name.endswith((".tracing", ".otlp"))] == []


def test_it_is_with_one(serve):
    server = serve("imports_app:app", "--port", "0", "--otlp-endpoint", "http://127.0.0.1:1")
    assert "opentelemetry.trace" in imported(server, "opentelemetry")


def test_prometheus_client_is_not_imported_without_a_metrics_port(serve):
    server = serve("imports_app:app", "--port", "0")
    assert imported(server, "prometheus_client") == []
