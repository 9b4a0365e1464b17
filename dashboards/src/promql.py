"""Expressions: every selector carries the page's job and instance, every range is `$__rate_interval`."""

from __future__ import annotations

from typing import Final

SELECTOR: Final = 'job=~"$job", instance=~"$instance"'
RANGE: Final = "$__rate_interval"

REQUESTS: Final = "http_server_request_duration_seconds_count"
DURATION: Final = "http_server_request_duration_seconds"
TTFB: Final = "obsserve_http_time_to_first_byte_seconds"
# What counts against the error objective: every cause but the client's own doing. A reply that the application
# cut short counts, whatever status went ahead of it.
FAILED: Final = 'error_type!~"|client_disconnected|request_timeout"'
ERRORED: Final = 'error_type!=""'
LOST: Final = 'result=~"dropped|failed"'
CONCURRENCY: Final = 'limit="concurrency"'
CONNECTIONS: Final = 'limit="connections"'
BACKLOG: Final = 'limit="backlog"'
COUNTED: Final = 'error_type!="client_disconnected"'


def series(metric: str, *matchers: str) -> str:
    """Return a selector of this page's series."""
    return f"{metric}{{{', '.join((SELECTOR, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """Return the rate of a counter's series."""
    return f"rate({series(metric, *matchers)}[{RANGE}])"


def added(expression: str, *by: str) -> str:
    """Return the sum of an expression, by labels."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def total(metric: str, *by: str, only: str = "") -> str:
    """Return the summed rate of a counter, by labels."""
    return added(rate(metric, *filter(None, [only])), *by)


def increase(metric: str, *by: str, only: str = "") -> str:
    """Return by how much a counter grew, by labels."""
    return added(f"increase({series(metric, *filter(None, [only]))}[{RANGE}])", *by)


def now(metric: str, *by: str, only: str = "") -> str:
    """Return the sum of a gauge, by labels."""
    return added(series(metric, *filter(None, [only])), *by)


def quantile(share: float, histogram: str, *by: str, only: str = "") -> str:
    """Return a quantile of a histogram, by labels."""
    return f"histogram_quantile({share:g}, {total(f'{histogram}_bucket', 'le', *by, only=only)})"


def mean(histogram: str, *by: str, only: str = "") -> str:
    """Return the mean of a histogram, by labels."""
    return f"{total(f'{histogram}_sum', *by, only=only)} / {total(f'{histogram}_count', *by, only=only)}"


def or_zero(expression: str, beside: str, label: str) -> str:
    """Return an expression that draws a line at zero, `none`, where it would find nothing.

    Args:
        expression: of counters that exist from their first event on.
        beside: a counter that always exists.
        label: gets the value `none`.
    """
    return f'{expression} or label_replace(0 * {total(beside)}, "{label}", "none", "", "")'


def named_route(expression: str) -> str:
    """Return an expression by route in which requests without one stand under `no route`, not under nothing."""
    return f'label_replace({expression}, "http_route", "no route", "http_route", "")'


def error_ratio(*by: str, only: str = "") -> str:
    """Return the share of requests that failed, by labels: 0 where none did."""
    extra = f", {only}" if only else ""
    counted = total(REQUESTS, *by, only=COUNTED + extra)
    failed = total(REQUESTS, *by, only=FAILED + extra)
    return f"({failed} or 0 * {counted}) / {counted}"
