"""What the process that serves the metrics port knows of one worker, whoever starts and ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from obsserve.telemetry.cells import CellsReader

State = Literal["starting", "ready", "draining", "gone"]


class Member(Protocol):
    """A worker, as the metrics port shows it."""

    @property
    def slot(self) -> int:
        """Its number, the label of what is counted for each worker."""
        ...

    @property
    def pid(self) -> int: ...
    @property
    def state(self) -> State: ...
    @property
    def began(self) -> float:
        """When it was started, unix time."""
        ...

    @property
    def ready_at(self) -> float:
        """When it became ready, unix time; 0.0 before."""
        ...

    @property
    def reader(self) -> CellsReader:
        """Its region."""
        ...

    def heartbeat(self) -> float:
        """Return when its event loop last turned, unix time; 0.0 before it did."""
        ...

    def post(self, type: str, **fields: Any) -> None:  # noqa: A002 - the word of the message
        """Send it a message, from any thread, without waiting for it to be taken."""
        ...

    def __hash__(self) -> int: ...
