"""WSGI and ASGI 2 applications: as many requests as lines and counts, each with its status and size."""

from __future__ import annotations

import hashlib
import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import total, wait_for

N = 120
APPS = """
import asyncio
import hashlib

from flask import Flask, Response

flask_app = Flask(__name__)

@flask_app.get("/plain")
def plain():
    return "x" * 100

@flask_app.get("/stream")
def stream():
    return Response(("y" * 1000 for _ in range(5)), mimetype="text/plain")

@flask_app.post("/upload")
def upload():
    import hashlib
    from flask import request
    return hashlib.sha256(request.get_data()).hexdigest()

@flask_app.get("/slow")
def slow():
    import time
    time.sleep(0.2)
    return Response(("z" * 1000 for _ in range(50)), mimetype="text/plain")

@flask_app.get("/error")
def error():
    raise RuntimeError("on purpose")

def asgi2_app(scope):
    async def instance(receive, send):
        path = scope["path"]
        if path == "/error":
            raise RuntimeError("on purpose")
        if path == "/upload":
            digest = hashlib.sha256()
            while True:
                message = await receive()
                digest.update(message.get("body", b""))
                if not message.get("more_body"):
                    break
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": digest.hexdigest().encode()})
            return
        if path == "/slow":
            await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in [b"x" * 100] if path == "/plain" else [b"y" * 1000] * 5:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})
    return instance
"""
EXPECTED = {"/plain": (200, 100), "/stream": (200, 5000)}


@pytest.mark.parametrize(("interface", "name"), [("wsgi", "flask_app"), ("asgi2", "asgi2_app")])
def test_requests_lines_and_counts_are_the_same_number(serve, tmp_path, interface, name):
    (tmp_path / "shop_apps.py").write_text(APPS)
    server = serve(
        f"shop_apps:{name}", "--app-dir", str(tmp_path), "--interface", interface, "--metrics-port", "0"
    )
    with httpx.Client(base_url=server.url, timeout=20) as client, ThreadPoolExecutor(8) as threads:
        paths = [("/plain", "/stream", "/error")[n % 3] for n in range(N)]
        responses = list(threads.map(client.get, paths))
    for path, response in zip(paths, responses, strict=True):
        status, size = EXPECTED.get(path, (500, len(response.content)))
        assert (response.status_code, len(response.content)) == (status, size)
    lines = server.access_lines(N)
    told = Counter(
        (it["url_path"], it["http_response_status_code"], it["http_response_body_size"]) for it in lines
    )
    seen = Counter((path, it.status_code, len(it.content)) for path, it in zip(paths, responses, strict=True))
    assert told == seen
    name = "http_server_request_duration_seconds_count"
    wait_for(lambda: total(server.metrics(), name) == N, "the counts")
    assert total(server.metrics(), name, http_response_status_code="500") == N // 3


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("interface", "name"), [("wsgi", "flask_app"), ("asgi2", "asgi2_app")])
def test_thousands_of_uploads_streams_errors_and_clients_that_leave(serve, tmp_path, interface, name):
    (tmp_path / "shop_apps.py").write_text(APPS)
    arguments = ["--app-dir", str(tmp_path), "--interface", interface, "--metrics-port", "0"]
    server = serve(f"shop_apps:{name}", *arguments)
    host, port = server.url.removeprefix("http://").split(":")
    bodies = [os.urandom(size) for size in (0, 1, 70_000, 400_000)]
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]

    def ask(number):
        kind = number % 5
        if kind == 4:  # leaves before the answer
            with socket.create_connection((host, int(port)), 20) as sock:
                sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            return None
        if kind == 3:
            return client.get("/error").status_code == 500
        if kind == 2:
            return len(client.get("/stream").content) == 5000
        which = number // 5 % len(bodies)
        return client.post("/upload", content=bodies[which]).text == digests[which]

    count = 4000
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(16) as threads:
        answers = Counter(threads.map(ask, range(count)))
    assert answers == {True: count * 4 // 5, None: count // 5}
    name = "http_server_request_duration_seconds_count"
    wait_for(lambda: total(server.metrics(), name) == count, "every request counted", 60)
    told = Counter((line["url_path"], line["outcome"]) for line in server.access_lines(count))
    # Flask answers an exception itself.
    assert told["/error", "app_error" if interface == "asgi2" else "server_error"] == count // 5
    assert told["/upload", "ok"] == count // 5 * 2
    assert told["/stream", "ok"] == count // 5
    assert sum(number for (path, _), number in told.items() if path == "/slow") == count // 5
    assert httpx.get(f"{server.url}/plain", timeout=20).status_code == 200, "no thread is left behind"
    assert server.stop() == 0
