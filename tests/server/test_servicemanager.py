"""What a service manager is told, over a real datagram socket, and what an environment means."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from obsserve.server.servicemanager import SIGNS_PER_PERIOD, ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """The socket of a service manager, and the environment that it gives."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if request.param == "path":
            address = str(tmp_path / "notify")
            sock.bind(address)
        else:
            address = f"@obsserve-test-{os.getpid()}"
            sock.bind("\0" + address[1:])
        sock.settimeout(5)
        yield sock, {"NOTIFY_SOCKET": address}


def heard(sock):
    return sock.recv(4096).decode().splitlines()


def test_each_word_is_a_datagram(manager):
    sock, environ = manager
    service = ServiceManager(environ)
    service.ready("Serving on http://127.0.0.1:8000")
    assert heard(sock) == ["READY=1", "STATUS=Serving on http://127.0.0.1:8000"]
    service.reloading()
    word, monotonic, status = heard(sock)
    assert word == "RELOADING=1"
    assert int(monotonic.removeprefix("MONOTONIC_USEC=")) > 0
    assert status.startswith("STATUS=")
    service.stopping()
    assert heard(sock)[0] == "STOPPING=1"


def test_signs_of_life_are_no_more_than_needed(manager):
    sock, environ = manager
    service = ServiceManager({**environ, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    assert service.watchdog_period == 3
    for tenth in range(60):
        service.sign_of_life(100 + tenth / 10)
    sock.setblocking(False)
    signs = 0
    while True:
        try:
            assert heard(sock) == ["WATCHDOG=1"]
        except BlockingIOError:
            break
        signs += 1
    assert signs == 2 * SIGNS_PER_PERIOD


def test_it_vouches_for_nothing_that_is_not_alive(manager):
    sock, environ = manager
    service = ServiceManager({**environ, "WATCHDOG_USEC": "60000"})
    alive = True
    sock.setblocking(False)

    async def feed():
        nonlocal alive
        feeding = asyncio.create_task(service.feed_watchdog(lambda: alive))
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(sock, 100), 5) == b"WATCHDOG=1"
        alive = False
        await asyncio.sleep(0.05)
        while True:
            try:
                sock.recv(100)
            except BlockingIOError:
                break
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(sock, 100), 0.3)
        feeding.cancel()

    asyncio.run(feed())


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere/there/is/none"},
    ],
)
def test_without_a_manager_nothing_happens(environ):
    service = ServiceManager(environ)
    service.ready("Serving")
    service.stopping()
    service.sign_of_life(1.0)
    asyncio.run(asyncio.wait_for(service.feed_watchdog(lambda: True), 5))


@pytest.mark.parametrize(
    "given",
    [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
)
def test_no_watchdog_is_fed_that_is_not_ours(manager, given):
    assert ServiceManager({**manager[1], **given}).watchdog_period is None
