"""The access line: its fields and their order, that nothing a client sends can break it, and its cost."""

import asyncio
import json
import re
from itertools import count
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
import structlog
from fakes_access import AccessSettings
from hypothesis import given, settings
from hypothesis import strategies as st

from obsserve.telemetry import accessfragments, accesslog, catalogue
from obsserve.telemetry.accessfields import level_of, members
from obsserve.telemetry.accesslog import AccessLog
from obsserve.telemetry.hooks import Hooks

T0 = 1000.25
# What stands in an exchange's line; the others are a WebSocket session's.
FIELDS = [
    entry
    for entry in catalogue.LOG_FIELDS
    if entry.present not in ("session", "captured", "less than 1", "bound")
]
NAMES = [entry.name for entry in FIELDS]


class FakeTrace:
    trace_id_hex = "0af7651916cd43dd8448eb211c80319c"
    span_id_hex = "b7ad6b7169203331"
    flags_hex = "01"
    sampled = True
    log_fragment = f'","trace_id":"{trace_id_hex}","span_id":"{span_id_hex}","trace_flags":"{flags_hex}'


@dataclass(slots=True)
class FakeConnection:
    id: str = "c0ffee"
    serial: int = field(default_factory=count().__next__)
    listener: str = "tcp:127.0.0.1:8000"
    peer: Any = ("192.0.2.7", 40123)
    tls_protocol: Any = None
    tls_cipher: Any = None
    tls_resumed: bool = False
    tls: Any = None


@dataclass(slots=True)
class FakeExchange:
    connection: Any = field(default_factory=FakeConnection)
    connection_request: int = 3
    request_id: str = "0123456789abcdef"
    method: str = "GET"
    target: bytes = b"/items/17?q=s3cr3t&page=2"
    raw_path: bytes = b"/items/17"
    query_string: bytes = b"q=s3cr3t&page=2"
    http_version: str = "1.1"
    scheme: str = "http"
    client: Any = ("192.0.2.7", 40123)
    forwarded_trusted: Any = None
    fields: dict = field(default_factory=lambda: {b"host": b"shop.example:8000", b"user-agent": b"curl/8"})
    scope: Any = field(default_factory=lambda: {"type": "http"})
    route: str = "/items/{id}"
    bound: Any = None
    websocket: bool = False
    ordinary: bool = False
    trace: Any = None
    parts: Any = field(default_factory=object)
    forwarded_scheme: Any = None
    forwarded_client: Any = None
    status: Any = 200
    ending: Any = catalogue.COMPLETE
    outcome: str = "ok"
    error_type: Any = None
    exception: Any = None
    response_origin: str = "app"
    disconnect_phase: Any = None
    flags: list = field(default_factory=list)
    request_body_size: int = 0
    response_body_size: int = 12
    request_size: int = 100
    response_size: int = 150
    began: float = T0
    head_done: float = T0 + 20e-6
    app_started: float = T0 + 50e-6
    body_done: float = T0 + 25e-6
    response_started: float = T0 + 0.0012
    first_byte: float = T0 + 0.0013
    ended: float = T0 + 0.0034
    write_blocked: float = 0.0


@dataclass
class FakeSettings(AccessSettings):
    log_buffer_bytes: int = 4 << 20
    service_name: str = "shop.main:app"


class FakeSink:
    fd = -1

    def __init__(self, line_limit=16384):
        self.line_limit = line_limit
        self.offered = []
        self.important = []
        self.flushes = 0
        self.closed = None

    def offer(self, lines, stream, important, count):
        assert stream == "access"
        assert bytes(lines).count(b"\n") == count
        self.important += [number + self.count for number in important]
        self.offered.append(bytes(lines))

    def flush(self):
        self.flushes += 1

    def close(self, deadline):
        self.closed = deadline

    @property
    def data(self):
        return b"".join(self.offered)

    @property
    def count(self):
        return self.data.count(b"\n")


class Clock:
    offset = 1_700_000_000.0


class Lag:
    worst = 0.0

    def max_between(self, t0, t1):
        assert t0 <= t1
        return self.worst


class Truncations:
    def __init__(self):
        self.count = 0
        self.results = {}

    def add(self, stream, result, n=1):
        self.results[stream, result] = self.results.get((stream, result), 0) + n

    def truncated(self, stream):
        assert stream == "access"
        self.count += 1


class Rig:
    def __init__(self, line_limit=16384, lag=0.0, **changes):
        self.sink = FakeSink(line_limit)
        self.clock = Clock()
        self.lag = Lag()
        self.lag.worst = lag
        self.cut = Truncations()
        self.log = AccessLog(
            self.sink,
            FakeSettings(**changes),
            clock=self.clock,
            lag=self.lag,
            counters=self.cut,
            service_instance_id="instance-1",
        )

    def lines(self, *views):
        for view in views:
            self.log.exchange_ended(view)
        self.log.flush()
        return self.sink.data.decode("ascii").splitlines(keepends=True)

    def line(self, view):
        return strict(self.lines(view)[-1])

    def record(self, view):
        return self.log._record.of(view, offset=self.clock.offset, lag=self.lag.worst)


def refuse(constant):
    raise AssertionError(constant)


def strict(line):
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert line.isascii()
    assert line[:-1].isprintable()
    pairs = []
    values = json.loads(
        line, parse_constant=refuse, object_pairs_hook=lambda found: pairs.append(found) or dict(found)
    )
    assert [key for key, _ in pairs[-1]] == list(values), "a key twice"
    json.dumps(values, ensure_ascii=False).encode()  # no lone surrogate
    return values


def in_contract_order(keys):
    keys = list(keys)
    return keys == [name for name in NAMES if name in keys]


# --- What a line holds --------------------------------------------------------------------------


def test_an_ordinary_line():
    values = Rig().line(FakeExchange())
    pid = values.pop("process_pid")
    assert isinstance(pid, int)
    assert values == {
        "timestamp": "2023-11-14T22:30:00.253400Z",
        "start_time": "2023-11-14T22:30:00.250000Z",
        "level": "info",
        "event": "http.request",
        "schema": 1,
        "logger": "obsserve.access",
        "service_name": "shop.main:app",
        "service_instance_id": "instance-1",
        "worker": 0,
        "request_id": "0123456789abcdef",
        "http_request_method": "GET",
        "url_scheme": "http",
        "url_path": "/items/17",
        "url_query": "q=REDACTED&page=2",
        "http_route": "/items/{id}",
        "http_response_status_code": 200,
        "network_protocol_version": "1.1",
        "server_address": "shop.example",
        "server_port": 8000,
        "client_address": "192.0.2.7",
        "network_peer_address": "192.0.2.7",
        "network_peer_port": 40123,
        "user_agent_original": "curl/8",
        "http_request_body_size": 0,
        "http_response_body_size": 12,
        "http_request_size": 100,
        "http_response_size": 150,
        "duration_seconds": 0.0034,
        "ttfb_seconds": 0.00128,
        "queue_seconds": 0.00003,
        "receive_seconds": 0.000005,
        "app_seconds": 0.00115,
        "send_seconds": 0.0021,
        "write_blocked_seconds": 0.0,
        "loop_lag_max_seconds": 0.0,
        "connection_id": "c0ffee",
        "connection_request": 3,
        "listener": "tcp:127.0.0.1:8000",
        "outcome": "ok",
        "response_origin": "app",
    }


def everything():
    """An exchange whose line has each field that there is."""
    long = b"/" + b"p" * 3000
    return FakeExchange(
        connection=FakeConnection(
            tls_protocol="TLSv1.3",
            tls_cipher="TLS_AES_128_GCM_SHA256",
            tls_resumed=True,
            tls={"client_cert_name": "CN=shop"},
        ),
        trace=FakeTrace(),
        method="BREW",
        raw_path=long,
        forwarded_trusted=True,
        ending=catalogue.CLIENT_DISCONNECTED,
        outcome="client_disconnected",
        error_type="client_disconnected",
        disconnect_phase="response",
        flags=["DC"],
    )


def test_keys_and_order_are_the_catalogues():
    assert list(Rig().line(everything())) == NAMES
    assert len(set(NAMES)) == len(NAMES)


def test_types_are_the_catalogues():
    kinds = {"string": str, "int": int, "float": float, "bool": bool, "array": list}
    values = Rig(lag=0.2).line(everything())
    for entry in FIELDS:
        value = values[entry.name]
        assert type(value) is kinds[entry.type], entry.name


def test_floats_have_six_decimals():
    (line,) = Rig(lag=0.0123456).lines(FakeExchange(ended=T0 + 12.5, write_blocked=0.25))
    found = dict(re.findall(r'"(\w+_seconds)":([0-9.]+)', line))
    assert all(re.fullmatch(r"\d+\.\d{6}", text) for text in found.values())
    assert found["duration_seconds"] == "12.500000"
    assert found["write_blocked_seconds"] == "0.250000"
    assert found["loop_lag_max_seconds"] == "0.012346"
    assert len(found) == 8


@pytest.mark.parametrize("view", [FakeExchange(), everything(), FakeExchange(status=None, route="")])
def test_the_line_is_what_a_structlog_chain_renders_of_the_same_values(view):
    rig = Rig()
    (line,) = rig.lines(view)
    rounded = {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in rig.record(view).items()
    }
    chain = structlog.processors.JSONRenderer(separators=(",", ":"))
    expected = chain(None, "info", rounded)
    # A float with six decimals is the same number as its shortest form.
    shortest = re.sub(r"(?<=_seconds\":)\d+\.\d{6}(?=[,}])", lambda found: repr(float(found[0])), line)
    assert shortest == expected + "\n"


def test_stages_that_were_not_reached_are_left_out():
    refused = FakeExchange(
        scope=None,
        status=400,
        ending=catalogue.BAD_HEADER,
        outcome="protocol_error",
        response_origin="server",
        flags=["DPE"],
        head_done=0.0,
        app_started=0.0,
        body_done=0.0,
        response_started=0.0,
    )
    values = Rig().line(refused)
    assert not {"ttfb_seconds", "queue_seconds", "receive_seconds", "app_seconds"} & set(values)
    assert values["duration_seconds"] == 0.0034
    assert values["send_seconds"] == 0.0021
    assert (values["level"], values["termination_detail"]) == ("warning", "bad_header")
    gone = FakeExchange(status=None, response_origin="none", response_started=0.0, first_byte=0.0)
    values = Rig().line(gone)
    assert not {"ttfb_seconds", "app_seconds", "send_seconds", "write_blocked_seconds"} & set(values)
    assert values["queue_seconds"] == 0.00003
    assert values["http_response_status_code"] is None


def test_what_was_not_parsed_or_known_is_left_out():
    nothing = FakeExchange(
        connection=FakeConnection(peer=None),
        method="",
        raw_path=b"",
        query_string=b"",
        http_version="",
        client=None,
        fields={},
        scope=None,
        route="",
    )
    values = Rig().line(nothing)
    absent = """http_request_method http_request_method_original url_scheme url_path url_query
        network_protocol_version server_address server_port client_address network_peer_address
        network_peer_port forwarded_trusted user_agent_original tls_protocol_version tls_cipher
        tls_resumed tls_client_subject flags termination_detail error_type disconnect_phase truncated""".split()
    assert not set(absent) & set(values)
    assert values["http_route"] is None


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        (b"example.org", "example.org", None),
        (b"example.org:81", "example.org", 81),
        (b"[2001:db8::1]:81", "2001:db8::1", 81),
        (b"[::1]", "::1", None),
        (b"a:b:c", "a:b:c", None),
        (b"example.org:x", "example.org:x", None),
        (b"user:secret@example.org:81", "example.org", 81),
        ("example.org:٣".encode(), "example.org:٣", None),
    ],
)
def test_host(host, address, port):
    values = Rig().line(FakeExchange(fields={b"host": host}))
    assert values["server_address"] == address
    assert values.get("server_port") == port


def test_the_client_may_differ_from_the_peer():
    values = Rig().line(FakeExchange(client=("203.0.113.9", None), forwarded_trusted=False))
    assert values["client_address"] == "203.0.113.9"
    assert values["network_peer_address"] == "192.0.2.7"
    assert values["forwarded_trusted"] is False
    unix = FakeExchange(connection=FakeConnection(peer=("/run/app.sock", None)), client=None)
    values = Rig().line(unix)
    assert values["network_peer_address"] == "/run/app.sock"
    assert "network_peer_port" not in values


def test_an_unknown_method_is_other_with_its_original():
    values = Rig().line(FakeExchange(method="get"))
    assert values["http_request_method"] == "_OTHER"
    assert values["http_request_method_original"] == "get"


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({}, "info"),
        ({"status": 404, "outcome": "client_error"}, "info"),
        ({"status": 404, "outcome": "client_error", "response_origin": "server"}, "warning"),
        ({"status": 500, "outcome": "server_error"}, "error"),
        ({"status": 503, "outcome": "server_error"}, "error"),
        ({"status": 503, "outcome": "rejected", "response_origin": "server"}, "warning"),
        ({"status": 501, "outcome": "protocol_error", "response_origin": "server"}, "error"),
        ({"status": 504, "outcome": "timeout", "response_origin": "server"}, "error"),
        ({"status": 408, "outcome": "timeout", "response_origin": "server"}, "warning"),
        ({"status": None, "outcome": "client_disconnected"}, "warning"),
        ({"outcome": "app_error", "ending": catalogue.APP_INCOMPLETE_RESPONSE}, "error"),
        ({"status": 200, "exception": ValueError(), "error_type": "ValueError"}, "error"),
        ({"ending": catalogue.STREAM_CLOSED_BY_CLIENT, "flags": ["SC"]}, "info"),
        ({"status": None, "outcome": "shutdown"}, "warning"),
    ],
)
def test_levels(change, level):
    view = FakeExchange(**change)
    assert level_of(view) == level
    assert Rig().line(view)["level"] == level


def test_every_ending_leaves_a_strict_line():
    rig = Rig()
    for ending in catalogue.ENDINGS.values():
        view = FakeExchange(
            ending=ending,
            status=ending.status,
            outcome=catalogue.outcome_of(ending, ending.status),
            error_type=catalogue.error_type_of(ending, ending.status, None),
            response_origin="server" if ending.status else "none",
            flags=[ending.flag] if ending.flag else [],
        )
        values = rig.line(view)
        assert values.get("termination_detail") == (None if values["outcome"] == "ok" else ending.detail)
        assert values.get("flags", []) == view.flags
        assert set(values.get("flags", [])) <= set(catalogue.FLAGS)
        assert in_contract_order(values)


def test_lag_sets_its_flag():
    assert Rig(lag=0.1001).line(FakeExchange())["flags"] == ["LG"]
    assert Rig(lag=0.1001).line(FakeExchange(flags=["UP"]))["flags"] == ["UP", "LG"]
    assert "flags" not in Rig(lag=0.0999).line(FakeExchange())


def test_a_websocket_handshake_has_its_event():
    view = FakeExchange(websocket=True, status=101, flags=["UP"])
    assert Rig().line(view)["event"] == "websocket.handshake"
    assert Rig().line(FakeExchange(websocket=True, status=403, outcome="client_error"))["event"] == (
        "websocket.handshake"
    )


@pytest.mark.parametrize(
    ("mode", "query"), [("drop", None), ("keep", "q=s3cr3t&page=2"), ("redact-listed", "q=s3cr3t&page=2")]
)
def test_query_modes(mode, query):
    assert Rig(log_query=mode).line(FakeExchange()).get("url_query") == query


# --- Times --------------------------------------------------------------------------------------


def test_times_follow_the_clock_over_seconds_and_corrections():
    rig = Rig()
    offset = rig.clock.offset
    moments = [(T0, T0 + 0.5), (T0, T0 + 0.9), (T0 + 0.5, T0 + 2.0), (T0 - 86400, T0), (T0, T0 + 0.000001)]
    for began, ended in moments:
        for shift in (0.0, 0.4, -7.25):
            rig.clock.offset = offset + shift
            view = FakeExchange(began=began, ended=ended)
            values = rig.line(view)
            for name, t in (("timestamp", ended), ("start_time", began)):
                got = datetime.strptime(values[name], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
                assert abs(got - (offset + shift + t)) < 2e-6, name


def test_a_clock_that_runs_wild_still_leaves_json():
    values = Rig(lag=float("nan")).line(FakeExchange(ended=T0 + 1e-7))
    assert values["loop_lag_max_seconds"] == 0.0
    assert values["duration_seconds"] == 0.0


# --- Hostile input ------------------------------------------------------------------------------

hostile_bytes = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=9000),
    st.text(max_size=1000).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.integers(0, 9000).map(lambda size: b"\x00" * size),
    st.integers(0, 3000).map(lambda size: "\U0001f600".encode() * size),
)
hostile_text = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.characters(), max_size=400),
    st.integers(0, 3000).map(lambda size: "\ud800" * size),
)
moments = st.floats(0.0, 30.0)


@st.composite
def exchanges(draw):
    reached = draw(st.integers(0, 5))
    begun = draw(st.floats(1.0, 1e6))
    times = sorted(begun + draw(moments) for _ in range(reached))
    head, started, body, answered, first = [*times, *[0.0] * (5 - reached)]
    fields = {}
    if draw(st.booleans()):
        fields[b"host"] = draw(hostile_bytes)
    if draw(st.booleans()):
        fields[b"user-agent"] = draw(hostile_bytes)
    address = st.one_of(st.none(), st.tuples(hostile_text, st.one_of(st.none(), st.integers(0, 65535))))
    status = draw(st.sampled_from([None, 101, 200, 404, 500, 503]))
    exception = draw(st.sampled_from([None, None, ValueError()]))
    phase = draw(st.sampled_from([None, "stream"]))
    flags = draw(st.lists(st.sampled_from(list(catalogue.FLAGS)), max_size=3))
    return FakeExchange(
        connection=FakeConnection(
            id=draw(st.uuids()).hex,
            peer=draw(address),
            listener=draw(hostile_text),
            tls_protocol=draw(st.sampled_from([None, "TLSv1.2"])),
            tls_cipher=draw(st.sampled_from([None, "X"])),
        ),
        method=draw(st.sampled_from(["", "GET", "POST", "B\x00REW"])),
        raw_path=draw(hostile_bytes),
        query_string=draw(hostile_bytes),
        http_version=draw(st.sampled_from(["", "1.0", "1.1"])),
        client=draw(address),
        forwarded_trusted=draw(st.sampled_from([None, True, False])),
        fields=fields,
        scope=draw(st.sampled_from([None, {"type": "http"}, {"type": "websocket"}])),
        route=draw(hostile_text),
        status=status,
        ending=draw(st.sampled_from(list(catalogue.ENDINGS.values()))),
        outcome=draw(st.sampled_from(["ok", "ok", "client_error", "app_error", "timeout"])),
        error_type=draw(hostile_text if exception else st.one_of(st.none(), hostile_text)),
        exception=exception,
        response_origin=draw(st.sampled_from(["app", "server", "none"])),
        flags=[*flags, "SC"] if phase else flags,
        disconnect_phase=phase,
        response_body_size=draw(st.integers(0, 2**63)),
        began=begun,
        head_done=head,
        app_started=started,
        body_done=body,
        response_started=answered,
        first_byte=first,
        ended=begun + 30.0 + draw(moments),
        write_blocked=draw(st.sampled_from([0.0, 0.5])),
    )


@settings(max_examples=300, deadline=None)
@given(view=exchanges(), limit=st.sampled_from([4096, 16384]), lag=st.sampled_from([0.0, 0.0123, 0.5]))
def test_whatever_a_client_sends_the_line_is_one_strict_object_within_the_cap(view, limit, lag):
    rig = Rig(limit, lag)
    first, second = rig.lines(view, view)  # from nothing, and from what is cached
    assert first == second
    assert len(first) <= limit
    values = strict(first)
    assert in_contract_order(values)
    assert rig.cut.count == (2 if "truncated" in values else 0)
    for name in values.get("truncated", []):
        assert name in values
    if "truncated" not in values:
        assert first == f"{{{members(rig.record(view))[1:]}}}\n", "the fast renderer differs from the record"


@settings(max_examples=100, deadline=None)
@given(views=st.lists(exchanges(), max_size=8))
def test_lines_are_as_many_as_exchanges(views):
    for limit in (4096, 16384):
        lines = Rig(limit).lines(*views)
        assert len(lines) == len(views)
        for line in lines:
            assert len(line) <= limit
            strict(line)


@pytest.mark.parametrize("filler", ["\U0001f600", "\x00", "\ud800", '"', "é", "x"])
@pytest.mark.parametrize("size", [30, 100, 127, 128, 255, 256, 257, 511, 512, 513, 3000])
def test_the_longest_values_together_stay_within_a_pipes_write(filler, size):
    text = filler * size
    data = text.encode("utf-8", "surrogatepass")
    view = everything()
    view.raw_path = view.query_string = data
    view.fields = {b"host": data, b"user-agent": data}
    view.route = view.error_type = text
    view.client = (text, 1)
    view.connection.peer = (text, 1)
    view.connection.listener = text
    for service in ("s", text):
        rig = Rig(4096, service_name=service)
        for line in rig.lines(view, FakeExchange(raw_path=data), view):
            assert len(line) <= 4096
            strict(line)


def test_bytes_that_are_no_utf8_are_shown_as_hex():
    values = Rig().line(
        FakeExchange(raw_path=b"/\xff\xc3\xa9\n", fields={b"user-agent": b"\x1b[31m\xed\xa0\x80"})
    )
    assert values["url_path"] == "/\\xffé\n"
    assert values["user_agent_original"] == "\x1b[31m\\xed\\xa0\\x80"


def test_caps_cut_and_are_counted():
    rig = Rig()
    values = rig.line(
        FakeExchange(
            raw_path=b"/" + b"p" * 3000,
            query_string=b"page=" + b"1" * 3000,
            fields={b"user-agent": b"u" * 600, b"host": b"h" * 300},
        )
    )
    lengths = {name: len(values[name]) for name in values["truncated"]}
    assert lengths == {"url_path": 2048, "url_query": 2048, "server_address": 256, "user_agent_original": 512}
    assert rig.cut.count == 1


def test_user_info_of_the_target_never_appears():
    view = FakeExchange(raw_path=b"/x")
    view.target = b"http://user:hunter2@shop.example/x"
    assert "hunter2" not in Rig().lines(view)[0]


@given(
    st.lists(
        st.tuples(st.text("abcdefg", min_size=1, max_size=5), st.text("0123456789", min_size=6, max_size=9)),
        min_size=1,
    )
)
def test_no_query_value_appears_unless_allowed(pairs):
    query = "&".join(f"{key}=v{value}" for key, value in pairs)
    (line,) = Rig().lines(FakeExchange(query_string=query.encode()))
    for _, value in pairs:
        assert f"v{value}" not in line


# --- Caches and hand-over -----------------------------------------------------------------------


def test_caches_are_bounded(monkeypatch):
    monkeypatch.setattr(accessfragments, "_CACHE_ENTRIES", 16)
    rig = Rig()
    for number in range(100):
        view = FakeExchange(
            connection=FakeConnection(id=f"c{number}", listener="l"),
            raw_path=b"/%d" % number,
            client=(f"10.0.0.{number}", 1),
            fields={b"user-agent": b"agent %d" % number, b"host": b"h%d" % number},
            error_type=f"Error{number}",
            outcome="app_error",
            response_body_size=number,
        )
        values = rig.line(view)
        assert (values["url_path"], values["error_type"]) == (f"/{number}", f"Error{number}")
    log = rig.log
    for cache in (log._requests, log._sizes, log._endings):
        assert 0 < len(cache) <= 16
    monkeypatch.setattr(accessfragments, "_SENDER_ENTRIES", 16)
    for number in range(100):
        rig.line(FakeExchange(connection=FakeConnection(id=f"d{number}")))
    assert len(log._senders) <= 16
    kept = len(log._requests)
    rig.lines(FakeExchange(raw_path=b"/" + b"k" * 600))
    assert len(log._requests) <= kept


def test_slow_exchanges_are_not_remembered():
    before = len(accessfragments.SECONDS)
    rig = Rig()
    rig.lines(*[FakeExchange(ended=T0 + 1 + number / 1e5) for number in range(50)])
    assert len(accessfragments.SECONDS) <= before + 1


def ordinary(**changes):
    """An exchange for which the short way is meant; one read and one write, as most are."""
    facts = {"ordinary": True, "head_done": T0, "body_done": T0, "began": T0, "first_byte": T0 + 0.0034}
    return FakeExchange(**{**facts, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"head_done": T0 + 20e-6},
        {"body_done": T0 + 0.001, "request_body_size": 7},
        {"first_byte": T0 + 0.0013},
        {"ended": T0 + 3.7, "first_byte": T0 + 3.7},
        {"status": 404, "outcome": "client_error"},
        {"body_done": 0.0},
        {"forwarded_trusted": True, "forwarded_client": ("203.0.113.9", 1), "client": ("203.0.113.9", 1)},
        {"forwarded_scheme": "https", "scheme": "https"},
        {"trace": FakeTrace()},
    ],
)
@pytest.mark.parametrize("lag", [0.0, 0.05])
def test_the_short_way_writes_what_the_long_one_does(change, lag):
    rig = Rig(lag=lag)
    view = ordinary(**change)
    short = [line for _ in range(3) for line in rig.lines(view)]
    view.ordinary = False
    (long,) = Rig(lag=lag).lines(view)
    anonymous = re.compile(r'"service_instance_id":"[^"]*"')
    assert {anonymous.sub("", line) for line in short} == {anonymous.sub("", long)}


def test_lines_are_handed_over_on_flush_and_past_a_bound():
    rig = Rig()
    for _ in range(accesslog.HANDOVER_LINES - 1):
        rig.log.exchange_ended(FakeExchange())
    assert not rig.sink.offered
    rig.log.exchange_ended(FakeExchange())
    assert len(rig.sink.offered) == 1
    assert rig.sink.count == accesslog.HANDOVER_LINES
    rig.log.flush()
    assert len(rig.sink.offered) == 1
    rig.log.exchange_ended(FakeExchange())
    rig.log.flush()
    assert rig.sink.count == accesslog.HANDOVER_LINES + 1
    assert rig.sink.flushes == 2
    for _ in range(accesslog.HANDOVER_LINES):
        rig.log.exchange_ended(FakeExchange(raw_path=b"/" + b"x" * 600))
    assert len(rig.sink.offered) == 3
    rig.log.exchange_ended(FakeExchange())
    rig.log.close(2.5)
    assert rig.sink.closed == 2.5
    assert rig.sink.count == 2 * accesslog.HANDOVER_LINES + 2


def test_warnings_and_errors_are_marked_as_important():
    rig = Rig()
    bad = FakeExchange(status=500, outcome="server_error", error_type="500")
    long = FakeExchange(status=500, outcome="server_error", error_type="500", raw_path=b"/" * 4000)
    rig.lines(FakeExchange(), bad, FakeExchange(), long)
    assert rig.sink.important == [2, 4]


def test_it_is_an_observer():
    faults = []
    rig = Rig()
    hooks = Hooks([rig.log], lambda *fault: faults.append(fault))
    assert hooks.exchange_started is None
    assert hooks.connection_opened is None
    hooks.exchange_ended(FakeExchange())
    rig.log.flush()
    assert rig.sink.count == 1
    assert not faults


def test_a_line_that_cannot_be_rendered_is_counted_and_told_and_costs_no_other(caplog):
    class Broken(FakeExchange):
        @property
        def began(self):
            raise LookupError("what should never happen")

        @began.setter
        def began(self, value):
            pass

    async def turn():
        for view in (FakeExchange(), Broken(), FakeExchange(ordinary=True), Broken()):
            rig.log.exchange_ended(view)
        await asyncio.sleep(0)

    rig = Rig()
    asyncio.run(turn())
    rig.log.flush()
    assert rig.sink.count == 2
    assert rig.cut.results == {("access", "failed"): 2}
    (told,) = [record for record in caplog.records if record.name == "obsserve.error"]
    assert told.exc_info[0] is LookupError


def test_a_service_whose_name_fills_the_line_is_served_all_the_same():
    values = Rig(4096, service_name="\x00" * 500).line(FakeExchange())
    assert values["service_name"] == "\x00" * 256
    assert values["truncated"] == ["service_name"]


# --- Console ------------------------------------------------------------------------------------


def console(view, **changes):
    (line,) = Rig(log_format="console", **changes).lines(view)
    return line


def test_a_console_line():
    line = console(FakeExchange())
    clock, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.253", clock)
    assert rest == 'INFO    192.0.2.7:40123 "GET /items/17?q=s3cr3t&page=2 HTTP/1.1" 200 12B 3.40ms\n'


def test_a_console_line_of_a_failure():
    view = FakeExchange(
        client=("2001:db8::1", 5),
        query_string=b"",
        status=500,
        outcome="app_error",
        ending=catalogue.APP_EXCEPTION,
        error_type="ValueError",
        flags=["AX"],
    )
    assert console(view).split(" ", 1)[1] == (
        'ERROR   [2001:db8::1]:5 "GET /items/17 HTTP/1.1" 500 12B 3.40ms AX app_exception ValueError\n'
    )


def test_a_console_line_of_what_could_not_be_read():
    view = FakeExchange(
        client=None,
        method="",
        raw_path=b"",
        query_string=b"",
        http_version="",
        status=None,
        response_body_size=0,
    )
    assert console(view).split(" ", 1)[1] == 'INFO    - "- -" - 0B 3.40ms\n'
    assert '192.0.2.7 "' in console(FakeExchange(client=("192.0.2.7", None)))


def test_colours_only_when_asked():
    assert "\x1b" not in console(FakeExchange())
    line = console(FakeExchange(), use_colors=True)
    assert "\x1b[32mINFO   \x1b[0m" in line
    assert "\x1b[32m200\x1b[0m" in line


@settings(max_examples=100, deadline=None)
@given(view=exchanges())
def test_a_console_line_cannot_be_forged(view):
    rig = Rig(4096, log_format="console", log_query="redact-all")
    (line,) = rig.lines(view)
    assert len(line) <= 4096
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def measure():
    """Print what a line costs: the one that is known, one with a new path, one from its record."""
    import sys
    from timeit import repeat

    rig = Rig()
    rig.sink.offer = lambda *_: None
    agent = (
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
    )

    def ordinary(path):
        view = FakeExchange(raw_path=path)
        view.fields[b"user-agent"] = agent
        return view

    views = [ordinary(b"/items/17")] * 2000
    fresh = [ordinary(b"/items/%d" % number) for number in range(2000)]
    write, whole = rig.log.exchange_ended, rig.log._write_whole
    print("Python", sys.version.split()[0])
    for name, call, given in (("known", write, views), ("new path", write, fresh), ("record", whole, views)):
        best = min(repeat(lambda: [call(view) for view in given], number=1, repeat=60)) / len(given)
        print(f"{name:10} {best * 1e6:6.2f} us a line")


if __name__ == "__main__":
    measure()


# --- Sessions -----------------------------------------------------------------------------------


class FakeSession:
    route = "/ws/{room}"
    opened_at, closed_at = T0, T0 + 2.5
    close_code, close_initiator = 1000, "client"
    ping_timed_out = False
    exception = error_type = None
    messages_received, messages_sent, bytes_received, bytes_sent = 3, 2, 30, 20

    def __init__(self, **changes):
        self.exchange = FakeExchange(websocket=True, status=101, flags=["UP"], trace=FakeTrace())
        vars(self).update(changes)


def session_line(session, **rig):
    rig = Rig(**rig)
    rig.log.session_ended(session)
    rig.log.flush()
    return rig.sink.data.decode()


def test_a_session_has_a_line_of_its_own():
    values = json.loads(session_line(FakeSession()))
    assert values["event"] == "websocket.session"
    assert (values["trace_id"], values["request_id"]) == (FakeTrace.trace_id_hex, "0123456789abcdef")
    assert (values["http_route"], values["duration_seconds"], values["outcome"]) == ("/ws/{room}", 2.5, "ok")
    found = [values[entry.name] for entry in catalogue.LOG_FIELDS if entry.present == "session"]
    assert found == [1000, "client", 3, 2, 30, 20]
    assert [name for name in values] == [e.name for e in catalogue.LOG_FIELDS if e.name in values]


@pytest.mark.parametrize(
    ("change", "outcome", "level"),
    [
        (
            {"close_code": 1006, "close_initiator": "none", "error_type": "1006"},
            "client_disconnected",
            "warning",
        ),
        (
            {"close_code": 1009, "close_initiator": "server", "error_type": "1009"},
            "protocol_error",
            "warning",
        ),
        ({"close_code": 1012, "close_initiator": "server"}, "shutdown", "warning"),
        ({"close_code": 1011, "close_initiator": "server", "ping_timed_out": True}, "timeout", "warning"),
        ({"exception": ValueError(), "error_type": "ValueError"}, "app_error", "error"),
        ({"close_code": 4001, "close_initiator": "app"}, "ok", "info"),
    ],
)
def test_how_sessions_end(change, outcome, level):
    values = json.loads(session_line(FakeSession(**change)))
    assert (values["outcome"], values["level"]) == (outcome, level)
    assert values.get("error_type") == change.get("error_type")


def test_a_session_for_people():
    line = session_line(FakeSession(), log_format="console")
    assert "3 in 2 out" in line
    assert "closed 1000 by client" in line
