"""Scopes for applications that are called without a server."""

from __future__ import annotations


def http_scope(path, *, root_path="", host=b"x", **more):
    """The scope of a GET request; `more` replaces what is in it."""
    full = root_path + path
    return {
        "type": "http",
        "method": "GET",
        "path": full,
        "raw_path": full.encode(),
        "root_path": root_path,
        "headers": [(b"host", host)],
        "query_string": b"",
        "scheme": "http",
        "server": ("x", 80),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        **more,
    }
