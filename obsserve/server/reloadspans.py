"""The main process's own span, `server.reload`: from when a reload was noticed to when the new workers serve.

Owns what exports it: a queue of its own (`spanqueue.py`), made by the first reload that has a span. Rules:
- Nothing of OpenTelemetry is imported before a reload is over, and then on a thread: a server that never reloads has
  the memory and the start of one that does not trace.
- A replacement does not wait for the collector. The exit waits for a span that is on its way, `LAST_SPANS` seconds at
  most, and for none when there is none.
- There is one span for each reload that `obsserve_config_reloads_total` counts, and for one that a shutdown cut off.
"""

from __future__ import annotations

import os
import threading
from time import monotonic, perf_counter, time
from typing import TYPE_CHECKING, Final, Literal

from obsserve.errors import StartupError
from obsserve.server import exports
from obsserve.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from obsserve.settings import Settings
    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.otlp_encode import RequestFrame, SpanRecord
    from obsserve.telemetry.sampling import Sampling
    from obsserve.telemetry.spanqueue import Carrier, SpanQueue
    from obsserve.telemetry.traceconfig import TracingConfiguration

ReloadReason = Literal["signal", "change"]

# What the last span may take to be exported, seconds.
LAST_SPANS: Final = 1.0
# How many files a span names.
NAMED: Final = 10
_THREAD: Final = "obsserve-reload-span"
# Reloads are far apart; what is more than this is dropped and counted.
_CAPACITY: Final = 16
# The sender has nothing to do between two spans, seconds.
_IDLE: Final = 3600.0


class Reload:
    """A reload that has been noticed, and is not over.

    Args:
        reason: `signal` (SIGHUP), or `change` of a file.
        files: the files that changed.
    """

    def __init__(self, reason: ReloadReason, files: Iterable[str] = ()) -> None:
        self.reason = reason
        self.files = dict.fromkeys(files)
        self.noticed_at = time()
        self._noticed = perf_counter()

    def join(self, later: Reload) -> None:
        """Do at once what was noticed later."""
        self.files |= later.files

    def overtake(self, earlier: Reload) -> None:
        """Take the place of one that is given up: what was noticed first is not served before this one is over."""
        self.files = earlier.files | self.files
        self.noticed_at, self._noticed = earlier.noticed_at, earlier._noticed

    def seconds(self) -> float:
        """Return how long ago it was noticed."""
        return perf_counter() - self._noticed


class ReloadSpans:
    """Makes the spans of reloads and exports them.

    Args:
        settings: the options.
        service_instance_id: one for all processes of the server.
        region: the main process's cells, where spans are counted.
        report: takes event and message for the server's log; called from any thread.
    """

    def __init__(
        self, settings: Settings, service_instance_id: str, region: Cells, report: Callable[[str, str], None]
    ) -> None:
        self._settings = settings
        self._instance = service_instance_id
        self._region = region
        self._report = report
        self._under_way: list[threading.Thread] = []
        self._turn = threading.Lock()
        self._export: _Export | None = None

    def ended(self, reload: Reload, *, workers: int, replaced: int, error_type: str | None) -> None:
        """Make the span of a reload that is over, if there is tracing.

        Args:
            reload: which.
            workers: how many there were to replace.
            replaced: how many of them have a successor that serves.
            error_type: a word of the catalogue's `RELOAD_ERRORS`; None when all were replaced.
        """
        try:
            configuration = exports.tracing_of(self._settings)
        except StartupError as fault:  # what the workers needed to start has gone meanwhile
            self._report("telemetry.export_failed", str(fault))
            return
        if configuration is None:
            return
        seconds = reload.seconds()

        def send() -> None:
            with self._turn:
                if self._export is None:
                    self._export = _Export(configuration, self._instance, self._region, self._report)
                self._export.send(_record(reload, seconds, workers, replaced, error_type))

        self._under_way = [thread for thread in self._under_way if thread.is_alive()]
        thread = threading.Thread(target=send, name=_THREAD, daemon=True)
        self._under_way.append(thread)
        thread.start()

    def stop(self) -> None:
        """Export the last span, within `LAST_SPANS` seconds."""
        deadline = monotonic() + LAST_SPANS
        for thread in self._under_way:
            thread.join(max(deadline - monotonic(), 0.0))
        if self._export is not None:
            self._export.queue.shutdown(max(deadline - monotonic(), 0.0))


class _Export:
    """From a record to the collector: sampling, counting, encoding, queue; used by one thread at a time."""

    def __init__(
        self,
        configuration: TracingConfiguration,
        service_instance_id: str,
        region: Cells,
        report: Callable[[str, str], None],
    ) -> None:
        from obsserve.telemetry.otlp_encode import RequestFrame  # noqa: PLC0415 - most servers never reload
        from obsserve.telemetry.sampling import sampling_of  # noqa: PLC0415
        from obsserve.telemetry.spanfigures import TraceFigures  # noqa: PLC0415
        from obsserve.telemetry.spanqueue import SpanQueue  # noqa: PLC0415
        from obsserve.telemetry.traceconfig import resource  # noqa: PLC0415

        attributes = resource(
            configuration.service_name,
            service_instance_id=service_instance_id,
            worker=None,
            version=__version__,
        )
        frame = RequestFrame(attributes, "obsserve", __version__)
        # What is not understood of it has been told by the workers.
        self._sampling: Sampling = sampling_of(
            configuration.sampler, configuration.sampler_argument, lambda _note: None
        )
        self._figures = TraceFigures(region)
        self.queue: SpanQueue = SpanQueue(
            lambda: _carrier(configuration, frame, attributes, report),
            self._figures,
            report,
            capacity=_CAPACITY,
            batch_size=1,
            schedule_delay=_IDLE,
        )
        self.queue.start()

    def send(self, record: SpanRecord) -> None:
        from obsserve.telemetry.otlp_encode import encode_span  # noqa: PLC0415 - see above
        from obsserve.telemetry.spanfigures import KEPT, LEFT_OUT, NONE  # noqa: PLC0415

        kept = self._sampling.keeps_root(record)
        self._figures.count_started(NONE, KEPT if kept else LEFT_OUT, is_recording=False)
        if not kept:
            return
        queue = self.queue
        if len(queue.spans) < queue.room:
            queue.spans.append(encode_span(record))
            queue.wake_sender()
        else:
            queue.refuse()


def _carrier(
    configuration: TracingConfiguration,
    frame: RequestFrame,
    resource: dict[str, str | int],
    report: Callable[[str, str], None],
) -> Carrier:
    """Return what carries the spans; called on the thread of the queue."""
    from obsserve.telemetry.otlp import ExporterNoise, make_carrier  # noqa: PLC0415 - imports OpenTelemetry
    from obsserve.telemetry.spanqueue import SENDER  # noqa: PLC0415

    noise = ExporterNoise(report, SENDER)
    noise.install()
    return make_carrier(configuration, frame, resource, noise)


def _record(
    reload: Reload, seconds: float, workers: int, replaced: int, error_type: str | None
) -> SpanRecord:
    from obsserve.telemetry.otlp_encode import ERROR, INTERNAL, UNSET, SpanRecord  # noqa: PLC0415 - see above

    began = int(reload.noticed_at * 1e9)
    attributes = {
        "obsserve.reload.reason": reload.reason,
        "obsserve.reload.workers": workers,
        "obsserve.reload.replaced": replaced,
        **({"obsserve.reload.files": list(reload.files)[:NAMED]} if reload.files else {}),
        **({"error.type": error_type} if error_type is not None else {}),
    }
    return SpanRecord(
        trace_id=int.from_bytes(os.urandom(16), "big") or 1,
        span_id=int.from_bytes(os.urandom(8), "big") or 1,
        name="server.reload",
        kind=INTERNAL,
        start=began,
        end=began + int(seconds * 1e9),
        attributes=attributes,
        status=ERROR if error_type is not None else UNSET,
    )
