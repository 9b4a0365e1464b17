"""Looking into a serving process: what is open, and where its tasks stand.

From any thread but the event loop's, which may be blocked. With several workers the main process asks over the
channel, and the answer is found on the thread that reads it.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
import threading
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from obsserve.asgi.route import resolve_route
from obsserve.telemetry.logging import set_server_level
from obsserve.websocket.connection import WebSocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from obsserve.http.connection import Connection
    from obsserve.http.exchange import Exchange
    from obsserve.http.state import ServerState
    from obsserve.settings import Settings

# The types of the messages.
ASK: Final = "inspect"
FOUND: Final = "inspected"
LEVEL: Final = "log_level"
MOST_ROWS: Final = 1000  # of one process
MOST_FRAMES: Final = 64
MOST_PATH: Final = 256  # characters


class ProcessInspection:
    """One serving process.

    Args:
        settings: the options.
        state: returns what its connections share, None before it serves.
        worker: its slot.
    """

    def __init__(self, settings: Settings, state: Callable[[], ServerState | None], worker: int) -> None:
        self.settings = settings
        self._state = state
        self._worker = worker

    def requests(self) -> list[dict[str, Any]]:
        """Return what is open, the oldest first."""
        state = self._state()
        if state is None:
            return []
        now = perf_counter()
        rows = []
        for connection in tuple(state.connections):
            exchange = connection.open_exchange
            if exchange is not None:
                rows.append(self._request(exchange, connection, now))
            elif isinstance(connection.successor, WebSocketConnection):
                session = connection.successor.session
                row = self._request(session.exchange, connection, now)
                row |= {"phase": "websocket", "http_route": session.route or None}
                row["age_seconds"] = round(now - (session.opened_at or session.exchange.began), 3)
                rows.append(row)
        return sorted(rows, key=lambda row: -row["age_seconds"])[:MOST_ROWS]

    def _request(self, exchange: Exchange, connection: Connection, now: float) -> dict[str, Any]:
        trace = exchange.trace
        return {
            "worker": self._worker,
            "age_seconds": round(now - exchange.began, 3),
            "phase": _phase(exchange),
            "http_request_method": exchange.method,
            "url_path": exchange.raw_path.decode("latin-1")[:MOST_PATH],
            "http_route": exchange.route or resolve_route(exchange.scope) or None,
            "request_id": exchange.request_id,
            "trace_id": None if trace is None else trace.trace_id_hex,
            "connection_id": f"{connection.server.instance}-{connection.serial}",
            "request_body_bytes": exchange.request_body_size,
            "response_body_bytes": exchange.response_body_size,
        }

    def stacks(self, worker: int | None) -> list[dict[str, Any]]:
        """Return the stack of the event loop's thread, and of each task."""
        state = self._state()
        if state is None or worker not in (None, self._worker):
            return []
        frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - the documented way
        rows: list[dict[str, Any]] = [{"worker": self._worker, "task": None, "stack": _outwards(frame)}]
        del frame
        for task in list(asyncio.all_tasks(state.loop))[:MOST_ROWS]:
            frames = task.get_stack(limit=MOST_FRAMES)
            rows.append(
                {
                    "worker": self._worker,
                    "task": task.get_name(),
                    "stack": [_place(f, f.f_lineno) for f in frames],
                }
            )
        return rows

    def set_level(self, level: int) -> None:
        """Have the server log from this level on."""
        set_server_level(level)

    def answer(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what the main process asks for; the process changes meanwhile, and nothing may come of that."""
        with suppress(Exception):
            return self.stacks(None) if message["what"] == "stacks" else self.requests()
        return []


def _phase(exchange: Exchange) -> str:
    if exchange.first_byte or exchange.response_started:
        return "response"
    if not exchange.app_started:
        return "queued"
    return "application" if exchange.body_complete else "request_body"


def _outwards(frame: FrameType | None) -> list[str]:
    places: list[str] = []
    while frame is not None and len(places) < MOST_FRAMES:
        places.append(_place(frame, frame.f_lineno))
        frame = frame.f_back
    return places[::-1]


def _place(frame: FrameType, line: int) -> str:
    code = frame.f_code
    text = linecache.getline(code.co_filename, line).strip()
    return f"{code.co_filename}:{line} in {code.co_name}: {text}"
