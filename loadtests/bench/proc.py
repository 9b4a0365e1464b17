"""What /proc says about a process and all that descend from it."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    ticks: int  # of CPU, user and system
    started: int  # ticks since boot: with the pid it names one process, whatever the pid names later


def parse_stat(text: str) -> Process:
    """Read a line of /proc/<pid>/stat; the name in parentheses may itself hold blanks and parentheses."""
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()
    return Process(
        int(pid), parent=int(fields[1]), ticks=int(fields[11]) + int(fields[12]), started=int(fields[19])
    )


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


def cpu_seconds(root: int) -> float:
    return sum(process.ticks for process in tree(root)) / TICKS_PER_SECOND


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
