"""What /proc says about a process and all that descend from it."""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    started: int  # clock ticks since boot: with the pid it names one process, whatever the pid names later


def parse_stat(text: str) -> Process:
    """Read a line of /proc/<pid>/stat; the name in parentheses may itself hold blanks and parentheses."""
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()
    return Process(int(pid), parent=int(fields[1]), started=int(fields[19]))


def all_processes() -> list[Process]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                found.append(parse_stat((entry / "stat").read_text()))
    return found


def descent(root: int, processes: Iterable[Process]) -> list[Process]:
    """Return the process with this id and its descendants, parents first."""
    children: dict[int, list[Process]] = {}
    found: list[Process] = []
    for process in processes:
        children.setdefault(process.parent, []).append(process)
        if process.pid == root:
            found.append(process)
    for process in found:  # grows as it goes
        found += children.get(process.pid, [])
    return found


def tree(root: int) -> list[Process]:
    return descent(root, all_processes())


def process_seconds(pid: int) -> float:
    """Return for how long a process has run, to the nanosecond; with the threads of it that have ended.

    Its number as a clock is Linux's (MAKE_PROCESS_CPUCLOCK in include/linux/posix-timers_types.h): /proc counts in
    hundredths of a second, which is too coarse for a short slice.
    """
    return time.clock_gettime((~pid << 3) | 2)


def cpu_seconds(root: int) -> float:
    """Return for how long a process and its descendants have run."""
    found = 0.0
    for process in tree(root):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found += process_seconds(process.pid)
    return found


def run_seconds(pid: int) -> float:
    """Return for how long the threads of one process have run, to the nanosecond; of those that there are."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def parse_private_dirty(text: str) -> int:
    """Return the bytes of the Private_Dirty line of /proc/<pid>/smaps_rollup."""
    for line in text.splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Private_Dirty line")


def private_dirty_bytes(root: int) -> int:
    return sum(
        parse_private_dirty(Path(f"/proc/{process.pid}/smaps_rollup").read_text()) for process in tree(root)
    )


def is_alive(process: Process) -> bool:
    try:
        return parse_stat(Path(f"/proc/{process.pid}/stat").read_text()).started == process.started
    except (FileNotFoundError, ProcessLookupError):
        return False
