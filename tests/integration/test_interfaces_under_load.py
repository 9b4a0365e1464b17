"""WSGI and ASGI 2 applications: as many requests as lines and counts, each with its status and size."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import total, wait_for

N = 120
APPS = """
from flask import Flask, Response

flask_app = Flask(__name__)

@flask_app.get("/plain")
def plain():
    return "x" * 100

@flask_app.get("/stream")
def stream():
    return Response(("y" * 1000 for _ in range(5)), mimetype="text/plain")

@flask_app.get("/error")
def error():
    raise RuntimeError("on purpose")

def asgi2_app(scope):
    async def instance(receive, send):
        path = scope["path"]
        if path == "/error":
            raise RuntimeError("on purpose")
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
