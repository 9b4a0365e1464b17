"""The pages under /-/ of real servers: what is open, where tasks stand, what is configured; and what they keep to themselves."""

from __future__ import annotations

import socket
import subprocess

import httpx
import pytest
from conftest import total, wait_for

SECRET = "hunter2"


@pytest.fixture(params=[(), ("--workers", "2")], ids=["one process", "two workers"])
def site(request, serve):
    return lambda *options, **more: serve(
        "apps:fastapi", "--port", "0", "--metrics-port", "0", *request.param, *options, **more
    )


def get(server, path, **options):
    return httpx.get(f"{server.admin_url}{path}", timeout=20, **options)


def curl(url, *options):
    return subprocess.Popen(
        ["curl", "-s", *options, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def requests(server):
    return get(server, "/-/requests").json()["requests"]


def test_open_requests_show_where_they_are_and_no_query(site):
    server = site("--otlp-endpoint", "http://127.0.0.1:9")
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    sleeper = curl(f"{server.url}/sleep/60?password={SECRET}", "-H", f"Authorization: Bearer {SECRET}")
    try:
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(head)
            rows = wait_for(
                lambda: (
                    (rows := requests(server))
                    and sum(map(bool, (row["http_route"] for row in rows))) == 2
                    and rows
                ),
                "two open requests",
            )
            shown = {row["url_path"]: row for row in rows}
            sleeping, uploading = shown["/sleep/60"], shown["/upload"]
            assert (sleeping["phase"], sleeping["http_request_method"]) == ("application", "GET")
            assert sleeping["http_route"] == "/sleep/{seconds}"
            assert len(sleeping["trace_id"]) == 32
            assert (uploading["phase"], uploading["http_request_method"]) == ("request_body", "POST")
            ages = [row["age_seconds"] for row in rows]
            assert ages == sorted(ages, reverse=True)
            assert ages[1] > 0
            assert SECRET not in get(server, "/-/requests").text
    finally:
        sleeper.kill()
        sleeper.wait()
    wait_for(lambda: requests(server) == [], "nothing open")


def test_stacks_of_a_blocked_loop(site):
    server = site("--admin-stacks")
    with curl(f"{server.url}/block/6") as client:

        def blocking():
            rows = get(server, "/-/stacks").json()["stacks"]
            return [
                row for row in rows if row["task"] is None and "time.sleep(seconds)" in " ".join(row["stack"])
            ]

        (row,) = wait_for(blocking, "the stack that blocks")
        assert client.poll() is None
        assert "apps.py" in row["stack"][-1]
        slots = {row["worker"] for row in get(server, "/-/stacks").json()["stacks"]}
        assert get(server, f"/-/stacks?worker={row['worker']}").json()["stacks"]
        assert row["worker"] in slots
        assert get(server, "/-/stacks?worker=17").json()["stacks"] == []
        assert get(server, "/-/stacks?worker=x").status_code == 400


def test_what_can_do_harm_is_off(site):
    server = site()
    assert get(server, "/-/stacks").status_code == 403
    assert httpx.put(f"{server.admin_url}/-/loglevel?level=debug").status_code == 403
    # A page of another origin in an operator's browser.
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert get(server, "/-/status", headers=headers).status_code == 403
    assert httpx.post(f"{server.admin_url}/-/status").status_code == 405
    assert get(server, "/-/loglevel").status_code == 405
    assert get(server, "/-/nothing").status_code == 404
    # Neither is on the application's port.
    assert httpx.get(f"{server.url}/-/status").status_code == 404


def test_the_log_level_changes_while_the_server_runs(site):
    server = site("--admin-log-level")
    level = f"{server.admin_url}/-/loglevel"
    assert httpx.put(f"{level}?level=loud").status_code == 400
    assert httpx.put(f"{level}?level=error").json() == {"level": "error"}
    # A blocked loop is told by a warning.
    assert httpx.get(f"{server.url}/block/2", timeout=20).status_code == 200
    assert httpx.put(f"{level}?level=info").json() == {"level": "info"}
    assert httpx.get(f"{server.url}/block/2", timeout=20).status_code == 200
    wait_for(lambda: server.events("loop.stall"), "a warning")
    assert len(server.events("loop.stall")) == 1
    assert total(server.metrics(), "obsserve_event_loop_stalls_total") == 2


def test_the_status_sums_up_and_hides_secrets(site):
    server = site(
        "--otlp-endpoint", f"http://user:{SECRET}@127.0.0.1:9/?key={SECRET}",
        "--header", f"X-Internal: {SECRET}",
        environment={"OBSSERVE_LOG_HASH_KEY": SECRET},
    )  # fmt: skip
    for _ in range(3):
        httpx.get(f"{server.url}/items/1")
    page = wait_for(
        lambda: (found := get(server, "/-/status").json())["access_lines"]["written"] == 3 and found,
        "three lines",
    )
    assert (page["ready"], page["reasons"]) == (True, [])
    assert page["settings"]["app"] == "apps:fastapi"
    assert page["settings"]["otlp_endpoint"] == "http://127.0.0.1:9/"
    assert page["settings"]["headers"] == ["x-internal: REDACTED"] or page["settings"]["headers"] == [
        "X-Internal: REDACTED"
    ]
    assert page["cpu_seconds"]
    assert page["series"] > 100
    assert page["requests_ended"] == 3
    for path in ("/", "/-/status", "/-/requests", "/metrics", "/readyz"):
        assert SECRET not in get(server, path).text, path
