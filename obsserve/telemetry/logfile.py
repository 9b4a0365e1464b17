"""The file that access lines go to, and its reopening after a rotation.

Owns one descriptor, whose number never changes: a reopened file takes its place by `dup2`, so that a write
under way goes wholly to the one or the other. It is opened for appending by each process for itself.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the group, for the reader that ships it: clients' addresses are nobody else's business.
_MODE: Final = 0o640


class LogFile:
    """A log file, open.

    Args:
        path: where it is; its directory must exist.

    Raises:
        StartupError: it cannot be written to.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = str(Path(path).absolute())  # the application may change the directory
        try:
            self.fd: Final = _opened(self.path)
        except OSError as error:
            raise StartupError(
                f"Cannot write access lines to {path}: {error.strerror}. Change --access-log-file."
            ) from error

    def reopen(self, done: Callable[[OSError | None], None]) -> None:
        """Open the path anew, on a thread: a file system may keep its caller waiting.

        Args:
            done: called on that thread with what went wrong; the file that was open stays so then.
        """
        threading.Thread(target=self._reopen, args=(done,), name="obsserve-log-reopen", daemon=True).start()

    def _reopen(self, done: Callable[[OSError | None], None]) -> None:
        try:
            fresh = _opened(self.path)
        except OSError as error:
            done(error)
            return
        os.dup2(fresh, self.fd, inheritable=False)
        os.close(fresh)
        done(None)

    def close(self) -> None:
        """Close it; its writer has ended."""
        with suppress(OSError):
            os.close(self.fd)


def _opened(path: str) -> int:
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0)
    try:
        # For reading too: a writer looks whether the file ends with a whole line.
        return os.open(path, flags | os.O_RDWR, _MODE)
    except PermissionError:
        return os.open(path, flags | os.O_WRONLY, _MODE)


def is_regular(fd: int) -> bool:
    """Return whether this is a file on a disk, whose end can be looked at."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def ends_within_a_line(fd: int) -> bool:
    """Return whether what is written next may continue a line that somebody has left unfinished."""
    if not is_regular(fd):
        return True  # nobody can know
    try:
        size = os.fstat(fd).st_size
        return size > 0 and os.pread(fd, 1, size - 1) != b"\n"
    except OSError:
        return True  # not opened for reading


def take_back(fd: int, size: int) -> bool:
    """Remove the last bytes that this process has written to a file, if nobody has written since.

    Half a line is what a full disk leaves. Another process's next line would be glued to it.

    Args:
        fd: a file that this process has opened itself, for appending.
        size: how many bytes.
    """
    try:
        end = os.lseek(fd, 0, os.SEEK_CUR)
        if os.fstat(fd).st_size != end:
            return False
        os.ftruncate(fd, end - size)
    except OSError:
        return False
    return True
