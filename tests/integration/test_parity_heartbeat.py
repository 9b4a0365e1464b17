"""`callback_notify`, by which a process manager learns that the server is alive."""

from __future__ import annotations

import time

import obsserve


async def application(scope, receive, send):
    raise NotImplementedError


def test_a_heartbeat():
    beats = []

    async def beat():
        beats.append(server.last_notified)
        if len(beats) == 2:
            server.should_exit = True

    server = obsserve.Server(
        obsserve.Config(application, port=0, log_config=None, callback_notify=beat, timeout_notify=0.001)
    )
    server.run()
    assert len(beats) == 2
    assert beats[1] > beats[0]
    assert abs(time.time() - beats[1]) < 60  # the wall clock, as with uvicorn
