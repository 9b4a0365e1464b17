"""`--trace-websocket-messages`: a trace for each message, linked to its handshake, at a real collector."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest
from conftest import total, wait_for
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from obsserve.testing_otlp import OTLPSink
from tests.anyvalues import attributes

SERVER, PRODUCER, CONSUMER = 2, 4, 5
SECRET = "correct horse battery staple"


def start(serve, sink, *options, app="message_apps:app", environment=None):
    return serve(
        app, "--port", "0", "--metrics-port", "0", "--otlp-endpoint", sink.endpoint,
        "--otlp-protocol", sink.protocol, "--trace-websocket-messages", *options, environment=environment,
    )  # fmt: skip


def talk(server, path, messages, headers=None):
    """Send messages one by one, each after the answer to the one before."""

    async def run():
        url = server.url.replace("http", "ws") + path
        with contextlib.suppress(ConnectionClosed):
            async with connect(url, additional_headers=headers or {}) as client:
                for message in messages:
                    await client.send(message)
                    assert await client.recv() == message

    asyncio.run(run())


def closed(server, count):
    wait_for(
        lambda: total(server.metrics(), "obsserve_websocket_closes_total") == count, "the sessions to end"
    )


def by_id(span):
    return span.trace_id.hex(), span.span_id.hex()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("provider", ["", "own"], ids=["ours", "the application's provider"])
def test_each_message_has_a_trace_of_its_own(serve, protocol, provider):
    with OTLPSink(protocol) as sink:
        server = start(
            serve, sink, environment={"OWN_PROVIDER": provider and sink.endpoint, "OTLP_PROTOCOL": protocol}
        )
        talk(server, "/echo/1", [SECRET, b"\x00" * 70_000, "last"])
        closed(server, 1)
        wait_for(lambda: total(server.metrics(), "otel_sdk_span_live") == 0, "all spans to have ended")
        started = total(server.metrics(), "otel_sdk_span_started_total")
        assert server.stop() == 0
        spans = sink.spans
        raw = b"".join(request.SerializeToString() for request in sink.requests)
    (handshake,) = [span for span in spans if span.kind == SERVER]
    (session,) = [span for span in spans if span.name == "websocket /echo/{room}"]
    received = [span for span in spans if span.kind == CONSUMER]
    sent = [span for span in spans if span.kind == PRODUCER]
    works = [span for span in spans if span.name == "work"]
    assert [len(found) for found in (received, sent, works)] == [3, 3, 3]
    assert started == 2 + 6

    assert session.parent_span_id == handshake.span_id
    assert len({span.trace_id for span in (handshake, *received)}) == 4
    kinds = [("text", len(SECRET)), ("binary", 70_000), ("text", 4)]
    for span, (kind, size) in zip(received, kinds, strict=True):
        assert span.name == "websocket receive /echo/{room}"
        assert not span.parent_span_id
        assert [by_id(link) for link in span.links] == [by_id(handshake)]
        facts = attributes(span)
        assert 0 <= facts.pop("obsserve.websocket.message.waited") < 10
        assert facts == {
            "obsserve.websocket.message.direction": "received",
            "obsserve.websocket.message.type": kind,
            "obsserve.websocket.message.size": size,
            "http.route": "/echo/{room}",
            "obsserve.connection.id": attributes(handshake)["obsserve.connection.id"],
            "obsserve.request_id": attributes(handshake)["obsserve.request_id"],
            "app.room": "1",  # what the application has set on the current span
        }
        assert session.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano < span.end_time_unix_nano <= session.end_time_unix_nano + 1_000_000
        # What the application does with it is in its trace: a span of its own, and the answer.
        (work,) = [found for found in works if found.trace_id == span.trace_id]
        assert work.parent_span_id == span.span_id
        (answer,) = [found for found in sent if found.trace_id == span.trace_id]
        assert answer.name == "websocket send /echo/{room}"
        assert answer.parent_span_id == work.span_id
        assert [by_id(link) for link in answer.links] == [by_id(handshake)]
        assert attributes(answer) == {
            "obsserve.websocket.message.direction": "sent",
            "obsserve.websocket.message.type": kind,
            "obsserve.websocket.message.size": size,
            "http.route": "/echo/{room}",
            "obsserve.connection.id": facts["obsserve.connection.id"],
            "obsserve.request_id": facts["obsserve.request_id"],
        }
    assert SECRET.encode() not in raw


def test_what_is_sent_out_of_nothing_begins_a_trace(serve):
    with OTLPSink() as sink:
        server = start(serve, sink)

        async def listen():
            async with connect(server.url.replace("http", "ws") + "/push/3") as client:
                return [await client.recv() for _ in range(3)]

        assert asyncio.run(listen()) == ["0", "1", "2"]
        closed(server, 1)
        assert server.stop() == 0
        spans = sink.spans
    (handshake,) = [span for span in spans if span.kind == SERVER]
    pushed = [span for span in spans if span.kind == PRODUCER]
    assert len({span.trace_id for span in (handshake, *pushed)}) == 4
    assert not any(span.parent_span_id for span in pushed)
    assert [by_id(link) for span in pushed for link in span.links] == [by_id(handshake)] * 3


def test_a_message_that_makes_the_application_raise(serve):
    with OTLPSink() as sink:
        server = start(serve, sink)
        talk(server, "/echo/1", ["fine", "raise"])
        closed(server, 1)
        assert server.stop() == 0
        good, bad = [span for span in sink.spans if span.kind == CONSUMER]
    assert good.status.code == 0
    assert (bad.status.code, attributes(bad)["error.type"]) == (2, "LookupError")
    (event,) = bad.events
    assert {pair.key: pair.value.string_value for pair in event.attributes}["exception.type"] == "LookupError"


def test_the_close_ends_what_is_being_handled(serve):
    with OTLPSink() as sink:
        server = start(serve, sink, "--timeout-graceful-shutdown", "1")

        async def leave():
            async with connect(server.url.replace("http", "ws") + "/ponder/1") as client:
                await client.send("a long story")
                assert await client.recv() == "hm"

        asyncio.run(leave())
        closed(server, 1)
        # The application goes on for a minute; its span does not.
        wait_for(lambda: total(server.metrics(), "otel_sdk_span_live") == 0, "the spans to have ended")
        assert httpx.get(f"{server.url}/").status_code == 404
        server.stop()
        (span,) = [span for span in sink.spans if span.kind == CONSUMER]
        (session,) = [span for span in sink.spans if span.name.startswith("websocket /")]
    assert span.status.code == 0
    assert span.end_time_unix_nano == pytest.approx(session.end_time_unix_nano, abs=1000)


def test_only_websockets_whose_handshake_is_kept(serve):
    with OTLPSink() as sink:
        server = start(serve, sink, "--trace-sample-ratio", "0")
        talk(server, "/echo/1", ["unseen"])
        parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        talk(server, "/echo/2", ["seen"], parent)
        closed(server, 2)
        assert server.stop() == 0
        kinds = sorted(span.kind for span in sink.spans if span.name != "work")
    assert kinds == [1, SERVER, PRODUCER, CONSUMER]


def test_a_flood_leaves_the_spans_of_requests_their_places(serve):
    """Messages take half of the queue; the rest is dropped and counted, and no request's span is."""
    with OTLPSink() as sink:
        server = start(
            serve, sink, environment={"OTEL_BSP_MAX_QUEUE_SIZE": "40", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        )

        async def flood():
            async with connect(server.url.replace("http", "ws") + "/sink/1") as client:
                for _ in range(200):
                    await client.send("x")
                await client.send("done")
                assert await client.recv() == "done"

        asyncio.run(flood())
        closed(server, 1)
        for _ in range(10):
            assert httpx.get(f"{server.url}/").status_code == 404
        dropped = total(server.metrics(), "otel_sdk_processor_span_processed_total", error_type="queue_full")
        assert dropped >= 180
        assert server.stop() == 0
        spans = sink.spans
    assert len([span for span in spans if span.kind == SERVER]) == 11
    assert len([span for span in spans if span.kind in (PRODUCER, CONSUMER)]) + dropped == 202
    assert len(spans) + dropped == 202 + 11 + 1


def test_without_the_option_there_are_none(serve):
    with OTLPSink() as sink:
        server = serve(
            "message_apps:app", "--port", "0", "--metrics-port", "0", "--otlp-endpoint", sink.endpoint
        )
        talk(server, "/echo/1", ["hello"])
        closed(server, 1)
        assert server.stop() == 0
        (handshake,) = [span for span in sink.spans if span.kind == SERVER]
        (work,) = [span for span in sink.spans if span.name == "work"]
        assert sorted(span.kind for span in sink.spans) == [1, 1, SERVER]
    assert work.parent_span_id == handshake.span_id


def test_with_the_option_and_no_tracing_messages_go_through(serve):
    server = serve("message_apps:app", "--port", "0", "--metrics-port", "0", "--trace-websocket-messages")
    talk(server, "/echo/1", ["hello", b"there"])
    closed(server, 1)
    assert server.stop() == 0
