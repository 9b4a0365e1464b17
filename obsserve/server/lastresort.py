"""The end of a process that was told to stop and does not get there.

A handler that blocks the event loop holds up everything that is done in it, its own cancellation included; a thread
of the application that goes on working is waited for by the interpreter. With workers the main process ends such a
process; where there is none, this does, from a thread that needs neither. Only for a process that is the server's own.

    idle ──arm(), in a signal handler──▶ waiting ──the time is over──▶ telling, writing what waits ──▶ no process
                                            └── the process has ended by itself: the ordinary case
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# For the last log lines and spans, after the time that a shutdown may take; each may take a second of it.
LAST_WORDS: Final = 4.0
# How long somebody waits who has asked twice, and what an end that is over may take to be the process's.
HURRY: Final = 2.0
_LOOK: Final = 0.1
_DEEPEST: Final = 10  # calls of a stack


class LastResort:
    """Ends this process.

    Args:
        budget: seconds that a shutdown may take; None waits for ever, unless somebody is in a hurry.
        started: returns whether the application has been started.
        hurried: returns whether somebody has asked twice.
        tell: takes message, stack and the names of threads, for the server's log.
        finish: ends what is open and writes what waits; returns soon.
    """

    def __init__(
        self,
        budget: float | None,
        *,
        started: Callable[[], bool],
        hurried: Callable[[], bool],
        tell: Callable[[str, str, Sequence[str]], None],
        finish: Callable[[], None],
    ) -> None:
        self._budget = budget
        self._started = started
        self._hurried = hurried
        self._tell = tell
        self._finish = finish
        self._is_armed = False
        self._served_until = 0.0

    def arm(self) -> None:
        """Begin to wait; made to be called in a signal handler, and as often as signals come."""
        if not self._is_armed:
            self._is_armed = True
            # Not threading's: the signal may have interrupted one that holds its lock.
            _thread.start_new_thread(self._wait, ())

    def served(self) -> None:
        """Note that the server itself has come to its end; what is left are the application's threads."""
        self._served_until = time.monotonic()

    def _wait(self) -> None:
        began = time.monotonic()
        hurried_at = None
        while True:
            time.sleep(_LOOK)
            now = time.monotonic()
            if hurried_at is None and self._hurried():
                hurried_at = now
            if hurried_at is not None and now - hurried_at > HURRY:
                break
            if self._budget is None or now - began <= self._budget:
                continue
            if self._served_until and now - self._served_until > HURRY:
                break
            if now - began > self._budget + LAST_WORDS:
                break
        self._end()

    def _end(self) -> None:
        # Whatever telling needs may be held by what does not end.
        _thread.start_new_thread(self._exit, (LAST_WORDS,))
        with suppress(Exception):
            self._say()
        if not self._served_until:
            with suppress(Exception):
                self._finish()
        self._exit(0.0)

    def _exit(self, seconds: float) -> None:
        time.sleep(seconds)
        os._exit(0)  # as after the kill of a worker: the server was told to stop, and has

    def _say(self) -> None:
        main = threading.main_thread()
        frame = sys._current_frames().get(main.ident or 0)  # noqa: SLF001 - the documented way to it
        stack = "".join(traceback.format_stack(frame)[-_DEEPEST:]) if frame is not None else ""
        del frame
        if not self._served_until:
            what = (
                "The event loop is blocked" if self._started() else "The application's start-up does not end"
            )
            self._tell(f"{what}: the process ends without it; the stack says where it is", stack, ())
            return
        left = [thread.name for thread in threading.enumerate() if thread is not main and not thread.daemon]
        what = "Threads of the application do" if left else "What is done at the exit of the process does"
        self._tell(f"{what} not end: the process ends without waiting", stack, left)
