"""What can be served with and is hardly meant is told; what is meant is not."""

from __future__ import annotations

import pytest

from obsserve.contradictions import doubts
from obsserve.settings import Settings


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reload_dirs": ["."]}, "nothing without reload"),
        ({"reload_includes": ["*.html"]}, "nothing without reload"),
        ({"root_path": "api"}, "such as /api"),
        ({"root_path": "/api/"}, "such as /api"),
        ({"forwarded_allow_ips": "127.0.0.1,proxy"}, "names 'proxy'"),
    ],
)
def test_a_line_for_each(options, says):
    (line,) = doubts(Settings(app="main:app", **options))
    assert says in line


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reload": True, "reload_dirs": ["."]},
        {"root_path": "/api"},
        {"forwarded_allow_ips": "*"},
        {"forwarded_allow_ips": "unix,10.0.0.0/8,::1"},
        {"forwarded_allow_ips": "proxy", "proxy_headers": False},
    ],
)
def test_nothing_for_what_is_meant(options):
    assert list(doubts(Settings(app="main:app", **options))) == []
