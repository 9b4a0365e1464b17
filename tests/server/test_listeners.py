"""Sockets that are bound, taken over or found stale, and what becomes of their paths."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from obsserve.errors import StartupError
from obsserve.server import listeners
from obsserve.settings import Settings


def application(scope, receive, send): ...


def settings(**options):
    return Settings(app=application, **options)


@pytest.fixture
def bind():
    """Bind sockets that are closed at the end."""
    bound = []

    def make(**options):
        bound.extend(made := listeners.bind_sockets(settings(**options)))
        return made

    yield make
    for sock in bound:
        sock.close()


class TestUnixPaths:
    @pytest.mark.parametrize(("given", "bits"), [("0666", 0o666), ("660", 0o660), (0o600, 0o600)])
    def test_permissions(self, tmp_path, bind, given, bits):
        bind(uds=str(tmp_path / "s"), uds_permissions=given)
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == bits

    def test_the_process_keeps_its_mask(self, tmp_path, bind):
        before = os.umask(0o027)
        try:
            bind(uds=str(tmp_path / "s"), uds_permissions="0600")
        finally:
            assert os.umask(before) == 0o027

    def test_a_stale_socket_is_replaced(self, tmp_path, bind):
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        (sock,) = bind(uds=str(path))
        sock.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    def test_one_that_somebody_listens_on_is_not(self, tmp_path, bind):
        (sock,) = bind(uds=str(tmp_path / "s"))
        sock.listen()
        with pytest.raises(StartupError, match="already in use"):
            bind(uds=str(tmp_path / "s"))

    def test_nor_is_a_file(self, tmp_path, bind):
        (tmp_path / "precious").write_text("data")
        with pytest.raises(StartupError, match="a file that is no socket"):
            bind(uds=str(tmp_path / "precious"))
        assert (tmp_path / "precious").read_text() == "data"

    def test_only_ones_own_is_removed(self, tmp_path, bind):
        path = str(tmp_path / "s")
        (first,) = bind(uds=path)
        old = listeners.bound_path(settings(uds=path))
        first.close()
        bind(uds=path)  # a successor, while the first has not finished
        new = listeners.bound_path(settings(uds=path))
        old.remove()
        assert os.path.exists(path)
        new.remove()
        assert not os.path.exists(path)
        new.remove()  # somebody was faster

    def test_without_a_unix_socket_there_is_no_path(self):
        assert listeners.bound_path(settings()) is None


class TestDescriptors:
    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
    def test_any_family(self, tmp_path, bind, family):
        address = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
        with socket.socket(family) as given:
            given.bind(address.get(family, str(tmp_path / "s")))
            (taken,) = bind(fd=given.fileno())
            assert taken.family == family
            assert taken.getsockname() == given.getsockname()
            assert taken.fileno() != given.fileno()

    def test_an_abstract_name_is_written_with_an_at(self, bind):
        with socket.socket(socket.AF_UNIX) as given:
            given.bind(f"\0obsserve-{os.getpid()}")
            (taken,) = bind(fd=given.fileno())
            assert listeners.describe(taken) == f"unix socket @obsserve-{os.getpid()}"
            assert listeners.listener_name(taken) == f"unix:@obsserve-{os.getpid()}"

    def test_a_datagram_socket_is_refused(self, bind):
        with (
            socket.socket(type=socket.SOCK_DGRAM) as given,
            pytest.raises(StartupError, match="no stream socket"),
        ):
            bind(fd=given.fileno())

    def test_a_connection_is_refused(self, bind):
        one, other = socket.socketpair()
        with one, other, pytest.raises(StartupError, match="Accept=no"):
            bind(fd=one.fileno())

    def test_a_file_is_refused(self, tmp_path, bind):
        with (tmp_path / "f").open("w") as given, pytest.raises(StartupError, match="file descriptor"):
            bind(fd=given.fileno())

    def test_a_closed_one_is_refused(self, bind):
        with pytest.raises(StartupError, match="Bad file descriptor"):
            bind(fd=1023)


class TestSocketActivation:
    @pytest.mark.parametrize(
        ("environ", "found"),
        [
            ({}, []),
            ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}, [3, 4]),
            ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, []),
            ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"}, []),
            ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}, []),
            ({"LISTEN_PID": str(os.getpid())}, []),
        ],
    )
    def test_what_is_meant_for_this_process(self, environ, found):
        assert list(listeners.passed_descriptors(environ)) == found

    PROGRAM = """
import os, socket, sys
from obsserve.server import listeners
from obsserve.settings import Settings
for number, address in enumerate([("127.0.0.1", 0), ("127.0.0.1", 0)], 3):
    sock = socket.socket()
    sock.bind(address)
    if sock.fileno() != number:
        os.dup2(sock.fileno(), number)
    else:
        sock.detach()
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), sys.argv[1]
options = eval(sys.argv[2])
try:
    print(*map(listeners.describe, listeners.bind_sockets(Settings(app=print, **options))))
except Exception as error:
    print(type(error).__name__, error)
"""

    def bound(self, count, options="{}"):
        done = subprocess.run(
            [sys.executable, "-c", self.PROGRAM, count, options],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return done.stdout.split()

    def test_all_of_them_are_served(self):
        assert len(self.bound("2")) == 2

    def test_a_port_gives_way_to_them(self):
        (where,) = self.bound("1", "{'port': 1}")
        assert where != "http://127.0.0.1:1"

    def test_but_a_path_does_not(self, tmp_path):
        assert self.bound("2", f"{{'uds': {str(tmp_path / 's')!r}}}") == [
            "unix",
            "socket",
            str(tmp_path / "s"),
        ]

    def test_one_that_is_missing_is_named(self):
        assert " ".join(self.bound("900")).startswith(
            "StartupError Cannot listen on the 900 sockets of LISTEN_FDS"
        )
