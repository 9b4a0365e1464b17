"""Clients that go on, each in a thread of its own, for as long as a block lasts."""

from __future__ import annotations

import threading


class Crowd:
    """Starts clients with a block, and ends them with it.

    Args:
        clients: functions that go on until `over` is set; none of them raises.
        patience: seconds that they have to end.
    """

    def __init__(self, *clients, patience=30):
        self.over = threading.Event()
        self._patience = patience
        self._threads = [threading.Thread(target=client, daemon=True) for client in clients]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        hanging = self.end()
        assert kind or not hanging, f"{hanging} clients have not ended"

    def end(self):
        """End the clients, before the block does; return how many would not."""
        self.over.set()
        for thread in self._threads:
            thread.join(self._patience)
        return sum(thread.is_alive() for thread in self._threads)
