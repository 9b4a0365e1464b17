"""The lifespan protocol: start the application before it serves, and stop it afterwards.

Owns the application's lifespan task, its `state` and its context, of which each request gets a copy.

    idle ──startup()──▶ running | unsupported (auto) | failed ──shutdown()──▶ stopped
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Literal

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable

Mode = Literal["auto", "on", "off"]


class LifespanFailedError(StartupError):
    """The application said `lifespan.startup.failed`, or raised after it received `lifespan.startup`.

    Args:
        message: one line for the operator.
        cause: what the application raised, if it did.
    """

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class Lifespan:
    """Runs one application's lifespan.

    Args:
        app: an ASGI 3 application.
        mode: auto, on or off; auto takes an application that returns, or raises before it receives
            anything, for one without lifespan support.
        report: told of an exception that the application raises while it runs or stops.
    """

    def __init__(self, app: Any, mode: Mode, report: Callable[[str, BaseException | None], None]) -> None:
        self.state: dict[str, Any] = {}
        self.context = contextvars.copy_context()
        self._app = app
        self._mode = mode
        self.report = report
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._started: asyncio.Future[None] | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.supported = False  # once the application has answered
        self._received = self._stopping = self._failed = False

    async def startup(self) -> None:
        """Start the application.

        Raises:
            LifespanFailedError: it cannot start.
        """
        if self._mode == "off":
            return
        loop = asyncio.get_running_loop()
        self._started, self._stopped = loop.create_future(), loop.create_future()
        self._task = loop.create_task(self._run(), context=self.context)
        self._events.put_nowait({"type": "lifespan.startup"})
        await self._started

    async def shutdown(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - the whole is bounded
        """Stop the application, if it was started.

        Args:
            timeout: seconds to wait at most, None for ever.

        Returns:
            Whether it stopped, in time and without complaint.
        """
        if self._task is None or self._stopped is None:
            return True
        if self._task.done():
            return not self._failed
        self._stopping = True
        self._events.put_nowait({"type": "lifespan.shutdown"})
        try:
            await asyncio.wait_for(asyncio.shield(self._stopped), timeout)
        except TimeoutError:
            self.report("the application did not finish its lifespan shutdown in time", None)
            self._task.cancel()
            return False
        except LifespanFailedError as failure:
            self.report(failure.message, failure.cause)
            return False
        return True

    async def _run(self) -> None:
        assert self._started is not None
        assert self._stopped is not None
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        failure: BaseException | None = None
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exception:  # noqa: BLE001 - told to whoever waits, or reported
            failure = exception
        if not self._started.done():
            self._conclude_startup(failure)
        elif self._stopping and not self._stopped.done():
            if failure is not None:
                self._stopped.set_exception(LifespanFailedError("the application's lifespan raised", failure))
            else:
                self._stopped.set_result(None)
        elif isinstance(failure, asyncio.CancelledError):
            pass  # nobody waits for its end: a shutdown that is in a hurry, or out of time
        elif failure is not None and not _failed(self._started) and not _failed(self._stopped):
            self._failed = True  # while it should have served, or after it said that it had stopped
            self.report("the application's lifespan raised", failure)

    def _conclude_startup(self, failure: BaseException | None) -> None:
        """Judge an application that ended its lifespan without an answer to `lifespan.startup`."""
        assert self._started is not None
        unsupported = self._mode == "auto" and (failure is None or not self._received)
        if unsupported:
            self._started.set_result(None)
        elif failure is None:
            self._started.set_exception(
                LifespanFailedError("the application returned from its lifespan without starting up")
            )
        else:
            self._started.set_exception(
                LifespanFailedError("the application raised during its lifespan start-up", failure)
            )

    async def _receive(self) -> dict[str, str]:
        event = await self._events.get()
        self._received = True
        return event

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._started is not None
        assert self._stopped is not None
        kind = message["type"]
        text = message.get("message", "")
        future = self._started if kind.startswith("lifespan.startup") else self._stopped
        self.supported = True
        if future.done():
            raise RuntimeError(f"{kind!r} was sent twice or out of order")
        if kind.endswith(".complete"):
            future.set_result(None)
        elif kind.endswith(".failed"):
            what = "start" if future is self._started else "shut down"
            detail = f": {text}" if text else ""
            future.set_exception(LifespanFailedError(f"the application failed to {what}{detail}"))
            future.exception()  # read by whoever waits; a warning about it would be noise
        else:
            raise RuntimeError(f"{kind!r} is no message of the lifespan protocol")


class ConfiguredLifespan(Lifespan):
    """The lifespan as uvicorn's users make it by hand, `server.lifespan = config.lifespan_class(config)`.

    Args:
        config: the options; its application is loaded if it is not yet.
    """

    def __init__(self, config: Any) -> None:  # a Config, which this package must not know
        if not config.loaded:
            config.load()
        super().__init__(config.loaded_app, config.settings.lifespan, _log)


def _log(message: str, cause: BaseException | None) -> None:
    logging.getLogger("obsserve.error").error(message, exc_info=cause)


def _failed(future: asyncio.Future[None]) -> bool:
    return future.done() and future.exception() is not None
