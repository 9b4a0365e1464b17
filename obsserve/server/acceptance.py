"""Connections that cannot be accepted, because the process or the machine is out of something.

Owns the loop's exception handler while serving. Rules: a burst is told when it begins and when it is over, and
each of its seconds is counted; serving goes on. asyncio tells of an accept() that fails, once for each connection
that the backlog might hold, and tries again a second later. uvloop tells of nothing: libuv keeps a descriptor in
reserve to accept and close whom it cannot serve, so there a descriptor is asked for once a second.
"""

from __future__ import annotations

import asyncio
import errno
import os
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SECOND: Final = 0.9  # the loops' timers are not exact
_QUIET: Final = 5.0  # seconds without a failure that end a burst


class Acceptance:
    """Watches one serving loop.

    Args:
        loop: the serving loop.
        log: the server's logger.
        counted: called with the errno name of each second in which connections were not accepted.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        log: Any,
        counted: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._loop = loop
        self._log = log
        self._counted = counted
        self._clock = clock
        self._failed_at: float | None = None
        self._previous = loop.get_exception_handler()
        self._is_told = isinstance(loop, asyncio.BaseEventLoop)
        if self._is_told:
            loop.set_exception_handler(self._handle)

    def stop(self) -> None:
        """Give the loop back its own exception handler, unless somebody has put in another meanwhile."""
        # Each access to a bound method is a new object: they are equal, not the same.
        if self._loop.get_exception_handler() == self._handle:
            self._loop.set_exception_handler(self._previous)

    def check(self) -> None:
        """Find out whether connections can be accepted; meant for once a second."""
        if not self._is_told:
            try:
                os.close(os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._fail(error)
                return
        if self._failed_at is not None and self._clock() - self._failed_at > _QUIET:
            self._failed_at = None
            self._log.info("accept.recovered", message="Connections are accepted again")

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if isinstance(fault, OSError) and fault.errno in _EXHAUSTED and "accept" in context["message"]:
            self._fail(fault)
        elif isinstance(fault, ValueError) and "_start_serving" in context["message"]:
            return  # asyncio's next try, and the listener has been closed meanwhile
        elif self._previous is not None:
            self._previous(loop, context)
        else:
            loop.default_exception_handler(context)

    def _fail(self, fault: OSError) -> None:
        now, before = self._clock(), self._failed_at
        if before is not None and now - before < _SECOND:
            return
        self._failed_at = now
        name = errno.errorcode.get(fault.errno or 0, "")
        self._counted(name)
        if before is None:
            self._log.error(
                "accept.failed",
                message=f"No connection can be accepted: {fault.strerror}. Raise the limit (ulimit -n), lower "
                "--limit-connections, or look for what is not closed; obsserve_accept_errors_total counts the "
                "seconds that it lasts",
                error=name,
            )
