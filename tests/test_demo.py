"""The demo, driven in memory: what a request sends in, what the application sends out."""

import asyncio
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from obsserve import demo
from obsserve.demo import DemoError, app
from tests.parts import package

NEVER_LEAVES = object()


@dataclass
class Answer:
    messages: list[dict[str, Any]] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def complete(self) -> bool:
        return bool(self.messages) and self.messages[-1].get("more_body") is False

    def set_route(self, template: str) -> None:
        self.routes.append(template)


def call(
    target: str,
    method: str = "GET",
    body: Iterable[bytes] = (b"",),
    *,
    leaves_after: float | None = None,
    state: dict[str, Any] | None = None,
    extension: bool = True,
    answer: Answer | None = None,
) -> Answer:
    """Send one request, and return all that came back; the client leaves `leaves_after` seconds on, or never."""
    answer = answer or Answer()
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [],
    }
    if state is not None:
        scope["state"] = state
    if extension:
        scope["extensions"] = {"obsserve": answer}
    chunks = list(body)
    incoming = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        await asyncio.sleep(3600 if leaves_after is None else leaves_after)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answer.messages.append(dict(message))

    async def drive() -> None:
        async with asyncio.timeout(10):
            try:
                await app(scope, receive, send)
            except DemoError as error:
                answer.error = error

    asyncio.run(drive())
    return answer


def lifespan(state: dict[str, Any] | None) -> list[str]:
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}}
    if state is not None:
        scope["state"] = state
    asyncio.run(app(scope, receive, send))
    return sent


def test_lifespan_leaves_its_state_to_the_requests():
    state: dict[str, Any] = {}
    assert lifespan(state) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert json.loads(call("/fast", state=state).body)["started"] == state["started"] > 0


def test_server_without_lifespan_state():
    assert lifespan(None) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert json.loads(call("/fast").body) == {"message": "hello", "started": None}


def test_start_page_lists_every_route():
    answer = call("/")
    page = answer.body.decode()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.body)
    for route in demo.ROUTES:
        assert f">{route.template}</a>" in page
        assert route.handler.__doc__ in page


@pytest.mark.parametrize("route", demo.ROUTES, ids=lambda route: route.template)
def test_every_example_of_the_start_page_reaches_its_route(route, monkeypatch):
    monkeypatch.setattr(demo, "MAX_SECONDS", 0.0)  # an example may sleep
    answer = call(route.example, route.methods[0], leaves_after=0.0)
    assert answer.routes == [route.template]
    assert not answer.messages or answer.status < 500


def test_server_without_the_extension():
    answer = call("/status/200", extension=False)
    assert (answer.status, answer.routes) == (200, [])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/status/200", 200),
        ("/status/404", 404),
        ("/status/599", 599),
        ("/status/199", 400),
        ("/status/600", 400),
        ("/status/+20", 400),
        ("/status/٢٠٠", 400),
        ("/status/abc", 400),
    ],
)
def test_status_is_the_one_asked_for_under_one_route(target, status):
    answer = call(target)
    assert answer.status == status
    assert answer.routes == ["/status/{code}"]
    assert answer.body
    assert answer.complete


@pytest.mark.parametrize("code", [204, 304])
def test_status_without_body(code):
    answer = call(f"/status/{code}")
    assert (answer.status, answer.body, answer.complete) == (code, b"", True)


@pytest.mark.parametrize("target", ["/nowhere", "/status/", "/status/200/more", "//", "/fast/", ""])
def test_unknown_path_names_no_route(target):
    answer = call(target)
    assert (answer.status, answer.routes) == (404, [])


def test_head_is_served_where_get_is():
    assert call("/fast", "HEAD").status == 200


@pytest.mark.parametrize(
    ("target", "method", "allow"), [("/fast", "POST", "GET, HEAD"), ("/echo", "GET", "POST")]
)
def test_wrong_method_says_which_are_allowed(target, method, allow):
    answer = call(target, method)
    assert (answer.status, answer.headers["allow"], answer.routes) == (405, allow, [target])


def test_fail_raises_before_anything_is_sent():
    answer = call("/fail")
    assert isinstance(answer.error, DemoError)
    assert answer.messages == []
    assert answer.routes == ["/fail"]


def test_fail_late_raises_in_the_middle_of_the_body():
    answer = call("/fail-late")
    assert isinstance(answer.error, DemoError)
    assert (answer.status, answer.body, answer.complete) == (200, b"so far so good\n", False)


def test_no_response_sends_nothing_and_raises_nothing():
    answer = call("/no-response")
    assert (answer.messages, answer.error) == ([], None)


def test_echo_joins_the_chunks_of_the_body():
    answer = call("/echo", "POST", [b"one ", b"two ", b"three"])
    assert (answer.status, answer.body, answer.complete) == (200, b"one two three", True)
    assert answer.headers["content-length"] == "13"


def test_echo_refuses_a_large_body_before_all_of_it_is_read():
    answer = call("/echo", "POST", [b"x" * demo.MAX_BYTES, b"x", b"never read"])
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


def test_stream_sends_what_was_asked_for():
    answer = call("/stream?chunks=3&bytes=4")
    assert [message["body"] for message in answer.messages[1:]] == [b"....\n"] * 3 + [b""]
    assert answer.complete


def test_stream_is_bounded():
    answer = call("/stream?chunks=1e9&bytes=1e9")
    assert len(answer.messages) == demo.MAX_CHUNKS + 2
    assert max(len(message.get("body", b"")) for message in answer.messages) <= demo.MAX_BYTES


def test_events_are_server_sent_events():
    answer = call("/events?events=2&seconds=0.01")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body == b"id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n"
    assert answer.complete


def test_events_stop_when_the_client_leaves():
    answer = call("/events?events=1000&seconds=10", leaves_after=0.01)
    assert answer.body == b"id: 1\ndata: event 1\n\n"
    assert not answer.complete


@pytest.mark.parametrize(
    ("query", "slept"),
    [
        ("", 1.0),
        ("?seconds=2.5", 2.5),
        ("?seconds=99", 10.0),
        ("?seconds=-1", 0.0),
        ("?seconds=nan", 0.0),
        ("?seconds=inf", 10.0),
    ],
)
@pytest.mark.parametrize("path", ["/slow", "/blocking"])
def test_sleep_is_bounded(path, query, slept, monkeypatch):
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    monkeypatch.setattr(
        demo.asyncio if path == "/slow" else demo.time, "sleep", sleep if path == "/slow" else sleeps.append
    )
    answer = call(path + query)
    assert (answer.status, sleeps) == (200, [slept])


@pytest.mark.parametrize("target", ["/slow?seconds=soon", "/stream?chunks=x", "/events?seconds=1s"])
def test_number_that_is_none_is_refused(target):
    answer = call(target)
    assert answer.status == 400
    assert b"must be a number" in answer.body


def test_spans_are_children_of_the_current_one():
    trace = package("opentelemetry.trace")
    sdk = package("opentelemetry.sdk.trace")
    export = package("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider, exporter = sdk.TracerProvider(), export.InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    parent = provider.get_tracer("test").start_span("request")
    with pytest.MonkeyPatch.context() as patch, trace.use_span(parent):
        patch.setattr(trace, "get_tracer", provider.get_tracer)
        answer = call("/spans")
    assert (answer.status, answer.body, answer.routes) == (200, b"made two spans\n", ["/spans"])
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["look it up", "work it out"]
    assert [span.parent for span in spans] == [parent.get_span_context()] * 2


def test_spans_say_so_without_opentelemetry(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    answer = call("/spans")
    assert answer.status == 501
    assert answer.body == b"no spans: the package opentelemetry-api is not installed\n"


def converse(path: str, *messages: dict[str, Any], extension: bool = True) -> Answer:
    """Open a WebSocket, send these messages, and leave."""
    answer = Answer()
    scope: dict[str, Any] = {"type": "websocket", "path": path, "query_string": b""}
    if extension:
        scope["extensions"] = {"obsserve": answer}
    disconnect = {"type": "websocket.disconnect", "code": 1005}
    incoming = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", **one} for one in messages),
        disconnect,
    ]

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        answer.messages.append(dict(message))

    asyncio.run(app(scope, receive, send))
    return answer


@pytest.mark.parametrize("extension", [True, False])
def test_websocket_echoes_text_and_bytes(extension):
    answer = converse("/ws", {"text": "hello"}, {"bytes": b"\0", "text": None}, extension=extension)
    assert answer.messages == [
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "hello"},
        {"type": "websocket.send", "bytes": b"\0", "text": None},
    ]
    assert answer.routes == (["/ws"] if extension else [])


@pytest.mark.parametrize("path", ["/", "/fast", "/nowhere", "/ws/more"])
def test_websocket_is_refused_elsewhere(path):
    answer = converse(path)
    assert answer.messages == [{"type": "websocket.close"}]
    assert answer.routes == []


def test_websocket_route_tells_plain_requests_what_it_speaks():
    answer = call("/ws")
    assert (answer.status, answer.headers["upgrade"], answer.routes) == (426, "websocket", ["/ws"])


def test_start_page_has_a_script_to_try_the_websocket():
    page = call("/").body.decode()
    assert 'new URL("ws", location)' in page
    assert page.count("{") == page.count("}")
    assert "{{" not in page


def test_background_work_follows_a_complete_response():
    answer = Answer()
    complete_when_logged: list[bool] = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complete_when_logged.append(answer.complete)

    logging.getLogger("obsserve.demo").addHandler(watch := Watch())
    try:
        call("/background", answer=answer)
    finally:
        logging.getLogger("obsserve.demo").removeHandler(watch)
    assert answer.status == 202
    assert complete_when_logged == [True]


def test_unknown_kind_of_scope_raises():
    with pytest.raises(KeyError, match="carrier-pigeon"):
        asyncio.run(app({"type": "carrier-pigeon"}, None, None))


def talk(members: int) -> list[list[dict[str, Any]]]:
    """Connect some WebSockets to /chat, let the first say something, and let all of them leave."""

    async def drive() -> list[list[dict[str, Any]]]:
        inboxes: list[asyncio.Queue[dict[str, Any]]] = [asyncio.Queue() for _ in range(members)]
        sent: list[list[dict[str, Any]]] = [[] for _ in range(members)]

        async def member(number: int) -> None:
            async def send(message: Any) -> None:
                sent[number].append(dict(message))

            scope = {"type": "websocket", "path": "/chat", "query_string": b"", "headers": []}
            await inboxes[number].put({"type": "websocket.connect"})
            await app(scope, inboxes[number].get, send)

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for number in range(members):
                group.create_task(member(number))
            while len(demo.MEMBERS) < members:
                await asyncio.sleep(0)
            await inboxes[0].put({"type": "websocket.receive", "text": "hello"})
            while any(len(messages) < 2 for messages in sent):
                await asyncio.sleep(0)
            for inbox in inboxes:
                await inbox.put({"type": "websocket.disconnect", "code": 1000})
        return sent

    return asyncio.run(drive())


def test_chat_sends_what_one_says_to_all():
    for messages in talk(3):
        assert [message["type"] for message in messages] == ["websocket.accept", "websocket.send"]
        assert messages[1]["text"] == "hello"
    assert not demo.MEMBERS


def test_chat_speaks_websocket_only():
    assert call("/chat").status == 426
