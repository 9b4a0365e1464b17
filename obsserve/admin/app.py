"""What the metrics port answers. Pure: a parsed request in, an answer out; no sockets here.

The serving side writes `AdminState`, this side only reads it, from another thread: each field is one plain
value, so there is nothing to lock.
"""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs

from obsserve.admin.inspection import status
from obsserve.checks import BadValue, log_level

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from obsserve.admin.inspection import Inspection
    from obsserve.telemetry.exposition import Exposition
    from obsserve.telemetry.lateexposition import LateExposition

READY_MAX_STALL: Final = 5.0  # seconds
_TEXT: Final = "text/plain; charset=utf-8"
_PAGES: Final = {
    "/metrics": "metrics for Prometheus",
    "/livez": "is the process alive",
    "/readyz": "is it ready for requests",
    "/startupz": "has it started",
    "/-/status": "state, figures and configuration",
    "/-/requests": "what is open",
    "/-/stacks": "where the tasks stand, if that is allowed",
    "/-/loglevel": "PUT ?level=debug, if that is allowed",
}


class AdminState:
    """What the serving side tells the probes.

    Arguments:
        started: the application's start-up is complete.
        draining: the server takes its leave.
        heartbeat: the last tick of the serving loop, `time.perf_counter` seconds; 0.0 before the first.
        livez_max_stall: after so many seconds of a blocked loop /livez fails; None for never.
        ready_max_stall: after so many seconds of a blocked loop /readyz fails.
        terminating_status: what /readyz answers while draining.

    """

    def __init__(
        self,
        *,
        started: bool = False,
        draining: bool = False,
        heartbeat: float = 0.0,
        livez_max_stall: float | None = None,
        ready_max_stall: float = READY_MAX_STALL,
        terminating_status: int = HTTPStatus.SERVICE_UNAVAILABLE,
    ) -> None:
        self.started = started
        self.draining = draining
        self.heartbeat = heartbeat
        self.livez_max_stall = livez_max_stall
        self.ready_max_stall = ready_max_stall
        self.terminating_status = terminating_status

    def stalled_for(self) -> float:
        """Return the seconds since the loop's last tick."""
        return time.perf_counter() - self.heartbeat if self.heartbeat else 0.0

    def unready_reasons(self) -> list[str]:
        """Return why the server is not ready; empty when it is."""
        reasons = []
        if not self.started:
            reasons.append("starting")
        if self.draining:
            reasons.append("draining")
        if self.stalled_for() > self.ready_max_stall:
            reasons.append("unresponsive")
        return reasons

    def is_ready(self) -> bool:
        """Return whether requests should be sent here."""
        return not self.unready_reasons()


class Request(NamedTuple):
    """A request head; header names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = MappingProxyType({})


class Answer(NamedTuple):
    """A response. `Content-Length`, `Connection` and the like are the server's business."""

    status: int
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


class BadRequestError(ValueError):
    """The request head cannot be read."""


def parse_head(head: bytes) -> Request:
    """Return the request of a head, blank line included or not.

    Raises:
        BadRequestError: it is none.

    """
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[2].startswith("HTTP/1."):
        raise BadRequestError(lines[0])
    headers = {}
    for line in filter(None, lines[1:]):
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError(line)
        headers[name.lower()] = value.strip()
    path, _, query = words[1].partition("?")
    return Request(words[0], path, query, headers)


class AdminApp:
    """The endpoints.

    `probe` answers at once. `scrape` may take as long as the slowest collector of the application.
    """

    def __init__(
        self,
        state: AdminState,
        exposition: Exposition | LateExposition,
        inspection: Inspection | None = None,
    ) -> None:
        self._state = state
        self._exposition = exposition
        self._inspection = inspection
        self._pages = {
            path: what for path, what in _PAGES.items() if inspection or not path.startswith("/-/")
        }
        self._probes: dict[str, Callable[[], Answer]] = {
            "/": self._index,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/startupz": self._startupz,
        }

    def probe(self, request: Request) -> Answer | None:
        """Answer at once; None for a scrape and the pages under /-/, which may take a moment."""
        if request.path not in self._pages and request.path != "/":
            return Answer(HTTPStatus.NOT_FOUND, b"not found\n")
        allowed = ("PUT",) if request.path == "/-/loglevel" else ("GET", "HEAD")
        if request.method not in allowed:
            return Answer(
                HTTPStatus.METHOD_NOT_ALLOWED,
                b"method not allowed\n",
                headers=(("Allow", ", ".join(allowed)),),
            )
        probe = self._probes.get(request.path)
        return None if probe is None else probe()

    def scrape(self, request: Request) -> Answer:
        """Answer a scrape."""
        names = parse_qs(request.query).get("name[]", ())
        accept, accept_encoding = (request.headers.get(name, "") for name in ("accept", "accept-encoding"))
        page = self._exposition.scrape(accept, accept_encoding, names)
        headers = [("Vary", "Accept, Accept-Encoding")]
        if page.content_encoding is not None:
            headers.append(("Content-Encoding", page.content_encoding))
        return Answer(HTTPStatus.OK, page.body, page.content_type, tuple(headers))

    def inspect(self, request: Request) -> Answer:
        """Answer a page under /-/."""
        inspection = self._inspection
        assert inspection is not None
        if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            # A web page that somebody looks at must not look at their servers.
            return Answer(HTTPStatus.FORBIDDEN, b"not for other web pages\n")
        query = parse_qs(request.query)
        if request.path == "/-/requests":
            return _json({"requests": inspection.requests()})
        if request.path == "/-/stacks":
            return self._stacks(inspection, query.get("worker", [""])[0])
        if request.path == "/-/loglevel":
            return self._loglevel(inspection, query.get("level", [""])[0])
        page = status(inspection.settings, self._state.unready_reasons(), self._exposition.collect())
        return _json(page)

    @staticmethod
    def _stacks(inspection: Inspection, worker: str) -> Answer:
        if not inspection.settings.admin_stacks:
            return Answer(HTTPStatus.FORBIDDEN, b"turn it on with --admin-stacks\n")
        if worker and not worker.isdecimal():
            return Answer(HTTPStatus.BAD_REQUEST, b"worker is the number of a worker\n")
        return _json({"stacks": inspection.stacks(int(worker) if worker else None)})

    @staticmethod
    def _loglevel(inspection: Inspection, level: str) -> Answer:
        if not inspection.settings.admin_log_level:
            return Answer(HTTPStatus.FORBIDDEN, b"turn it on with --admin-log-level\n")
        try:
            number = log_level(level)
        except BadValue as bad:
            return Answer(HTTPStatus.BAD_REQUEST, f"{bad.what}; {bad.remedy}\n".encode())
        inspection.set_level(int(number))
        return _json({"level": level.lower()})

    def _livez(self) -> Answer:
        limit = self._state.livez_max_stall
        stalled = self._state.stalled_for()
        if limit is not None and stalled > limit:
            text = f"the event loop has been blocked for {stalled:.1f} s\n"
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, text.encode())
        return Answer(HTTPStatus.OK, b"ok\n")

    def _readyz(self) -> Answer:
        reasons = self._state.unready_reasons()
        status: int = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        if reasons == ["draining"]:
            status = self._state.terminating_status
        body = json.dumps({"ready": not reasons, "reasons": reasons}) + "\n"
        return Answer(status, body.encode(), "application/json")

    def _startupz(self) -> Answer:
        if self._state.started:
            return Answer(HTTPStatus.OK, b"started\n")
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"starting\n")

    def _index(self) -> Answer:
        from html import escape  # noqa: PLC0415  (for people who look; a start needs none of it)

        reasons = self._state.unready_reasons()
        state = f"not ready: {', '.join(reasons)}" if reasons else "ready"
        links = "".join(
            f'<li><a href="{path}">{path}</a> {escape(what)}</li>' for path, what in self._pages.items()
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>obsserve</title>'
            f"<h1>obsserve</h1><p>{escape(state)}</p><ul>{links}</ul></html>\n"
        )
        return Answer(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")


def _json(page: dict[str, Any]) -> Answer:
    return Answer(HTTPStatus.OK, json.dumps(page, indent=1).encode() + b"\n", "application/json")
