"""What the conformance application sees under each server: `python tests/contracts/conformance.py` prints the
differences as rows for docs/conformance.md.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path

from tests.ports import free_port
from tests.waiting import DEADLINE, wait_for

HERE = Path(__file__).parent
APP = "conformance_app:app"

SERVERS = {
    "obsserve": ["obsserve", APP, "--http", "httptools", "--port", "{port}"],
    "obsserve (h11)": ["obsserve", APP, "--http", "h11", "--port", "{port}"],
    "uvicorn": ["uvicorn", APP, "--http", "httptools", "--port", "{port}"],
    "hypercorn": ["hypercorn", APP, "--bind", "127.0.0.1:{port}"],
}

HOST = b"Host: shop.example\r\n"
CLOSE = b"Connection: close\r\n\r\n"


def request(line, *fields, body=b""):
    head = b"".join(field + b"\r\n" for field in fields)
    return line + b" HTTP/1.1\r\n" + HOST + head + CLOSE + body


CHUNKED = b"Transfer-Encoding: chunked"
# Each request by what it is about.
REQUESTS = {
    "a path with escapes and a query": request(b"GET /echo/caf%C3%A9%2Fx%20y?a=1&b=%20&c"),
    "a path with unusual characters": request(b"GET /echo//a;b=c/@:!$'()*+,=~..?x|y[]{}"),
    "a path that is not UTF-8": request(b"GET /echo/%ff"),
    "a body with a length": request(b"POST /echo", b"Content-Length: 5", body=b"hello"),
    "a chunked body": request(b"POST /echo", CHUNKED, body=b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    "a chunked body with a trailer": request(b"POST /echo", CHUNKED, body=b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n"),
    "an empty body": request(b"POST /echo", b"Content-Length: 0"),
    "header fields": request(
        b"GET /echo", b"X-A:  1 \t", b"x-b:", b"X-A: 2", b"X-Bytes: \xe9", b"Cookie: a=1"
    ),
    "HEAD": request(b"HEAD /echo"),
    "OPTIONS *": request(b"OPTIONS *"),
    "another method": request(b"PROPFIND /echo"),
    "the absolute form": request(b"GET http://other.example/echo?a=1"),
    "HTTP/1.0": b"GET /echo HTTP/1.0\r\n\r\n",
    "HTTP/1.1 without Host": b"GET /echo HTTP/1.1\r\n" + CLOSE,
    "Expect: 100-continue": request(b"POST /echo", b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"),
    "Upgrade: h2c": (
        b"GET /echo HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    ),
    "forwarding headers of a trusted peer": request(
        b"GET /echo", b"X-Forwarded-For: 192.0.2.9", b"X-Forwarded-Proto: https"
    ),
    "a malformed request line": b"GET /echo\r\n" + HOST + CLOSE,
    "a malformed header": request(b"GET /echo", b"no colon"),
    "two lengths": request(b"POST /echo", b"Content-Length: 2", b"Content-Length: 3", body=b"hi"),
    "a length and chunks": request(b"POST /echo", b"Content-Length: 2", CHUNKED, body=b"0\r\n\r\n"),
    "the lifespan": request(b"GET /startup"),
    "a streamed response": request(b"GET /streams"),
    "a response without content": request(b"GET /no-content"),
    "headers of the application": request(b"GET /own-headers"),
    "HEAD of a stream": request(b"HEAD /streams"),
    "an application that raises": request(b"GET /raises"),
    "an application that raises after its start": request(b"GET /raises-late"),
    "an application that returns nothing": request(b"GET /silent"),
    "an application that does not read the body": request(b"POST /early", b"Content-Length: 2", body=b"hi"),
}
# Fields that differ from server to server and from moment to moment.
UNCOMPARED = ("date", "server", "content-length", "transfer-encoding", "x-request-id")
FRAMING = ("content-length", "transfer-encoding")
# A fact that differs alike for more requests than this is said once.
FEW = 3


@contextmanager
def running(name, folder):
    """Run a server; gives its port."""
    port = free_port()
    command = [word.format(port=port) for word in SERVERS[name]]
    output = (folder / f"{name}.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=HERE, stdout=output, stderr=subprocess.STDOUT
    )

    def answers():
        if process.poll() is not None:
            raise RuntimeError((folder / f"{name}.log").read_text())
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        wait_for(answers, f"the start of {name}")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.close()


def exchange(port, sent):
    """Send a request and return status, header fields and body; nothing when there is no answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(sent)
        response = HTTPResponse(sock, method=sent.partition(b" ")[0].decode("latin-1"))
        try:
            response.begin()
        except (OSError, ValueError, EOFError) as error:
            return {"answer": type(error).__name__}
        fields = [(name.lower(), value) for name, value in response.getheaders()]
        shown = {
            "status": response.status,
            "x-request-id": any(name == "x-request-id" for name, _ in fields),
            "framing": next((name for name, _ in fields if name in FRAMING), "until the connection closes"),
            "headers": sorted(f"{name}: {value}" for name, value in fields if name not in UNCOMPARED),
        }
        try:
            body = response.read()
        except Exception as error:
            shown["body"] = type(error).__name__
            return shown
    try:
        shown["body"] = json.loads(body)
    except ValueError:
        shown["body"] = body.decode("latin-1")
    return shown


def after_the_answer(port):
    exchange(port, request(b"GET /after"))
    return exchange(port, request(b"GET /last"))["body"]


def client_goes_away(port):
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        sock.sendall(request(b"POST /waits", b"Content-Length: 2", body=b"hi"))
    return exchange(port, request(b"GET /last"))["body"]


def websocket_talk(port):
    from websockets.sync.client import connect

    shown = {}
    with connect(f"ws://127.0.0.1:{port}/ws/caf%C3%A9?a=1", subprotocols=["one", "two"]) as socket_:
        shown["subprotocol"] = socket_.subprotocol
        shown["accepted"] = socket_.response.headers.get("x-accepted")
        for message in ("text é", b"\x00bytes"):
            socket_.send(message)
            received = socket_.recv(DEADLINE)
            shown[type(received).__name__] = (
                received if isinstance(received, str) else received.decode("latin-1")
            )
        socket_.close(3001, "enough")
    shown.update(exchange(port, request(b"GET /last"))["body"])
    return shown


def websocket_closed_by_app(port):
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{port}/ws") as socket_:
        socket_.send("close")
        try:
            socket_.recv(DEADLINE)
        except ConnectionClosed as closed:
            frame = closed.rcvd
    last = exchange(port, request(b"GET /last"))["body"]
    return {"code": frame.code, "reason": frame.reason, "events": last["events"]}


def websocket_lost(port):
    from websockets.sync.client import connect

    with suppress(Exception), connect(f"ws://127.0.0.1:{port}/ws") as socket_:
        socket_.socket.shutdown(socket.SHUT_RDWR)
    return {"events": exchange(port, request(b"GET /last"))["body"]["events"]}


def websocket_refused(port, path):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    try:
        with connect(f"ws://127.0.0.1:{port}{path}"):
            return {"status": 101}
    except InvalidStatus as refused:
        response = refused.response
        return {"status": response.status_code, "body": (response.body or b"").decode()}


TALKS = {
    "receive() after the response": after_the_answer,
    "a client that goes away": client_goes_away,
    "a WebSocket": websocket_talk,
    "a WebSocket that the application closes": websocket_closed_by_app,
    "a WebSocket whose connection is lost": websocket_lost,
    "a WebSocket that is refused": lambda port: websocket_refused(port, "/ws/refuse"),
    "a WebSocket that is answered": lambda port: websocket_refused(port, "/ws/respond"),
}


def observe(name, folder):
    """Everything that one server shows, by request and then by fact."""
    with running(name, folder) as port:
        found = {about: exchange(port, sent) for about, sent in REQUESTS.items()}
        found.update({about: talk(port) for about, talk in TALKS.items()})
    # The server's port, and the client's, are chosen anew each time.
    text = json.dumps(found).replace(f'"127.0.0.1", {port}', '"127.0.0.1", "its port"')
    text = text.replace(f"127.0.0.1:{port}", "127.0.0.1:its-port")
    text = re.sub(r'("127\.0\.0\.1"), \d{4,5}', r'\1, "a port"', text)
    text = re.sub(r'("sec-websocket-key", ")[^"]+', r"\1a key", text)
    return {about: dict(flattened(shown)) for about, shown in json.loads(text).items()}


def flattened(value, path=""):
    """Turn what was shown into facts: a path and a value that is no dictionary."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from flattened(value[key], f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from flattened(inner, f"{path}[{number}]")
    else:
        yield path, value


ABSENT = "absent"


def differences(observed):
    """Return the facts on which the servers differ, as rows: requests, fact, and what each server shows."""
    grouped = {}
    for about in observed["obsserve"]:
        facts = sorted({fact for shown in observed.values() for fact in shown[about]})
        statuses = {shown[about].get("status") for shown in observed.values()}
        if len(statuses) > 1:
            facts = ["status"]  # nothing else can be compared then
        for fact in facts:
            values = tuple(
                json.dumps(shown[about][fact], ensure_ascii=False) if fact in shown[about] else ABSENT
                for shown in observed.values()
            )
            if len(set(values)) > 1:
                grouped.setdefault((fact, values), []).append(about)
    return [
        ("; ".join(requests) if len(requests) <= FEW else "requests in general", fact, *values)
        for (fact, values), requests in grouped.items()
    ]


def cells(row):
    """Return the row as the cells of a table; the first one is prose."""
    about, *values = row
    return [about, *("`{}`".format(value.replace("|", "\\|")) for value in values)]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        everything = {name: observe(name, Path(folder)) for name in SERVERS}
    for row in differences(everything):
        print(f"| {' | '.join(cells(row))} | |")
