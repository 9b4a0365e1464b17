"""Ports that tests tell programs to use."""

import socket
import threading

import pytest

from tests import ports


def test_a_port_that_somebody_listens_on_is_not_free():
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.create_server((address, 0)) as server:
            port = server.getsockname()[1]
            assert not ports._are_free([port])
        assert ports._are_free([port])


def test_nobody_is_answered_by_the_look_itself(monkeypatch):
    """A socket that listened would be inherited by programs that other threads start, and answer there for a while."""

    class Watched(socket.socket):
        def listen(self, *_):
            pytest.fail("it listens")

    monkeypatch.setattr(ports.socket, "socket", Watched)
    assert ports.free_ports(3)


def test_threads_get_different_ones():
    found = []
    threads = [threading.Thread(target=lambda: found.extend(ports.free_ports(3))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*found}) == 24
