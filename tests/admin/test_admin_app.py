"""The endpoints of the metrics port, without sockets."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from obsserve.admin.app import AdminApp, AdminState, BadRequestError, Request, parse_head
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.exposition import Exposition
from obsserve.telemetry.metrics import Metrics


@pytest.fixture
def state():
    return AdminState(started=True, heartbeat=time.perf_counter())


@pytest.fixture
def app(state):
    region = Cells.create(rows=512)
    Metrics(region)
    reader = region.reader()
    yield AdminApp(state, Exposition([reader]))
    reader.close()
    region.close()


def get(app, path, method="GET"):
    return app.probe(Request(method, path))


class TestProbes:
    def test_all_is_well(self, app):
        assert get(app, "/livez").status == 200
        assert get(app, "/startupz").status == 200
        ready = get(app, "/readyz")
        assert (ready.status, json.loads(ready.body)) == (200, {"ready": True, "reasons": []})

    def test_before_the_start(self, app, state):
        state.started, state.heartbeat = False, 0.0
        assert get(app, "/livez").status == 200
        assert get(app, "/startupz").status == 503
        ready = get(app, "/readyz")
        assert (ready.status, json.loads(ready.body)) == (503, {"ready": False, "reasons": ["starting"]})

    def test_draining(self, app, state):
        state.draining = True
        ready = get(app, "/readyz")
        assert (ready.status, json.loads(ready.body)["reasons"]) == (503, ["draining"])
        assert get(app, "/livez").status == 200
        state.terminating_status = 200
        assert get(app, "/readyz").status == 200

    def test_a_blocked_loop(self, app, state):
        state.heartbeat -= 4.0
        assert get(app, "/readyz").status == 200
        state.heartbeat -= 2.0
        ready = get(app, "/readyz")
        assert (ready.status, json.loads(ready.body)["reasons"]) == (503, ["unresponsive"])
        assert get(app, "/livez").status == 200, "restarting does not help a slow handler"

    def test_life_can_be_bounded(self, app, state):
        state.livez_max_stall = 30.0
        state.heartbeat -= 29.0
        assert get(app, "/livez").status == 200
        state.heartbeat -= 2.0
        assert get(app, "/livez").status == 503

    def test_all_reasons_are_given(self, state):
        state.started, state.draining, state.heartbeat = False, True, time.perf_counter() - 60
        assert state.unready_reasons() == ["starting", "draining", "unresponsive"]
        assert not state.is_ready()


class TestPages:
    def test_the_index_links_every_endpoint(self, app):
        page = get(app, "/")
        assert page.content_type.startswith("text/html")
        for path in ("/metrics", "/livez", "/readyz", "/startupz"):
            assert f'href="{path}"'.encode() in page.body
        assert b"<p>ready</p>" in page.body

    def test_the_index_says_what_is_wrong(self, app, state):
        state.draining = True
        assert b"not ready: draining" in get(app, "/").body

    @pytest.mark.parametrize("path", ["/nothing", "/metrics/", "//", "*", "/-/status"])
    def test_anything_else_is_not_found(self, app, path):
        assert get(app, path).status == 404

    @pytest.mark.parametrize("path", ["/", "/metrics", "/livez"])
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
    def test_only_reading_is_allowed(self, app, method, path):
        answer = get(app, path, method)
        assert answer.status == 405
        assert ("Allow", "GET, HEAD") in answer.headers


class TestMetrics:
    def test_a_scrape_is_not_a_probe(self, app):
        assert get(app, "/metrics") is None

    def test_a_scrape(self, app):
        answer = app.scrape(Request("GET", "/metrics"))
        assert (answer.status, answer.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"obsserve_metrics_series" in answer.body

    def test_negotiation(self, app):
        headers = {"accept": "application/openmetrics-text;version=1.0.0", "accept-encoding": "gzip"}
        answer = app.scrape(Request("GET", "/metrics", headers=headers))
        assert answer.content_type.startswith("application/openmetrics-text")
        assert ("Content-Encoding", "gzip") in answer.headers
        assert ("Vary", "Accept, Accept-Encoding") in answer.headers
        assert gzip.decompress(answer.body).endswith(b"# EOF\n")

    def test_the_filter(self, app):
        query = "name[]=obsserve_metrics_series&name%5B%5D=obsserve_limit"
        body = app.scrape(Request("GET", "/metrics", query)).body.decode()
        assert {line.split(" ")[0] for line in body.splitlines() if line[0] != "#"} == {
            "obsserve_metrics_series"
        }


class TestParsing:
    def test_a_head(self):
        head = b"GET /metrics?name[]=a HTTP/1.1\r\nHost: x\r\nACCEPT:  text/plain \r\n\r\n"
        headers = {"host": "x", "accept": "text/plain"}
        assert parse_head(head) == Request("GET", "/metrics", "name[]=a", headers)

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"GET\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        ],
    )
    def test_what_is_no_head(self, head):
        with pytest.raises(BadRequestError):
            parse_head(head)
