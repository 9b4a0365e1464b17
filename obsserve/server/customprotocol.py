"""`--http module:Class`: connections served by a protocol class that somebody wrote for uvicorn.

Such a class is made with `(config, server_state, app_state, _loop=None)` and does everything itself. The server
sees none of its requests, so they leave no access line, no metrics and no spans. What is left to the server is
to stop: the class's `shutdown()` is called when the drain begins, and the drain waits for its connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from obsserve.config import Config
    from obsserve.http.connection import Connection
    from obsserve.http.state import ServerState
    from obsserve.telemetry.catalogue import Ending


class SharedState:
    """What such a class knows as its server's state: connections, tasks, a counter, the default headers.

    Args:
        state: the server's own state.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        # Of their own: the server's connections are swept and counted by what only they have.
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = state.tasks

    @property
    def total_requests(self) -> int:
        return self._state.total_requests

    @total_requests.setter
    def total_requests(self, value: int) -> None:
        self._state.total_requests = value

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response, the date of this second included."""
        date = [(b"date", self._state.date)] if self._state.sends_date else []
        return [*date, *self._state.default_headers]


class CustomConnections:
    """Makes the connections of a custom class, and stands for all of them among those of the server.

    Args:
        protocol: the class.
        config: passed on to it.
        state: what the server's own connections share.
    """

    # What the sampling of connections reads; nothing is known of these.
    state = "custom"
    listener = ""
    buffered_bytes = received_bytes = sent_bytes = counted_received = counted_sent = 0
    write_paused = False
    open_exchange = successor = None

    def __init__(self, protocol: Callable[..., asyncio.Protocol], config: Config, state: ServerState) -> None:
        self._protocol = protocol
        self._config = config
        self._server = state
        self._told = False
        self.shared = SharedState(state)
        state.connections.add(cast("Connection", self))

    def accept(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return self._protocol(
            config=self._config,
            server_state=self.shared,
            app_state=self._server.app_state,
            _loop=self._server.loop,
        )

    # --- in the place of a connection --------------------------------------------------------

    def sweep(self, _now: float) -> None:
        """Tell the connections to shut down when the drain begins, and leave with the last of them."""
        if not self._server.draining:
            return
        if not self._told:
            self._told = True
            for connection in tuple(self.shared.connections):
                connection.shutdown()
        if not self.shared.connections:
            self._leave()

    def abandon(self, _ending: Ending) -> None:
        """Do nothing: their tasks are among the server's, which cancels them."""

    def close(self, _reason: str, *, abort: bool = False) -> None:  # noqa: ARG002  (a connection's form)
        """Cut every connection."""
        for connection in tuple(self.shared.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        self._leave()

    def _leave(self) -> None:
        self._server.connections.discard(cast("Connection", self))


def acceptor(config: Config, state: ServerState, log: Any) -> Callable[[], asyncio.Protocol] | None:
    """Return what makes a connection if `http` names a class; None if it names a parser.

    Raises:
        StartupError: there is none under that name.
    """
    protocol = config.custom_protocol_class()
    if protocol is None:
        return None
    log.warning(
        "protocol.custom",
        message=f"{protocol.__name__} serves HTTP: its requests leave no access line, no metrics and no spans",
    )
    return CustomConnections(protocol, config, state).accept
