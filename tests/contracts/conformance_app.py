"""The application of the conformance comparison: it answers with what it was called with.

It knows no server. Whatever it sees is turned into plain JSON; what happens after a response is kept and told by
`/last`.
"""

from __future__ import annotations

import asyncio
import json

seen = {"lifespan": None, "last": None}


def plain(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        await websocket(scope, receive, send)
    else:
        name = scope["path"].strip("/").partition("/")[0]
        await ROUTES.get(name, echo)(scope, receive, send)


async def lifespan(scope, receive, send):
    seen["lifespan"] = plain(without_id(scope))
    message = await receive()
    seen["lifespan_message"] = plain(message)
    scope["state"]["given"] = "by the lifespan"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send, content, status=200, headers=()):
    body = json.dumps(content).encode()
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    """The body, and the keys that its messages have."""
    body, keys = b"", set()
    while True:
        message = await receive()
        keys.add((message["type"], *sorted(message.keys() - {"type"})))
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body, [" ".join(entry) for entry in sorted(keys)]


def without_id(scope):
    """Leave out what no two requests have in common, as the comparison does with the response's field."""
    scope.get("state", {}).pop("request_id", None)
    return scope


async def echo(scope, receive, send):
    body, messages = await read(receive)
    await answer(send, {"scope": plain(without_id(scope)), "body": plain(body), "messages": messages})


async def startup(scope, receive, send):
    await answer(
        send,
        {
            "scope": seen["lifespan"],
            "message": seen["lifespan_message"],
            "state": plain(without_id(scope)["state"]),
        },
    )


async def last(scope, receive, send):
    """What came after the previous answer."""
    for _ in range(500):
        if seen["last"] is not None:
            break
        await asyncio.sleep(0.01)
    told, seen["last"] = seen["last"], None
    await answer(send, told)


async def after(scope, receive, send):
    """Receives and sends once more when the response is complete."""
    seen["last"] = None
    await read(receive)
    await answer(send, "answered")
    message = await receive()
    seen["last"] = {"received": plain(message)}


async def waits(scope, receive, send):
    """Waits for the client to go away."""
    seen["last"] = None
    _, messages = await read(receive)
    message = await receive()
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"nobody reads this"})
        sending = "ignored"
    except Exception as error:
        sending = "raises OSError" if isinstance(error, OSError) else f"raises {type(error).__name__}"
    seen["last"] = {"messages": messages, "received": plain(message), "sending afterwards": sending}


async def streams(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Kind", b"stream")]})
    for part in (b"one ", b"", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def no_content(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def own_headers(scope, receive, send):
    headers = [
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"server", b"mine"),
        (b"content-length", b"4"),
    ]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": b"made"})


async def raises(scope, receive, send):
    raise RuntimeError("on purpose")


async def raises_late(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    raise RuntimeError("on purpose")


async def silent(scope, receive, send):
    """Returns without a response."""


async def early(scope, receive, send):
    """Answers without reading the body."""
    await answer(send, "early")


async def websocket(scope, receive, send):
    seen["last"] = None
    events = [plain(await receive())]
    if scope["path"] == "/ws/refuse":
        await send({"type": "websocket.close"})
        return
    if scope["path"] == "/ws/respond":
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-a", b"1")]})
        await send({"type": "websocket.http.response.body", "body": b"teapot"})
        return
    chosen = scope["subprotocols"][-1] if scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-accepted", b"1")]})
    while True:
        message = await receive()
        # None and absent are the same to an application.
        events.append({key: plain(value) for key, value in message.items() if value is not None})
        if message["type"] == "websocket.disconnect":
            break
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
        elif message.get("bytes") is not None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": message["text"]})
    seen["last"] = {"scope": plain(without_id(scope)), "events": events}


ROUTES = {
    "startup": startup,
    "last": last,
    "after": after,
    "waits": waits,
    "streams": streams,
    "no-content": no_content,
    "own-headers": own_headers,
    "raises": raises,
    "raises-late": raises_late,
    "silent": silent,
    "early": early,
}
