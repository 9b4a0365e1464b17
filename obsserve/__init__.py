"""obsserve: an ASGI server that lets its operator see everything."""

from typing import TYPE_CHECKING

from obsserve.config import Config
from obsserve.main import main, run
from obsserve.version import __version__

if TYPE_CHECKING:
    from typing import Any

    from obsserve.server.server import Server

__all__ = ["Config", "Server", "__version__", "main", "run"]

if not TYPE_CHECKING:  # hidden from type checkers, for which it would allow every name

    def __getattr__(name: str) -> "Any":
        """Import the server when it is asked for: its parts are most of the time that a start takes."""
        if name == "Server":
            from obsserve.server.server import Server  # noqa: PLC0415

            return Server
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
