"""What a process can set once so that every request costs less."""

from __future__ import annotations

import sys

# The largest mmap threshold that glibc will adopt (DEFAULT_MMAP_THRESHOLD_MAX).
_LARGEST_THRESHOLD = 32 * 1024 * 1024


def tune_process() -> None:
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
