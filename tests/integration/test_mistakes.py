"""Mistakes of the user: one clear line, the right exit code, no traceback unless the application raised."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.parts import package


@pytest.fixture
def taken():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def outcome(server):
    code = server.process.wait(20)
    return code, server.stderr_path.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere:app"], 3, 'Could not import module "nowhere"'),
        (["apps:nothing"], 3, 'Attribute "nothing" not found in module "apps"'),
        (["apps"], 3, 'must be in format "<module>:<attribute>"'),
        (["apps:not_callable"], 3, "cannot be called"),
        (["apps:plain", "--port", "many"], 2, "port"),
        (["apps:plain", "--limit-concurrency", "0"], 2, "limit_concurrency"),
        (["apps:plain", "--limit-queue", "5"], 2, "without limit_concurrency nothing has to wait"),
        (["apps:plain", "--workers", "two"], 2, "workers: 'two' is not a whole number"),
        (["apps.py:plain"], 3, 'Did you mean "apps:plain"?'),
        ([".apps:plain"], 3, 'Did you mean "apps:plain"?'),
        (["missing:plain", "--app-dir", "nowhere"], 3, "There is no directory 'nowhere'"),
        (["apps:plain", "--loop", "builtins:dict"], 3, "returned a dict, not an event loop"),
        (["apps:plain", "--ssl-cert-reqs", "2"], 3, "Cannot serve TLS, which ssl_cert_reqs"),
        (["apps:plain", "--host", "localhost:80"], 3, "without scheme or port"),
        (["apps:plain", "--host", "192.0.2.1"], 3, "this machine has no such address"),
        (["apps:plain", "--port", "0", "--otlp-endpoint", "ftp://x"], 3, "neither http nor https"),
    ],
)
def test_one_line_and_no_traceback(serve, arguments, code, says):
    found, text = outcome(serve(*arguments, wait=False))
    assert (found, says in text) == (code, True), text
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if "error" in line.lower()]) == 1, text


@pytest.mark.parametrize("app", ["apps:lifespan_fails", "apps:lifespan_raises"])
def test_a_lifespan_that_fails(serve, app):
    server = serve(app, "--port", "0", wait=False)
    code, text = outcome(server)
    assert code == 3
    (event,) = server.events()
    assert event["event"] == "lifespan.failed"
    assert event["level"] == "error"
    assert "the database is away" in text
    assert ("exception_stacktrace" in event) == (app == "apps:lifespan_raises")


def test_an_application_that_raises_when_imported_shows_its_traceback_once(serve):
    code, text = outcome(serve("broken:app", wait=False))
    assert code == 3
    assert text.count("Traceback (most recent call last)") == 1
    assert text.count("ValueError: broken on purpose") == 1
    assert "obsserve/importer.py" not in text
    assert "raised ValueError when it was imported" in text.splitlines()[-1]


def test_the_port_is_in_use(serve, taken):
    code, text = outcome(serve("apps:plain", "--port", str(taken), wait=False))
    assert code == 3
    assert len(text.splitlines()) == 1, text
    assert f"127.0.0.1:{taken}" in text
    assert "in use" in text


def test_the_metrics_port_is_in_use(serve, taken):
    code, text = outcome(serve("apps:plain", "--port", "0", "--metrics-port", str(taken), wait=False))
    assert code == 3
    assert len(text.splitlines()) == 1, text
    assert str(taken) in text


def test_port_9100_is_node_exporters(serve):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", 9100))
            sock.listen()
        except OSError:
            pass  # somebody else has it, which does as well
        code, text = outcome(serve("apps:plain", "--port", "0", "--metrics-port", "9100", wait=False))
    assert code == 3
    assert "node_exporter" in text
    assert "9464" in text
    assert len(text.splitlines()) == 1, text


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success(serve, sig):
    server = serve("apps:plain", "--port", "0", "--metrics-port", "0")
    assert server.stop(sig) == 0
    assert [event["event"] for event in server.events()] == [
        "server.start",
        "metrics.start",
        "server.drain",
        "server.stop",
    ]


def test_a_log_config_that_is_no_yaml(serve, tmp_path):
    package("yaml")
    file = tmp_path / "log.yaml"
    file.write_text("a: [")
    code, text = outcome(serve("apps:plain", "--log-config", str(file), wait=False))
    assert code == 2
    assert len(text.splitlines()) == 1, text
    assert "log_config" in text


def test_options_in_a_table_of_a_file_that_has_none(serve, tmp_path):
    file = tmp_path / "obsserve.toml"
    file.write_text("[tool.obsserve]\nport = 80\n")
    code, text = outcome(serve("apps:plain", "--config", str(file), wait=False))
    assert code == 2
    assert "only pyproject.toml has [tool.obsserve]" in text


def test_what_is_hardly_meant_is_told(serve):
    server = serve("apps:plain", "--port", "0", "--forwarded-allow-ips", "proxy", "--root-path", "api")
    server.stop()
    told = [event["message"] for event in server.events() if event["event"] == "server.warning"]
    assert len(told) == 2
    assert "'proxy'" in told[1]
