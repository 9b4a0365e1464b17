"""Replaces the worker when a file changes: `--reload`, for development.

Watches directories with `watchfiles`, which is imported only here and only when it is asked for. Rules:
- The new worker serves before the old one drains, so an edit that does not start leaves the old code serving,
  and a stream that never ends holds nothing up.
- An edit ends a worker that is still starting with what the files said before; and a worker that drains since
  an earlier edit has had its time.
- Nothing that the application does ends the server: it waits for the next change.
"""

from __future__ import annotations

import asyncio
import contextlib
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from obsserve.server.supervisor import Supervisor
    from obsserve.settings import Settings

# As uvicorn: what counts as the application's source, and what editors and interpreters leave beside it.
INCLUDES: Final = ("*.py",)
EXCLUDES: Final = (".*", ".py[cod]", ".sw.*", "~*")
# Changes that go on for so long are not waited for any further, milliseconds (watchfiles' default).
LONGEST_EDIT: Final = 1600
# How many names a log line holds.
NAMED: Final = 3


class SourceFiles:
    """The files whose changes count.

    A pattern is compared with a file's name and with its path relative to the directory that is watched; an
    excluding one also with each directory on the way, so that `.*` leaves out `.venv/lib/x.py`. A pattern that
    names a directory stands for everything in it.

    Args:
        directories: what is watched; the current directory if empty.
        includes: patterns besides `*.py`.
        excludes: patterns besides those of hidden and temporary files; `*.py` takes the default include away.
    """

    def __init__(self, directories: Iterable[str], includes: Iterable[str], excludes: Iterable[str]) -> None:
        included, excluded = tuple(includes), tuple(excludes)
        also = [Path(pattern).resolve() for pattern in included if _is_directory(pattern)]
        self._never = [Path(pattern).resolve() for pattern in excluded if _is_directory(pattern)]
        given = [Path(name).resolve() for name in directories] or [Path.cwd()]
        self._whole = also
        self._includes = (
            *(pattern for pattern in INCLUDES if pattern not in excluded),
            *(pattern for pattern in included if not _is_directory(pattern)),
        )
        self._excludes = (
            *(pattern for pattern in EXCLUDES if pattern not in included),
            *(pattern for pattern in excluded if not _is_directory(pattern)),
        )
        wanted = dict.fromkeys(path for path in (*given, *also) if not self._is_never(path))
        # A directory within another that is watched need not be watched again.
        self.directories = [path for path in wanted if not any(other in path.parents for other in wanted)]

    def __contains__(self, name: str) -> bool:
        """Return whether a change of this file counts; `name` is its absolute path."""
        path = Path(name)
        if self._is_never(path):
            return False
        top = next((top for top in self.directories if top in path.parents), None)
        if top is None:
            return False
        relative = path.relative_to(top)
        for pattern in self._includes:
            # Named without any wildcard: it is meant, hidden or not (uvicorn's habit, for `.env`).
            if pattern in (path.name, relative.as_posix()):
                return True
        if any(
            _matches(Path(*relative.parts[:depth]), self._excludes)
            for depth in range(1, len(relative.parts) + 1)
        ):
            return False
        return any(top in path.parents for top in self._whole) or _matches(relative, self._includes)

    def _is_never(self, path: Path) -> bool:
        return any(never == path or never in path.parents for never in self._never)


class Reloader:
    """Watches, and tells the supervisor.

    Args:
        settings: the options.

    Raises:
        StartupError: watchfiles is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            import watchfiles  # noqa: PLC0415 - most servers do not reload
        except ImportError as error:
            raise StartupError(
                "--reload needs watchfiles; pip install 'obsserve[standard]' brings it."
            ) from error
        self._awatch = watchfiles.awatch
        self._quiet = max(int(settings.reload_delay * 1000), 1)
        self.files = SourceFiles(settings.reload_dirs, settings.reload_includes, settings.reload_excludes)

    async def watch(self, supervisor: Supervisor) -> None:
        """Replace the worker at each change, until cancelled."""
        log = supervisor.log
        places = ", ".join(f"'{path}'" for path in self.files.directories)
        log.info("reload.start", message=f"Watching {places} for changes")
        async for names in self._changes(supervisor):
            shown = ", ".join(f"'{_short(Path(name))}'" for name in names[:NAMED])
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            log.info(
                "reload.change",
                message=f"Detected changes in {shown}{more}. Reloading...",
                files=names[:NAMED],
            )
            supervisor.reload([_short(Path(name)) for name in names])

    async def _changes(self, supervisor: Supervisor) -> AsyncIterator[list[str]]:
        """Yield the names of changed files; poll where the kernel has no watches left."""
        for polling in (None, True):
            try:
                changes = self._awatch(
                    *self.files.directories,
                    watch_filter=lambda _, name: name in self.files,
                    debounce=max(LONGEST_EDIT, self._quiet),
                    step=self._quiet,
                    force_polling=polling,
                    ignore_permission_denied=True,
                )
                async with contextlib.aclosing(changes):
                    async for found in changes:
                        yield sorted({name for _, name in found})
            except OSError as error:  # the limit of inotify, most likely
                reason = error.strerror or str(error)
                supervisor.log.warning("reload.poll", message=f"{reason}; polling for changes instead")
                await asyncio.sleep(0)


def _is_directory(pattern: str) -> bool:
    try:
        return Path(pattern).is_dir()
    except (OSError, ValueError):
        return False


def _matches(relative: Path, patterns: Iterable[str]) -> bool:
    whole = relative.as_posix()
    return any(fnmatch(relative.name, pattern) or fnmatch(whole, pattern) for pattern in patterns)


def _short(path: Path) -> str:
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
