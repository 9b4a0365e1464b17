"""Listening sockets: TCP on every address of a host, UNIX domain, or a descriptor that was handed in."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from obsserve.settings import Settings

UDS_MODE = 0o666  # as uvicorn


def bind_sockets(settings: Settings) -> list[socket.socket]:
    """Bind what fd, uds, or host and port say; the sockets do not listen yet.

    A host name with several addresses gives several sockets.

    Raises:
        StartupError: an address is in use, or not ours to use.
    """
    try:
        if settings.fd is not None:
            return [_copied(settings.fd)]
        if settings.uds is not None:
            return [_bound_unix(settings.uds)]
        return _bound_tcp(settings.host, settings.port)
    except OSError as error:
        raise StartupError(f"Cannot listen on {_named(settings)}: {_reason(error)}") from error


def describe(sock: socket.socket, scheme: str = "http") -> str:
    """Return where a socket listens, as a person would write it."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"{scheme}://[{name[0]}]:{name[1]}" if ":" in name[0] else f"{scheme}://{name[0]}:{name[1]}"
    return f"unix socket {os.fsdecode(name)}"


def listener_name(sock: socket.socket) -> str:
    """Return the listener's name in logs and metrics."""
    return describe(sock).removeprefix("http://").replace("unix socket ", "unix:")


def remove_unix_path(path: str) -> None:
    """Remove the path of a UNIX domain socket that is closed."""
    with suppress(FileNotFoundError):
        Path(path).unlink()


def _bound_tcp(host: str, port: int) -> list[socket.socket]:
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        # With port 0 the first address draws the port for all.
        chosen = (address[0], sockets[0].getsockname()[1], *address[2:]) if sockets and port == 0 else address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(chosen)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                absent = error  # a name that also has an address of a family this machine does not speak
                continue
            for other in sockets:
                other.close()
            raise
        sock.set_inheritable(True)
        sockets.append(sock)
    if not sockets and absent is not None:
        raise absent
    return sockets


def _bound_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        Path(path).chmod(UDS_MODE)
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(True)
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; leave anything else to fail as in use."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            remove_unix_path(path)


def _copied(fd: int) -> socket.socket:
    """Return a socket of its own for a descriptor, which stays open with its owner."""
    given = socket.socket(fileno=fd)
    try:
        return given.dup()
    finally:
        given.detach()


def _named(settings: Settings) -> str:
    if settings.fd is not None:
        return f"file descriptor {settings.fd}"
    if settings.uds is not None:
        return settings.uds
    return (
        f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
    )


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is already in use; stop what listens there or choose another"
    return error.strerror or str(error)
