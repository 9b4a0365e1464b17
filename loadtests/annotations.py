"""Marks in Grafana where a run began and ended; a Grafana that is away costs a warning, never the run."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, Final

TAGS: Final = ["obsserve", "loadtest"]  # what the dashboards look for
TIMEOUT_SECONDS: Final = 3.0


class Annotation:
    """A region from the beginning of a run to its end.

    Args:
        url: of Grafana.
        token: of a service account; empty where anonymous users may write.
        scenario: becomes a tag.
    """

    def __init__(self, url: str, token: str, scenario: str) -> None:
        self._url = url.rstrip("/") + "/api/annotations"
        self._token = token
        self._scenario = scenario
        self._id: int | None = None

    def begin(self, at: float, text: str) -> str | None:
        """Post it; `at` in seconds of unix time. Return what went wrong, None if nothing did."""
        body = {"time": round(at * 1000), "tags": [*TAGS, self._scenario], "text": text}
        answer, problem = self._send("POST", self._url, body)
        self._id = answer.get("id")
        return problem

    def end(self, at: float, text: str) -> str | None:
        """Extend it to here. Return what went wrong, None if nothing did."""
        if self._id is None:
            return None
        body = {"timeEnd": round(at * 1000), "text": text}
        return self._send("PATCH", f"{self._url}/{self._id}", body)[1]

    def _send(self, method: str, url: str, body: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                found = json.loads(answer.read() or b"{}")
        except (OSError, ValueError) as error:
            return {}, f"no annotation in Grafana: {error}"
        return found if isinstance(found, dict) else {}, None
