"""Mistakes of the user: one clear line, the right exit code, no traceback unless the application raised."""

from __future__ import annotations

import signal
import socket

import pytest


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
