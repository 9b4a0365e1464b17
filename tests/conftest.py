"""Fixtures of all tests; this file also puts `wire` within their reach."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings
from wire import PARSERS, Site
from tests.parts import package

# How long an example takes says more about the machine than about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell without job control has what it starts in the background ignore interrupts, and so would every server here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=PARSERS)
def parser(request):
    if request.param == "httptools":
        package("httptools")
    return request.param


@pytest.fixture
def serve(parser):
    """Make sites with one of the parsers; each is checked for faults and closed at the end."""
    sites = []

    def make(app, **settings):
        sites.append(Site(parser, app, **settings))
        return sites[-1]

    yield make
    for site in sites:
        site.close()
