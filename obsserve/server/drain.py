"""The last part of serving: let what is running finish, tell it to, end it.

Owns the order and the times. Of the time that a shutdown may take, a quarter, at most one second, is left for the
application's own shutdown and the last log lines; before that a quarter, at most two seconds, is for applications
that wait for their client to leave, as streams of events do: they are told that it has. What is running then is
cut off, and named.

    waiting ──▶ dismissing ──▶ interrupting ──▶ over
       └── nothing is left, at any time ─────────▶
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from obsserve.server.ticker import INTERVAL
from obsserve.telemetry import catalogue
from obsserve.websocket.connection import WebSocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from obsserve.http.connection import Connection
    from obsserve.http.state import ServerState

# What is left of the time for the application's shutdown, and before that for streams to end, seconds.
LAST_MOMENT: Final = 1.0
DISMISSAL: Final = 2.0
# How many of those that hold a shutdown up are named.
NAMED: Final = 20
DEEPEST: Final = 10  # calls of a stack


class Drain:
    """Ends what a serving process is doing.

    Args:
        state: what all connections share.
        log: the server's logger.
        deadline: when the shutdown is to be over, `perf_counter` seconds; None waits for ever.
        budget: how many seconds the whole shutdown may take.
        hurried: returns whether nobody wants to wait any longer.
    """

    def __init__(
        self,
        state: ServerState,
        log: Any,
        *,
        deadline: float | None,
        budget: float | None,
        hurried: Callable[[], bool],
    ) -> None:
        self._state = state
        self._log = log
        self._hurried = hurried
        self._cut: float | None = None
        self._dismiss: float | None = None
        if deadline is not None and budget is not None:
            self._cut = deadline - min(LAST_MOMENT, budget / 4)
            self._dismiss = self._cut - min(DISMISSAL, budget / 4)

    async def run(self) -> None:
        """Wait, tell, and end, until nothing is running."""
        if await self._is_over_by(self._dismiss):
            return
        if not self._hurried():
            self._tell_applications()
            if await self._is_over_by(self._cut):
                return
        await self._interrupt()

    async def _is_over_by(self, end: float | None) -> bool:
        state = self._state
        while state.connections or state.tasks:
            if self._hurried() or (end is not None and perf_counter() >= end):
                return False
            await asyncio.sleep(INTERVAL / 2)
        return True

    def _tell_applications(self) -> None:
        """Let applications that wait for their client to leave believe that it has."""
        self._state.dismissing = True
        for connection in tuple(self._state.connections):
            if (exchange := connection.open_exchange) is not None:
                exchange.wake()

    async def _interrupt(self) -> None:
        """End what did not end by itself, and say who held the shutdown up."""
        state = self._state
        state.dismissing = True
        self._name(list(self._held_up_by()))
        for connection in tuple(state.connections):
            connection.abandon(catalogue.WORKER_SHUTDOWN)
        for task in tuple(state.tasks):
            task.cancel()
        if state.tasks:
            await asyncio.wait(tuple(state.tasks), timeout=LAST_MOMENT)
        for connection in tuple(state.connections):
            connection.close("shutdown", abort=True)
        await asyncio.sleep(0)  # connection_lost is called on the next turn

    def _name(self, culprits: list[dict[str, Any]]) -> None:
        for culprit in culprits[:NAMED]:
            self._log.warning("drain.interrupted", **culprit)
        if len(culprits) > NAMED:
            more = len(culprits) - NAMED
            self._log.warning("drain.interrupted", message=f"{more} more did not end in time", count=more)

    def _held_up_by(self) -> Iterator[dict[str, Any]]:
        told = set()
        for connection in tuple(self._state.connections):
            exchange: Any = connection.open_exchange
            what = ""
            if exchange is None and isinstance(connection.successor, WebSocketConnection):
                exchange, what = connection.successor.session.exchange, "WebSocket "
            if exchange is not None:
                told.add(exchange.task)
                yield {**_named(exchange, what), **_progress(connection, exchange)}
        for task in self._state.tasks - told:
            exchange = _exchange_of(task)
            what = "WebSocket " if exchange.status == 101 else "What was begun by "
            yield {**_named(exchange, what), "waits_for": "app", "stack": _stack(task)}


def _named(exchange: Any, what: str) -> dict[str, Any]:
    method = "" if what == "WebSocket " else f"{exchange.method} "
    return {
        "message": f"{what}{method}{exchange.raw_path.decode('ascii', 'replace')} did not end in time",
        "request_id": exchange.request_id,
        "age_seconds": round(perf_counter() - exchange.began, 3),
    }


def _exchange_of(task: asyncio.Task[Any]) -> Any:
    """Return the exchange whose task this is; its connection may be gone, or at another one."""
    owner: Any = task.get_coro().cr_frame.f_locals["self"]  # type: ignore[union-attr]  # a method that is awaited
    return getattr(owner, "exchange", owner)


def _progress(connection: Connection, exchange: Any) -> dict[str, Any]:
    """Say whose turn it is: the application's, or the client's that does not take what was written."""
    if exchange.task is None or connection.write_paused:
        return {"waits_for": "client"}
    return {"waits_for": "app", "stack": _stack(exchange.task)}


def _stack(task: asyncio.Task[Any]) -> str:
    """Return where a task waits, the innermost call last."""
    lines: list[str] = []
    running: Any = task.get_coro()
    while (frame := getattr(running, "cr_frame", None)) is not None:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        running = running.cr_await
    return "\n".join(lines[-DEEPEST:])
