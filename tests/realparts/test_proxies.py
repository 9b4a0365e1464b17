"""The shipped files of deploy/ under the programs that they are for; only ports and paths are put in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.parts import BIN, PATH, program
from tests.ports import free_decade, free_port, free_ports
from tests.waiting import wait_for

# Programs that start programs, several at a time.
wait_for = partial(wait_for, deadline=30.0, interval=0.05)

DEPLOY = Path(__file__).parents[2] / "deploy"


def answers(url):
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def run(tmp_path):
    started = []

    def start(*command, **environment):
        number = len(started)
        with (tmp_path / f"out{number}").open("wb") as out, (tmp_path / f"err{number}").open("wb") as err:
            process = subprocess.Popen(
                list(map(str, command)), cwd=tmp_path, stdout=out, stderr=err,
                env={**os.environ, "PATH": PATH, "HOME": str(tmp_path), **environment},
            )  # fmt: skip
        process.out, process.err = tmp_path / f"out{number}", tmp_path / f"err{number}"
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(35)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@pytest.fixture
def open_folder():
    """A folder that every user may enter, as nginx's workers must; pytest's are for the user who runs the tests."""
    with tempfile.TemporaryDirectory(prefix="obsserve-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def obsserve(run, *listen):
    return run("obsserve", "obsserve.demo:app", "--timeout-keep-alive", "75", *listen)


def nginx_on(run, folder, kind, port, replacements):
    program("nginx", "apt-get install nginx-light")
    text = (DEPLOY / "nginx/nginx.conf").read_text()
    text = text.replace("upstream-tcp.conf", f"upstream-{kind}.conf").replace(
        "listen 8080", f"listen 127.0.0.1:{port}"
    )
    (folder / "nginx.conf").write_text(text)
    upstream = (DEPLOY / f"nginx/upstream-{kind}.conf").read_text()
    for old, new in replacements.items():
        assert old in upstream
        upstream = upstream.replace(old, new)
    (folder / f"upstream-{kind}.conf").write_text(upstream)
    return run("nginx", "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;")


def check_through(port, servers):
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(f"{url}/fast"), "an answer through the proxy")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = httpx.get(f"{url}/fast", headers={"X-Request-ID": "chosen-1", "traceparent": trace})
    assert response.headers["x-request-id"] == "chosen-1"
    assert httpx.get(f"{url}/fast").headers["x-request-id"]
    with httpx.stream("GET", f"{url}/events?events=3&seconds=0.3", timeout=10) as events:
        began = time.monotonic()
        next(events.iter_bytes())
        assert time.monotonic() - began < 5
    with connect(f"ws://127.0.0.1:{port}/ws", open_timeout=10) as websocket:
        websocket.send("x" * 1000)
        assert websocket.recv(timeout=10)

    def lines():
        text = "".join(server.out.read_text() for server in servers)
        found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [line for line in found if line.get("request_id") == "chosen-1"]

    (line,) = wait_for(lines, "the access line")
    assert line["url_path"] == "/fast"
    assert line["client_address"] == "127.0.0.1"


@pytest.mark.parametrize("kind", ["tcp", "instances", "unix"])
def test_nginx(open_folder, run, kind):
    port = free_port()
    if kind == "unix":
        path = open_folder / "app.sock"
        servers = [obsserve(run, "--uds", path, "--forwarded-allow-ips", "unix")]
        wait_for(path.exists, "the unix socket")
        replacements = {"/run/obsserve/app.sock": str(path)}
    else:
        ports = free_ports(2 if kind == "instances" else 1)
        servers = [obsserve(run, "--port", number) for number in ports]
        replacements = {f":{8000 + index};": f":{number};" for index, number in enumerate(ports)}
        for number in ports:
            wait_for(lambda n=number: answers(f"http://127.0.0.1:{n}/fast"), "the server")
    nginx_on(run, open_folder, kind, port, replacements)
    check_through(port, servers)
    logged = [json.loads(line) for line in (open_folder / "access.log").read_text().splitlines()]
    assert any(
        line["request_id"] == "chosen-1" and line["traceparent"].startswith("00-0af7") for line in logged
    )


@pytest.mark.parametrize("proxy", ["haproxy", "caddy"])
def test_haproxy_and_caddy(run, proxy):
    program(proxy, f"apt-get install {proxy}")
    port, upstream = free_port(), free_port()
    server = obsserve(run, "--port", upstream)
    wait_for(lambda: answers(f"http://127.0.0.1:{upstream}/fast"), "the server")
    address = f"127.0.0.1:{upstream}"
    if proxy == "haproxy":
        run(
            "haproxy", "-db", "-f", DEPLOY / "haproxy/haproxy.cfg", BIND=f"127.0.0.1:{port}", UPSTREAM=address
        )
    else:
        run("caddy", "run", "--config", DEPLOY / "caddy/Caddyfile", "--adapter", "caddyfile",
            SITE=f":{port}", UPSTREAM=address)  # fmt: skip
    check_through(port, [server])


@pytest.mark.parametrize("manager", ["supervisord", "circusd"])
def test_two_processes_on_one_socket(run, manager):
    program(manager, "pip install supervisor circus")
    port = free_port()
    metrics = free_decade()
    if manager == "supervisord":
        numbers = (0, 1)
        process = run("supervisord", "-n", "-c", DEPLOY / "supervisor/supervisord.conf",
                      APP="obsserve.demo:app", LISTEN=f"127.0.0.1:{port}", METRICS=metrics)  # fmt: skip
    else:
        numbers = (1, 2)
        process = run("circusd", DEPLOY / "circus/circus.ini",
                      APP="obsserve.demo:app", PORT=str(port), METRICS=metrics)  # fmt: skip
    for number in numbers:
        wait_for(
            lambda n=number: answers(f"http://127.0.0.1:{metrics}{n}/readyz"), "readiness of each process"
        )
    assert answers(f"http://127.0.0.1:{port}/fast")
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0
    assert not answers(f"http://127.0.0.1:{metrics}{numbers[0]}/livez")


def test_systemd_units_verify(tmp_path):
    program("systemd-analyze", "apt-get install systemd")
    for name in ("obsserve.service", "obsserve.socket"):
        shutil.copy(DEPLOY / "systemd" / name, tmp_path)
    verified = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "obsserve.service", tmp_path / "obsserve.socket"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize("how", [("--fd", "3"), (), ("--workers", "2")])
def test_systemd_socket_activate(run, how):
    program("systemd-socket-activate", "apt-get install systemd")
    port = free_port()
    server = run("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-E", f"PATH={PATH}",
                 BIN / "obsserve", *how, "obsserve.demo:app")  # fmt: skip
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/fast"), "an answer")
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def test_systemd_socket_activate_with_two_sockets(run, tmp_path):
    program("systemd-socket-activate", "apt-get install systemd")
    port, path = free_port(), tmp_path / "app.sock"
    run("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", path, "-E", f"PATH={PATH}",
        BIN / "obsserve", "obsserve.demo:app")  # fmt: skip
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/fast"), "an answer over TCP")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://server/fast").status_code == 200
