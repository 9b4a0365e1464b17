"""Signals that come when a process has done its work: none of them may change how it ends.

An init system signals the whole group, a supervisor may ask twice, somebody at a terminal is impatient. While an
interpreter is taken down it gives signals their default action back, unless they are ignored.
"""

from __future__ import annotations

import asyncio
import atexit
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What a main process acts on, and holds back while it starts a worker, so that none meets an unprepared one.
HELD_SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1")
    if hasattr(signal, name)
)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that, once signals are ignored, does not give them their default action back when it closes."""

    def remove_signal_handler(self, sig: int) -> bool:
        """Do as asyncio does, or nothing for a signal that is ignored."""
        return signal.getsignal(sig) is not signal.SIG_IGN and super().remove_signal_handler(sig)


def ignore() -> None:
    """Ignore signals from now on: there is nothing left that they could end."""
    for sig in HELD_SIGNALS:
        signal.signal(sig, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)  # a loop's, that is about to close


def ignore_at_exit() -> None:
    """Ignore signals once the threads of this process have ended, and what was to be done at its exit is done."""
    atexit.register(ignore)  # those that are registered later come before


@contextmanager
def held(signals: Iterable[signal.Signals] = HELD_SIGNALS) -> Iterator[None]:
    """Let none of these signals in meanwhile; those that come wait."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
