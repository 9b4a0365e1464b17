"""What a process can set once so that every request costs less."""

from __future__ import annotations

import gc
import sys
from typing import Final

# How many more containers must have been made than freed for a collection to begin; CPython's own figures are for
# programs that do one thing at a time.
_COLLECT_AFTER: Final = 10_000
_DEFAULTS: Final = (700, 2000)

# The largest mmap threshold that glibc will adopt (DEFAULT_MMAP_THRESHOLD_MAX).
_LARGEST_THRESHOLD = 32 * 1024 * 1024


def tune_process() -> None:
    """Let memory be collected and given back less often; after the application was imported."""
    _collect_seldom()
    _keep_large_blocks()


def _collect_seldom() -> None:
    """Raise the threshold of the youngest generation, unless the application has set one.

    Each request in progress holds a dozen containers, so that sixty at once are more than CPython's threshold of 700:
    then each turn of the loop pays for a collection that finds nothing, and every hundredth for a full one. Added up
    by `gc.callbacks`, that was 1.5 of 27 microseconds per request with spans on, 64 connections.
    """
    youngest, *older = gc.get_threshold()
    if youngest in _DEFAULTS:
        gc.set_threshold(_COLLECT_AFTER, *older)


def _keep_large_blocks() -> None:
    """Raise glibc's dynamic mmap and trim thresholds, on Linux with glibc.

    Freeing one block just under the largest threshold makes the allocator keep blocks of that size, instead
    of mapping and unmapping memory for each large read: a POST of 64 KiB takes half the time
    (`python -m loadtests.bench post`). It costs no memory until blocks are freed.
    """
    if not sys.platform.startswith("linux"):
        return
    # Asked for and given back at once; none of its pages is touched. One page less is too much: with glibc's own
    # header and rounded up to whole pages it would be as large as the threshold may be.
    bytes(_LARGEST_THRESHOLD - 2 * 4096)
