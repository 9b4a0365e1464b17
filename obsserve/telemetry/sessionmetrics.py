"""Metrics of WebSockets: handshakes, open sessions, messages, closes, pings.

Owns the set of open sessions, whose messages are counted by what has come since the last look (once a
second, and when the session ends), so that a message costs nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Family
from obsserve.telemetry.names import BoundedNames

if TYPE_CHECKING:
    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.observer import ExchangeView, SessionView

# direction, type, the view's messages, the view's bytes; binary is the rest of what is not text.
_Counts = tuple[int, int, int, int, int, int, int, int]


class SessionMetrics:
    """Counts WebSockets.

    Args:
        region: the cells of this process.
    """

    def __init__(self, region: Cells) -> None:
        self._handshakes = Family(region, catalogue.WEBSOCKET_HANDSHAKES)
        self._open = Family(region, catalogue.WEBSOCKET_OPEN)
        self._duration = Family(region, catalogue.WEBSOCKET_DURATION)
        kinds = [(direction, kind) for direction in catalogue.DIRECTIONS for kind in catalogue.MESSAGE_TYPES]
        self._messages = Family(region, catalogue.WEBSOCKET_MESSAGES, kinds)
        self._bytes = Family(region, catalogue.WEBSOCKET_MESSAGE_BYTES, kinds)
        self._closes = Family(region, catalogue.WEBSOCKET_CLOSES)
        self._rtt = Family(region, catalogue.WEBSOCKET_PING_RTT)
        self._ping_timeouts = Family(region, catalogue.WEBSOCKET_PING_TIMEOUTS)
        self._queued = Family(region, catalogue.WEBSOCKET_QUEUED)
        self._routes = BoundedNames(catalogue.WEBSOCKET_ROUTE_LIMIT)
        self._counted: dict[SessionView, _Counts] = {}

    def handshake_ended(self, view: ExchangeView) -> None:
        """Count a handshake by its result."""
        self._handshakes.add(1.0, _result(view), self._routes.bounded(view.route))

    def session_started(self, session: SessionView) -> None:
        self._counted[session] = (0,) * 8
        self._open.add(1.0, self._routes.bounded(session.route))

    def session_ended(self, session: SessionView) -> None:
        route = self._routes.bounded(session.route)
        self._open.add(-1.0, route)
        self._duration.observe(session.closed_at - session.opened_at, route)
        self._closes.add(1.0, _code(session.close_code), session.close_initiator)
        if session.ping_timed_out:
            self._ping_timeouts.add(1.0)
        self._count(session)
        self._counted.pop(session, None)

    def ping_answered(self, seconds: float) -> None:
        self._rtt.observe(seconds)

    def sample(self) -> None:
        """Count what the open sessions sent and received since the last look; meant for once a second."""
        queued = 0
        for session in tuple(self._counted):
            self._count(session)
            queued += session.queued_messages
        self._queued.set(queued)

    def _count(self, session: SessionView) -> None:
        now = (
            session.text_received,
            session.messages_received - session.text_received,
            session.text_sent,
            session.messages_sent - session.text_sent,
            session.text_bytes_received,
            session.bytes_received - session.text_bytes_received,
            session.text_bytes_sent,
            session.bytes_sent - session.text_bytes_sent,
        )
        before = self._counted.get(session, (0,) * 8)
        if now == before:
            return
        self._counted[session] = now
        new = [later - earlier for later, earlier in zip(now, before, strict=True)]
        for family, counts in ((self._messages, new[:4]), (self._bytes, new[4:])):
            for index, amount in enumerate(counts):
                if amount:
                    direction = catalogue.DIRECTIONS[index // 2]
                    family.add(amount, direction, catalogue.MESSAGE_TYPES[index % 2])


def _result(view: ExchangeView) -> str:
    """Return the `result` label of a handshake."""
    if view.status == 101:
        return "accepted"
    ending = view.ending
    if ending.rejection is not None:
        return "limit"
    if ending.outcome == "protocol_error":
        return "bad_request"
    if ending.outcome == "timeout":
        return "timeout"
    if ending.outcome == "app_error":
        return "app_error"
    return "denied"


def _code(code: int) -> str:
    """Return the `code` label: registered codes by number, the two open ranges by their first digit."""
    if code in catalogue.CLOSE_CODES:
        return str(code)
    if 3000 <= code < 5000:
        return f"{code // 1000}xxx"
    return catalogue.OTHER
