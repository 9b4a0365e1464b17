"""What a process can set once so that every request costs less."""

from __future__ import annotations

import ctypes
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
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl has none, and no such threshold
    except (OSError, AttributeError):
        return
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free(libc.malloc(_LARGEST_THRESHOLD - 4096))
