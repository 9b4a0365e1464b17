"""Frameworks under a real server: what they answer, and what metric, line and span say of it.

The route is the framework's own template, without a line of the application's code. One request has one SERVER
span, whatever instrumentation the application brings.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest
from conftest import total, wait_for

from obsserve.testing_otlp import OTLPSink
from tests.anyvalues import attributes
from tests.parts import package

SERVER, INTERNAL = 2, 1  # opentelemetry.proto.trace.v1.Span.SpanKind
# framework: the package to install, and the templates of item, stream, fail and ws
TEMPLATES = {
    "starlette": ("starlette", "/items/{item}", "/stream/{name}", "/fail/{name}", "/ws/{room}"),
    "fastapi": ("fastapi", "/items/{item}", "/stream/{name}", "/fail/{name}", "/ws/{room}"),
    "litestar": ("litestar", "/items/{item}", "/stream/{name}", "/fail/{name}", "/ws/{room}"),
    "django": ("django", "/items/<int:item>", "/stream/<name>", "/fail/<name>", None),
    "quart": ("quart", "/items/<int:item>", "/stream/<name>", "/fail/<name>", "/ws/<room>"),
    "falcon": ("falcon", "/items/{item:int}", "/stream/{name}", "/fail/{name}", "/ws/{room}"),
    "blacksheep": ("blacksheep", "/items/{int:item}", "/stream/{name}", "/fail/{name}", "/ws/{room}"),
}
WITH_WEBSOCKET = [name for name in TEMPLATES if name != "django"]
PACKAGES = {name: f"opentelemetry.instrumentation.{name}" for name in ("asgi", "django", "fastapi")}
INSTRUMENTED = [*((name, "asgi") for name in TEMPLATES), ("django", "django"), ("fastapi", "fastapi")]


@pytest.fixture
def sink():
    with OTLPSink("http/protobuf") as sink:
        yield sink


@pytest.fixture
def start(serve, sink):
    def start(framework, instrumentation=""):
        package(TEMPLATES[framework][0])
        if instrumentation:
            package(PACKAGES[instrumentation])
        server = serve(
            "framework_instrumented:app" if instrumentation else f"framework_{framework}:app",
            *("--port", "0", "--metrics-port", "0"),
            *("--otlp-endpoint", sink.endpoint, "--otlp-protocol", "http/protobuf"),
            environment={"FRAMEWORK": framework, "INSTRUMENTATION": instrumentation},
        )
        server.templates = TEMPLATES[framework][1:]
        return server

    return start


def check_spans(sink, lines):
    """One SERVER span for each exchange's line, with its ids and its route."""
    found = {span.span_id.hex(): span for span in sink.spans if span.kind == SERVER}
    assert len(found) == len(lines)
    for line in lines:
        span = found[line["span_id"]]
        route = line["http_route"]
        assert span.trace_id.hex() == line["trace_id"]
        assert attributes(span).get("http.route") == route
        assert span.name == (f"GET {route}" if route else "GET")


VARIANTS = [*((name, "") for name in TEMPLATES), *INSTRUMENTED]


@pytest.mark.parametrize(("framework", "instrumentation"), VARIANTS)
def test_requests(start, sink, framework, instrumentation):
    server = start(framework, instrumentation)
    item_route, stream_route, fail_route, _ = server.templates
    with httpx.Client(base_url=server.url, timeout=10) as client:
        item = client.get("/items/7")
        stream = client.get("/stream/x")
        fail = client.get("/fail/x")
        nowhere = client.get("/nowhere")
    assert (item.status_code, item.text) == (200, "item 7")
    assert item.headers["content-type"].startswith("text/plain")
    assert (stream.status_code, stream.text) == (200, "chunk 0\nchunk 1\nchunk 2\n")
    assert stream.headers["transfer-encoding"] == "chunked"
    assert (fail.status_code, nowhere.status_code) == (500, 404)

    lines = server.access_lines(4)
    recorded = [(line["url_path"], line["http_response_status_code"], line["http_route"]) for line in lines]
    assert recorded == [
        ("/items/7", 200, item_route),
        ("/stream/x", 200, stream_route),
        ("/fail/x", 500, fail_route),
        ("/nowhere", 404, None),
    ]
    assert [line["outcome"] for line in lines[:2]] == ["ok", "ok"]
    assert {line["response_origin"] for line in lines} == {"app"}

    samples = server.metrics()
    name = "http_server_request_duration_seconds_count"
    assert total(samples, name, http_response_status_code="200") == 2
    assert total(samples, name, http_response_status_code="500") == 1
    assert total(samples, name, http_response_status_code="404") == 1
    assert total(samples, "http_server_active_requests") == 0
    assert total(samples, name, http_route=item_route, http_response_status_code="200") == 1
    assert total(samples, name, http_route=stream_route, http_response_status_code="200") == 1
    assert server.stop() == 0
    check_spans(sink, lines)
    if instrumentation:  # its spans are children of ours
        ours = {span.span_id for span in sink.spans if span.kind == SERVER}
        theirs = [span for span in sink.spans if span.kind == INTERNAL and span.parent_span_id in ours]
        assert len(theirs) >= len(lines)


@pytest.mark.parametrize(
    ("framework", "instrumentation"), [one for one in VARIANTS if one[0] in WITH_WEBSOCKET]
)
def test_websocket(start, sink, framework, instrumentation):
    package("websockets")
    from websockets.asyncio.client import connect

    server = start(framework, instrumentation)
    route = server.templates[3]

    async def talk():
        async with connect(server.url.replace("http://", "ws://") + "/ws/7") as client:
            for message in ("hello", "x" * 70000):
                await client.send(message)
                assert await client.recv() == f"7: {message}"

    asyncio.run(asyncio.wait_for(talk(), 20))
    handshake, session = server.access_lines(2)
    assert (handshake["event"], handshake["http_response_status_code"]) == ("websocket.handshake", 101)
    assert handshake["outcome"] == "ok"
    assert session["event"] == "websocket.session"
    assert handshake["http_route"] == session["http_route"] == route
    assert session["websocket_messages_received"] == session["websocket_messages_sent"] == 2
    assert (session["websocket_close_code"], session["websocket_close_initiator"]) == (1000, "client")
    samples = server.metrics()
    assert total(samples, "obsserve_websocket_handshakes_total", result="accepted") == 1
    assert total(samples, "obsserve_websocket_closes_total", code="1000", initiator="client") == 1
    wait_for(
        lambda: total(server.metrics(), "obsserve_websocket_connections_open") == 0,
        "the session's end to be counted",
    )
    assert server.stop() == 0
    check_spans(sink, [handshake])
    (span,) = [span for span in sink.spans if span.name == f"websocket {route}"]
    assert (span.kind, span.parent_span_id.hex()) == (INTERNAL, handshake["span_id"])


def test_django_refuses_websockets(start):
    """It raises for them, so the handshake is answered with an error, and the server goes on."""
    package("websockets")
    import websockets
    from websockets.asyncio.client import connect

    server = start("django")

    async def talk():
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(server.url.replace("http://", "ws://") + "/ws/7")
        return refused.value.response.status_code

    assert asyncio.run(asyncio.wait_for(talk(), 20)) == 500
    assert httpx.get(f"{server.url}/items/7").text == "item 7"
    handshake, item = server.access_lines(2)
    assert (handshake["event"], handshake["http_response_status_code"]) == ("websocket.handshake", 500)
    assert item["http_response_status_code"] == 200


@pytest.mark.parametrize(
    ("framework", "target", "route"),
    [
        ("starlette", "/sub/ann/stream/x", "/sub/{tenant}/stream/{name}"),
        ("fastapi", "/sub/ann/stream/x", "/sub/{tenant}/stream/{name}"),
        ("fastapi", "/v1/stream/x", "/v1/stream/{name}"),
        ("litestar", "/sub/ann/stream/x", "/sub/{tenant}/stream/{name}"),
        ("django", "/sub/ann/stream/x", "/sub/<tenant>/stream/<name>"),
    ],
)
def test_below_another_path(start, framework, target, route):
    """A sub-application's route is the whole template: no value of a path becomes a label."""
    server = start(framework)
    assert httpx.get(server.url + target).text == "chunk 0\nchunk 1\nchunk 2\n"
    (line,) = server.access_lines(1)
    assert (line["url_path"], line["http_route"], line["outcome"]) == (target, route, "ok")
    assert total(server.metrics(), "http_server_request_duration_seconds_count", http_route=route) == 1


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_websocket_of_a_mounted_application(start, framework):
    package("websockets")
    from websockets.asyncio.client import connect

    server = start(framework)

    async def talk():
        async with connect(server.url.replace("http://", "ws://") + "/sub/ann/ws/7") as client:
            await client.send("hello")
            assert await client.recv() == "7: hello"

    asyncio.run(asyncio.wait_for(talk(), 20))
    routes = {line["http_route"] for line in server.access_lines(2)}
    assert routes == {"/sub/{tenant}/ws/{room}"}
