"""The subcommand in a process of its own, against servers that answer, refuse, hang or are not there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


def check(*arguments, cwd=None, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OBSSERVE_")}
    return subprocess.run(
        [sys.executable, "-m", "obsserve", "healthcheck", *arguments],
        capture_output=True, text=True, timeout=30, check=False, cwd=cwd, env={**clean, **environment},
    )  # fmt: skip


class Answers(BaseHTTPRequestHandler):
    KNOWN = {
        "/readyz": (200, b'{"ready": true, "reasons": []}\n'),
        "/livez": (503, b"the event loop has been blocked for 9.0 s\n"),
        "/startupz": (200, b"no JSON"),
        "/else?a=b": (204, b""),
        "/moved": (302, b""),
        "/list": (200, b"[1]"),
    }

    def do_GET(self):
        status, body = self.KNOWN.get(self.path, (404, b""))
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port():
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_address[1])
        server.shutdown()
        thread.join()


def test_well(port):
    done = check("--metrics-port", port)
    said = f"http://127.0.0.1:{port}/readyz: 200 " + '{"ready": true, "reasons": []}\n'
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_not_well(port):
    done = check("--metrics-port", port, "--probe", "livez")
    said = f"http://127.0.0.1:{port}/livez: 503 the event loop has been blocked for 9.0 s\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


@pytest.mark.parametrize(
    ("path", "code"), [("startupz", 0), ("else?a=b", 0), ("moved", 0), ("list", 0), ("", 1), ("unknown", 1)]
)
def test_any_url(port, path, code):
    assert check("--url", f"http://127.0.0.1:{port}/{path}").returncode == code


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_the_port_is_found_as_the_server_finds_it(port, tmp_path, host):
    assert check(OBSSERVE_METRICS_PORT=port, OBSSERVE_METRICS_HOST=host).returncode == 0
    (tmp_path / "server.toml").write_text(
        f'app = "shop:app"\nmetrics_port = {port}\nmetrics_host = "{host}"\n'
    )
    assert check("--config", "server.toml", cwd=tmp_path).returncode == 0
    assert check(OBSSERVE_CONFIG="server.toml", cwd=tmp_path).returncode == 0


def test_all_addresses_of_ipv6_are_asked_at_home():
    from obsserve.healthcheck import metrics_address

    assert metrics_address(None, "::", "9100") == "http://[::1]:9100"


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        free = sock.getsockname()[1]
    done = check("--metrics-port", str(free))
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_somebody_who_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = check("--metrics-port", str(silent.getsockname()[1]), "--timeout", "0.2")
    assert done.returncode == 1
    assert "timed out" in done.stderr


def test_somebody_who_speaks_something_else():
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def speak():
            peer = odd.accept()[0]
            peer.recv(1000)
            peer.sendall(b"SSH-2.0-odd\r\n")
            peer.close()

        thread = threading.Thread(target=speak)
        thread.start()
        done = check("--metrics-port", str(odd.getsockname()[1]))
        thread.join()
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "metrics_port: the server has none that is known here"),
        (["--metrics-port", "0"], "metrics_port: the server has none that is known here"),
        (["--metrics-port", "many"], "metrics_port: 'many' is not a whole number"),
        (["--url", "ftp://127.0.0.1/"], "is no http or https address"),
        (["--url", "http://127.0.0.1:many/"], "url: "),
        (["--timeout", "0"], "--timeout"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
    ],
)
def test_mistakes(tmp_path, arguments, said):
    done = check(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_application_is_never_taken_for_it(tmp_path):
    """APP has a colon; so a module of that name can still be served."""
    (tmp_path / "healthcheck.py").write_text("raise RuntimeError('imported')")
    done = subprocess.run(
        [sys.executable, "-m", "obsserve", "healthcheck:app"],
        capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3
    assert "imported" in done.stderr
