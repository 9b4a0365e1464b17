"""Pushed metrics carried by a process of their own, for a process that forks.

gRPC, and what else the exporters bring along, must not run in a process whose children go on to use it: gunicorn's
arbiter forks its workers, which export spans. So the arbiter starts this module as a program and gives it finished
requests; nothing of OpenTelemetry is imported in the arbiter. The program ends with its standard input, and by nothing
that a terminal or a service manager sends to all processes: the last push comes after that.

    on standard input    a line of JSON, the configuration; then requests: length and points (32 bits each), bytes
    on standard output   a line of JSON for each request, what became of it
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from obsserve.telemetry.catalogue import COMPLETE, OTHER, error_type_of
from obsserve.telemetry.spanfigures import Delivery

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from obsserve.telemetry.metricexport import Deliverer, MetricExportConfiguration
    from obsserve.telemetry.otlp_encode import RequestFrame

_HEAD: Final = Struct("<II")
# For importing the exporters, besides the time that a request may take.
_GRACE: Final = 10.0
# What it may take to end when it is asked to, seconds.
_END: Final = 0.5
_SENT_TO_ALL: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")


class ProcessCarrier:
    """The side of the process that pushes.

    Args:
        configuration: where to and how.
        frame: what stands around the metrics of a request.
    """

    def __init__(self, configuration: MetricExportConfiguration, frame: RequestFrame) -> None:
        self._configuration = configuration
        self._frame = frame
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._waits = False  # for an answer

    def begin(self) -> ProcessCarrier:
        """Start the process, and return this."""
        if self._ended:
            return self
        # Without buffers, whose locks a fork could leave held.
        self._child = child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", __name__],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        _write(child, json.dumps(asdict(self._configuration)).encode() + b"\n")
        return self

    def deliver(self, spans: Sequence[bytes], size: int | None = None) -> Delivery:
        """Have them sent; a process that is gone is started anew."""
        if self._child is None:
            self.begin()
        child = self._child
        answer = b""
        if child is not None:
            body = self._frame.request(spans)
            points = len(spans) if size is None else size
            self._waits = True
            with suppress(OSError, ValueError):  # it is gone, or is being ended
                _write(child, _HEAD.pack(len(body), points) + body)
                answer = self._answer(child)
            self._waits = False
            if answer.endswith(b"\n"):
                return Delivery(*json.loads(answer))
            self._give_up(child)
        where = self._configuration.destination
        return Delivery("process_lost", f"{where}: the process that carries metrics is gone, or hangs")

    def shutdown(self) -> None:
        """Let the process end, and see to it that it does."""
        self._ended = True
        if self._child is not None:
            self._give_up(self._child)

    def abandon(self) -> None:
        """In a forked child: let go of the pipes and of the process, which are the parent's."""
        self._ended = True
        child, self._child = self._child, None
        if child is not None:
            child.returncode = 0
            _close(child)

    def _answer(self, child: subprocess.Popen[bytes]) -> bytes:
        """Return the line that it answers; what there is of it when it ends or takes too long."""
        assert child.stdout is not None
        end = monotonic() + self._configuration.request_timeout + _GRACE
        answer = b""
        with selectors.DefaultSelector() as waiting:
            waiting.register(child.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n") and (left := end - monotonic()) > 0:
                if waiting.select(left):
                    more = child.stdout.read(65536)
                    if not more:
                        break
                    answer += more
        return answer

    def _give_up(self, child: subprocess.Popen[bytes]) -> None:
        if self._child is child:
            self._child = None
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(_END)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if not self._waits:  # who waits sees its end, and comes here too
            _close(child)


def _write(child: subprocess.Popen[bytes], data: bytes) -> None:
    assert child.stdin is not None
    left = memoryview(data)
    while left:
        left = left[child.stdin.write(left) :]


def _close(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


# --- The program ------------------------------------------------------------------------------


class _Whole:
    """Stands in for what stands around the metrics: they are a request already."""

    @staticmethod
    def request(spans: Sequence[bytes]) -> bytes:
        return spans[0]


class _Broken:
    """Stands in for a carrier that could not be made."""

    def __init__(self, fault: Exception) -> None:
        self._delivery = Delivery(
            error_type_of(COMPLETE, None, fault) or OTHER, f"{type(fault).__name__}: {fault}"
        )

    def deliver(self, spans: Sequence[bytes], size: int | None = None) -> Delivery:  # noqa: ARG002 - a carrier's form
        return self._delivery


def main() -> None:
    """Carry requests until standard input ends."""
    for name in _SENT_TO_ALL:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    logging.disable(logging.CRITICAL)  # the process that pushes tells of failures
    with suppress(BrokenPipeError):
        _carry(sys.stdin.buffer, sys.stdout.buffer)
    os._exit(0)  # another code gunicorn could take for that of a worker


def _carry(requests: BinaryIO, answers: BinaryIO) -> None:
    from obsserve.telemetry.metricexport import MetricExportConfiguration, guarded_delivery  # noqa: PLC0415
    from obsserve.telemetry.otlp import make_metric_carrier  # noqa: PLC0415 - in the program alone

    line = requests.readline()
    if not line:
        return
    frame: Any = _Whole
    carrier: Deliverer
    try:
        carrier = make_metric_carrier(MetricExportConfiguration(**json.loads(line)), frame)
    except Exception as fault:  # noqa: BLE001 - told by the other side
        carrier = _Broken(fault)
    while len(head := requests.read(_HEAD.size)) == _HEAD.size:
        length, points = _HEAD.unpack(head)
        body = requests.read(length)
        if len(body) < length:
            return
        answers.write(json.dumps(guarded_delivery(carrier, [body], points)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
