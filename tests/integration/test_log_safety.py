"""Whatever bytes a client sends: every line is one object of the schema, for others too, and tells no secret."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import threading

import httpx
from conftest import total, wait_for

from obsserve.telemetry.catalogue import LOG_FIELDS
from obsserve.testing_otlp import OTLPSink

COUNT = "http_server_request_duration_seconds_count"
FIELDS = {field.name: field for field in LOG_FIELDS}
TYPES = {"string": str, "int": int, "float": (int, float), "bool": bool, "array": list, "object": dict}
NULL = {"http_route", "http_response_status_code"}
# What splits lines, ends strings, drives terminals, is no UTF-8, or is more than it seems when it is escaped.
NASTY = [
    b'"', b"\\", b"\\u0000", b"\x1b[31m", b"\x7f", b"\x80", b"\xff\xfe", b"\xc3\xa9", b"\xe2\x80\xa8", b"\xe2\x80\xae",
    b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"%0a%0d", b"%00", b'","level":"error","x":"', b"'", b"\t", b"{}", b"<!--",
    b"\r", b"\n", b"\x00", b"\x85", b" ",
]  # fmt: skip
CONTROLS = bytes(range(32)) + b"\x7f"
NOT_IN_TARGETS = CONTROLS + bytes(range(128, 256)) + b" "
NOT_IN_FIELDS = CONTROLS.replace(b"\t", b"")


def piece(draw, longest):
    parts = [draw.choice(NASTY) if draw.random() < 0.3 else bytes([draw.randrange(33, 127)])]
    while draw.random() < 0.9 and len(parts) < longest:
        parts.append(draw.choice([draw.choice(NASTY), draw.randbytes(2), b"abc", b"A" * draw.randrange(300)]))
    return b"".join(parts)


def fuzzed(draw):
    """A request: mostly one that is understood, with something in it that should not be."""
    understood = draw.random() < 0.6
    target = b"/" + piece(draw, 12) if draw.random() < 0.7 else piece(draw, 12)
    if understood:
        target = b"/" + target.translate(None, NOT_IN_TARGETS)
    method = draw.choice([b"GET", b"POST", b"QUERY"] if understood else [b"get", piece(draw, 3)])
    host = b"example.org:80" if understood or draw.random() < 0.5 else piece(draw, 4)
    fields = [b"Host: " + host]
    for name in (b"User-Agent", b"X-Request-ID", b"X-Forwarded-For", b"traceparent", b"Referer", b"X-Fuzz"):
        if draw.random() < 0.6:
            fields.append(
                name + b": " + piece(draw, 10).translate(None, NOT_IN_FIELDS if understood else b"")
            )
    head = method + b" " + target + b" HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"
    if not understood and draw.random() < 0.5:
        at = draw.randrange(len(head))
        head = head[:at] + draw.randbytes(draw.randrange(4)) + head[at + draw.randrange(3) :]
    return head


def send(server, data):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        try:
            while client.recv(65536):
                pass
        except ConnectionResetError:
            pass


def check(line, limit):
    """Check one line by the catalogue, and return what it says."""
    assert len(line) <= limit
    assert line.isascii()
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])

    def once(pairs):
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names))
        return dict(pairs)

    said = json.loads(line, object_pairs_hook=once, parse_constant=None)
    order = [name for name in FIELDS if name in said]
    captured = [name for name in said if name.startswith(("http_request_header_", "http_response_header_"))]
    assert [name for name in said if name not in captured] == order
    for name, value in said.items():
        if name not in captured and not (value is None and name in NULL):
            assert isinstance(value, TYPES[FIELDS[name].type]), (name, value)
    assert all(isinstance(said[name], list) for name in captured)
    assert said["event"] == "http.request"
    return said


def rsyslog(program, folder, log):
    """What a real rsyslog makes of a file of access lines: the request id of each line that it can parse."""
    out, config = folder / "parsed", folder / "rsyslog.conf"
    config.write_text(f"""
global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imfile") module(load="mmjsonparse")
input(type="imfile" file="{log}" tag="obsserve:" ruleset="lines")
template(name="ids" type="string" string="%$!request_id%\\n")
ruleset(name="lines") {{
    action(type="mmjsonparse" cookie="")
    if $parsesuccess == "OK" then {{ action(type="omfile" file="{out}" template="ids") }}
}}
""")
    daemon = subprocess.Popen(
        [program("rsyslogd", "rsyslog"), "-n", "-f", str(config), "-i", str(folder / "pid")],
        stderr=subprocess.DEVNULL,
    )
    try:
        wanted = log.read_bytes().count(b"\n")
        wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") >= wanted, "rsyslog to read all", 30)
    finally:
        daemon.terminate()
        daemon.wait(20)
    return out.read_text().splitlines()


def test_fuzzed_requests_leave_lines_that_everybody_can_read(serve, program, tmp_path):
    jq, draw = program("jq"), random.Random(6)
    log = tmp_path / "access.log"
    server = serve(
        "apps:plain", "--port", "0", "--metrics-port", "0", "--access-log-file", str(log), "--log-query", "keep",
        "--log-request-header", "x-fuzz", "--log-request-header", "referer",
    )  # fmt: skip
    for _ in range(600):
        send(server, fuzzed(draw))
    counted = wait_for(
        lambda: (
            total(samples := server.metrics(), "http_server_active_requests") == 0
            and total(samples, "obsserve_log_records_total", stream="access", result="written")
            == total(samples, COUNT)
            and total(samples, COUNT)
        ),
        "all lines to be written",
    )
    assert counted >= 550  # some of what was sent is no request at all
    lines = log.read_bytes().splitlines(keepends=True)
    said = [check(line, 16 * 1024) for line in lines]
    assert len(said) == counted
    statuses = {line["http_response_status_code"] for line in said}
    assert {200, 400} <= statuses
    assert sum(line["http_response_status_code"] == 200 for line in said) > 100
    ids = [line["request_id"] for line in said]
    assert len(set(ids)) >= counted - 20  # a fuzzed one may be taken

    found = subprocess.run([jq, "-c", ".", str(log)], capture_output=True, check=True, timeout=60)
    assert [json.loads(line) for line in found.stdout.splitlines()] == said
    assert rsyslog(program, tmp_path, log) == ids
    assert server.stop() == 0


def test_on_a_pipe_no_line_is_longer_than_what_is_written_at_once(serve):
    reader, writer = os.pipe()
    draw, taken = random.Random(7), []

    def read():
        while chunk := os.read(reader, 1 << 20):
            taken.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    server = serve(
        "apps:plain", "--port", "0", "--metrics-port", "0", "--log-request-header", "x-fuzz", stdout=writer
    )
    os.close(writer)
    for _ in range(150):
        filler = piece(draw, 60).translate(None, NOT_IN_FIELDS)[:6000]
        path = piece(draw, 60).translate(None, NOT_IN_TARGETS)[:6000]
        send(server, b"GET /" + path + b"?a HTTP/1.1\r\nHost: x\r\nX-Fuzz: " + filler + b"\r\n\r\n")
    assert server.stop() == 0
    thread.join(20)
    os.close(reader)
    said = [check(line, 4096) for line in b"".join(taken).splitlines(keepends=True)]
    assert len(said) == 150
    assert any("truncated" in line for line in said)


SECRET = "s3cr3t"
FIELDS_WITH_SECRETS = (
    f"Authorization: Bearer {SECRET}1\r\nProxy-Authorization: Basic {SECRET}2\r\nCookie: session={SECRET}3\r\n"
    f"X-Api-Key: {SECRET}4\r\nX-Custom: {SECRET}5\r\nReferer: http://u:{SECRET}6@x/?q={SECRET}7\r\n"
    f"X-Forwarded-Access-Token: {SECRET}8\r\nbaggage: k={SECRET}9\r\ntracestate: v={SECRET}0\r\n"
)


def own_spans(sink):
    """The server's spans; FastAPI makes some of its own, with what it likes in them."""
    return [
        span
        for request in sink.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        if scope.scope.name == "obsserve"
        for span in scope.spans
    ]


def test_planted_secrets_are_nowhere(serve):
    """With default settings: in no line, span of ours, metric, or page of the metrics port."""
    with OTLPSink("grpc") as sink:
        server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0", "--otlp-endpoint", sink.endpoint)
        host, port = server.url.removeprefix("http://").split(":")
        targets = (
            f"/items/1?token={SECRET}a&{SECRET}b=c&page={SECRET}d",
            f"http://user:{SECRET}e@example.org/items/2?x={SECRET}f",
            f"/raise?password={SECRET}g",
            f"/nowhere?sig={SECRET}h#{SECRET}i",
            f"/log/3?key={SECRET}j",
        )
        sent = 0
        for target in targets:
            for broken in ("", "bad header\r\n", f"Bad Header {SECRET}k: x\r\n", f"Host: y:{SECRET}l@z\r\n"):
                data = f"GET {target} HTTP/1.1\r\nHost: x\r\n{FIELDS_WITH_SECRETS}{broken}\r\n"
                send(server, data.encode())
                sent += 1
        send(server, f"GET / HTTP/{SECRET}\r\n\r\n".encode())
        sent += 1
        with socket.create_connection((host, int(port))) as waiting:
            waiting.sendall(
                f"GET /sleep/2?t={SECRET}m HTTP/1.1\r\nHost: x\r\n{FIELDS_WITH_SECRETS}\r\n".encode()
            )
            wait_for(
                lambda: total(server.metrics(), "http_server_active_requests") == 1, "the request to run"
            )
            pages = [
                httpx.get(server.admin_url + path, headers={"accept": kind}, timeout=10).text
                for path in ("/", "/metrics", "/readyz", "/livez", "/startupz", "/-/status", "/-/requests")
                for kind in ("*/*", "application/openmetrics-text; version=1.0.0", "application/json")
            ]
        lines = server.access_lines(sent + 1)
        pages.append(httpx.get(server.metrics_url).text)
        assert server.stop() == 0
        spans = wait_for(lambda: len(found := own_spans(sink)) > sent and found, "the spans")
    assert any(line.get("url_query", "").startswith("token=REDACTED&") for line in lines)
    assert any(page.count(COUNT) for page in pages)
    for place, text in (
        ("stdout", server.stdout_path.read_text()),
        ("stderr", server.stderr_path.read_text()),
        ("spans", "".join(map(str, spans))),
        ("pages", "".join(pages)),
    ):
        # The name of a query's key is kept.
        rest = text.replace(f"{SECRET}b=", "")
        at = rest.find(SECRET)
        assert at < 0, f"in {place}: {rest[max(at - 200, 0) : at + 100]}"
