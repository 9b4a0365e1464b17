"""Exemplars: the newest trace of each latency bucket and of each counter of what went wrong.

Owns when each is due again: once a second at most, so that neither load nor a flood of errors is paid for with
every exchange. What is noted stands in the cells (`cells.py`), and outlives its process like what is counted there.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from obsserve.telemetry.catalogue import LATENCY_BUCKETS
from obsserve.telemetry.cells import DURATION, FIRST_BYTE

if TYPE_CHECKING:
    from obsserve.telemetry.cells import Cells
    from obsserve.telemetry.observer import ExchangeView

INTERVAL: Final = 1.0  # seconds


class Exemplars:
    """Notes traces beside what they are counted in.

    Args:
        region: the cells of this process.
        sampled_only: whether only traces that are sampled are noted.
    """

    def __init__(self, region: Cells, *, sampled_only: bool) -> None:
        self._region = region
        self._sampled_only = sampled_only
        # From when on a slot may have another one, in seconds of `perf_counter`.
        self.due: dict[int, float] = {}

    def note(self, view: ExchangeView, row: int, bucket: int) -> None:
        """Note the trace of an exchange that has ended beside its latencies.

        Args:
            view: the exchange.
            row: first slot of its row.
            bucket: which one of the durations' it fell into.
        """
        trace = view.trace
        slot = row + DURATION + bucket
        now = view.ended
        if trace is None or now < self.due.get(slot, 0.0):
            return
        if self._sampled_only and not trace.sampled:
            return
        self.due[slot] = now + INTERVAL
        ids = bytes.fromhex(trace.trace_id_hex), bytes.fromhex(trace.span_id_hex)
        wall = time.time()
        self._region.exemplar(slot, now - view.began, wall, *ids)
        if view.first_byte and view.head_done:
            waited = view.first_byte - view.head_done
            place = row + FIRST_BYTE + bisect_left(LATENCY_BUCKETS, waited)
            self._region.exemplar(place, waited, wall, *ids)

    def note_error(self, view: ExchangeView, slot: int) -> None:
        """Note the trace of an exchange in which something went wrong.

        Args:
            view: the exchange.
            slot: of the counter that it added one to.
        """
        trace = view.trace
        if trace is None or (self._sampled_only and not trace.sampled):
            return
        now = time.perf_counter()  # the exchange may have ended long ago: a WebSocket's handshake
        if now < self.due.get(slot, 0.0):
            return
        self.due[slot] = now + INTERVAL
        ids = bytes.fromhex(trace.trace_id_hex), bytes.fromhex(trace.span_id_hex)
        self._region.exemplar(slot, 1.0, time.time(), *ids, may_take_reserve=True)
