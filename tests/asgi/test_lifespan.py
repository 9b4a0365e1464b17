from __future__ import annotations

import asyncio
import contextvars

import pytest

from obsserve.asgi.lifespan import Lifespan, LifespanFailedError


class Reports:
    def __init__(self):
        self.texts = []

    def __call__(self, message, cause):
        self.texts.append((message, cause))


def live(app, mode="auto", timeout=None):
    """Start and stop an application; return the lifespan, what was reported, and whether it stopped."""
    reports = Reports()

    async def run():
        lifespan = Lifespan(app, mode, reports)
        await lifespan.startup()
        return lifespan, await lifespan.shutdown(timeout)

    lifespan, stopped = asyncio.run(run())
    return lifespan, reports.texts, stopped


variable = contextvars.ContextVar("variable")


async def supporting(scope, receive, send):
    assert scope["type"] == "lifespan"
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["pool"] = 1
    variable.set("from the lifespan")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_state_and_context_are_kept(mode):
    lifespan, reports, stopped = live(supporting, mode)
    assert lifespan.state == {"pool": 1}
    assert lifespan.context[variable] == "from the lifespan"
    assert (reports, stopped) == ([], True)


def test_off_does_not_run_the_application():
    def app(scope, receive, send):
        raise AssertionError

    assert live(app, "off")[1:] == ([], True)


async def raises_at_once(scope, receive, send):
    raise ValueError("no lifespan")


async def returns_at_once(scope, receive, send):
    pass


async def raises_after_receive(scope, receive, send):
    await receive()
    raise ValueError("broken")


async def says_failed(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@pytest.mark.parametrize("app", [raises_at_once, returns_at_once])
def test_auto_takes_an_application_without_lifespan(app):
    assert live(app)[1:] == ([], True)


@pytest.mark.parametrize("app", [raises_at_once, returns_at_once, raises_after_receive, says_failed])
def test_on_insists(app):
    with pytest.raises(LifespanFailedError):
        live(app, "on")


def test_auto_knows_a_crash_by_the_startup_event_that_was_received():
    with pytest.raises(LifespanFailedError) as failure:
        live(raises_after_receive)
    assert isinstance(failure.value.cause, ValueError)


def test_auto_takes_a_refusal_to_start_for_what_it_is():
    with pytest.raises(LifespanFailedError, match="no database"):
        live(says_failed)


def stopping(*messages, error=None):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


def test_a_failed_shutdown_is_reported():
    _, [(text, _)], stopped = live(stopping({"type": "lifespan.shutdown.failed", "message": "stuck"}))
    assert "stuck" in text
    assert not stopped


def test_an_exception_during_shutdown_is_reported():
    error = ValueError("broken")
    _, [(_, cause)], stopped = live(stopping(error=error))
    assert cause is error
    assert not stopped


def test_returning_is_a_shutdown_too():
    assert live(stopping())[1:] == ([], True)


def test_shutdown_does_not_wait_for_ever():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    _, [(text, _)], stopped = live(app, timeout=0.01)
    assert "in time" in text
    assert not stopped


@pytest.mark.parametrize(
    "message",
    [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.odd"},
        {"type": "http.response.start"},
    ],
)
def test_a_wrong_message_is_refused(message):
    _, [(_, cause)], _ = live(stopping(message))
    assert isinstance(cause, RuntimeError)


def raising(*, after_shutdown):
    """An application that raises while it should serve, or after it said that it has stopped."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        if after_shutdown:
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        raise ValueError("broken")

    return app


@pytest.mark.parametrize(("after_shutdown", "stopped"), [(False, False), (True, True)])
def test_an_exception_for_which_nobody_waits_is_reported(after_shutdown, stopped):
    reports = Reports()

    async def run():
        lifespan = Lifespan(raising(after_shutdown=after_shutdown), "auto", reports)
        await lifespan.startup()
        await asyncio.sleep(0)
        result = await lifespan.shutdown(None)
        await asyncio.sleep(0)
        return result

    assert asyncio.run(run()) is stopped
    assert [(text, type(cause)) for text, cause in reports.texts] == [
        ("the application's lifespan raised", ValueError)
    ]
