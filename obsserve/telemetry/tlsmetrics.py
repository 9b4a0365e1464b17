"""The metrics of TLS: handshakes that failed, reloads of the certificate, its expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Family

if TYPE_CHECKING:
    from obsserve.telemetry.cells import Cells


class TLSMetrics:
    """Counts what no exchange tells of.

    Args:
        region: the cells.
        worker: the slot of the serving process.
    """

    def __init__(self, region: Cells, worker: str = "0") -> None:
        self._worker = worker
        self._failures = Family(
            region, catalogue.TLS_FAILURES, [(reason,) for reason in catalogue.TLS_FAILURE_REASONS]
        )
        self._protocol_errors = Family(region, catalogue.PROTOCOL_ERRORS, [("tls_handshake", "")])
        self._reloads = Family(
            region, catalogue.TLS_RELOADS, [(result,) for result in catalogue.RELOAD_RESULTS]
        )
        self._expiry = Family(region, catalogue.TLS_EXPIRY)

    def handshake_failed(self, reason: str) -> None:
        """Count a handshake that failed; `reason` is one of the catalogue's."""
        self._failures.add(1.0, reason)
        self._protocol_errors.add(1.0, "tls_handshake", "")

    def loaded(self, result: str | None, expiry: float | None) -> None:
        """Count a reload, if it is one, and publish when the certificate that is served expires."""
        if result is not None:
            self._reloads.add(1.0, result)
        if expiry is not None:
            self._expiry.set(expiry, self._worker)
