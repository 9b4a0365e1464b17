"""What a run reads and writes besides the metrics: the access log, Grafana, the report, the command line."""

import http.server
import json
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_loadtests_figures import answered, between, metrics, step, story

from loadtests import __main__ as command_line
from loadtests import report
from loadtests.access import account
from loadtests.annotations import Annotation
from loadtests.chart import Curve, chart, nice_step
from loadtests.expectations import SCENARIOS
from loadtests.ledger import Ledger
from loadtests.scrape import ScrapeError, read
from loadtests.thresholds import at_most, judge

ROOT = Path(__file__).parents[2]


def log(folder, *lines):
    path = folder / "access.log"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def line(identity, event="http.request", name="request_id"):
    return {"event": event, name: identity}


def test_access_log_is_compared_request_by_request(tmp_path):
    path = log(
        tmp_path,
        line("run1-a"),
        line("run1-b", "websocket.handshake"),
        line("run1-b", "websocket.session"),
        line("run1-c", name="trace_id"),
        line("another"),
        line("run1-d", "app.log"),
        "run1 is not JSON\n",
    )
    found = account(path, "run1", sent=3, lost_traces=[])
    assert found == {"lines": 3, "requests": 3, "unanswered_with_line": 0, "disagreement": 0}


def test_access_log_that_disagrees(tmp_path):
    path = log(tmp_path, line("run1-a"), line("run1-a"), line("run1-b"))
    assert account(path, "run1", sent=2, lost_traces=[])["disagreement"] == 1  # one line too many
    assert account(path, "run1", sent=5, lost_traces=["run1-x"])["disagreement"] == 3  # and two are missing
    assert account(path, "run1", sent=2, lost_traces=["run1-b"])["unanswered_with_line"] == 1


class Grafana(http.server.BaseHTTPRequestHandler):
    """Takes annotations as Grafana does: POST gives an id, PATCH changes it."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.command, self.path, self.headers.get("authorization"), body))
        answer = json.dumps({"message": "Annotation added", "id": 7}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PATCH = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def grafana():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Grafana)
    server.seen, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_run_is_marked_in_grafana(grafana):
    annotation = Annotation(f"http://127.0.0.1:{grafana.server_port}/", "secret", "steady")
    assert annotation.begin(1.5, "it begins") is None
    assert annotation.end(3.0, "it ends") is None
    assert grafana.seen == [
        (
            "POST",
            "/api/annotations",
            "Bearer secret",
            {"time": 1500, "tags": ["obsserve", "loadtest", "steady"], "text": "it begins"},
        ),
        ("PATCH", "/api/annotations/7", "Bearer secret", {"timeEnd": 3000, "text": "it ends"}),
    ]


def test_dashboards_look_for_these_annotations():
    page = json.loads((ROOT / "dashboards" / "obsserve-loadtest.json").read_text())
    wanted = [one["target"]["tags"] for one in page["annotations"]["list"] if "target" in one]
    assert ["obsserve", "loadtest"] in wanted


def test_a_grafana_that_refuses_or_is_away_is_a_warning(grafana):
    grafana.status = 403
    annotation = Annotation(f"http://127.0.0.1:{grafana.server_port}", "", "steady")
    assert "403" in annotation.begin(1.0, "")
    assert annotation.end(2.0, "") is None
    assert grafana.seen[0][2] is None
    assert "no annotation in Grafana" in Annotation("http://127.0.0.1:1", "", "steady").begin(1.0, "")


def test_metrics_that_cannot_be_read(grafana):
    with pytest.raises(ScrapeError, match=r"http://127\.0\.0\.1:1/metrics cannot be read"):
        read("http://127.0.0.1:1/metrics")
    with pytest.raises(ScrapeError, match="501"):
        read(f"http://127.0.0.1:{grafana.server_port}/metrics")


class Strict(HTMLParser):
    """Remembers what is open, so that nothing stays open that must not."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag in ("svg", "figure", "ul", "table", "div", "h1", "style"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def a_story():
    ledger = Ledger()
    answered(ledger, 200, 9)
    ledger.begun += 1
    ledger.record("GET /<b>", 0.2, 0, ConnectionResetError("<script>alert(1)</script>"))
    timeline = [step(at, 5, good=5.0) for at in range(2, 12, 2)]
    found = story(ledger, reading=between(metrics(), metrics({"200": 9})), timeline=timeline)
    found.facts["knee"] = "40 requests/s"
    found.marks.append((4.0, "SIGHUP: all"))
    return found


def test_report_is_a_whole_page_that_escapes_what_servers_say():
    told = a_story()
    findings = judge(told, {"unanswered": at_most(0), "reconciled": at_most(1)})
    parser = Strict()
    page = report.html(told, findings)
    parser.feed(page)
    text = " ".join(parser.text)
    assert not parser.open
    assert "<script>" not in page
    assert "<script>alert(1)</script>" in text
    assert page.count("<polyline") >= 6
    assert "BROKEN" in text
    assert "kept" in text
    assert "40 requests/s" in text
    assert "4 s: SIGHUP: all" in text
    assert "10 sent = 9 observed + 1 that the server never saw" in text


def test_report_is_written_as_page_and_as_json(tmp_path):
    told = a_story()
    page, data = report.write(tmp_path / "new", told, judge(told, {"unanswered": at_most(0)}))
    found = json.loads(data.read_text())
    assert page.name == "steady.html"
    assert found["passed"] is False
    assert found["thresholds"] == [
        {"name": "unanswered", "value": 1, "least": None, "most": 0, "kept": False}
    ]
    assert found["client"]["sent"] == 10
    assert found["reconciliation"]["holds"] is True
    assert len(found["timeline"]) == 5


def test_summary_ends_with_one_line_for_each_breach_and_the_verdict():
    told = a_story()
    lines = report.summary(
        told, judge(told, {"reconciled": at_most(1), "unanswered": at_most(0)})
    ).splitlines()
    assert [text for text in lines if text.startswith("BREACH")] == [
        "BREACH  unanswered: 1, at most 0 is asked (requests without a whole answer)"
    ]
    assert lines[-1] == "verdict: steady failed"
    assert "knee: 40 requests/s" in lines[-5].strip() or any("knee: 40 requests/s" in text for text in lines)


@pytest.mark.parametrize("server", [True, False])
def test_line_of_progress(server):
    text = report.progress(step(4, 12, good=90, refused=10), server=server)
    assert re.match(r" +4 s +12 users +100 req/s  errors +0.0%  503 +10.0%  p95 client –", text)
    assert ("server 10 ms" in text) is server


def test_chart_has_gaps_grid_and_nothing_for_nothing():
    found = chart("t", [Curve("a", "red", [(0, 1.0), (1, None), (2, 3.0), (3, 4.0)])], str)
    assert found.count("<polyline") == 2
    assert found.count("<circle") == 1
    assert "Nothing was measured" in chart("t", [Curve("a", "red", [(0, None)])], str)
    assert [nice_step(top) for top in (4, 12, 0.9)] == [1, 5, 0.2]


def test_chart_marks_what_was_done_to_the_server():
    found = chart("t", [Curve("a", "red", [(0, 1.0), (10, 2.0)])], str, [(5, "SIGKILL <b>")])
    assert found.count('class="mark"') == 1
    assert "5 s SIGKILL &lt;b&gt;" in found


def test_times_on_the_command_line():
    assert [command_line.parse_seconds(text) for text in ("90", "30s", "10m", "1h30m")] == [90, 30, 600, 5400]
    with pytest.raises(SystemExit):
        command_line.parse_seconds("soon")


def test_every_scenario_is_a_file_and_is_listed():
    files = {path.stem for path in (ROOT / "loadtests" / "scenarios").glob("*.py")} - {"__init__"}
    assert files == set(SCENARIOS)
    told = subprocess.run(
        [sys.executable, "-m", "loadtests", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    page = (ROOT / "docs" / "load-testing.md").read_text()
    for name, scenario in SCENARIOS.items():
        assert name in told
        assert f"| `{name}` | {scenario.question}" in page


def test_a_mistake_is_one_line():
    found = subprocess.run(
        [sys.executable, "-m", "loadtests", "nonesuch"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert "invalid choice: 'nonesuch'" in found.stderr.splitlines()[-1]
