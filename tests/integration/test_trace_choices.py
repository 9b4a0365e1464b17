"""What operators choose about spans, seen by a client and by a collector."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from websockets.asyncio.client import connect

from obsserve.testing_otlp import OTLPSink
from tests.anyvalues import attributes


@pytest.fixture
def sink():
    with OTLPSink("http/protobuf") as sink:
        yield sink


def start(serve, sink, app, *options):
    endpoint = ("--otlp-endpoint", sink.endpoint, "--otlp-protocol", "http/protobuf")
    return serve(app, "--port", "0", *endpoint, *options)


def test_failures_and_chosen_paths_of_a_service_that_keeps_nothing(serve, sink):
    server = start(
        serve, sink, "apps:fastapi", "--trace-sample-ratio", "0", "--trace-keep-errors", "--log-slow", "0.3",
        "--trace-sample-path", "/items/*=1", "--trace-sample-path", "/stream/*=0",
    )  # fmt: skip
    parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with httpx.Client(base_url=server.url) as client:
        for path in ("/items/7", "/items/none", "/nowhere", "/raise", "/sleep/0.5", "/sleep/0"):
            client.get(path)
        client.get("/stream/2", headers=parent)
        client.get("/sleep/0", headers=parent)
    lines = server.access_lines(8)
    assert server.stop() == 0
    # FastAPI makes spans of its own.
    spans = {span.span_id.hex(): span for span in sink.spans if span.kind == 2}
    found = [
        (line["url_path"], attributes(spans[line["span_id"]]).get("obsserve.sampling.reason"))
        for line in lines
        if line["span_id"] in spans
    ]
    assert found == [
        ("/items/7", None),
        ("/items/none", None),
        ("/raise", "error"),
        ("/sleep/0.5", "slow"),
        ("/sleep/0", None),  # the caller keeps it
    ]
    assert len(spans) == len(found)


def test_responses_tell_the_ids(serve, sink):
    server = start(serve, sink, "apps:fastapi", "--trace-response", "traceresponse,server-timing")

    async def open_websocket():
        async with connect(server.url.replace("http", "ws") + "/echo") as client:
            return client.response.headers["traceresponse"]

    with httpx.Client(base_url=server.url) as client:
        answers = [client.get(path).headers for path in ("/items/7", "/stream/2", "/raise", "/nowhere")]
    told = [headers["traceresponse"] for headers in answers]
    assert [headers["server-timing"] for headers in answers] == [f'traceparent;desc="{ids}"' for ids in told]
    told.append(asyncio.run(open_websocket()))
    lines = [line for line in server.access_lines(6) if line["event"] != "websocket.session"]
    assert told == [f"00-{line['trace_id']}-{line['span_id']}-{line['trace_flags']}" for line in lines]


def test_no_response_tells_them_by_itself(serve, sink):
    server = start(serve, sink, "apps:fastapi")
    headers = httpx.get(f"{server.url}/items/7").headers
    assert not {"traceresponse", "server-timing"} & set(headers)


def test_the_lifespan_has_spans(serve, sink):
    server = start(serve, sink, "apps:lifespan_state")
    assert httpx.get(server.url).text == "ready"
    assert server.stop() == 0
    assert sorted(span.name for span in sink.spans) == ["GET", "lifespan.shutdown", "lifespan.startup"]


@pytest.mark.parametrize(
    ("app", "error"), [("lifespan_fails", "_OTHER"), ("lifespan_raises", "RuntimeError")]
)
def test_a_failed_start_leaves_its_span(serve, sink, app, error):
    endpoint = ("--otlp-endpoint", sink.endpoint, "--otlp-protocol", "http/protobuf")
    server = serve(f"apps:{app}", "--port", "0", *endpoint, wait=False)
    assert server.process.wait(20) == 3
    (span,) = sink.spans
    assert (span.name, span.status.code, attributes(span)) == ("lifespan.startup", 2, {"error.type": error})


def test_no_lifespan_no_span(serve, sink):
    server = start(serve, sink, "apps:plain")
    assert httpx.get(server.url).status_code == 200
    assert server.stop() == 0
    assert [span.name for span in sink.spans] == ["GET"]


def test_clients_addresses_are_masked_in_spans_as_in_lines(serve, sink):
    server = start(serve, sink, "apps:plain", "--log-client-ip", "mask")
    assert httpx.get(server.url).status_code == 200
    (line,) = server.access_lines(1)
    assert server.stop() == 0
    (span,) = sink.spans
    assert attributes(span)["client.address"] == line["client_address"] == "127.0.0.0"
    assert attributes(span)["network.peer.address"] == "127.0.0.0"
