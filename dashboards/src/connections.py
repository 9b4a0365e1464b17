"""Connections and protocol: what happens between the client's socket and the application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import CONFIG, PURPLE, RED
from .page import Row, page
from .panels import (
    NEUTRAL,
    QUANTILE_COLORS,
    Doc,
    Query,
    below_zero,
    colored,
    counted,
    heatmap,
    lines,
    logs_link,
    never,
    page_link,
    quantiles,
    rising,
)
from .promql import BACKLOG, CONCURRENCY, CONNECTIONS, added, mean, now, or_zero, series, total

if TYPE_CHECKING:
    from .panels import Json

_LINKS = (
    page_link("workers", "Workers and runtime"),
    page_link("overview", "Overview"),
    logs_link("Access lines"),
)
_FAULTS = (
    page_link("logs", "Logs and traces"),
    logs_link("Logs of malformed requests", " | outcome=~`protocol_error|timeout`"),
)


def _open() -> Row:
    return Row(
        "Open",
        (
            lines(
                "Open connections by state",
                Doc(
                    "Open client connections: idle between requests, active in one, WebSocket, or closing.",
                    "idle is the price of keep-alive and cheap.",
                    "active that climbs with a flat request rate: requests hang.",
                    "Active requests in Overview; then Workers and runtime.",
                ),
                "short",
                NEUTRAL,
                Query(now("obsserve_connections_open", "state"), "{{state}}"),
                links=_LINKS,
                stacked=True,
                overrides=(colored("websocket", PURPLE),),
            ),
            lines(
                "Use of the limits",
                Doc(
                    "Connections, requests and kernel backlog, each as a share of its limit where one is set.",
                    "Head room is what is left to 100 %.",
                    f"Above {CONFIG.near_limit:.0%}.",
                    "Runbooks of ObsserveConcurrencyNearLimit and ObsserveBacklogGrowing.",
                ),
                "percentunit",
                rising(CONFIG.near_limit, 0.95),
                Query(
                    f"{now('obsserve_connections_open')} / {now('obsserve_limit', only=CONNECTIONS)}",
                    "connections",
                ),
                Query(
                    f"{now('http_server_active_requests')} / {now('obsserve_limit', only=CONCURRENCY)}",
                    "requests",
                ),
                Query(
                    f"{now('obsserve_listener_backlog_connections')} / {now('obsserve_limit', only=BACKLOG)}",
                    "backlog",
                ),
                links=_LINKS,
            ),
            lines(
                "Backlog in the kernel",
                Doc(
                    "Connections that the kernel has completed and the server has not accepted yet, by listener.",
                    "0 nearly always.",
                    "Anything that stays: no worker has time to accept.",
                    "Runbook of ObsserveBacklogGrowing.",
                ),
                "short",
                never(0.5),
                Query(now("obsserve_listener_backlog_connections", "listener"), "{{listener}}"),
                links=_LINKS,
            ),
        ),
    )


def _flow() -> Row:
    requests = total("obsserve_connection_requests_bucket", "le")
    return Row(
        "Coming and going",
        (
            lines(
                "Accepted",
                Doc(
                    "Connections accepted each second, by listener.",
                    "Far below the request rate when clients keep connections alive.",
                    "As high as the request rate: nobody reuses.",
                    "Reuse, at the right; is the proxy's keep-alive on?",
                ),
                "cps",
                NEUTRAL,
                Query(total("obsserve_connections_accepted_total", "listener"), "{{listener}}"),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Closed by reason",
                Doc(
                    "Connections closed each second, by reason.",
                    "client_closed and keepalive_timeout are everyday life.",
                    "client_reset, write_timeout, protocol_error or app_error that grow.",
                    "Logs: the connection_id joins what happened on one connection.",
                ),
                "cps",
                NEUTRAL,
                Query(total("obsserve_connections_closed_total", "reason"), "{{reason}}"),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Closed with a request open",
                Doc(
                    "Connections that ended while a request was open, each second, by the side that ended them.",
                    "remote: the client left; local: the server cut it off.",
                    "local outside of a shutdown.",
                    "Time-outs in the log: outcome=timeout.",
                ),
                "cps",
                never(),
                Query(total("obsserve_connections_closed_with_active_request_total", "side"), "{{side}}"),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Reuse",
                Doc(
                    "Share of accepted connections on which a second request came.",
                    "Browsers and proxies come close to 100 %.",
                    "Near 0 %: each request pays for a handshake.",
                    "--timeout-keep-alive longer than the proxy's own; see docs/deployment.md.",
                ),
                "percentunit",
                NEUTRAL,
                Query(
                    f"{total('obsserve_connections_reused_total')} / {total('obsserve_connections_accepted_total')}",
                    "reused",
                ),
                links=_LINKS,
                width=6,
            ),
            lines(
                "Requests on a connection",
                Doc(
                    "Median, p95 and p99 of how many requests a connection carried, counted when it closes.",
                    "1 is a connection without reuse.",
                    "A median of 1 behind a proxy.",
                    "The proxy's upstream keep-alive.",
                ),
                "short",
                NEUTRAL,
                *quantiles(requests),
                links=_LINKS,
                overrides=QUANTILE_COLORS,
            ),
            heatmap(
                "Age of connections",
                Doc(
                    "How old connections were when they closed.",
                    "A band at the keep-alive time-out is idle clients; one below a second is no reuse.",
                    "A band at 60 s or another round number that is not yours: a load balancer in between.",
                    "Set --timeout-keep-alive above that number.",
                ),
                "s",
                total("obsserve_connection_duration_seconds_bucket", "le"),
                links=_LINKS,
            ),
            lines(
                "Mean age",
                Doc(
                    "Mean age of connections when they close.",
                    "Longer is cheaper.",
                    "A drop after a deploy of proxy or client.",
                    "The heatmap, at the left.",
                ),
                "s",
                NEUTRAL,
                Query(mean("obsserve_connection_duration_seconds"), "mean"),
                links=_LINKS,
            ),
        ),
    )


def _bytes() -> Row:
    return Row(
        "Bytes",
        (
            lines(
                "Bytes on the wire",
                Doc(
                    "Bytes sent (up) and received (down) each second, by listener; heads and framing included.",
                    "Compare with body bytes in Routes: the difference is overhead.",
                    "Sent at the network card's limit.",
                    "Compression; smaller replies; more instances.",
                ),
                "Bps",
                NEUTRAL,
                Query(total("obsserve_connection_sent_bytes_total", "listener"), "sent {{listener}}"),
                Query(total("obsserve_connection_received_bytes_total", "listener"), "received {{listener}}"),
                links=_LINKS,
                overrides=(below_zero("^received"),),
                low=None,
            ),
            lines(
                "Waiting for slow readers",
                Doc(
                    "Seconds that responses waited on clients that read slowly, each second.",
                    "5 means that five responses were waiting at any time.",
                    "Growth without more traffic: large replies to slow networks.",
                    "A buffering proxy in front; --timeout-write.",
                ),
                "short",
                NEUTRAL,
                Query(total("obsserve_http_write_blocked_seconds_total"), "seconds a second"),
                links=_LINKS,
            ),
            lines(
                "Buffered for clients",
                Doc(
                    "Response bytes in memory that clients have not taken yet, and connections that are paused for it.",
                    "The application waits in send() while a connection is paused.",
                    "Megabytes that do not go away.",
                    "--timeout-write closes those that take nothing.",
                ),
                "bytes",
                NEUTRAL,
                Query(now("obsserve_connection_buffered_bytes"), "bytes"),
                Query(now("obsserve_connections_write_paused"), "paused connections"),
                links=_LINKS,
                overrides=(counted("^paused"),),
            ),
        ),
    )


def _faults() -> Row:
    return Row(
        "Against the protocol",
        (
            lines(
                "Protocol errors",
                Doc(
                    "Requests that broke the protocol or a limit, each second, by reason and the status sent.",
                    "A trickle is scanners.",
                    "Many of one reason after a change of proxy or client; te_cl_conflict at all from your own proxy.",
                    "Runbook of ObsserveProtocolErrorSpike.",
                ),
                "reqps",
                never(1),
                Query(
                    total("obsserve_http_protocol_errors_total", "reason", "http_response_status_code"),
                    "{{reason}} {{http_response_status_code}}",
                    exemplar=True,
                ),
                shade=RED,
                links=_FAULTS,
            ),
            lines(
                "Failed accepts",
                Doc(
                    "Connections that could not be accepted, each second, by error.",
                    "emfile: this process has no file descriptor left; enfile: the machine has none.",
                    "Any.",
                    "Runbook of ObsserveAcceptErrors.",
                ),
                "cps",
                never(),
                Query(
                    or_zero(
                        total("obsserve_accept_errors_total", "error"),
                        "obsserve_connections_accepted_total",
                        "error",
                    ),
                    "{{error}}",
                ),
                shade=RED,
                links=_LINKS,
            ),
            lines(
                "Pipelined requests",
                Doc(
                    "Requests each second that arrived before the response to the one ahead of them was complete.",
                    "Hardly any client does it.",
                    "Many: a benchmark, or somebody who tries to smuggle.",
                    "Logs: connection_request above 1 with the same connection_id.",
                ),
                "reqps",
                NEUTRAL,
                Query(total("obsserve_http_pipelined_requests_total"), "pipelined"),
                links=_LINKS,
            ),
            lines(
                "Clients that left",
                Doc(
                    "Requests that the client left, each second, by phase.",
                    "'waiting' is impatience or a time-out in front.",
                    "More than 10 % of requests.",
                    "Runbook of ObsserveClientDisconnectSpike.",
                ),
                "reqps",
                NEUTRAL,
                Query(total("obsserve_http_client_disconnects_total", "phase"), "{{phase}}", exemplar=True),
                links=_LINKS,
                overrides=(colored(".*", PURPLE),),
            ),
            lines(
                "Cut off by a shutdown",
                Doc(
                    "Requests that were cut off when the time to drain was over.",
                    "0 is a clean deploy.",
                    "Any: --timeout-graceful-shutdown is shorter than your longest request.",
                    "Lengthen it, and terminationGracePeriodSeconds with it.",
                ),
                "short",
                never(0.5),
                Query(
                    added(
                        f"increase({series('obsserve_drain_interrupted_requests_total')}[$__rate_interval])"
                    ),
                    "cut off",
                    exemplar=True,
                ),
                links=_LINKS,
                overrides=(colored(".*", RED),),
            ),
            lines(
                "Rejected by the server",
                Doc(
                    "503s that the server itself made, each second, by reason.",
                    "Each carries Retry-After.",
                    "Any outside of a deploy.",
                    "Runbook of ObsserveRejectingRequests.",
                ),
                "reqps",
                never(),
                Query(total("obsserve_http_rejected_requests_total", "reason"), "{{reason}}", exemplar=True),
                shade=RED,
                links=_LINKS,
            ),
        ),
    )


def build() -> Json:
    """Return the page."""
    return page(
        "connections",
        "What happens between the client's socket and the application.",
        (_open(), _flow(), _bytes(), _faults()),
    )
