"""The server as programs use it: in a thread, in a running loop, on any kind of socket, and its drain."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading

import apps
import httpx
import pytest
from conftest import flags_of, wait_for

from obsserve import Config, Server


def address_of(server):
    return server.servers[0].sockets[0].getsockname()


def test_in_a_thread_until_should_exit(capfd):
    server = Server(Config(apps.plain, port=0, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "start")
        host, port = address_of(server)
        assert httpx.get(f"http://{host}:{port}/").text == "Hello, world!"
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_inside_a_running_loop_with_a_socket_of_ones_own(capfd):
    async def main():
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            server = Server(Config(apps.plain, lifespan="off"))
            serving = asyncio.create_task(server.serve(sockets=[sock]))
            while not server.started:
                await asyncio.sleep(0)
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
            server.should_exit = True
            await serving

    asyncio.run(main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_every_loop_and_parser(serve, loop, http):
    server = serve(
        "apps:lifespan_state", "--port", "0", "--loop", loop, "--http", http, "--metrics-port", "0"
    )
    assert httpx.get(server.url).text == "ready"
    assert f'event_loop="{loop}"' in (page := httpx.get(server.metrics_url).text)
    assert f'http_parser="{http}"' in page
    assert server.stop() == 0


def test_a_unix_socket_and_a_stale_one(serve, tmp_path):
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = serve("apps:plain", "--uds", str(path))
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://any/").text == "Hello, world!"
    assert server.access_lines(1)[0]["listener"] == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o666
    assert server.stop() == 0
    assert not path.exists()


def test_a_descriptor_that_is_handed_in(tmp_path):
    import os
    import subprocess
    import sys

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        log = (tmp_path / "err").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "obsserve", "apps:plain", "--fd", str(sock.fileno())],
            pass_fds=[sock.fileno()],
            stdout=log,
            stderr=log,
            cwd=os.path.dirname(apps.__file__),
        )
        try:
            host, port = sock.getsockname()
            assert httpx.get(f"http://{host}:{port}/", timeout=20).text == "Hello, world!"
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            log.close()


def test_a_running_request_is_finished_before_the_end(serve):
    server = serve("apps:fastapi", "--port", "0")
    answers = []
    client = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{server.url}/sleep/1", timeout=20)),
    )
    client.start()
    wait_for(lambda: connected(server), "the request to arrive")
    assert server.stop() == 0
    client.join()
    assert answers[0].json() == {"slept": 1.0}
    assert answers[0].headers["connection"] == "close"
    assert server.access_lines(1)[0]["http_response_status_code"] == 200


def test_a_request_that_does_not_end_in_time_is_told_so(serve):
    server = serve("apps:fastapi", "--port", "0", "--timeout-graceful-shutdown", "0.3")
    answers = []
    client = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{server.url}/sleep/30", timeout=20)),
    )
    client.start()
    wait_for(lambda: connected(server), "the request to arrive")
    assert server.stop(timeout=10) == 0
    client.join()
    assert answers[0].status_code == 503
    (line,) = server.access_lines(1)
    assert (line["outcome"], line["error_type"], flags_of(line)) == ("shutdown", "worker_shutdown", ["KS"])
    (held,) = server.events("drain.interrupted")
    assert "/sleep/30" in held["message"]
    assert "Traceback" not in server.stderr_path.read_text()


def test_a_second_interrupt_ends_it_at_once(serve):
    server = serve("apps:fastapi", "--port", "0")
    client = threading.Thread(target=lambda: httpx.get(f"{server.url}/sleep/30", timeout=20))
    client.start()
    wait_for(lambda: connected(server), "the request to arrive")
    server.process.send_signal(signal.SIGINT)
    wait_for(lambda: server.events("server.drain"), "the drain to begin")
    assert server.stop(signal.SIGINT, timeout=10) == 0
    client.join()
    assert json.loads(server.stdout_path.read_text())["outcome"] == "shutdown"


def connected(server):
    """Whether a client's connection is established, as the kernel sees it."""
    port = int(server.url.rpartition(":")[2])
    wanted = f":{port:04X}"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return any(row[1].endswith(wanted) and row[3] == "01" for row in rows)
