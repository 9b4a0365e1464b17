"""How tests wait: for a condition, never for time."""

from __future__ import annotations

import time

import pytest

DEADLINE = 20.0


def wait_for(condition, what, deadline=DEADLINE, interval=0.01):
    """Return the condition's first true value; fail when it does not become true.

    Args:
        condition: is called until it returns something true.
        what: would have happened then.
        deadline: seconds.
        interval: seconds between two calls.
    """
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen within {deadline} s")
        time.sleep(interval)
