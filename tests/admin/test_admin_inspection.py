"""What the status page shows of the options, and when the pages are there."""

from __future__ import annotations

import json

import pytest

from obsserve.admin.app import AdminApp, AdminState, Request
from obsserve.admin.inspection import settings_shown
from obsserve.settings import OPTIONS, Settings
from obsserve.telemetry.exposition import Exposition

SECRET = "hunter2"


class Inspection:
    def __init__(self, **options):
        self.settings = Settings(app="shop:app", **options)
        self.levels = []

    def requests(self):
        return [{"age_seconds": 1.0}]

    def stacks(self, worker):
        return [{"worker": worker}]

    def set_level(self, level):
        self.levels.append(level)


def app(inspection):
    return AdminApp(AdminState(started=True), Exposition([]), inspection)


def ask(inspection, path, method="GET", query="", **headers):
    request = Request(method, path, query, {name.replace("_", "-"): value for name, value in headers.items()})
    site = app(inspection)
    answer = site.probe(request)
    return site.inspect(request) if answer is None else answer


def test_every_option_is_shown_and_no_secret():
    settings = Settings(
        app="shop:app",
        otlp_endpoint=f"https://user:{SECRET}@collector:4317/v1?api_key={SECRET}",
        headers=[f"X-Token:{SECRET}"],
        log_hash_key=SECRET,
    )
    shown = settings_shown(settings)
    assert shown.keys() == OPTIONS.keys()
    text = json.dumps(shown)
    assert SECRET not in text
    assert shown["otlp_endpoint"] == "https://collector:4317/v1"
    assert shown["log_hash_key"] == "REDACTED"
    assert shown["port"] == 8000


def test_objects_are_named_by_their_type_only():
    def shop():
        """The application."""

    assert settings_shown(Settings(app=shop))["app"] == "<function>"


@pytest.mark.parametrize("path", ["/-/status", "/-/requests", "/-/stacks", "/-/loglevel"])
def test_without_somebody_to_ask_there_are_no_pages(path):
    assert ask(None, path, "PUT" if path == "/-/loglevel" else "GET").status == 404


def test_pages():
    inspection = Inspection(admin_stacks=True, admin_log_level=True)
    assert json.loads(ask(inspection, "/-/requests").body) == {"requests": [{"age_seconds": 1.0}]}
    assert json.loads(ask(inspection, "/-/stacks", query="worker=1").body) == {"stacks": [{"worker": 1}]}
    assert ask(inspection, "/-/stacks", query="worker=one").status == 400
    assert ask(inspection, "/-/loglevel", "PUT", "level=DEBUG").status == 200
    assert ask(inspection, "/-/loglevel", "PUT", "level=loud").status == 400
    assert inspection.levels == [10]
    status = json.loads(ask(inspection, "/-/status").body)
    assert status["service_name"] == "shop:app"
    assert status["settings"]["admin_stacks"] is True


@pytest.mark.parametrize("path", ["/-/stacks", "/-/loglevel"])
def test_what_can_do_harm_is_off_by_default(path):
    inspection = Inspection()
    assert ask(inspection, path, "PUT" if path == "/-/loglevel" else "GET", "level=debug").status == 403
    assert inspection.levels == []


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec_fetch_site": "cross-site"}])
def test_other_web_pages_are_refused(headers):
    inspection = Inspection(admin_log_level=True)
    assert ask(inspection, "/-/status", **headers).status == 403
    assert ask(inspection, "/-/loglevel", "PUT", "level=debug", **headers).status == 403
    assert inspection.levels == []
