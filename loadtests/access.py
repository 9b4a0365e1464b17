"""What the access log says of a run: one line for each request that the server observed."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

EXCHANGES: Final = {"http.request", "websocket.handshake"}


def lines_of(path: Path, run_id: str) -> Counter[str]:
    """Return how many lines each request of a run has left.

    Args:
        path: the access log, JSON lines; what is no such line is passed over.
        run_id: what the run's ids begin with: the request id, or the trace id where the client is not trusted.
    """
    found: Counter[str] = Counter()
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            if run_id not in text:
                continue
            try:
                line = json.loads(text)
            except ValueError:
                continue  # the last line of a process that was killed
            if line.get("event") not in EXCHANGES:
                continue
            for name in ("request_id", "trace_id"):
                if (line.get(name) or "").startswith(run_id):
                    found[line[name]] += 1
                    break
    return found


def account(path: Path, run_id: str, *, sent: int, lost_traces: list[str]) -> dict[str, Any]:
    """Compare the access log with the client's books, request by request.

    Args:
        path: the access log.
        run_id: what the run's trace ids begin with.
        sent: requests that the client sent.
        lost_traces: trace ids of those among them that got no whole answer.

    Returns:
        How many lines there are, of how many requests; how many of the unanswered left one; and the
        disagreement: answered requests without a line, and lines beyond one for a request.
    """
    found = lines_of(path, run_id)
    lost = set(lost_traces)
    observed_lost = sum(1 for trace_id in lost if trace_id in found)
    answered = sent - len(lost)
    return {
        "lines": found.total(),
        "requests": len(found),
        "unanswered_with_line": observed_lost,
        "disagreement": (found.total() - len(found)) + abs(answered - (len(found) - observed_lost)),
    }
