"""The part in C does what its twins in Python do, and nothing that a client or an application does makes it crash."""

import contextvars
import gc
import os
import subprocess
import sys
import tracemalloc
import weakref
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message

from obsserve import speedups
from obsserve.http.exchange import Exchange, make_exchange
from obsserve.options import PURE_PYTHON_VARIABLE
from obsserve.telemetry import catalogue, metrics, otlp_encode, spanencoder, spanqueue
from obsserve.telemetry.accesslines import PIECES, Lines
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.lightspan import ChildSpan, RootSpan
from obsserve.telemetry.metrics import Metrics, rows_for
from obsserve.telemetry.redact import QueryPolicy
from obsserve.telemetry.spanrecord import SpanProjection
from obsserve.telemetry.traceconfig import TracingConfiguration
from tests.parts import missing

native = speedups.native
ENVELOPE = 'Z","level":"info","request_id":"'
SECOND = 1_700_000_000.0


def test_it_was_built():
    if native is None and not os.environ.get(speedups.PURE_PYTHON_VARIABLE):
        missing("the part in C (a compiler, when obsserve was installed)")


needs_native = pytest.mark.skipif(native is None, reason="the part in C was not built")


@pytest.mark.parametrize(
    "setting, expected", [("", find_spec("obsserve.speedups._native") is not None), ("1", False)]
)
def test_the_variable_leaves_it_aside(setting, expected):
    command = "from obsserve.speedups import native; print(native is not None)"
    environment = {**os.environ, speedups.PURE_PYTHON_VARIABLE: setting}
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(expected)


def test_the_variable_is_known_to_the_options():
    assert PURE_PYTHON_VARIABLE == speedups.PURE_PYTHON_VARIABLE


@needs_native
def test_older_sources_are_left_aside(monkeypatch):
    monkeypatch.delenv(speedups.PURE_PYTHON_VARIABLE, raising=False)
    assert speedups.load() is native
    monkeypatch.setattr(speedups, "REVISION", native.REVISION + 1)
    assert speedups.load() is None


# --- Exchanges ----------------------------------------------------------------------------------


@dataclass(slots=True)
class SlottedConnection:
    serial: int = 7
    id: str = "c0ffee-7"
    listener: str = "main"
    peer: Any = ("127.0.0.1", 50000)
    tls_protocol: Any = None


@dataclass(slots=True)
class SlottedTarget:
    raw_path: bytes = b"/items/7"
    query_string: bytes = b""
    __hash__ = object.__hash__


TARGET = SlottedTarget()


@dataclass(slots=True)
class SlottedExchange:
    connection: Any = field(default_factory=SlottedConnection)
    connection_request: Any = 1
    ordinary: Any = True
    began: Any = 100.0
    head_done: Any = 100.0
    body_done: Any = 100.0
    app_started: Any = 100.0001
    response_started: Any = 100.001
    first_byte: Any = 100.0015
    ended: Any = 100.0015
    method: Any = "GET"
    scheme: Any = "http"
    http_version: Any = "1.1"
    parts: Any = TARGET
    route: Any = "/items/{id}"
    status: Any = 200
    fields: Any = field(default_factory=lambda: {b"host": b"example.org", b"user-agent": b"curl/8"})
    forwarded_scheme: Any = None
    forwarded_client: Any = None
    forwarded_trusted: Any = None
    request_body_size: Any = 0
    response_body_size: Any = 13
    request_size: Any = 40
    response_size: Any = 120
    _request_id: Any = "0af7651916cd43dd8448eb211c80319c"
    trace: Any = None
    context: Any = None
    # What only the twins read.
    raw_path: Any = b"/items/7"
    query_string: Any = b""
    client: Any = ("127.0.0.1", 50000)
    write_blocked: Any = 0.0
    response_origin: Any = "app"
    flags: Any = ()
    error_type: Any = None
    exception: Any = None
    ending: Any = catalogue.COMPLETE
    outcome: Any = "ok"
    request_headers: Any = ()
    response_headers: Any = ()
    bound: Any = None
    pipelined: Any = False
    websocket: Any = False
    app_protocol_error: Any = None
    disconnect_phase: Any = None

    @property
    def request_id(self):
        if self._request_id is None:
            self._request_id = "made-when-asked"
        return self._request_id


NAMES = [name for name in SlottedExchange.__slots__ if name != "_request_id"]


def without_slots(view):
    """Return the same exchange with its facts in a dict, as a view of somebody else's might have them."""
    return SimpleNamespace(**{name: getattr(view, name) for name in NAMES}, request_id=view.request_id)


def root(flags=3, extras=None):
    made = RootSpan()
    made.trace_hex, made.span_hex, made.flags = f"{2**127 + 3:032x}", f"{2**63 + 5:016x}", flags
    made.limits, made.ended, made.extras = CONFIGURATION, False, extras
    return made


def child():
    made = ChildSpan()
    made.trace_hex, made.span_hex, made.flags = f"{2**127 + 3:032x}", f"{2**63 + 5:016x}", 3
    made.limits, made.ended, made.extras = CONFIGURATION, False, None
    made.parent_hex, made.parent_flags = f"{6:016x}", 1
    return made


CONFIGURATION = TracingConfiguration(query=QueryPolicy("redact-all", ()))
WORDED = SimpleNamespace(
    log_fragment='","trace_id":"1","span_id":"2","trace_flags":"01', trace_id_hex="1", sampled=True
)
STEPS = st.floats(0.0, 0.9) | st.floats(0.0, 0.001) | st.integers(0, 999_999).map(lambda n: n / 1e6)
ODD = st.sampled_from(
    [None, "", "\N{SNOWMAN}", b"", b"\xff", -1, 2**31, 2**63, 2**70, -(2**70), 0.0, -0.0, 1e300, float("nan"), float("inf"),
     float("-inf"), True, False, (), [], {}, object(), type("Text", (str,), {})("text"), type("Number", (int,), {})(5)]
)  # fmt: skip


@st.composite
def exchanges(draw):
    """Ordinary exchanges, read and answered at once."""
    began = 100.0 + draw(STEPS)
    app_started = began + draw(STEPS) / 4
    response_started = app_started + draw(STEPS) / 4
    ended = response_started + draw(STEPS) / 4
    return SlottedExchange(
        began=began, head_done=began, body_done=began, app_started=app_started, response_started=response_started,
        first_byte=ended, ended=ended, connection_request=draw(st.integers(1, 2**40)),
        method=draw(st.sampled_from(["GET", "POST", "BREW"])), route=draw(st.sampled_from(["", "/items/{id}", "/\xfc"])),
        scheme=draw(st.sampled_from(["http", "https"])), status=draw(st.sampled_from([200, 204, 304, 404])),
        fields=draw(st.sampled_from([{}, {b"host": b"a"}, {b"host": b"b", b"user-agent": b"c" * 40}])),
        forwarded_client=draw(st.sampled_from([None, ("10.0.0.1", 7)])), forwarded_trusted=draw(st.sampled_from([None, True])),
        request_body_size=draw(st.integers(0, 2**40)), response_body_size=draw(st.integers(0, 300)),
        request_size=draw(st.integers(0, 2**20)), response_size=draw(st.integers(0, 2**20)),
        _request_id=draw(st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)),
        trace=draw(st.sampled_from([None, root(), root(2), child(), WORDED])),
    )  # fmt: skip


class Lag:
    """As the server's: asked by `max_between`, or read."""

    def __init__(self, due=1e9, heartbeat=0.0):
        self.due, self.heartbeat = due, heartbeat

    def max_between(self, began, ended):
        return 0.0 if began >= self.heartbeat and ended <= self.due else 0.01


class AskedLag:
    worst = 0.0

    def max_between(self, began, ended):
        return self.worst


class Clock:
    __slots__ = ("offset",)

    def __init__(self, offset=SECOND - 99.9):
        self.offset = offset


# --- Access lines -------------------------------------------------------------------------------


class Rig:
    """Lines of one of the twins, and what they hand to others."""

    def __init__(self, make, lag=None, most=64):
        self.requests, self.senders, self.sizes = {}, {}, {}
        self.others, self.taken = [], []
        self.lines = make(
            requests=self.requests, senders=self.senders, sizes=self.sizes, pieces=PIECES, envelope=ENVELOPE, clock=Clock(),
            lag=lag or AskedLag(), otherwise=self.others.append, full=self.hand_over, most=most,
        )  # fmt: skip
        self.lines.turn(SECOND, '{"timestamp":"2023-11-14T22:13:20.', 'Z","start_time":"2023-11-14T22:13:20.')

    def hand_over(self):
        self.taken.append(self.lines.take())

    def know(self, view):
        host, agent = view.fields.get(b"host"), view.fields.get(b"user-agent")
        key = (view.method, view.parts, view.route, view.status, "1.1", view.forwarded_scheme, host)
        self.requests[key] = f'","method":"{view.method}","host":"{host}","status":{view.status}'
        key = (view.connection.serial, view.forwarded_client, view.forwarded_trusted, agent)
        self.senders[key] = (
            f',"client":"{agent}"',
            ',"connection_request":',
            f',"listener":"{view.forwarded_trusted}"',
        )
        key = (view.request_body_size, view.response_body_size, view.request_size, view.response_size)
        self.sizes[key] = ',"sizes":"' + "-".join(map(str, key)) + '"'

    def write(self, *views):
        for view in views:
            self.know(view)
            self.lines.write(view)
        return self.lines.take()


def twins(views, **kinds):
    return [Rig(make, **kinds).write(*views) for make in (Lines, native.Lines)]


@needs_native
class TestLines:
    @given(st.lists(exchanges(), max_size=5))
    def test_are_those_of_python(self, views):
        python, ours = Rig(Lines), Rig(native.Lines)
        assert ours.write(*views) == python.write(*views)
        assert ours.others == python.others

    @given(exchanges())
    def test_slots_or_not(self, view):
        assert Rig(native.Lines).write(without_slots(view)) == Rig(native.Lines).write(view)

    @pytest.mark.parametrize("micros", [0.5, 1.5, 2.5, 0.4999999, 0.0, 8191.5, 123456.49999])
    def test_rounding(self, micros):
        view = SlottedExchange(
            app_started=100.0 + micros / 1e6, response_started=100.8, first_byte=100.8, ended=100.8
        )
        python, ours = twins([view])
        assert ours == python
        assert ours[1] == 1

    def test_a_lag_that_is_read_or_asked_for(self):
        view = SlottedExchange()
        for lag in (Lag(heartbeat=100.5), Lag(due=100.001)):
            rig = Rig(native.Lines, lag=lag)
            rig.write(view)
            assert rig.others == [view], "the loop lagged: the whole line tells of it"
        lag = AskedLag()
        lag.worst = 0.001
        rig = Rig(native.Lines, lag=lag)
        rig.write(view)
        assert rig.others == [view]

    @pytest.mark.parametrize(
        "facts",
        [{"ordinary": False}, {"status": 404}, {"status": 500}, {"head_done": 100.00001}, {"body_done": 100.5},
         {"ended": 100.002}, {"began": 99.9, "head_done": 99.9, "body_done": 99.9}, {"ended": 101.5, "first_byte": 101.5}],
    )  # fmt: skip
    def test_what_is_not_its_business(self, facts):
        view = SlottedExchange(**facts)
        rig = Rig(native.Lines)
        assert rig.write(view) == (b"", 0)
        assert rig.others == [view]

    def test_fragments_that_are_not_known(self):
        rig = Rig(native.Lines)
        view = SlottedExchange()
        rig.lines.write(view)
        for known in (rig.requests, rig.sizes, rig.senders):  # in the order in which they are looked for
            rig.know(view)
            known.clear()
            rig.lines.write(view)
        assert len(rig.others) == 4
        rig.know(view)
        rig.lines.write(view)
        assert rig.lines.take()[1] == 1
        for known in (rig.requests, rig.senders, rig.sizes):
            known.clear()  # as is done when there are too many; what was found stays true
        rig.lines.write(view)
        assert rig.lines.take()[1] == 1

    def test_so_many_are_handed_over(self):
        rig = Rig(native.Lines, most=3)
        left, _ = rig.write(*[SlottedExchange()] * 7)
        assert [count for _, count in rig.taken] == [3, 3]
        assert left.count(b"\n") == 1
        assert rig.lines.count == 0

    def test_lines_from_elsewhere(self):
        for make in (Lines, native.Lines):
            lines = Rig(make).lines
            assert (lines.add("one\n"), lines.add("two\n"), lines.count) == (1, 2, 2)
            assert lines.take() == (b"one\ntwo\n", 2)
            assert lines.take() == (b"", 0)
        with pytest.raises(ValueError, match="ASCII"):
            Rig(native.Lines).lines.add("\xfc")

    def test_many_lines_between_two_times(self):
        rig = Rig(native.Lines, most=10_000)
        data, count = rig.write(*[SlottedExchange()] * 500)
        assert count == data.count(b"\n") == 500
        assert len(set(data.splitlines())) == 1

    @settings(max_examples=300)
    @given(st.dictionaries(st.sampled_from([*NAMES, "_request_id"]), ODD, min_size=1, max_size=4))
    def test_whatever_an_exchange_says(self, facts):
        rig = Rig(native.Lines)
        view = SlottedExchange()
        rig.know(view)
        for name, value in facts.items():
            setattr(view, name, value)
        rig.lines.write(view)
        data, count = rig.lines.take()
        assert count + len(rig.others) == 1
        assert data.count(b"\n") == count

    def test_attributes_that_raise(self):
        rig = Rig(native.Lines)
        rig.lines.write(object())
        assert len(rig.others) == 1

    def test_what_it_is_made_of(self):
        with pytest.raises(ValueError, match="six pieces"):
            native.Lines(
                requests={},
                senders={},
                sizes={},
                pieces=("a",),
                envelope="",
                clock=1,
                lag=1,
                otherwise=1,
                full=1,
                most=1,
            )
        with pytest.raises(TypeError):
            native.Lines()
        for kind in (native.Lines, native.Encoder, native.Tracer, native.Counts):
            with pytest.raises(TypeError):
                kind.__new__(kind)


# --- Spans --------------------------------------------------------------------------------------


def encoders(lag=None):
    made = []
    for module in (None, native):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spanencoder, "native", module)
            made.append(
                spanencoder.ExchangeEncoder(SpanProjection(CONFIGURATION), Clock(), lag or AskedLag())
            )
    return made


@needs_native
class TestEncoder:
    @given(st.lists(exchanges(), min_size=1, max_size=4), st.sampled_from([root, child]))
    def test_encodes_as_python_does(self, views, span):
        python, ours = encoders()
        for view in views * 2:  # the second time from what is remembered
            assert ours.encode(view, span()) == python.encode(view, span())

    def test_it_takes_the_short_way(self):
        _, ours = encoders()
        for span in (root(), child()):
            view = SlottedExchange()
            first = ours.encode(view, span)  # by Python, which fills the caches
            assert ours.encode(view, span) == first
            ours._answers.clear()  # Python would fill it again
            assert ours.encode(view, span) == first
            assert not ours._answers, "what was found stays true"

    def test_what_it_says(self):
        _, ours = encoders()
        ours.encode(SlottedExchange(), root())
        found = Message.FromString(ours.encode(SlottedExchange(), child()))
        values = {each.key: each.value for each in found.attributes}
        assert found.parent_span_id == (6).to_bytes(8, "big")
        assert values["http.response.body.size"].int_value == 13
        assert values["obsserve.ttfb"].double_value == pytest.approx(0.0015)
        assert found.end_time_unix_nano - found.start_time_unix_nano == pytest.approx(1_500_000, abs=300)

    @pytest.mark.parametrize("lag", [Lag(heartbeat=100.5), Lag(due=100.001)])
    def test_a_loop_that_lagged(self, lag):
        python, ours = encoders(lag)
        assert ours.encode(SlottedExchange(), root()) == python.encode(SlottedExchange(), root())

    @settings(max_examples=300)
    @given(
        st.dictionaries(st.sampled_from([*NAMES, "_request_id"]), ODD, max_size=3),
        st.dictionaries(
            st.sampled_from(["trace_hex", "span_hex", "flags", "extras", "limits", "ended"]), ODD, max_size=2
        ),
        st.sampled_from([root, child]),
    )
    def test_whatever_they_say(self, facts, changes, make):
        results = []
        for encoder in encoders():
            view, span = SlottedExchange(), make()
            encoder.encode(view, span)
            for name, value in facts.items():
                setattr(view, name, value)
            for name, value in changes.items():
                setattr(span, name, value)
            try:
                results.append(encoder.encode(view, span))
            except Exception as fault:  # noqa: BLE001 - as Python has it
                results.append(type(fault))
        if bytes in map(type, results):
            assert isinstance(results[1], bytes) or results[1] == results[0]


# --- Counts -------------------------------------------------------------------------------------


@pytest.fixture
def regions():
    made = [Cells.create(rows_for(50)) for _ in range(2)]
    yield made
    for region in made:
        region.close()


def counted(regions, **options):
    made = []
    for region, module in zip(regions, (None, native), strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, "native", module)
            made.append(Metrics(region, **options))
    return made


@needs_native
class TestCounts:
    @settings(max_examples=50)
    @given(views=st.lists(exchanges(), max_size=8))
    def test_count_as_python_does(self, views):
        regions = [Cells.create(rows_for(50)) for _ in range(2)]
        for made in counted(regions, max_series=5):
            for number, view in enumerate(views * 2):
                view.connection_request = number % 3 + 1
                made.exchange_started(view)
                made.exchange_ended(view)
        python, ours = (
            [(row.metric, row.labels, list(row.values)) for row in region.reader().rows()]
            for region in regions
        )
        assert ours == python
        for region in regions:
            region.close()

    @pytest.mark.parametrize("filtered", ["trace_based", "always_on"])
    def test_exemplars(self, regions, filtered):
        found = []
        for region, made in zip(regions, counted(regions, exemplars=filtered), strict=True):
            for number in range(3):
                for trace in (None, root(2), root(3)):
                    view = SlottedExchange(trace=trace, began=100.0 + number / 10, ended=100.2 + number)
                    made.exchange_started(view)
                    made.exchange_ended(view)
            rows = [row for row in region.reader().rows() if row.exemplars]
            found.append([(row.labels, {n: e.value for n, e in row.exemplars.items()}) for row in rows])
        assert found[0] == found[1]
        assert found[0]

    def test_a_region_that_is_closed(self):
        region = Cells.create(rows_for(50))
        _, made = counted([Cells.create(rows_for(50)), region])
        view = SlottedExchange()
        made.exchange_started(view)
        made.exchange_ended(view)
        region.close()
        with pytest.raises(ValueError, match=r"closed|released"):
            made.exchange_started(view)
        with pytest.raises(ValueError, match=r"closed|released"):
            made.exchange_ended(view)

    @settings(max_examples=200)
    @given(facts=st.dictionaries(st.sampled_from(NAMES), ODD, min_size=1, max_size=3))
    def test_whatever_an_exchange_says(self, facts):
        region = Cells.create(rows_for(50))
        _, made = counted([region, region])
        view = SlottedExchange()
        made.exchange_started(view)
        made.exchange_ended(view)
        for name, value in facts.items():
            setattr(view, name, value)
        for hook in (made.exchange_started, made.exchange_ended):
            try:
                hook(view)
            except Exception as fault:  # noqa: BLE001 - as Python has it: the observer is turned off
                assert not isinstance(fault, SystemError)
        region.close()


# --- Beginning and end of spans -----------------------------------------------------------------


class Queue:
    def __init__(self, room=10, wake_at=3):
        self.spans, self.room, self.wake_at = [], room, wake_at
        self.refused = self.woken = 0

    def refuse(self):
        self.refused += 1

    def wake_sender(self):
        self.woken += 1


def tracer(queue, slots, others, **changes):
    variable = contextvars.ContextVar("span")
    ids = [(n, f"{n:032x}", f"{n:016x}") for n in (1, 2**63, 2**64 - 1)]
    given = {
        "ids": ids, "fill": lambda: ids.append((5, "f" * 32, "e" * 16)), "slots": slots, "limits": CONFIGURATION,
        "variable": variable, "attach": variable.set, "queue": queue, "waiting": queue.spans, "append": queue.spans.append,
        "wake": queue.wake_sender, "refuse": queue.refuse, "encode": lambda _, span: span.trace_hex.encode(),
        "start_otherwise": lambda view: others.append(("start", view)), "end_otherwise": lambda view: others.append(("end", view)),
        "root": RootSpan, "child": ChildSpan, "root_kept": 0, "root_left_out": 1, "bound": 2**63,
    }  # fmt: skip
    return native.Tracer(**given | changes), variable


@needs_native
class TestTracer:
    def setup_method(self):
        self.slots = memoryview(bytearray(64)).cast("d")
        self.queue, self.others = Queue(), []

    def test_ids_context_and_decision(self):
        made, variable = tracer(self.queue, self.slots, self.others)
        spans = []
        for _ in range(4):
            view = SlottedExchange(context=contextvars.Context())
            made.start(view)
            assert view.context[variable] is view.trace
            spans.append(view.trace)
        assert [(span.trace_id, span.span_id, span.sampled) for span in spans] == [
            (2**64 - 1, 2**64 - 1, False), (2**63, 2**63, False), (1, 1, True), (2**128 - 1, int("e" * 16, 16), True),
        ]  # fmt: skip
        assert list(self.slots[:2]) == [2.0, 2.0]
        assert made.open == 2
        assert not spans[0].ended
        assert spans[0].limits is CONFIGURATION

    def test_a_context_that_comes_along_is_for_python(self):
        made, _ = tracer(self.queue, self.slots, self.others)
        for name in (b"traceparent", b"baggage"):
            made.start(SlottedExchange(fields={name: b"x"}))
        assert [what for what, _ in self.others] == ["start", "start"]

    def test_all_are_kept(self):
        made, _ = tracer(self.queue, self.slots, self.others, bound=2**64, variable=None)
        view = SlottedExchange(context=contextvars.Context())
        made.start(view)
        assert view.trace.sampled
        assert len(view.context) == 1

    def test_the_queue(self):
        made, _ = tracer(self.queue, self.slots, self.others, bound=2**64)
        views = []
        for _ in range(12):
            views.append(SlottedExchange())
            made.start(views[-1])
        for view in views:
            made.end(view)
        assert (len(self.queue.spans), self.queue.refused, self.queue.woken, made.open) == (10, 2, 8, 0)
        assert all(view.trace.ended for view in views)

    def test_spans_of_others(self):
        made, _ = tracer(self.queue, self.slots, self.others)
        made.end(SlottedExchange())
        made.end(SlottedExchange(trace=root(2)))
        assert not self.queue.spans
        made.end(SlottedExchange(trace=child()))
        assert len(self.queue.spans) == 1
        other = SlottedExchange(trace=WORDED)
        made.end(other)
        assert self.others == [("end", other)]

    def test_faults_come_out(self):
        def fail(*_):
            raise RuntimeError("no")

        made, _ = tracer(self.queue, self.slots, self.others, encode=fail, fill=fail, ids=[])
        with pytest.raises(RuntimeError):
            made.end(SlottedExchange(trace=root()))
        with pytest.raises(RuntimeError):
            made.start(SlottedExchange())
        made, _ = tracer(self.queue, self.slots, self.others, ids=[()])
        with pytest.raises(TypeError):
            made.start(SlottedExchange())
        context = contextvars.Context()
        made, _ = tracer(self.queue, self.slots, self.others)
        with pytest.raises(RuntimeError, match="entered"):
            context.run(made.start, SlottedExchange(context=context))

    def test_what_it_is_made_of(self):
        with pytest.raises(TypeError):
            tracer(self.queue, self.slots, self.others, root_kept=1000)
        with pytest.raises(TypeError):
            tracer(self.queue, bytearray(8), self.others)
        with pytest.raises(TypeError):
            tracer(self.queue, self.slots, self.others, root=Queue)


@needs_native
@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from([*NAMES, "_request_id"]), ODD, max_size=3),
    st.dictionaries(st.sampled_from(["trace_hex", "span_hex", "flags", "extras", "ended"]), ODD, max_size=2),
)
def test_whatever_an_exchange_and_its_span_say(facts, changes):
    queue, others = Queue(), []
    made, _ = tracer(queue, memoryview(bytearray(64)).cast("d"), others)
    view = SlottedExchange(context=contextvars.Context())
    for step in (made.start, made.end):
        for name, value in facts.items():
            setattr(view, name, value)
        if isinstance(view.trace, RootSpan):
            for name, value in changes.items():
                setattr(view.trace, name, value)
        try:
            step(view)
        except Exception as fault:  # noqa: BLE001 - the observer is turned off
            assert not isinstance(fault, SystemError)


# --- Requests to a collector -----------------------------------------------------------------------


def waiting(spans):
    made = native.Spans()
    for span in spans:
        made.append(span)
    return made


SIZES = st.binary(max_size=300) | st.integers(0, 20_000).map(bytes)


@needs_native
@given(st.binary(max_size=300), st.lists(SIZES, max_size=5))
def test_requests(resource, spans):
    frame = otlp_encode.RequestFrame({"service.name": resource.hex()}, "obsserve", "1")
    assert frame.request(waiting(spans).take(len(spans))) == frame.request(spans)


@needs_native
@pytest.mark.parametrize(
    "given", [(), (b"", b"", [b""]), ("", b"", None), (b"", None, None), (b"", b"", None, None)]
)
def test_what_is_no_request(given):
    with pytest.raises(TypeError):
        native.request(*(native.Spans().take(0) if each is None else each for each in given))


@needs_native
class TestSpansThatWait:
    @given(st.lists(SIZES | st.integers(0, 8), max_size=60), st.booleans())
    def test_what_is_taken_is_what_was_appended(self, steps, keeps):
        """Whatever comes in between, and whether or not the memory of what was taken comes back in time."""
        spans, usual, kept = native.Spans(), spanqueue.Spans(), []
        for step in steps:
            if isinstance(step, bytes):
                spans.append(step)
                usual.append(step)
            else:
                batch, expected = spans.take(step), usual.take(min(step, len(usual)))
                assert list(batch) == expected
                kept += [(batch, expected)] if keeps else []
            assert len(spans) == len(usual)
        for batch, expected in kept:
            assert [batch[n] for n in range(len(batch))] == expected

    def test_a_queue_as_it_is_used(self):
        """Batches of a full queue, while it is filled again."""
        spans, numbers, found = native.Spans(), iter(range(10**6)), []
        for _ in range(40):
            for _ in range(300):
                spans.append(b"%d" % next(numbers) * 40)
            while len(spans) > 700:
                found += spans.take(256)
        found += spans.take(10**6)
        assert found == [b"%d" % number * 40 for number in range(40 * 300)]
        assert len(spans) == 0

    def test_items_in_any_order(self):
        batch = waiting([b"a", b"bb", b"", b"c" * 200]).take(9)
        assert [batch[n] for n in (3, 0, 2, 2, 1, -1)] == [b"c" * 200, b"a", b"", b"", b"bb", b"c" * 200]
        for number in (4, -5, 10**9):
            with pytest.raises(IndexError):
                batch[number]
        empty = native.Spans().take(3)
        assert len(empty) == 0
        with pytest.raises(IndexError):
            empty[0]

    def test_they_may_all_be_removed(self):
        spans = waiting([b"x" * 3_000_000, b"y"])
        batch = spans.take(1)
        spans.clear()
        assert len(spans) == 0
        spans.append(b"z")
        assert (list(batch), list(spans.take(5))) == ([b"x" * 3_000_000], [b"z"])

    def test_a_batch_outlives_where_it_came_from(self):
        spans = waiting([b"a" * 1000] * 100)
        batch = spans.take(60)
        del spans
        assert list(batch) == [b"a" * 1000] * 60

    @pytest.mark.parametrize("wrong", ["text", bytearray(b"x"), None, 5])
    def test_what_is_no_span(self, wrong):
        spans = native.Spans()
        with pytest.raises(TypeError):
            spans.append(wrong)
        assert len(spans) == 0

    def test_what_is_no_count(self):
        spans = waiting([b"a"])
        for wrong, error in ((-1, ValueError), ("1", TypeError), (2**80, OverflowError)):
            with pytest.raises(error):
                spans.take(wrong)
        assert list(spans.take(1)) == [b"a"]
        with pytest.raises(TypeError):
            native.Batch()
        with pytest.raises(TypeError):
            native.Spans(1)

    def test_memory_goes_back_and_forth(self):
        """Two buffers serve any number of batches; what one outlier took is given back."""
        spans = native.Spans()

        def rounds(count, size):
            for _ in range(count):
                for _ in range(100):
                    spans.append(bytes(size))
                spans.take(100)

        rounds(3, 500)
        tracemalloc.start()
        try:
            rounds(200, 500)
            assert tracemalloc.get_traced_memory()[1] < 20_000, "no buffer is made any more"
            rounds(2, 200_000)
            rounds(2, 10)
            assert tracemalloc.get_traced_memory()[0] < 3_000_000
        finally:
            tracemalloc.stop()


# --- Code of others in between ------------------------------------------------------------------


@needs_native
class TestOthersInBetween:
    """Attributes may be properties, and a collection may run anything."""

    def test_an_exchange_of_another_class(self):
        rig = Rig(native.Lines)

        @dataclass(slots=True)
        class Small:
            ordinary: bool = False

        class Nested(SlottedExchange):
            __slots__ = ()

            @property
            def forwarded_client(self):
                rig.lines.write(Small())

            @forwarded_client.setter
            def forwarded_client(self, value): ...

        plain = SlottedExchange()
        rig.know(plain)
        rig.lines.write(Nested())
        assert [type(view) for view in rig.others] == [Small]
        assert rig.lines.take() == Rig(native.Lines).write(plain)

    def test_fragments_that_are_emptied_meanwhile(self):
        rig = Rig(native.Lines)

        class Connection:
            @property
            def serial(self):
                for other in range(200):  # of what was remembered, nothing is left
                    view = SlottedExchange(method=f"M{other}", request_size=other)
                    rig.know(view)
                    rig.lines.write(view)
                rig.requests.clear()
                rig.sizes.clear()
                return 7

        view = SlottedExchange(connection=Connection())
        rig.know(SlottedExchange())
        rig.lines.write(view)
        rig.lines.write(view)
        assert b'"GET"' in b"".join([data for data, _ in rig.taken] + [rig.lines.take()[0]])

    def test_lines_that_come_while_lines_are_taken(self):
        rig = Rig(native.Lines, most=10**9)

        class Late:
            def __del__(self):
                rig.lines.add("late" * 40_000 + "\n")

        written = 0
        seldom = gc.get_threshold()
        gc.set_threshold(1)  # so that collections fall into `take` itself
        try:
            for _ in range(50):
                cycle = Late()
                cycle.itself = cycle
                del cycle
                rig.lines.add("line\n")
                written += rig.lines.take()[1]
        finally:
            gc.set_threshold(*seldom)
        gc.collect()
        written += rig.lines.take()[1]
        assert written == 100

    def test_interrupts_are_not_swallowed(self):
        class Interrupted(SlottedExchange):
            __slots__ = ()

            @property
            def request_id(self):
                raise KeyboardInterrupt

        rig = Rig(native.Lines)
        rig.know(SlottedExchange())
        with pytest.raises(KeyboardInterrupt):
            rig.lines.write(Interrupted(_request_id=None))
        _, encoder = encoders()
        with pytest.raises(KeyboardInterrupt):
            encoder.encode(Interrupted(_request_id=None), root())

    def test_slots_of_another_class(self):
        class Other:
            trace = SlottedExchange.trace
            fields, ordinary, context = {}, True, None

        made, _ = tracer(Queue(), memoryview(bytearray(64)).cast("d"), [])
        with pytest.raises(TypeError, match="doesn't apply"):
            made.start(Other())

    def test_a_region_that_is_closed_while_ids_are_drawn(self):
        slots = memoryview(bytearray(64)).cast("d")
        ids = []

        def fill():
            slots.release()
            ids.append((5, "f" * 32, "e" * 16))

        made, _ = tracer(Queue(), slots, [], ids=ids, fill=fill)
        with pytest.raises(ValueError, match="closed"):
            made.start(SlottedExchange())

    def test_cycles_are_collected(self):
        """Whatever the part in C refers to may refer to it."""
        gc.collect()
        gone = []

        class Connection(SlottedConnection):
            pass

        class Target(SlottedTarget):
            pass

        rig = Rig(native.Lines)
        target = Target()
        view = SlottedExchange(connection=Connection(), parts=target)
        rig.write(view)
        rig.write(view)
        target.lines = Connection.lines = rig.lines
        weakref.finalize(target, gone.append, "target")
        weakref.finalize(Connection, gone.append, "class")
        del rig, target, view, Connection
        gc.collect()
        assert sorted(gone) == ["class", "target"]


# --- Memory -------------------------------------------------------------------------------------


@needs_native
def test_nothing_is_left_behind():
    """What an exchange refers to is let go of as often as it is taken."""
    rig, (_, encoder) = Rig(native.Lines, most=10**9), encoders()
    regions = [Cells.create(rows_for(50)) for _ in range(2)]
    _, counts = counted(regions)
    others = []
    queue = Queue(room=10**9, wake_at=10**9)
    made, _ = tracer(queue, memoryview(bytearray(64)).cast("d"), others, encode=encoder.encode, bound=2**64,
                     ids=[(1, "1" * 32, "2" * 16)] * 2500)  # fmt: skip
    view = SlottedExchange(context=None)
    held = [getattr(view, name) for name in NAMES] + [
        view._request_id,
        ENVELOPE,
        CONFIGURATION,
        RootSpan,
        *PIECES,
    ]

    def work(times):
        for _ in range(times):
            made.start(view)
            counts.exchange_started(view)
            counts.exchange_ended(view)
            rig.lines.write(view)
            made.end(view)
            rig.lines.take()
            queue.spans.clear()

    rig.know(view)
    work(100)
    before = [sys.getrefcount(each) for each in held]
    work(2000)
    after = [sys.getrefcount(each) for each in held]
    drift = [now - then for now, then in zip(after, before, strict=True)]
    assert max(map(abs, drift)) < 20, drift
    assert not rig.others
    for region in regions:
        region.close()


# --- How an exchange begins ----------------------------------------------------------------------


class Slotted:
    __slots__ = ("__dict__", "__weakref__", "given", "left", "number", "text")

    def __init__(self, given):
        self.given = given
        self.number, self.text = 7, "text"


class SlottedDict(dict):
    __slots__ = ("more",)


def prototype(first=None, slots=("number", "text", "left", "given"), given=("given",)):
    return native.Prototype(first=first or Slotted(None), slots=slots, given=given)


@needs_native
class TestPrototype:
    def test_an_exchange_begins_as_its_class_has_it(self):
        connection = object()
        given = (connection, 5.0, 3, "https")
        made, usual = make_exchange(*given), Exchange(*given)
        assert type(made) is Exchange
        for name in Exchange.__slots__:
            assert getattr(made, name) == getattr(usual, name), name
            assert type(getattr(made, name)) is type(getattr(usual, name)), name
        assert vars(made) == vars(usual) == {}

    def test_each_is_its_own(self):
        make = prototype()
        one, other = make("one"), make("other")
        one.number, one.free = 8, True
        assert (one.given, other.given, other.number) == ("one", "other", 7)
        assert not hasattr(other, "free")
        assert not hasattr(one, "left"), "the first had no value there"

    def test_the_first_may_change_afterwards(self):
        first = Slotted(None)
        make = prototype(first)
        first.number = 8
        del first.text
        assert (make(None).number, make(None).text) == (7, "text")

    @pytest.mark.parametrize(
        "arguments, named", [((), {}), ((1, 2), {}), ((1,), {"more": 2}), ((), {"given": 1})]
    )
    def test_it_takes_what_is_given(self, arguments, named):
        with pytest.raises(TypeError):
            prototype()(*arguments, **named)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"slots": ("number", "missing")}, {"given": ("missing",)}, {"given": ("given", "given")}, {"slots": (1,)},
            {"slots": ("__dict__",)}, {"slots": ("__weakref__",)}, {"slots": ("__class__",)}, {"given": ("__init__",)},
            {"first": 5, "slots": ("real",)},
            {"first": SlottedDict(), "slots": ("more",), "given": ()}, {"first": object(), "given": ()}, {"slots": ["number"]},
        ],
    )  # fmt: skip
    def test_what_is_no_slot(self, wrong):
        with pytest.raises((TypeError, ValueError)):
            prototype(**wrong)

    def test_a_slot_that_is_named_twice(self):
        value = object()
        first = Slotted(None)
        first.number = value
        before = sys.getrefcount(value)
        make = prototype(first, slots=("number", "number", "text"))
        assert sys.getrefcount(value) == before + 1
        del make
        assert sys.getrefcount(value) == before

    def test_nothing_is_left_behind(self):
        value = object()
        make = prototype()
        before = sys.getrefcount(value)
        for _ in range(100):
            make(value)
        assert sys.getrefcount(value) == before
        first = Slotted(None)
        first.number = first  # a cycle through what it makes
        first.text = prototype(first)
        gone = weakref.ref(first)
        del first
        gc.collect()
        assert gone() is None
