"""Listening sockets: TCP on every address of a host, UNIX domain, or descriptors that were handed in.

Descriptors come by number, from whoever started this process and knows `--fd`, or by socket activation,
sd_listen_fds(3). Their paths are not ours to remove.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from obsserve.settings import Settings

# The first descriptor that a service manager passes, SD_LISTEN_FDS_START.
FIRST_PASSED: Final = 3


def bind_sockets(settings: Settings) -> list[socket.socket]:
    """Bind what fd or uds say; else take what a service manager passes; else bind host and port.

    The sockets that are bound here do not listen yet. A host name with several addresses gives several sockets.

    Raises:
        StartupError: an address is in use, or not ours to use; a descriptor is no listening stream socket.
    """
    passed = passed_descriptors(os.environ)
    try:
        if settings.fd is not None:
            return _copied([settings.fd])
        if settings.uds is not None:
            return [_bound_unix(settings.uds, int(settings.uds_permissions, 8))]
        if passed:
            return _copied(passed)
        return _bound_tcp(settings.host, settings.port, reuse_port=settings.reuse_port)
    except OSError as error:
        where = _named(settings, passed)
        raise StartupError(f"Cannot listen on {where}: {_reason(error)}") from error


def bind_again(sockets: Sequence[socket.socket], settings: Settings) -> list[socket.socket]:
    """Bind further sockets to the same addresses, with `--reuse-port`.

    Raises:
        StartupError: an address is not shared.
    """
    bound: list[socket.socket] = []
    try:
        for sock in sockets:
            bound.append(socket.socket(sock.family, socket.SOCK_STREAM))
            _bind(bound[-1], sock.getsockname(), reuse_port=True)
    except OSError as error:
        for sock in bound:
            sock.close()
        raise StartupError(f"Cannot listen on {_named(settings, range(0))}: {_reason(error)}") from error
    return bound


def passed_descriptors(environ: Mapping[str, str]) -> range:
    """Return the descriptors that a service manager passes to this very process, sd_listen_fds(3)."""
    try:
        meant = int(environ.get("LISTEN_PID", "")) == os.getpid()
        count = int(environ.get("LISTEN_FDS", "")) if meant else 0
    except ValueError:
        count = 0
    return range(FIRST_PASSED, FIRST_PASSED + max(count, 0))


class UnixPath(NamedTuple):
    """The path of a UNIX domain socket that this process has bound.

    Args:
        path: where it is.
        file: device, inode and when it was made, by which it is told from a successor's at the same path.
    """

    path: str
    file: tuple[int, int, int]

    def remove(self) -> None:
        """Remove it, unless somebody else has put theirs there meanwhile."""
        with suppress(OSError):
            if self.file == _file_at(self.path):
                Path(self.path).unlink()


def bound_path(settings: Settings) -> UnixPath | None:
    """Return the path that `bind_sockets` has just made; None when it made none."""
    if settings.uds is None:
        return None
    try:
        return UnixPath(settings.uds, _file_at(settings.uds))
    except FileNotFoundError:
        return None  # gone already: there is nothing left to remove


def describe(sock: socket.socket, scheme: str = "http") -> str:
    """Return where a socket listens, as a person would write it."""
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return f"{scheme}://[{name[0]}]:{name[1]}" if ":" in name[0] else f"{scheme}://{name[0]}:{name[1]}"
    if isinstance(name, tuple):
        return f"{sock.family.name} {':'.join(map(str, name))}"
    # An abstract name begins with a null byte, which is written as @ everywhere.
    return f"unix socket {os.fsdecode(name).replace(chr(0), '@')}"


def listener_name(sock: socket.socket) -> str:
    """Return the listener's name in logs and metrics."""
    return describe(sock).removeprefix("http://").replace("unix socket ", "unix:")


def _bind(sock: socket.socket, address: tuple[Any, ...], *, reuse_port: bool) -> None:
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise OSError(errno.ENOPROTOOPT, "this system has no SO_REUSEPORT; leave out --reuse-port")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(address)
    sock.set_inheritable(True)


def _bound_tcp(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    flags = socket.AI_PASSIVE
    # Of a name in ASCII the bytes: of a string Python makes them with a codec that it first has to import.
    name = host.encode() if host.isascii() else host
    found = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=flags)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        # With port 0 the first address draws the port for all.
        chosen = (address[0], sockets[0].getsockname()[1], *address[2:]) if sockets and port == 0 else address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _bind(sock, chosen, reuse_port=reuse_port)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                absent = error  # a name that also has an address of a family this machine does not speak
                continue
            for other in sockets:
                other.close()
            raise
        sockets.append(sock)
    if not sockets and absent is not None:
        raise absent
    return sockets


def _bound_unix(path: str, permissions: int) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    # Nobody may connect who may not later; the mask is the process's, so only for this one call.
    mask = os.umask(0o777 & ~permissions)
    try:
        sock.bind(path)
        Path(path).chmod(permissions)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.set_inheritable(True)
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; leave anything else to fail as in use."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise FileExistsError(
                errno.EEXIST, "there is a file that is no socket; remove it or choose another"
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)


def _file_at(path: str) -> tuple[int, int, int]:
    found = Path(path).stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _copied(descriptors: Sequence[int]) -> list[socket.socket]:
    """Return sockets of our own for descriptors, which stay open with their owner."""
    given: list[socket.socket] = []
    try:
        for fd in descriptors:  # all are looked at first: a copy may get the number of one that is missing
            given.append(socket.socket(fileno=fd))
            if given[-1].type != socket.SOCK_STREAM:
                raise OSError(errno.ESOCKTNOSUPPORT, "it is no stream socket")
            if _is_connected(given[-1]):
                raise OSError(errno.EISCONN, "it is a connection; pass the socket that listens (Accept=no)")
        return [sock.dup() for sock in given]
    finally:
        for sock in given:
            sock.detach()


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _named(settings: Settings, passed: range) -> str:
    if settings.fd is not None:
        return f"file descriptor {settings.fd}"
    if settings.uds is not None:
        return settings.uds
    if passed:
        return f"the {len(passed)} sockets of LISTEN_FDS" if len(passed) > 1 else "the socket of LISTEN_FDS"
    return (
        f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
    )


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is already in use; stop what listens there or choose another"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; give one of its own, or 0.0.0.0 for all"
    if error.errno == errno.EACCES:
        return "Permission denied; ports below 1024 and protected directories need more rights"
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}; --host takes one name or address, without scheme or port"
    return error.strerror or str(error)
