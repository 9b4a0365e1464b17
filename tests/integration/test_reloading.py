"""`--reload` with real edits: new code serves, broken code is told and waited out, nothing holds it up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import httpx
import pytest
from conftest import HERE, total, wait_for

from obsserve.testing_otlp import OTLPSink
from tests.anyvalues import attributes

APP = """
    import time
    {before}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        if scope["path"] == "/stream":
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": b"{answer}", "more_body": True}})
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"{answer}"}})
"""


class Source:
    """The application's module, as somebody edits it."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "edited.py"

    def says(self, answer, before=""):
        # Of another size at each edit: a .pyc is compared by size and whole seconds.
        self.text = textwrap.dedent(APP).format(answer=answer, before=before)
        self.path.write_text(self.text)

    def breaks(self):
        self.path.write_text(self.text + "\nthis is no Python\n")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    return Source(folder)


@pytest.fixture
def reloading(serve, source):
    def start(*arguments, **options):
        return serve(
            "edited:app", "--port", "0", "--metrics-port", "0", "--reload", "--reload-delay", "0.05",
            "--app-dir", str(source.folder), "--reload-dir", str(source.folder), *arguments, **options,
        )  # fmt: skip

    return start


def answers(server, wanted):
    """Wait until a new connection is answered so."""

    def asked():
        try:
            return httpx.get(server.url, timeout=5).text == wanted
        except httpx.HTTPError:
            return False

    wait_for(asked, f"the answer {wanted}")


def reloads(server, result="success"):
    return total(server.metrics(), "obsserve_config_reloads_total", result=result)


def test_an_edit_is_served_and_a_broken_one_leaves_the_code_of_before(reloading, source):
    source.says("first")
    server = reloading()
    assert httpx.get(server.url).text == "first"
    source.says("second")
    answers(server, "second")

    source.breaks()
    wait_for(lambda: reloads(server, "failure") == 1, "the broken edit to be noticed")
    assert httpx.get(server.url).text == "second"
    told = [event for event in server.events("worker.exit") if "traceback" in event]
    assert len(told) == 1
    assert "edited.py" in told[0]["traceback"]
    assert "SyntaxError" in told[0]["traceback"]
    assert "could not start" in told[0]["message"]
    (waiting,) = server.events("reload.wait")
    assert waiting["message"].startswith("The code of before goes on serving")

    source.says("the third")
    answers(server, "the third")
    metrics = server.metrics()
    assert total(metrics, "obsserve_config_reloads_total", result="success") == 2
    assert total(metrics, "obsserve_worker_restarts_total", reason="reload") == 2
    assert total(metrics, "obsserve_worker_restarts_total", reason="startup_failed") == 1
    assert total(metrics, "http_server_request_duration_seconds_count") >= 4  # of all workers so far
    assert "'edited.py'" in server.events("reload.change")[0]["message"].replace(f"{source.folder}/", "")
    assert server.stop() == 0


def test_an_application_that_is_broken_from_the_start_is_waited_for(reloading, source):
    source.says("mended")
    source.breaks()
    server = reloading(wait=False)
    wait_for(lambda: server.events("reload.wait"), "the broken start")
    assert len(server.events("worker.exit")) == 1
    assert not server.events("server.start")
    source.says("mended")
    server.started()
    assert httpx.get(server.url).text == "mended"
    assert "Traceback" not in server.stderr_path.read_text().replace("\\n", "").replace(
        server.events("worker.exit")[0]["traceback"].replace("\n", ""), ""
    )
    assert server.stop(signal.SIGINT) == 0


def test_waiting_for_the_first_good_edit_can_be_interrupted(reloading, source):
    source.says("never")
    source.breaks()
    server = reloading(wait=False)
    wait_for(lambda: server.events("reload.wait"), "the broken start")
    assert server.stop(signal.SIGINT) == 0


def test_each_reload_has_a_span(reloading, source):
    with OTLPSink("http/protobuf") as sink:
        spans = lambda: [span for span in sink.spans if span.name == "server.reload"]  # noqa: E731
        source.says("first")
        server = reloading("--otlp-endpoint", sink.endpoint, "--otlp-protocol", "http/protobuf")
        before = time.time_ns()
        source.says("second")
        answers(server, "second")
        (good,) = wait_for(spans, "the span of the good edit")
        assert attributes(good) == {
            "obsserve.reload.reason": "change",
            "obsserve.reload.workers": 1,
            "obsserve.reload.replaced": 1,
            "obsserve.reload.files": [str(source.path)],
        }
        assert good.status.code == 0
        assert before < good.start_time_unix_nano < good.end_time_unix_nano < time.time_ns()
        told = server.events("worker.ready")[-1]
        assert told["timestamp"]

        source.breaks()
        _, bad = wait_for(lambda: len(spans()) == 2 and spans(), "the span of the broken edit")
        assert (bad.status.code, attributes(bad)["error.type"]) == (2, "startup_failed")
        assert attributes(bad)["obsserve.reload.replaced"] == 0

        # A start that is out of date is given up: one reload, from the first edit to what the last one says.
        source.says("too slow", before="time.sleep(120)")
        wait_for(lambda: len(server.events("reload.change")) == 3, "the slow start")
        began = time.time_ns()
        source.says("the third")
        answers(server, "the third")
        *_, last = wait_for(lambda: len(spans()) == 3 and spans(), "the span of both edits")
        assert last.status.code == 0
        assert last.start_time_unix_nano < began
        counted = server.metrics()
        assert total(counted, "obsserve_config_reloads_total") == len(spans())
        assert total(counted, "otel_sdk_span_started_total", otel_span_parent_origin="none") >= 3
        assert server.stop() == 0


def test_a_stream_holds_nothing_up(reloading, source):
    source.says("first")
    server = reloading()
    with httpx.stream("GET", f"{server.url}/stream", timeout=30) as stream:
        chunks = stream.iter_raw()
        assert next(chunks) == b"first"
        began = time.monotonic()
        source.says("second")
        answers(server, "second")
        assert time.monotonic() - began < 15  # before the 20 s that the stream may take to end
        # It drains since that edit; the next one ends it.
        source.says("the third")
        answers(server, "the third")
        with pytest.raises(httpx.RemoteProtocolError):
            next(chunks)
    assert server.stop() == 0


def test_an_edit_ends_a_start_that_is_out_of_date(reloading, source):
    source.says("first")
    server = reloading()
    source.says("second", before="time.sleep(120)")
    wait_for(lambda: server.events("reload.change"), "the slow start")
    source.says("the third")
    answers(server, "the third")
    assert reloads(server, "failure") == 0
    assert server.stop() == 0


def test_a_killed_child_is_told_and_replaced(reloading, source):
    source.says("first")
    server = reloading()
    os.kill(server.events("worker.ready")[0]["pid"], signal.SIGKILL)
    answers(server, "first")
    (death,) = server.events("worker.exit")
    assert (death["signal"], death["reason"]) == ("SIGKILL", "signal")
    assert server.stop() == 0


def test_workers_give_way_to_reloading(reloading, source):
    source.says("first")
    server = reloading("--workers", "3")
    assert total(server.metrics(), "obsserve_workers", state="ready") == 1
    assert any("ignored when reloading" in event["message"] for event in server.events("server.warning"))
    assert server.stop() == 0


def test_without_watchfiles_it_says_what_to_install(tmp_path):
    (tmp_path / "watchfiles.py").write_text("raise ImportError('not here')\n")
    ended = subprocess.run(
        [sys.executable, "-m", "obsserve", "worker_apps:pid", "--port", "0", "--reload"],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 3
    assert ended.stderr == (
        "obsserve: error: --reload needs watchfiles; pip install 'obsserve[standard]' brings it.\n"
    )


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "obsserve",
            "worker_apps:pid",
            "--reload",
            "--reload-dir",
            str(tmp_path / "no"),
        ],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert "is not a directory" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
