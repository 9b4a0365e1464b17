"""What every request pays for, in C: its count, its access line, its span.

Optional: without a compiler the package is built without it, and Python does the same more slowly. So each of these
has its Python twin, which is also the one to read first: `metrics.py`, `accesslines.py`, `tracing.py`,
`spanencoder.py`, `spanqueue.py`, `otlp_encode.py` and `hooks.py` in `telemetry`, and `http/exchange.py`. Here is only
the way of an ordinary exchange whose fragments are known; whatever else there is goes to the twin. Everything is
called with the interpreter's lock held, by the serving thread; but the thread that sends spans takes them and calls
`request`.

    exchange.[ch]   what is read of an exchange     counts.c     metrics
    text.h          putting text and numbers        lines.c      access lines
    tracer.c        beginning and end of spans      encoder.c    encoded spans
    spans.c         spans that wait, in requests    chain.c      the observers of a hook
    prototype.c     how an exchange begins
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final

# Any text but the empty one leaves the part in C aside: to tell whether it is what a fault comes from.
PURE_PYTHON_VARIABLE: Final = "OBSSERVE_PURE_PYTHON"

# What `_native.REVISION` must be; in a checkout it may have been compiled from older sources.
REVISION: Final = 4


def load() -> Any:
    """Return the part in C; None where it was not built, or is not wanted."""
    # The part in C counts on the interpreter's lock. Before CPython 3.13 there was no asking, and always one.
    has_lock = getattr(sys, "_is_gil_enabled", None)
    if os.environ.get(PURE_PYTHON_VARIABLE) or (has_lock is not None and not has_lock()):
        return None
    try:
        found = import_module("obsserve.speedups._native")
    except ImportError:
        return None
    return found if found.REVISION == REVISION else None


native: Final = load()
