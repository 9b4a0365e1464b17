"""What the main process tells of its workers: each event of theirs as one line."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obsserve.server.workerprocess import WorkerProcess


class WorkerLog:
    """Writes of workers.

    Args:
        log: the server's logger.
    """

    def __init__(self, log: Any) -> None:
        self._log = log

    def ready(self, worker: WorkerProcess) -> None:
        self._log.info(
            "worker.ready",
            message=f"Worker {worker.slot} is ready",
            worker=worker.slot,
            pid=worker.pid,
            startup_seconds=round(worker.ready_at - worker.began, 3),
        )

    def not_started(self, slot: int, reason: str) -> None:
        """Tell of a process that the system did not let us start."""
        self._log.error(
            "worker.start_failed", message=f"Worker {slot} cannot be started: {reason}", worker=slot
        )

    def to_be_replaced(self, worker: WorkerProcess, reason: str, fields: dict[str, Any]) -> None:
        self._log.info(
            "worker.recycle",
            message=f"Worker {worker.slot} is to be replaced ({reason})",
            worker=worker.slot,
            pid=worker.pid,
            reason=reason,
            **fields,
        )

    def killed(self, worker: WorkerProcess, what: str) -> None:
        """Tell of a worker that is killed because it hangs.

        Args:
            worker: which.
            what: what it does not do.
        """
        self._log.error(
            "worker.kill",
            message=f"Worker {worker.slot} is killed: {what}",
            worker=worker.slot,
            pid=worker.pid,
            active_requests=worker.active_requests(),
            stack=worker.stack() or "none could be had",
        )

    def killed_late(self, worker: WorkerProcess) -> None:
        """Tell of a worker that is killed because it did not end."""
        self._log.error(
            "worker.kill",
            message=f"Worker {worker.slot} did not stop in time and is killed",
            worker=worker.slot,
            pid=worker.pid,
        )

    def stopped(self, worker: WorkerProcess, cause: str) -> None:
        """Tell of an end that was expected."""
        self._log.info(
            "worker.exit",
            message=f"Worker {worker.slot} has stopped ({cause})",
            **_end_of(worker, cause),
        )

    def died(self, worker: WorkerProcess, cause: str) -> None:
        """Tell of an end that was not."""
        fields = _end_of(worker, cause)
        fields["active_requests"] = worker.active_requests()
        if worker.resident:
            fields["resident_bytes"] = worker.resident
        by = fields.get("signal") or f"exit code {worker.exit_code}"
        said = f"Worker {worker.slot} has died: {by} ({cause})"
        if worker.failure is not None:
            said = f"Worker {worker.slot} could not start: {worker.failure[0]}"
            if worker.failure[1]:
                fields["traceback"] = worker.failure[1]
        self._log.error("worker.exit", message=said, **fields)


def _end_of(worker: WorkerProcess, cause: str) -> dict[str, Any]:
    code = worker.exit_code
    fields = {"worker": worker.slot, "pid": worker.pid, "reason": cause, "exit_code": code}
    if code is not None and code < 0:
        fields["signal"] = _name_of(-code)
    return fields


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
