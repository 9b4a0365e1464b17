"""An ended exchange, and what the access log reads besides, for tests of its outputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from obsserve.telemetry import catalogue

T0 = 1000.25
WALL = 1_700_000_000.0
CLOCK = SimpleNamespace(offset=WALL - T0)
LAG = SimpleNamespace(max_between=lambda began, ended: 0.0)


class View(SimpleNamespace):
    """What these tests do not set is not there: None, as for an ordinary request."""

    def __getattr__(self, name):
        return None


def connection(**given):
    values = {
        "id": "c0ffee-1",
        "serial": 1,
        "listener": "127.0.0.1:8000",
        "peer": ("10.0.0.1", 40123),
        "local": ("127.0.0.1", 8000),
        "tls_protocol": None,
        "tls_cipher": None,
        "tls_resumed": False,
        "tls": None,
    }
    return View(**{**values, **given})


class _Target:
    raw_path = b"/items/17"
    query_string = b"q=s3cr3t&page=2"


def exchange(headers=(), response_headers=(), **given):
    """An ordinary request; headers as pairs of bytes."""
    headers = [(b"host", b"shop.example:8000"), (b"user-agent", b"curl/8"), *headers]
    values = {
        "connection": connection(),
        "connection_request": 3,
        "request_id": "0123456789abcdef",
        "trace": None,
        "websocket": False,
        "method": "GET",
        "parts": _Target(),
        "raw_path": b"/items/17",
        "query_string": b"q=s3cr3t&page=2",
        "http_version": "1.1",
        "scheme": "http",
        "client": ("192.0.2.7", 40123),
        "forwarded_trusted": None,
        "request_headers": headers,
        "response_headers": list(response_headers),
        "fields": dict(headers),
        "scope": {"type": "http"},
        "route": "/items/{id}",
        "status": 200,
        "ending": catalogue.COMPLETE,
        "outcome": "ok",
        "error_type": None,
        "exception": None,
        "response_origin": "app",
        "disconnect_phase": None,
        "flags": [],
        "request_body_size": 0,
        "response_body_size": 12,
        "request_size": 100,
        "response_size": 150,
        "began": T0,
        "head_done": T0 + 20e-6,
        "app_started": T0 + 50e-6,
        "body_done": T0 + 25e-6,
        "response_started": T0 + 0.0012,
        "first_byte": T0 + 0.0013,
        "ended": T0 + 1.2345,
        "write_blocked": 0.0,
    }
    return View(**{**values, **given})


@dataclass
class AccessSettings:
    access_log: bool = True
    access_log_format: str | None = None
    log_config: Any = "built-in"
    log_level: Any = 20
    log_format: str = "json"
    log_query: str = "auto"
    log_query_allow: tuple = ("page",)
    log_buffer_bytes: int = 1 << 20
    use_colors: Any = None
    log_client_ip: str = "keep"
    log_hash_key: Any = None
    log_field: tuple = ()
    log_keys: str = "prometheus"
    log_status_499: bool = False
    access_log_exclude: tuple = ()
    log_sample_ratio: float = 1.0
    log_sample_path: tuple = ()
    log_slow: Any = 1.0
    log_request_header: tuple = ()
    log_response_header: tuple = ()
    service_name: str = "shop"


@dataclass
class Counted:
    """Counters that a test can read."""

    results: Counter = field(default_factory=Counter)

    def add(self, stream, result, n=1):
        assert stream == "access"
        self.results[result] += n

    def truncated(self, stream):
        self.results["truncated"] += 1

    def write_error(self, error, n=1): ...
    def write_seconds(self, seconds): ...
    def set_queue(self, records, capacity): ...
