"""The sockets that the workers listen on: the same for all, or with `--reuse-port` some of its own for each slot.

Owned by the main process, which never listens itself and keeps them open while workers come and go: what waits to
be accepted is accepted by a slot's next worker. Rules for sockets of its own:
- A slot keeps its sockets from worker to worker.
- Those of a slot that is given up go to the next worker of slot 0, so that nobody who waits there is reset; a slot
  that is added takes them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from obsserve.server import listeners

if TYPE_CHECKING:
    import socket

    from obsserve.settings import Settings


class SlotSockets:
    """Binds, hands out, closes.

    Args:
        settings: the options.

    Raises:
        StartupError: an address is in use, or not ours to use.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.first = listeners.bind_sockets(settings)
        self._own: dict[int, list[socket.socket]] = {}
        self._left_over: list[list[socket.socket]] = []
        self.are_shared = not settings.reuse_port

    def of(self, slot: int) -> list[socket.socket]:
        """Return what a slot's next worker listens on.

        Raises:
            StartupError: the address has meanwhile been taken by somebody who does not share it.
        """
        if self.are_shared:
            return self.first
        if slot == 0:
            return [*self.first, *(sock for sockets in self._left_over for sock in sockets)]
        if slot not in self._own:
            self._own[slot] = (
                self._left_over.pop() if self._left_over else listeners.bind_again(self.first, self._settings)
            )
        return self._own[slot]

    def give_up(self, slot: int) -> None:
        """Leave a slot's own sockets to the next worker of slot 0."""
        sockets = self._own.pop(slot, None)
        if sockets is not None:
            self._left_over.append(sockets)

    def close(self) -> None:
        """Close all: who comes from now on is refused, as soon as no worker listens any more."""
        for sockets in (self.first, *self._own.values(), *self._left_over):
            for sock in sockets:
                sock.close()
