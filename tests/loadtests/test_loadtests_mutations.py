"""Every threshold can be broken: the scenarios against a server that was made bad, and distributed, and a known knee."""

import json
import signal
import subprocess
import sys

import pytest
from test_loadtests_runs import ROOT, Run, locust, patient  # noqa: F401  (a fixture for all tests here)

from loadtests.expectations import SCENARIOS
from tests.ports import free_port

pytestmark = pytest.mark.timeout(150)


def app(name):
    return ("--app", f"loadtests.mutants:{name}")


def server(*options):
    return tuple(f"--server={option}" for option in options)


# scenario, how the server is made bad, for how long it runs, and the thresholds that must break
MUTATIONS = [
    ("steady", app("slow"), 6, {"sent", "server_ttfb_p95_seconds", "corrected_p95_seconds"}),
    ("steady", app("blocking"), 6, {"loop_lag_max_seconds"}),
    ("steady", app("failing"), 5, {"failed_share"}),
    ("steady", app("dying"), 6, {"unplanned_restarts", "unanswered", "failed_share"}),
    ("steady", app("chatty"), 5, {"reconciled"}),
    ("steady", server("--no-access-log"), 4, {"log_disagreement"}),
    ("api_mix", app("slow"), 6, {"client_p95_seconds", "server_ttfb_p95_seconds"}),
    ("overload", server("--limit-concurrency off"), 9, {"refused_share"}),
    ("overload", app("refusing"), 9, {"retry_after_share"}),
    (
        "overload",
        app("collapsing") + server("--limit-concurrency off"),
        18,
        {"goodput_held", "server_ttfb_p95_seconds"},
    ),
    ("websocket_chat", app("slow"), 8, {"connect_p95_seconds"}),
    ("websocket_chat", app("lagging"), 8, {"echo_p95_seconds", "fan_out_p95_seconds"}),
    ("websocket_chat", app("hanging_up"), 8, {"abnormal_closes"}),
    (
        "websocket_chat",
        app("chatty_room"),
        8,
        {"messages_in_disagreement", "messages_out_disagreement", "normal_closes_disagreement", "reconciled"},
    ),
    ("deploy_under_load", app("unstartable"), 12, {"planned_restarts"}),
    ("deploy_under_load", app("lagging"), 12, {"client_p99_seconds"}),
    ("chaos", app("dying"), 14, {"unplanned_restarts", "spans_unexplained"}),
    ("chaos", app("truncating"), 14, {"failed_share", "unanswered_share"}),
    ("chaos", app("unstartable"), 28, {"recovery_seconds"}),
    ("chaos", server("--trace-trust none --trace-sample-ratio 0"), 14, {"spans_lost"}),
    ("upload", app("chatty"), 6, {"upload_bytes_disagreement", "reconciled"}),
    ("upload", app("leaking"), 14, {"rss_bytes_by_request"}),
    ("download_stream", app("failing"), 5, {"server_errors"}),
    ("download_stream", app("dying"), 10, {"download_bytes_missing"}),
    ("download_stream", app("slow"), 6, {"first_event_p95_seconds"}),
    ("download_stream", app("lagging"), 14, {"event_gap_p95_seconds"}),
    ("keepalive_churn", app("chatty"), 6, {"connections_disagreement"}),
    ("keepalive_churn", app("leaking"), 14, {"fds_by_second"}),
    ("keepalive_churn", server("--timeout-keep-alive 60"), 6, {"idle_closes"}),
    ("keepalive_churn", server("--timeout-keep-alive 0"), 6, {"requests_by_connection"}),
    ("slow_clients", app("muttering"), 10, {"header_timeouts_disagreement", "write_timeouts_disagreement"}),
    (
        "slow_clients",
        server("--timeout-request-header off", "--timeout-write off"),
        8,
        {"slow_heads", "stuck_readers"},
    ),
    ("slow_clients", app("slow"), 8, {"bystander_p95_seconds"}),
    ("spike", app("slow"), 12, {"corrected_p95_seconds", "settled_p95_seconds"}),
    ("soak", app("leaking"), 14, {"rss_bytes_by_request", "fds_by_second"}),
    ("ramp_to_break", app("slow"), 20, {"knee_rate"}),
]


def test_every_threshold_has_a_mutation():
    asked = {name for scenario in SCENARIOS.values() for name in scenario.slo}
    broken = {name for *_, names in MUTATIONS for name in names}
    assert asked - broken == set()
    for scenario, _, _, names in MUTATIONS:
        assert names <= set(SCENARIOS[scenario].slo), scenario
    assert {scenario for scenario, *_ in MUTATIONS} == set(SCENARIOS)


@pytest.mark.full
@pytest.mark.parametrize(
    ("scenario", "arguments", "seconds", "broken"),
    MUTATIONS,
    ids=[f"{scenario}-{'-'.join(sorted(names))}" for scenario, _, _, names in MUTATIONS],
)
def test_a_bad_server_breaks_the_threshold(tmp_path, scenario, arguments, seconds, broken):
    run = Run(tmp_path, scenario, "--run-time", f"{seconds}s", *arguments)
    assert run.code == 1, run.said
    assert broken <= set(run.breaches()), run.said
    assert f"verdict: {scenario} failed" in run.lines
    assert not run.report["passed"]


@pytest.mark.full
@pytest.mark.timeout(400)
def test_knee_of_a_server_whose_capacity_is_known(tmp_path):
    # 12 requests at a time, 0.06 s each: 200 in a second. What else the machine does can only lower it.
    for _ in range(3):
        run = Run(tmp_path, "ramp_to_break", "--workers", "1", "--server=--limit-concurrency 12")
        assert run.code == 0, run.said
        if run.report["facts"]["knee_rate"] >= 150:
            break
    assert run.report["facts"]["knee_rate"] == pytest.approx(200, rel=0.25), run.said
    assert [text for text in run.lines if "knee: " in text and "are refused" in text]


@pytest.mark.full
@pytest.mark.parametrize("scenario", ["steady", "websocket_chat"])
def test_a_master_and_two_workers(tmp_path, scenario):
    run = Run(tmp_path, scenario, "--run-time", "8s", "--processes", "2", *patient(scenario))
    assert run.code == 0, run.said
    assert run.report["reconciliation"]["holds"]
    assert run.report["reconciliation"]["lost"] == 0
    assert run.report["access_log"]["requests"] == run.report["client"]["sent"]


@pytest.mark.full
def test_workers_in_processes_of_their_own_and_a_locustfile_of_ones_own(tmp_path):
    """What the documentation tells people to type, against a server that knows nothing of it."""
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(
        "from locust import FastHttpUser, constant, task\n"
        "class Visitor(FastHttpUser):\n"
        "    wait_time = constant(0.05)\n"
        "    @task\n"
        "    def fast(self):\n"
        "        self.client.get('/fast')\n"
    )
    log, access = tmp_path / "log", tmp_path / "access"
    with log.open("wb") as err, access.open("wb") as out:
        served = subprocess.Popen(
            [sys.executable, "-m", "obsserve", "obsserve.demo:app", "--port", "0", "--metrics-port", "0"],
            stdout=out,
            stderr=err,
        )
    processes = [served]
    try:
        events = {}
        while not {"server.start", "metrics.start"} <= set(events):
            assert served.poll() is None, log.read_text()
            lines = [json.loads(text) for text in log.read_text().splitlines() if text.endswith("}")]
            events = {line["event"]: line["address"] for line in lines if "address" in line}
        base = [sys.executable, "-m", "locust", "-f", f"loadtests/observe.py,{locustfile}", "--headless"]
        master = [
            *base,
            *(
                "--master",
                "--master-bind-host",
                "127.0.0.1",
                "--master-bind-port",
                "0",
                "--expect-workers",
                "2",
            ),
            *("-u", "6", "-r", "6", "-t", "6s", "--host", events["server.start"], "--only-summary"),
            *(
                "--server-metrics",
                events["metrics.start"],
                "--slo",
                "failed_share<=0",
                "--slo",
                "reconciled=1",
            ),
            *("--report", str(tmp_path), "--loglevel", "WARNING", "--exit-code-on-error", "0"),
        ]
        port = free_port()
        master[master.index("--master-bind-port") + 1] = str(port)
        leader = subprocess.Popen(
            master, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        processes.append(leader)
        for _ in range(2):
            worker = [*base, "--worker", "--master-host", "127.0.0.1", "--master-port", str(port)]
            processes.append(
                subprocess.Popen(worker, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        said, _ = leader.communicate(timeout=90)
        assert leader.returncode == 0, said
        report = json.loads((tmp_path / "mine.json").read_text())
        assert report["client"]["sent"] > 100
        assert report["reconciliation"]["holds"], said
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
