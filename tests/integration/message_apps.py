"""A WebSocket application that makes spans of its own while it handles messages."""

from __future__ import annotations

import asyncio
import os

from opentelemetry import trace

if os.environ.get("OWN_PROVIDER"):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    if os.environ["OTLP_PROTOCOL"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=os.environ["OWN_PROVIDER"], insecure=True)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=os.environ["OWN_PROVIDER"] + "/v1/traces")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


async def app(scope, receive, send):
    assert scope["type"] != "lifespan"
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})
        return
    await receive()
    kind, room = scope["path"].strip("/").split("/")
    scope["extensions"]["obsserve"].set_route(f"/{kind}/{{room}}")
    await send({"type": "websocket.accept"})
    await globals()[f"serve_{kind}"](receive, send, room)


async def serve_echo(receive, send, room):
    tracer = trace.get_tracer("message_apps")
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        trace.get_current_span().set_attribute("app.room", room)
        if event.get("text") == "raise":
            raise LookupError("on purpose")
        with tracer.start_as_current_span("work"):
            await asyncio.sleep(0)
            await send({**event, "type": "websocket.send"})


async def serve_push(receive, send, room):
    for number in range(int(room)):
        await send({"type": "websocket.send", "text": str(number)})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def serve_ponder(receive, send, room):
    await receive()
    await send({"type": "websocket.send", "text": "hm"})
    await asyncio.sleep(60)


async def serve_sink(receive, send, room):
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["text"] == "done":
            await send({**event, "type": "websocket.send"})
