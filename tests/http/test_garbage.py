"""What a request leaves behind: nothing for the cyclic collector, with every observer that a server has."""

from __future__ import annotations

import asyncio
import contextvars
import gc

from obsserve.http.connection import Connection
from obsserve.http.parser import parser_class
from obsserve.http.state import ServerState
from obsserve.settings import Settings
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.correlation import Correlation
from obsserve.telemetry.metrics import Metrics, rows_for
from obsserve.telemetry.hooks import Hooks
from obsserve.testing import MemoryTransport

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
REQUESTS = 300


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def collected_after_requests():
    cells = Cells.create(rows_for(10))
    state = ServerState(
        Settings(app="x:y"),
        loop=asyncio.get_running_loop(),
        app=app,
        parser=parser_class("auto"),
        hooks=Hooks([Correlation(bind_structlog=True), Metrics(cells)]),
        context=contextvars.copy_context(),
        app_state={},
        reporter=None,
    )
    connection = Connection(state)
    transport = MemoryTransport(connection)
    connection.connection_made(transport)
    gc.collect()
    gc.disable()
    try:
        for _ in range(REQUESTS):
            connection.data_received(REQUEST)
            while state.tasks:
                await asyncio.sleep(0)
        assert transport.written.count(b"HTTP/1.1 200 OK") == REQUESTS
        return gc.collect()
    finally:
        gc.enable()
        transport.close()
        cells.close()


def test_requests_leave_no_cycles():
    assert asyncio.run(collected_after_requests()) < REQUESTS / 10
