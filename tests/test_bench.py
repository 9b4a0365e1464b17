"""The benchmark harness without a benchmark: its arithmetic, what it reads, what it starts and ends."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the harness reads /proc", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[1]))  # loadtests is no part of the distribution

from loadtests.bench import __main__ as command_line
from loadtests.bench import load, meters, proc, report, run, servers
from loadtests.bench.arithmetic import (
    Agreement,
    Gate,
    Judgement,
    Pair,
    Sample,
    Spread,
    Verdict,
    agreement,
    by_round,
    judge,
    percentile,
    ratios,
    rotated,
    spread,
)
from loadtests.bench.load import parse_h2load_log, parse_wrk
from loadtests.bench.meters import Reading, unaccounted
from loadtests.bench.run import Options, Result, measure_rounds
from loadtests.bench.servers import SERVERS, BenchError, Case, Server, started, sum_of_counts
from loadtests.bench.suites import SUITES
from tests.parts import package


def samples_of(server: str, *cpu: float, unusable: tuple[int, ...] = ()) -> list[Sample]:
    return [
        Sample(number, "c", server, {"cpu": value}, frozenset({"cpu"} if number in unusable else ()))
        for number, value in enumerate(cpu)
    ]


# --- arithmetic


def test_spread_is_median_and_extremes():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert spread([4.0, 1.0]) == Spread(2.5, 1.0, 4.0, 2)
    assert spread([]) is None


def test_ratios_are_taken_within_each_round():
    # The machine was twice as slow in the second round: the ratio does not see it.
    samples = samples_of("a", 10, 20, 10) + samples_of("b", 20, 40, 20)
    assert ratios(samples, "c", "a", "b", "cpu") == [0.5, 0.5, 0.5]


def test_ratios_leave_out_rounds_that_one_of_both_could_not_measure():
    samples = samples_of("a", 1, 2, 3, 4, unusable=(0,)) + samples_of("b", 1, 1, 1, unusable=(2,))
    assert ratios(samples, "c", "a", "b", "cpu") == [2.0]
    assert ratios(samples, "c", "a", "nobody", "cpu") == []
    assert ratios(samples, "c", "a", "b", "no quantity") == []
    assert ratios(samples_of("a", 1) + samples_of("b", 0), "c", "a", "b", "cpu") == []


def test_cases_are_kept_apart():
    samples = [Sample(0, "small", "a", {"cpu": 1.0}), Sample(0, "large", "a", {"cpu": 9.0})]
    assert by_round(samples, "large", "a", "cpu") == {0: 9.0}


@pytest.mark.parametrize(
    ("twin", "valid"), [(100, True), (104.9, True), (95.1, True), (105.2, False), (94.8, False)]
)
def test_the_pair_agrees_within_five_percent(twin, valid):
    samples = samples_of("uvicorn", 100, 100, 100) + samples_of("again", twin, twin, 300)
    assert agreement(samples, "c", Pair("uvicorn", "again"), "cpu").valid is valid


def test_a_pair_that_was_not_measured_does_not_agree():
    assert agreement([], "c", Pair("uvicorn", "again"), "cpu") == Agreement("c", None, valid=False)


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        (Gate("a", "cpu", 0.5), Verdict.MET),
        (Gate("a", "cpu", 0.49), Verdict.MISSED),
        (Gate("a", "cpu", 0.5, at_least=True), Verdict.MET),
        (Gate("a", "cpu", 0.51, at_least=True), Verdict.MISSED),
        (Gate("a", "cpu", 10, against=""), Verdict.MET),
        (Gate("a", "cpu", 9.9, against=""), Verdict.MISSED),
        (Gate("a", "cpu", 9.9, against="nobody"), Verdict.UNDECIDED),
        (Gate("a", "throughput", 1), Verdict.UNDECIDED),
    ],
)
def test_gate(gate, verdict):
    samples = samples_of("a", 10, 10, 99) + samples_of("uvicorn", 20, 20, 20)
    assert judge(samples, "c", gate).verdict is verdict


def test_too_few_rounds_decide_nothing():
    samples = samples_of("a", 1, 1) + samples_of("uvicorn", 2, 2)
    judgement = judge(samples, "c", Gate("a", "cpu", 1))
    assert (judgement.verdict, judgement.measured) == (Verdict.UNDECIDED, Spread(0.5, 0.5, 0.5, 2))


def test_each_round_starts_with_another_server():
    assert [rotated("abc", number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_percentile_is_of_nearest_rank():
    values = list(range(100, 0, -1))
    assert (percentile(values, 0.99), percentile(values, 0.5), percentile(values, 1.0)) == (99, 50, 100)
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0], 0.0) == 1.0


# --- rounds


def fake_result(*readings: float, rounds: int = 2) -> tuple[list[Sample], Result]:
    """Measure with made-up figures: uvicorn always 100, its twin one of `readings` after the other."""
    left = list(readings)
    suite = SUITES["hello"]
    options = Options(("uvicorn", "uvicorn-again"), rounds, 1, 0)

    def measure(name: str, case: Case) -> Reading:
        return Reading({"cpu": 100.0 if name == "uvicorn" else left.pop(0)})

    samples = measure_rounds(suite, options, measure)
    agreements = run.agreements_of(suite, options.servers, samples)
    return samples, Result(
        suite, options, samples, agreements, run.judgements_of(suite, options.servers, samples)
    )


def test_rounds_are_those_asked_for_when_the_pair_agrees(capsys):
    samples, result = fake_result(101, 99, 500)
    assert [(sample.round, sample.server) for sample in samples] == [
        (0, "uvicorn"),
        (0, "uvicorn-again"),
        (1, "uvicorn-again"),
        (1, "uvicorn"),
    ]
    assert (result.rounds, result.exit_code) == (2, 0)


def test_more_rounds_while_the_pair_disagrees():
    _, result = fake_result(150, 140, 101, 100, 100, 100)
    assert result.rounds == 5
    assert result.exit_code == 0


def test_rounds_are_bounded_and_the_run_is_then_not_valid():
    _, result = fake_result(*[150] * 6)
    assert result.rounds == 6
    assert result.exit_code == 3


def result_with(*verdicts: Verdict, valid: bool = True, problems: tuple[str, ...] = ()) -> Result:
    gate = Gate("obsserve-off", "cpu", 0.65)
    return Result(
        SUITES["hello"],
        Options(("uvicorn", "obsserve-off"), 3, 2, 0),
        [
            Sample(0, "hello", "uvicorn", {"cpu": 20.0, "busy": 1.0}),
            Sample(
                0, "hello", "obsserve-off", {"cpu": 10.0, "busy": 0.5}, frozenset({"throughput"}), problems
            ),
        ],
        [Agreement("hello", Spread(1.0, 0.9, 1.1, 3), valid)],
        [Judgement(gate, "hello", Spread(0.5, 0.4, 0.6, 3), verdict) for verdict in verdicts],
    )


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (result_with(Verdict.MET), 0),
        (result_with(), 0),
        (result_with(Verdict.MET, Verdict.MISSED, Verdict.UNDECIDED), 1),
        (result_with(Verdict.MET, Verdict.UNDECIDED), 3),
        (result_with(Verdict.MISSED, valid=False), 3),
        (result_with(Verdict.MISSED, problems=("2 timeouts",)), 3),
    ],
)
def test_exit_code(result, code):
    assert result.exit_code == code


def test_gates_of_servers_outside_the_run_are_not_judged():
    suite = SUITES["hello"]
    assert run.judgements_of(suite, ("uvicorn", "granian"), []) == []
    judged = run.judgements_of(suite, ("uvicorn", "obsserve-off"), [])
    assert {judgement.gate.quantity for judgement in judged} == {"cpu"}


# --- reading


def test_stat_with_a_name_that_tries_to_mislead():
    fields = "S 7 9 9 0 -1 4194560 1 2 3 4 150 50 11 12 20 0 1 0 4242 1 1"
    assert proc.parse_stat(f"42 (a) b (1 2) S) {fields}\n") == proc.Process(42, parent=7, started=4242)


def test_descent_is_the_process_and_its_descendants():
    def process(pid: int, parent: int) -> proc.Process:
        return proc.Process(pid, parent, 0)

    processes = [process(5, 3), process(1, 0), process(3, 2), process(2, 1), process(4, 2), process(9, 1)]
    assert [each.pid for each in proc.descent(2, processes)] == [2, 3, 4, 5]
    assert proc.descent(77, processes) == []


def test_cpu_seconds_of_this_process_grow_with_its_work():
    before, own = proc.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < own + 0.1:
        pass
    assert 0.09 <= proc.cpu_seconds(os.getpid()) - before <= 1.0


def test_cpu_time_is_finer_than_a_clock_tick():
    before, own = proc.process_seconds(os.getpid()), time.process_time()
    while time.process_time() < own + 0.001:
        pass
    assert 0.001 <= proc.process_seconds(os.getpid()) - before <= 0.009


def test_cpu_time_of_a_process_that_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with pytest.raises(OSError):
        proc.process_seconds(child.pid)
    assert proc.cpu_seconds(child.pid) == 0.0


def test_run_time_of_a_process():
    before, own = proc.run_seconds(os.getpid()), time.thread_time()
    while time.thread_time() - own < 0.05:
        pass
    assert 0.05 <= proc.run_seconds(os.getpid()) - before <= 5.0


def test_servers_run_with_the_interpreter_that_is_named_and_with_bytecode(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    link = tmp_path / "another-python"
    link.symlink_to(sys.executable)
    words = "import os, sys; sys.exit(str([sys.orig_argv[0], os.environ.get('PYTHONDONTWRITEBYTECODE')]))"
    server = Server("telling", f'-c "{words}"', "json")
    with servers.started(server, "", 0, tmp_path, python=str(link)) as running:
        running.process.wait(30)
        assert running.last_words() == str([str(link), None])


def test_cpu_seconds_include_a_child():
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ninput()"
    before = proc.cpu_seconds(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        grown = proc.cpu_seconds(os.getpid()) - before
        child.stdin.close()
    assert grown >= 0.15


def test_private_dirty():
    assert proc.parse_private_dirty("Rss: 9 kB\nPrivate_Dirty:      12 kB\nSwap: 0 kB\n") == 12288
    with pytest.raises(ValueError, match="Private_Dirty"):
        proc.parse_private_dirty("Rss: 9 kB\n")
    assert proc.private_dirty_bytes(os.getpid()) > 1_000_000


def test_wrk_result():
    text = "Requests/sec: 5\nresult requests=100 microseconds=2000000 connect=0 read=0 write=0 status=0 timeout=0\n"
    assert parse_wrk(text) == load.Load(100, 2.0, ())


def test_wrk_result_with_bad_answers():
    text = "result requests=0 microseconds=1000000 connect=1 read=2 write=3 status=4 timeout=5\n"
    assert parse_wrk(text).problems == (
        "1 connect errors",
        "2 read errors",
        "3 write errors",
        "4 answers that are not 2xx or 3xx",
        "5 timeouts",
        "no request was answered",
    )
    with pytest.raises(BenchError, match="no result"):
        parse_wrk("unable to connect\n")


def test_h2load_log():
    text = "".join(f"17000000\t200\t{micros}\n" for micros in range(1000, 101000, 1000))
    assert parse_h2load_log(text) == load.Latencies(100, p50=0.05, p99=0.099, problems=())
    assert parse_h2load_log("1\t200\t10\n2\t-1\t10\n3\t503\t10\n").problems == ("2 answers that are not 200",)
    with pytest.raises(BenchError, match="no request"):
        parse_h2load_log("")


@pytest.mark.parametrize(("found", "right"), [(1000, True), (1064, True), (999, False), (1065, False)])
def test_access_lines_are_the_requests_and_at_most_those_in_flight(found, right):
    assert (unaccounted("lines", found, requests=1000, in_flight=64) == []) is right


def test_in_flight_counts_what_is_pipelined():
    assert Case("c", connections=64, pipelined=16).in_flight == 1024


def test_sum_of_counts():
    name = "http_server_request_duration_seconds"
    page = (
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{le="+Inf",http_route=""}} 100\n'
        f'{name}_count{{http_route="/a b"}} 10\n'
        f'{name}_count{{http_route="/c"}} 5.0 1700000000\n'
        f"{name}_count 2\n"
        f'{name}_counts{{http_route="/c"}} 7\n'
    )
    assert sum_of_counts(page) == 17.0


@pytest.mark.parametrize(
    ("case", "status", "body", "wrong"),
    [
        (Case("c", answer=b"yes"), 200, b"yes", ""),
        (Case("c", answer=b"yes"), 200, b"no", "b'no' instead of b'yes'"),
        (Case("c", answer=b"yes"), 500, b"yes", "status 500"),
        (Case("c", answer_bytes=3), 200, b"yes", ""),
        (Case("c", answer_bytes=3), 200, b"", "0 bytes instead of 3"),
    ],
)
def test_answer_is_checked(case, status, body, wrong):
    assert case.wrong(status, body) == wrong


# --- suites and servers


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_suite_names_only_what_exists(suite):
    assert set(suite.servers) <= set(SERVERS)
    assert {suite.pair.reference, suite.pair.twin} <= set(suite.servers)
    assert (suite.standing is None) != (suite.fresh is None)
    quantities = {quantity.key for quantity in suite.quantities}
    for gate in suite.gates:
        assert gate.server in suite.servers
        assert not gate.against or gate.against in suite.servers
        assert gate.quantity in quantities
        assert gate.case in ("", *(case.name for case in suite.cases))


def test_the_pair_is_one_command_under_two_names():
    first, second = SERVERS["uvicorn"], SERVERS["uvicorn-again"]
    assert (first.arguments, first.environment) == (second.arguments, second.environment)


def test_command_names_application_and_ports():
    command = servers.command_of(SERVERS["obsserve-metrics-log"], "a.b:c", 1234, 5678)
    assert command[:4] == [sys.executable, "-m", "obsserve", "a.b:c"]
    assert command[command.index("--port") + 1] == "1234"
    assert command[command.index("--metrics-port") + 1] == "5678"


def test_free_ports_are_different_ones():
    assert len(set(servers.free_ports(20))) == 20


FILES = Server("files", "-m http.server {port} --bind 127.0.0.1 --directory loadtests/bench", "http")


def core() -> int:
    return min(os.sched_getaffinity(0))


def test_server_is_pinned_probed_and_ended(tmp_path):
    with started(FILES, "unused", core(), tmp_path) as running:
        running.wait_until_ready(Case("script", path="/wrk.lua", answer=load.SCRIPT.read_bytes()))
        assert os.sched_getaffinity(running.pid) == {core()}
        assert running.cpu_seconds() > 0
        with pytest.raises(BenchError, match="files answers GET /none with status 404"):
            running.wait_until_ready(Case("missing", path="/none"))
    assert running.process.returncode is not None


def test_server_is_ended_with_its_children_when_the_run_fails(tmp_path):
    # A worker that ignores SIGTERM, as one that hangs would.
    (tmp_path / "stubborn.py").write_text(
        "import signal, subprocess, sys, time\n"
        "ignore = 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'\n"
        "child = subprocess.Popen([sys.executable, '-c', ignore], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    family: list[proc.Process] = []
    with (
        contextlib.suppress(ZeroDivisionError),
        started(
            Server("stubborn", str(tmp_path / "stubborn.py"), "json"), "unused", core(), tmp_path
        ) as running,
    ):
        while not running.count_lines():
            time.sleep(0.01)
        family = proc.tree(running.pid)
        raise ZeroDivisionError
    deadline = time.monotonic() + 5  # init may take a moment to reap the child
    while any(proc.is_alive(each) for each in family) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(family) == 2
    assert not any(proc.is_alive(each) for each in family)


def test_server_that_does_not_start_says_why_in_one_line(tmp_path):
    broken = Server("broken", "-c 'raise SystemExit(\"no such option\")'", "json")
    with started(broken, "unused", core(), tmp_path) as running:
        running.process.wait(10)
        with pytest.raises(BenchError, match="broken ended with code 1: no such option"):
            running.wait_until_ready(Case("c"))


def test_lines_are_counted_and_forgotten_under_the_writer(tmp_path):
    writer = Server("writer", "-c 'import time; print(\"one\", flush=True); input()'", "json")
    with started(writer, "unused", core(), tmp_path) as running:
        deadline = time.monotonic() + 10
        while not running.count_lines() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.count_lines() == 1
        running.forget_lines(0.1)
        assert running.count_lines() == 0


def test_missing_peer_is_one_line_that_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(command_line, "take_cores", core)
    monkeypatch.setattr(command_line.tempfile, "tempdir", str(tmp_path))
    assert command_line.main(["hello", "--servers", "granian"]) == 2
    assert capsys.readouterr().err == "bench: granian is not installed: pip install -e .[bench]\n"


def test_missing_program_is_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(load.shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match="^h2load is not installed: apt-get install nghttp2-client$"):
        load.require_program("h2load")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["hello", "--servers", "apache"],
        ["hello", "--rounds", "0"],
        ["hello", "--seconds", "0.01"],
        [],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert ended.value.code == 2


def test_options_come_from_the_suite_unless_given():
    arguments = command_line.parser().parse_args(["hello", "--also", "uvicorn-log", "--rounds", "4"])
    options = command_line.options_for(SUITES["hello"], arguments, 1)
    assert options == Options((*SUITES["hello"].servers, "uvicorn-log"), 4, SUITES["hello"].seconds, 1)


# --- report


def test_table_names_each_server_with_its_ratio():
    text = report.text_of(result_with(Verdict.MET), as_markdown=False)
    rows = {
        line.split()[0]: line.split()
        for line in text.splitlines()
        if line.startswith(("uvicorn", "obsserve"))
    }
    assert rows["uvicorn"] == ["uvicorn", "20.0", "1", "-", "1", "1.00"]
    assert rows["obsserve-off"] == ["obsserve-off", "10.0", "0.50", "(0.50..0.50)", "-", "-", "0.50"]
    assert "A/A, hello: 1.00 (0.90..1.10): valid (within 5%)" in text
    assert "gate, hello: obsserve-off cpu ≤ 0.65 x uvicorn: 0.50 in 3 rounds: met" in text


def test_markdown_is_a_table():
    text = report.text_of(result_with(problems=("2 timeouts",)), as_markdown=True)
    assert "| server | CPU µs/request | x uvicorn | requests/s | x uvicorn | core busy |" in text
    assert "| --- | ---: | ---: | ---: | ---: | ---: |" in text
    assert "- wrong work: obsserve-off, hello, round 1: 2 timeouts" in text


def test_json_holds_every_sample_and_verdict():
    found = json.loads(json.dumps(report.json_of(result_with(Verdict.MISSED))))
    assert found["exit_code"] == 1
    assert found["gates"][0]["verdict"] == "MISSED"
    assert found["samples"][1]["values"] == {"cpu": 10.0, "busy": 0.5}
    assert found["samples"][1]["unusable"] == ["throughput"]
    assert found["machine"]["python"].startswith("CPython") or found["machine"]["python"]


def test_readings_below_the_busy_mark_are_no_throughput(monkeypatch, tmp_path):
    class Half:
        collector = None
        server = SERVERS["uvicorn"]
        seconds = iter([1.0, 2.6])

        def cpu_seconds(self) -> float:
            return next(self.seconds)

        def check_alive(self) -> None:
            pass

    monkeypatch.setattr(meters.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(load, "full_load", lambda running, case, seconds: load.Load(1000, 2.0, ()))
    reading = meters.under_full_load(Half(), Case("c"), meters.Place("a", 0, 2, tmp_path))
    assert reading.values["cpu"] == pytest.approx(1600.0)
    assert reading.values["busy"] == pytest.approx(0.8)
    assert reading.unusable == {"throughput"}


class TestSpans:
    def test_a_collector_counts(self):
        package("opentelemetry.exporter.otlp.proto.grpc")
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor

        from loadtests.bench.sink import SpanCounter

        collector = SpanCounter()
        provider = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{collector.port}")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        try:
            for _ in range(3):
                provider.get_tracer("bench").start_span("x").end()
            assert collector.spans == 3
        finally:
            provider.shutdown()
            collector.close()

    @pytest.mark.parametrize(("found", "share", "wrong"), [
        (1000, 1.0, False), (1064, 1.0, False), (999, 1.0, True), (1065, 1.0, True),
        (10, 0.01, False), (0, 0.01, False), (200, 0.01, True),
    ])  # fmt: skip
    def test_they_are_as_many_as_the_requests(self, found, share, wrong):
        assert bool(meters.unaccounted_spans(found, 1000, 64, share)) is wrong

    def test_too_few_of_a_sample(self):
        assert meters.unaccounted_spans(0, 100_000, 64, 0.01)


# --- scrapes


def test_a_scraped_server_is_scraped_and_has_its_series(tmp_path):
    case = SUITES["scrape"].cases[0]
    place = meters.Place("loadtests.bench.apps:routes", 0, 1, tmp_path)
    with started(SERVERS["obsserve-scraped"], place.app, 0, tmp_path) as running:
        running.wait_until_ready(case)
        assert meters.series_in(running.scraped().decode()) < meters.SERIES
        with meters.Scraper(running, 10) as scraper:
            for number in range(meters.ROUTES):
                assert running.probe(Case("route", path=f"/route-{number}", answer=case.answer)) == ""
            deadline = time.monotonic() + 10
            while scraper.scrapes < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        page = running.scraped(meters.AS_PROMETHEUS)
        assert page.startswith(b"\x1f\x8b"), "compressed, as for a Prometheus"
        assert meters.series_in(running.scraped().decode()) >= meters.SERIES


def test_a_slice_of_less_than_a_second(tmp_path):
    case = SUITES["hello"].cases[0]
    with started(SERVERS["obsserve-off"], "loadtests.bench.apps:hello", core(), tmp_path) as running:
        running.wait_until_ready(case)
        done = load.full_load(running, case, 0.3)
    assert done.problems == ()
    assert done.requests > 10
    assert 0.2 < done.seconds < 1.0


class TestEchoes:
    CASE = Case("echo", message_bytes=200, connections=3, answer=b"Hello, world!")

    def test_messages_come_back(self, tmp_path):
        package("uvloop")
        app = "loadtests.bench.apps:echo"
        with started(SERVERS["obsserve-off"], app, core(), tmp_path) as running:
            running.wait_until_ready(self.CASE)
            done = load.full_load(running, self.CASE, 1)
        assert done.problems == ()
        assert done.requests > 10
        assert done.seconds == pytest.approx(1.0, abs=0.5)

    def test_another_message_is_seen(self):
        package("uvloop")
        from loadtests.bench.echo import Echo

        echo = Echo("/", 200)
        echo.connection_made(Written())
        echo.data_received(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert not echo.opened
        echo.data_received(b"Upgrade: websocket\r\n\r\n")
        assert echo.opened
        echo.start()
        echo.data_received(echo.expected[:50])
        echo.data_received(echo.expected[50:])
        echo.data_received(echo.expected[:-1] + b"?")
        assert (echo.echoes, echo.wrong) == (1, 1)

    def test_a_server_without_websockets_is_seen(self, tmp_path):
        package("uvloop")
        without = Server("without", f"{servers.OBSSERVE} --no-access-log --ws none", "obsserve")
        with started(without, "loadtests.bench.apps:echo", core(), tmp_path) as running:
            running.wait_until_ready(self.CASE)
            done = load.full_load(running, self.CASE, 1)
        assert "3 connect errors" in done.problems


class Written:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data
