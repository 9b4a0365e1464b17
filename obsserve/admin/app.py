"""What the metrics port answers. Pure: a parsed request in, an answer out; no sockets here.

The serving side writes `AdminState`, this side only reads it, from another thread: each field is one plain
value, so there is nothing to lock.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.telemetry.exposition import Exposition

READY_MAX_STALL: Final = 5.0  # seconds
_TEXT: Final = "text/plain; charset=utf-8"
_PAGES: Final = {
    "/metrics": "metrics for Prometheus",
    "/livez": "is the process alive",
    "/readyz": "is it ready for requests",
    "/startupz": "has it started",
}


@dataclass(slots=True)
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

    started: bool = False
    draining: bool = False
    heartbeat: float = 0.0
    livez_max_stall: float | None = None
    ready_max_stall: float = READY_MAX_STALL
    terminating_status: int = HTTPStatus.SERVICE_UNAVAILABLE

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


@dataclass(frozen=True, slots=True)
class Request:
    """A request head; header names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
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

    def __init__(self, state: AdminState, exposition: Exposition) -> None:
        self._state = state
        self._exposition = exposition
        self._probes: dict[str, Callable[[], Answer]] = {
            "/": self._index,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/startupz": self._startupz,
        }

    def probe(self, request: Request) -> Answer | None:
        """Answer everything but a scrape, for which it returns None."""
        if request.path not in _PAGES and request.path != "/":
            return Answer(HTTPStatus.NOT_FOUND, b"not found\n")
        if request.method not in ("GET", "HEAD"):
            return Answer(
                HTTPStatus.METHOD_NOT_ALLOWED, b"method not allowed\n", headers=(("Allow", "GET, HEAD"),)
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
        reasons = self._state.unready_reasons()
        state = f"not ready: {', '.join(reasons)}" if reasons else "ready"
        links = "".join(
            f'<li><a href="{path}">{path}</a> {escape(what)}</li>' for path, what in _PAGES.items()
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>obsserve</title>'
            f"<h1>obsserve</h1><p>{escape(state)}</p><ul>{links}</ul></html>\n"
        )
        return Answer(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")
