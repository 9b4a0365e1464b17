"""A serving process that another one looks after: it counts where it is told to, and opens no port."""

from __future__ import annotations

import asyncio
import json

from obsserve import Config, Server
from obsserve.server.seat import Seat
from obsserve.telemetry.cells import Cells


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def one_request(server):
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        assert not serving.done()
    host, port = server.servers[0].sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    server.should_exit = True
    await serving
    return answer


def test_it_counts_in_the_cells_of_its_seat(capfd):
    cells = Cells.create()
    reader = cells.reader()
    server = Server(Config(app, port=0, metrics_port=0, lifespan="off", log_format="json"))
    server.seat = Seat(cells, worker=3, service_instance_id="one-for-all")
    assert asyncio.run(one_request(server)).endswith(b"ok")

    rows = [row for row in reader.rows() if row.metric == "http_server_request_duration_seconds"]
    assert sum(sum(row.values[:15]) + sum(row.values[20:35]) for row in rows) == 1
    lags = [row.labels for row in reader.rows() if row.metric == "obsserve_event_loop_lag_max_seconds"]
    assert lags == [("3",)]
    out, err = capfd.readouterr()
    (line,) = [json.loads(line) for line in out.splitlines()]
    assert line["worker"] == 3
    assert line["service_instance_id"] == "one-for-all"
    assert "metrics.start" not in err
