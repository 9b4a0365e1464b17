"""Logging as uvicorn's users configure it: files, handlers, filters, levels, formats."""

from __future__ import annotations

import json
import re
import socket
import time

import httpx
import pytest
from conftest import wait_for
from websockets.sync.client import connect
from tests.parts import package

# What people paste who want JSON from uvicorn, with the names changed.
JSON_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {
        "default": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "obsserve": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "obsserve.error": {"level": "INFO"},
        "obsserve.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
INI_CONFIG = """\
[loggers]
keys=root,access
[handlers]
keys=out,err
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=err
[logger_access]
qualname=obsserve.access
level=INFO
handlers=out
propagate=0
[handler_out]
class=StreamHandler
formatter=plain
args=(sys.stdout,)
[handler_err]
class=StreamHandler
formatter=plain
args=(sys.stderr,)
[formatter_plain]
format=%(levelname)s:%(name)s:%(message)s
"""


@pytest.fixture
def started(serve):
    """Start a server whose log lines need not be JSON; returns it and its URL."""

    def start(*arguments, **options):
        server = serve(*arguments, "--port", "0", wait=False, **options)

        def url():
            assert server.process.poll() is None, server.stderr_path.read_text()
            found = re.search(r"Serving on (http://[0-9.:]+)", server.stderr_path.read_text())
            return found and found[1]

        return server, wait_for(url, "start")

    return start


def lines(server, count):
    def found():
        text = server.stdout_path.read_text()
        return text.endswith("\n") and text.count("\n") >= count and text.splitlines()

    return wait_for(found, f"{count} lines")


def test_the_json_configuration_that_people_paste(started, tmp_path):
    (tmp_path / "log.json").write_text(json.dumps(JSON_CONFIG))
    server, url = started("parity_apps:plain", "--log-config", str(tmp_path / "log.json"))
    httpx.get(f"{url}/items?q=1")
    (line,) = lines(server, 1)
    record = json.loads(line)
    assert re.fullmatch(r'127\.0\.0\.1:\d+ - "GET /items\?q=REDACTED HTTP/1\.1" 200', record["message"])
    assert (record["levelname"], record["name"]) == ("INFO", "obsserve.access")
    assert record["obsserve"]["http_response_status_code"] == 200
    assert record["obsserve"]["duration_seconds"] > 0
    server.stop()
    errors = [json.loads(line) for line in server.stderr_path.read_text().splitlines()]
    messages = [error["message"] for error in errors]
    assert messages[0].startswith("Serving on http://")
    assert errors[0]["obsserve"]["event"] == "server.start"
    assert "Stopped" in messages


@pytest.mark.parametrize("suffix", ["ini", "yaml"])
def test_other_files(started, tmp_path, suffix):
    yaml = package("yaml")
    path = tmp_path / f"log.{suffix}"
    plain = json.loads(
        json.dumps(JSON_CONFIG).replace("pythonjsonlogger.json.JsonFormatter", "logging.Formatter")
    )
    plain["formatters"]["json"]["fmt"] = "%(levelname)s:%(name)s:%(message)s"
    path.write_text(INI_CONFIG if suffix == "ini" else yaml.safe_dump(plain))
    server, url = started("parity_apps:plain", "--log-config", str(path))
    httpx.get(url)
    (line,) = lines(server, 1)
    assert re.fullmatch(r'INFO:obsserve\.access:127\.0\.0\.1:\d+ - "GET / HTTP/1\.1" 200', line)
    assert "INFO:obsserve.error:Serving on " in server.stderr_path.read_text()


def test_a_file_that_is_not_there(serve):
    server = serve("parity_apps:plain", "--log-config", "nowhere.yaml", wait=False)
    assert server.process.wait(20) == 2
    text = server.stderr_path.read_text()
    assert text == (
        "obsserve: error: log_config: nowhere.yaml cannot be used: No such file or directory (from --log-config); "
        "the standard library's logging.config says what it understands\n"
    )


def test_a_filter_hides_the_health_check(serve):
    server = serve("parity_apps:hides_health", "--port", "0", "--metrics-port", "0")
    for path in ("/health", "/items", "/health", "/last"):
        httpx.get(f"{server.url}{path}")
    assert [line["url_path"] for line in server.access_lines(2)] == ["/items", "/last"]
    wait_for(
        lambda: any(
            labels["result"] == "filtered" and value == 2
            for labels, value in server.metrics().get("obsserve_log_records_total", [])
        ),
        "two filtered records in the metrics",
    )


def test_a_handler_of_the_application_gets_records_beside_the_lines(serve):
    server = serve("parity_apps:adds_handler", "--port", "0")
    for path in ("/one", "/two"):
        httpx.get(f"{server.url}{path}")
    assert [line["url_path"] for line in server.access_lines(2)] == ["/one", "/two"]
    server.stop()
    mine = [line for line in server.stderr_path.read_text().splitlines() if line.startswith("mine ")]
    assert [line.split('"')[1] for line in mine] == ["GET /one HTTP/1.1", "GET /two HTTP/1.1"]
    assert [line.rsplit(" ", 1)[1] for line in mine] == ["one", "two"], "the request's own context"


def test_a_handler_that_is_added_while_the_server_serves(serve):
    server = serve("parity_apps:adds_handler_later", "--port", "0")
    httpx.get(f"{server.url}/add")

    def told():
        httpx.get(f"{server.url}/after")
        time.sleep(0.1)
        return "mine " in server.stderr_path.read_text()

    wait_for(told, "a record")
    httpx.get(f"{server.url}/remove")
    server.stop()
    mine = [line for line in server.stderr_path.read_text().splitlines() if line.startswith("mine ")]
    assert '"GET /after HTTP/1.1" 200' in mine[0]


def test_filters_and_formatters_see_websocket_sessions(serve, tmp_path):
    config = json.loads(json.dumps(JSON_CONFIG))
    config["filters"] = {"sessions": {"()": "parity_apps.OnlySessions"}}
    config["formatters"]["json"] = {"()": "parity_apps.Indexes"}
    config["loggers"]["obsserve.access"]["filters"] = ["sessions"]
    (tmp_path / "log.json").write_text(json.dumps(config))
    server = serve(
        "parity_apps:websocket", "--log-config", str(tmp_path / "log.json"), "--port", "0", wait=False
    )

    def url():
        found = re.search(r"Serving on http(://[0-9.:]+)", server.stderr_path.read_text())
        return found and found[1]

    address = wait_for(url, "start")
    with connect(f"ws{address}/live?q=1") as client:
        client.send("one")
        assert client.recv() == "one"
    (line,) = lines(server, 1)
    assert re.fullmatch(r"127\.0\.0\.1:\d+\|WEBSOCKET\|/live\?q=REDACTED\|1\.1\|1000\|1 received", line), line
    server.stop()
    assert len(server.stdout_path.read_text().splitlines()) == 1, "the handshake was filtered"


@pytest.mark.parametrize(
    "arguments", [("parity_apps:quiet", "--log-level", "warning"), ("parity_apps:sets_level",)]
)
def test_a_level_keeps_ordinary_requests_out(serve, arguments):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = "http://127.0.0.1:{}".format(listening.getsockname()[1])
    # The line with the address would be one of level INFO.
    server = serve(*arguments, "--port", url.rpartition(":")[2], wait=False)

    def answers():
        try:
            return httpx.get(f"{url}/works")
        except httpx.ConnectError:
            return None

    wait_for(answers, "start")
    httpx.get(f"{url}/fails")
    assert [line["url_path"] for line in server.access_lines(1)] == ["/fails"]


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("combined", r'127\.0\.0\.1 - - \[[^]]+\] "GET /items HTTP/1\.1" 200 5 "http://shop/" "probe/1"'),
        ('%(h)s "%(r)s" %(s)s %(D)s', r'127\.0\.0\.1 "GET /items HTTP/1\.1" 200 \d+'),
    ],
)
def test_lines_in_a_given_format(serve, form, shown):
    server = serve("parity_apps:plain", "--port", "0", "--access-log-format", form)
    httpx.get(f"{server.url}/items", headers={"Referer": "http://shop/", "User-Agent": "probe/1"})
    (line,) = lines(server, 1)
    assert re.fullmatch(shown, line), line


def test_an_atom_that_is_none(serve):
    server = serve("parity_apps:plain", "--access-log-format", "%Y", wait=False)
    assert server.process.wait(20) == 2
    assert (
        "access_log_format: there is no atom '%Y' (from --access-log-format)"
        in server.stderr_path.read_text()
    )


def test_trace_shows_each_message(serve):
    server = serve("parity_apps:plain", "--port", "0", "--log-level", "trace")
    httpx.get(f"{server.url}/items")
    server.stop()
    said = [line["message"] for line in server.events() if line["logger"] == "obsserve.asgi"]
    assert any("Started scope={'type': 'http'" in line for line in said)
    assert any("Send {'type': 'http.response.body', 'body': '<5 bytes>'}" in line for line in said)
    assert any(line.endswith("Completed") for line in said)


def test_no_access_log(serve):
    server = serve("parity_apps:adds_handler", "--port", "0", "--no-access-log")
    httpx.get(server.url)
    server.stop()
    assert server.stdout_path.read_text() == ""
    assert "mine " not in server.stderr_path.read_text()


def test_the_dictionary_changed_in_place(started):
    """The commonest change of all: a time in front of the line."""
    server, url = started("parity_changes_dictionary:plain")
    httpx.get(f"{url}/items")
    (line,) = lines(server, 1)
    assert re.fullmatch(r'at 2[-0-9:, ]+ 127\.0\.0\.1:\d+ "GET /items HTTP/1\.1" 200 OK', line), line
