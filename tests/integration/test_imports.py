"""Off means off: what no option asks for is not even imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx
import pytest
from conftest import wait_for


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


def test_pushed_metrics_import_it_in_their_own_thread(serve):
    server = serve(
        "imports_app:app", "--port", "0", "--otlp-metrics", "--no-access-log",
        environment={"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"},
    )  # fmt: skip
    exporter = "opentelemetry.exporter.otlp.proto.grpc.metric_exporter"
    wait_for(lambda: exporter in imported(server, "opentelemetry"), "the exporter imported")
    assert [name for name in imported(server, "obsserve") if name.endswith(".tracing")] == []


def test_prometheus_client_is_not_imported_without_a_metrics_port(serve):
    server = serve("imports_app:app", "--port", "0")
    assert imported(server, "prometheus_client") == []


# What takes long to import, and is not needed to answer a first request: each for its own option, or for later.
LATER = {
    "ctypes",
    "csv",
    "email",
    "gzip",
    "hashlib",
    "hmac",
    "html",
    "http.client",
    "http.server",
    "importlib.metadata",
    "importlib.resources",
    "logging.config",
    "logging.handlers",
    "multiprocessing",
    "prometheus_client",
    "secrets",
    "shutil",
    "tempfile",
    "tomllib",
    "unittest",
    "urllib.request",
    "xml",
    "zipfile",
    # Other parsers, codecs and tools than those that serve.
    "anyio",
    "a2wsgi",
    "dotenv",
    "google",
    "grpc",
    "gunicorn",
    "h11",
    "opentelemetry",
    "requests",
    "watchfiles",
    "websockets",
    "wsproto",
    "yaml",
    # Of our own, what belongs to an option.
    "obsserve.accessformat",
    "obsserve.demo",
    "obsserve.export",
    "obsserve.gunicorn",
    "obsserve.healthcheck",
    "obsserve.http.h11parser",
    "obsserve.logoptions",
    "obsserve.server.handshake",
    "obsserve.server.supervisor",
    "obsserve.server.tls",
    "obsserve.telemetry.exposition",
    "obsserve.telemetry.logformats",
    "obsserve.telemetry.tracing",
    "obsserve.websocket.deflate",
}
# Each of them a part that a server needs to serve at all; what they import is theirs.
PARTS = "import asyncio, click, httptools, json, structlog, sys, uvloop; print(json.dumps([*sys.modules]))"


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (("--no-access-log",), 79),
        (("--log-format", "json"), 103),
        (("--metrics-port", "0", "--log-format", "json"), 111),
    ],
    ids=["off", "access log", "metrics and access log"],
)
def test_a_first_response_needs_no_more_than_this(serve, tmp_path, arguments, most):
    """Bound what a start imports, which says the same on every machine; the time is measured by `loadtests.bench startup`."""
    # structlog imports rich where it is installed, as it is for other tests' sake.
    (tmp_path / "rich.py").write_text("raise ImportError\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    parts = subprocess.run(
        [sys.executable, "-c", PARTS],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        check=True,
    )
    server = serve("imports_app:app", "--port", "0", *arguments, environment=environment)
    modules = {*httpx.get(server.url).json()} - {*json.loads(parts.stdout)}
    assert sorted(name for name in modules if name in LATER or name.partition(".")[0] in LATER) == []
    assert len(modules) <= most, sorted(modules)
