"""What does not end by itself: it is told, then cut off and named, within the time that a shutdown may take."""

from __future__ import annotations

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import flags_of, total, wait_for
from websockets.sync.client import connect

WORKERS = [(), ("--workers", "1", "--supervise")]


@pytest.fixture(params=WORKERS, ids=["single", "supervised"])
def draining(request, serve):
    def start(*arguments, budget="3"):
        return serve(
            "drain_apps:app", "--port", "0", "--timeout-graceful-shutdown", budget, *request.param, *arguments
        )

    return start


@contextlib.contextmanager
def opened(server, path):
    """A stream whose first event has come."""
    with httpx.Client(timeout=30) as client, client.stream("GET", f"{server.url}/{path}") as stream:
        parts = stream.iter_raw()
        assert next(parts) == b"data: 1\n\n"
        yield parts


def is_asked(server):
    """Whether a request has come."""
    return total(server.metrics(), "http_server_active_requests") == 1


def ended(server, sig=signal.SIGTERM):
    began = time.monotonic()
    code = server.stop(sig, timeout=25)
    return code, time.monotonic() - began


def test_a_stream_is_told_and_may_say_goodbye(draining):
    server = draining()
    with opened(server, "polite-stream") as parts:
        server.process.send_signal(signal.SIGTERM)
        assert list(parts) == [b"data: bye\n\n"]
    assert server.process.wait(20) == 0
    (line,) = server.access_lines(1)
    assert (line["outcome"], line["http_response_status_code"]) == ("ok", 200)
    assert not server.events("drain.interrupted")
    assert [e["event"] for e in server.events() if e["event"].startswith("server.")][-1] == "server.stop"


@pytest.mark.parametrize("path", ["stream", "stream-that-raises"])
def test_a_stream_that_leaves_when_told_is_no_error_of_the_application(draining, path):
    server = draining()
    with opened(server, path) as parts:
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):  # no last chunk: the response is not whole
            list(parts)
    assert server.process.wait(20) == 0
    (line,) = server.access_lines(1)
    assert (line["outcome"], flags_of(line)) == ("shutdown", ["KS"])
    text = server.stderr_path.read_text()
    assert "Traceback" not in text
    assert not server.events("drain.interrupted")
    assert not [event for event in server.events() if event["level"] == "error"]


def test_a_long_poll_is_told_and_answered(draining):
    server = draining("--metrics-port", "0")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.get, f"{server.url}/long-poll", timeout=30)
        wait_for(lambda: is_asked(server), "the request")
        server.process.send_signal(signal.SIGTERM)
        assert answer.result(20).status_code == 503
    assert server.process.wait(20) == 0
    assert server.access_lines(1)[0]["outcome"] == "shutdown"


def test_a_handler_that_never_ends_is_cut_off_and_named(draining):
    server = draining(budget="1")
    with opened(server, "deaf-stream") as parts:
        code, seconds = ended(server)
        with pytest.raises(httpx.HTTPError):
            list(parts)
    assert code == 0
    assert seconds < 15
    (named,) = server.events("drain.interrupted")
    assert "GET /deaf-stream did not end in time" in named["message"]
    assert named["waits_for"] == "app"
    assert "drain_apps.py" in named["stack"]
    assert flags_of(server.access_lines(1)[0]) == ["KS"]
    assert "Traceback" not in server.stderr_path.read_text()
    assert not server.events("worker.kill")


def test_a_handler_that_has_not_answered_gets_a_503(draining):
    server = draining("--metrics-port", "0", budget="1")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.get, f"{server.url}/never", timeout=30)
        wait_for(lambda: is_asked(server), "the request")
        assert ended(server)[0] == 0
        assert answer.result(20).status_code == 503
    assert "GET /never" in server.events("drain.interrupted")[0]["message"]


def test_a_websocket_that_never_closes_is_named_and_holds_nothing_up(draining):
    server = draining(budget="1")
    with connect(server.url.replace("http", "ws") + "/deaf-websocket") as websocket:
        code, seconds = ended(server)
        with pytest.raises(Exception) as closed:
            websocket.recv(timeout=10)
        assert closed.value.rcvd.code == 1012
    assert code == 0
    assert seconds < 15
    (named,) = server.events("drain.interrupted")
    assert "WebSocket /deaf-websocket" in named["message"] or "left running" in named["message"]
    assert "drain_apps.py" in named["stack"]


def test_a_second_interrupt_waits_for_nobody(draining):
    server = draining(budget="20")
    with opened(server, "deaf-stream"):
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: server.events("server.drain"), "the drain")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 15
    assert "Traceback" not in server.stderr_path.read_text()


def test_what_readyz_answers_while_draining_can_be_chosen(serve):
    server = serve(
        "apps:fastapi",
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--shutdown-delay",
        "3",
        "--terminating-status",
        "200",
    )
    server.process.send_signal(signal.SIGTERM)
    answer = wait_for(
        lambda: (found := httpx.get(f"{server.admin_url}/readyz")).json()["reasons"] and found, "draining"
    )
    assert (answer.status_code, answer.json()["reasons"]) == (200, ["draining"])
    assert server.stop() == 0
