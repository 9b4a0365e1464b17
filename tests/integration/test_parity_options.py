"""Options of uvicorn that nothing else drives."""

from __future__ import annotations

import httpx
import pytest
from conftest import total, wait_for


@pytest.mark.parametrize("arguments", [["--factory"], []])
def test_a_factory_is_called(serve, arguments):
    server = serve("parity_apps:made", *arguments, "--port", "0")
    assert httpx.get(server.url).text == "plain"
    told = [event["message"] for event in server.events() if "factory" in event["message"]]
    assert len(told) == (0 if arguments else 1), "who does not say so is told to"


def test_a_factory_that_wants_arguments(serve):
    server = serve("parity_apps:wants_arguments", "--factory", wait=False)
    assert server.process.wait(20) == 3
    assert "Traceback" not in server.stderr_path.read_text()


@pytest.mark.parametrize(("flag", "coloured"), [("--use-colors", True), ("--no-use-colors", False)])
def test_colours(serve, flag, coloured):
    server = serve("parity_apps:plain", "--log-format", "console", flag, "--port", "0", wait=False)
    wait_for(lambda: "Serving on" in server.stderr_path.read_text(), "start")
    assert ("\x1b[" in server.stderr_path.read_text()) is coloured


def test_jitter_is_added_to_the_limit_of_requests(serve):
    """With at most one more request than the limit, the worker is replaced between the two."""
    arguments = ["--limit-max-requests", "5", "--limit-max-requests-jitter", "1"]
    server = serve("parity_apps:plain", *arguments, "--port", "0", "--metrics-port", "0")

    def restarts():
        return total(server.metrics(), "obsserve_worker_restarts_total", reason="max_requests")

    for _ in range(4):
        assert httpx.get(server.url).status_code == 200
    assert restarts() == 0
    for _ in range(2):
        assert httpx.get(server.url).status_code == 200
    wait_for(lambda: restarts() == 1, "the replacement")
    assert server.stop() == 0
