"""The choices behind options: interfaces, loops, files of variables."""

from __future__ import annotations

import httpx
import pytest

PARSERS = ["httptools", "h11"]


@pytest.mark.parametrize("parser", PARSERS)
def test_wsgi(serve, parser):
    server = serve(
        "parity_apps:flask", "--interface", "wsgi", "--http", parser, "--port", "0", "--metrics-port", "0"
    )
    answer = httpx.post(f"{server.url}/items/7?a=1", content=b"text")
    assert answer.json() == {"item": 7, "body": "text", "query": {"a": "1"}}
    assert httpx.get(f"{server.url}/nowhere").status_code == 404
    assert httpx.get(f"{server.url}/raise").status_code == 500
    statuses = [(line["url_path"], line["http_response_status_code"]) for line in server.access_lines(3)]
    assert statuses == [("/items/7", 200), ("/nowhere", 404), ("/raise", 500)]
    counted = server.metrics()["http_server_request_duration_seconds_count"]
    assert sum(value for _, value in counted) == 3
    assert server.stop() == 0


def test_a_wsgi_application_that_nobody_announced(serve):
    server = serve("parity_apps:flask", "--port", "0", wait=False)
    assert server.process.wait(20) == 3
    text = server.stderr_path.read_text()
    assert "give --interface wsgi" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("interface", ["auto", "asgi2"])
def test_asgi2(serve, parser, interface):
    server = serve("parity_apps:OldStyle", "--interface", interface, "--http", parser, "--port", "0")
    assert httpx.post(server.url, content=b"body").text == "2.0 body"
    (line,) = server.access_lines(1)
    assert line["http_response_status_code"] == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("loop", "module"),
    [("asyncio", "asyncio"), ("none", "asyncio"), ("uvloop", "uvloop"), ("asyncio:SelectorEventLoop", "asyncio"),
     ("uvloop:new_event_loop", "uvloop")],
)  # fmt: skip
def test_loops(serve, loop, module):
    server = serve("parity_apps:loop_kind", "--loop", loop, "--port", "0")
    assert httpx.get(server.url).text.startswith(module)


def test_a_loop_that_is_not_there(serve):
    server = serve("parity_apps:plain", "--loop", "nowhere:Loop", wait=False)
    assert server.process.wait(20) == 3
    assert (
        'Error loading the loop factory. Could not import module "nowhere".' in server.stderr_path.read_text()
    )


def test_an_env_file(serve, tmp_path):
    (tmp_path / "shop.env").write_text("# the shop\nSHOP_MODE='test'\n")
    server = serve("parity_apps:environment", "--env-file", str(tmp_path / "shop.env"), "--port", "0")
    assert httpx.get(server.url).text == "test"


def test_what_is_always_so_is_accepted(serve):
    server = serve(
        "parity_apps:plain", "--reset-contextvars", "--h11-max-incomplete-event-size", "1000", "--http", "h11",
        "--port", "0",
    )  # fmt: skip
    assert httpx.get(server.url).status_code == 200
    assert httpx.get(server.url, headers={"X-Large": "x" * 2000}).status_code == 431
