"""WebSockets: who is connected, what flows, and how sessions end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import AMBER, GREEN, RED
from .page import Row, page, query_variable
from .panels import (
    NEUTRAL,
    QUANTILE_COLORS,
    Doc,
    Query,
    below_zero,
    colored,
    heatmap,
    lines,
    logs_link,
    never,
    page_link,
    quantiles,
    rising,
)
from .promql import now, total

if TYPE_CHECKING:
    from .panels import Json

ROUTE = 'http_route=~"$ws_route"'
_LINKS = (
    page_link("connections", "Connections and protocol"),
    logs_link("Sessions", event="websocket.session"),
)


def _sessions() -> Row:
    return Row(
        "Sessions",
        (
            lines(
                "Open",
                Doc(
                    "Open WebSockets by route.",
                    "A slow tide; a saw-tooth is clients that reconnect.",
                    "A cliff: a worker or a load balancer dropped them together.",
                    "Closes, below: 1001 and 1006 tell who it was.",
                ),
                "short",
                NEUTRAL,
                Query(now("obsserve_websocket_connections_open", "http_route", only=ROUTE), "{{http_route}}"),
                links=_LINKS,
                stacked=True,
            ),
            lines(
                "Handshakes by result",
                Doc(
                    "Handshakes each second: accepted, denied by the application, malformed, and so on.",
                    "accepted should dominate.",
                    "app_error: the application raised before it accepted; denied that grows: expired tokens.",
                    "Logs with event=websocket.handshake.",
                ),
                "reqps",
                NEUTRAL,
                Query(total("obsserve_websocket_handshakes_total", "result", only=ROUTE), "{{result}}"),
                links=_LINKS,
                overrides=(colored("accepted", GREEN), colored("denied", AMBER), colored("error", RED)),
            ),
            heatmap(
                "Length of sessions",
                Doc(
                    "How long sessions were open, counted when they close.",
                    "A band at a round number is a time-out in between.",
                    "Most below a second: clients that connect and fail at once.",
                    "Closes by code, below.",
                ),
                "s",
                total("obsserve_websocket_connection_duration_seconds_bucket", "le", only=ROUTE),
                links=_LINKS,
            ),
        ),
    )


def _ends() -> Row:
    return Row(
        "Ends",
        (
            lines(
                "Closes by code",
                Doc(
                    "Sessions closed each second, by code and by who began to close.",
                    "1000 and 1001 are normal; 1005 has no code; 1006 is a lost connection.",
                    "1011 (the application failed), 1009 (too large), 1006 in bursts.",
                    "Runbook of ObsserveWebsocketAbnormalCloses.",
                ),
                "cps",
                NEUTRAL,
                Query(
                    total("obsserve_websocket_closes_total", "code", "initiator"), "{{code}} {{initiator}}"
                ),
                links=_LINKS,
                overrides=(colored("^100[01] ", GREEN), colored("^1006 ", AMBER), colored("^1011 ", RED)),
            ),
            lines(
                "Round-trip of pings",
                Doc(
                    "Median, p95 and p99 of the time between a ping and its pong.",
                    "Network plus the client's own loop.",
                    "Seconds: clients about to be lost.",
                    "Pings without an answer, at the right.",
                ),
                "s",
                rising(0.5, 2),
                *quantiles(total("obsserve_websocket_ping_rtt_seconds_bucket", "le")),
                links=_LINKS,
                overrides=QUANTILE_COLORS,
            ),
            lines(
                "Pings without an answer",
                Doc(
                    "Sessions closed each second because a ping was not answered.",
                    "Phones that left their network.",
                    "Many at once: a middlebox, or our loop was blocked.",
                    "Event loop lag in Workers and runtime; --ws-ping-timeout.",
                ),
                "short",
                never(0.1),
                Query(total("obsserve_websocket_ping_timeouts_total"), "timed out"),
                links=_LINKS,
            ),
        ),
    )


def _messages() -> Row:
    return Row(
        "Messages",
        (
            lines(
                "Messages",
                Doc(
                    "Messages sent (up) and received (down) each second, by type.",
                    "The shape of a conversation: one up for one down, or fan-out.",
                    "Sent far above what was received without fan-out: a loop.",
                    "Bytes, at the right.",
                ),
                "mps",
                NEUTRAL,
                Query(
                    total("obsserve_websocket_messages_total", "direction", "type"), "{{direction}} {{type}}"
                ),
                links=_LINKS,
                overrides=(below_zero("^received"),),
                low=None,
            ),
            lines(
                "Bytes of messages",
                Doc(
                    "Payload bytes sent (up) and received (down) each second, before compression.",
                    "Divide by messages for the mean size.",
                    "A jump without more messages.",
                    "--ws-max-size bounds what is accepted.",
                ),
                "Bps",
                NEUTRAL,
                Query(
                    total("obsserve_websocket_message_bytes_total", "direction", "type"),
                    "{{direction}} {{type}}",
                ),
                links=_LINKS,
                overrides=(below_zero("^received"),),
                low=None,
            ),
            lines(
                "Waiting for the application",
                Doc(
                    "Messages that applications have not received yet, all sessions together.",
                    "0 nearly always; at --ws-max-queue a session is no longer read.",
                    "Growth: handlers are slower than their clients.",
                    "Event loop lag; what does the handler await?",
                ),
                "short",
                rising(100, 1000),
                Query(now("obsserve_websocket_receive_queue_messages"), "waiting"),
                links=_LINKS,
            ),
        ),
    )


def build() -> Json:
    """Return the page."""
    return page(
        "websockets",
        "Who is connected, what flows, and how sessions end.",
        (_sessions(), _ends(), _messages()),
        query_variable(
            "ws_route",
            "Route",
            'obsserve_websocket_connections_open{job=~"$job", instance=~"$instance"}',
            "http_route",
            "Templates of WebSocket routes.",
        )
        | {"allValue": ".*"},
    )
