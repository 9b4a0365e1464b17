"""The TLS handshake of one connection, between its being accepted and its first byte of HTTP.

Owns the transport until the handshake is over, then hands it to the protocol that serves. Rules: it stands among
the server's connections meanwhile, so that a drain waits for it; one that fails leaves no exchange, but is counted
as a connection and with its reason.

    accepted ──TLS done──▶ handed over
        └──fault, deadline, client gone──▶ counted
"""

from __future__ import annotations

import asyncio
import ssl
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from obsserve.http.connection import Connection
from obsserve.http.scope import address_of
from obsserve.server.certificates import extension

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.http.state import ServerState
    from obsserve.server.tls import TLS
    from obsserve.telemetry.catalogue import Ending
    from obsserve.telemetry.observer import Address

# How long a client may take to answer close_notify; most do not answer at all (asyncio waits for 30 s).
SHUTDOWN_TIMEOUT: Final = 2.0
_NEVER: Final = 7 * 86400.0  # the loops want some time-out

# OpenSSL's reasons by the metric's; what is in none of them is `other`.
_REASONS: Final = {
    "HTTP_REQUEST": "not_tls",
    "HTTPS_PROXY_REQUEST": "not_tls",
    "WRONG_VERSION_NUMBER": "not_tls",
    "BAD_RECORD_TYPE": "not_tls",
    "RECORD_LAYER_FAILURE": "not_tls",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_client_certificate",
    "CERTIFICATE_VERIFY_FAILED": "bad_client_certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "refused_by_client",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "refused_by_client",
    "SSLV3_ALERT_BAD_CERTIFICATE": "refused_by_client",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "refused_by_client",
    "UNEXPECTED_EOF_WHILE_READING": "client_closed",
}


def reason_of(fault: BaseException) -> str:
    """Return the metric's `reason` for what ended a handshake."""
    if isinstance(fault, ssl.SSLError):
        return _REASONS.get(fault.reason or "", "other")
    if isinstance(fault, (ConnectionAbortedError, TimeoutError)):  # what the loops raise at the deadline
        return "timeout"
    return "client_closed" if isinstance(fault, ConnectionError) else "other"


class Handshake(asyncio.Protocol):
    """A connection whose handshake is under way; a `CountedConnection` in case it fails.

    Args:
        server: what all connections share.
        tls: has the context.
        listener: the configured endpoint that accepted it.
        protocol: serves it afterwards.
        failed: told of a handshake that failed: its reason, the peer, and the fault.
    """

    state = "idle"
    tls = tls_protocol = tls_cipher = closed_while_active = None
    tls_resumed = write_paused = False
    requests = received_bytes = sent_bytes = counted_received = counted_sent = buffered_bytes = 0
    open_exchange = successor = None
    serial = 0
    id = ""
    scheme = "https"

    def __init__(
        self,
        server: ServerState,
        tls: TLS,
        listener: str,
        protocol: asyncio.BaseProtocol,
        failed: Callable[[str, Address | None, BaseException], None],
    ) -> None:
        self._server = server
        self._tls = tls
        self._protocol = protocol
        self._failed = failed
        self.listener = listener
        self.peer: Address | None = None
        self.local: Address | None = None
        self.close_reason = "tls_error"
        self.opened_at = self.closed_at = 0.0
        self._early: list[bytes] = []
        self._over = False
        self._eof = False
        self._steps: Any

    # --- asyncio.Protocol: what comes between the end of the handshake and the handing over --------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.opened_at = perf_counter()
        self._transport = cast("asyncio.Transport", transport)
        self.peer = address_of(transport.get_extra_info("peername"))
        self.local = address_of(transport.get_extra_info("sockname"))
        self._server.connections.add(cast("Connection", self))
        server = self._server
        self._steps = server.loop.start_tls(
            self._transport,
            self,
            self._tls.context,
            server_side=True,
            ssl_handshake_timeout=min(server.timeout_tls_handshake, _NEVER),
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
        self._advance()

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def eof_received(self) -> bool:
        self._eof = True
        return True  # what came before it is still to be served

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's form
        self._over = True

    # --- the handshake -----------------------------------------------------------------------

    def _advance(self, _waited_for: object = None) -> None:
        """Go on with the handshake, as a task would.

        A task takes its first step one turn of the loop later, and what arrives before (uvloop reads at once)
        would not reach TLS.
        """
        try:
            waiter = self._steps.send(None)
        except StopIteration as done:
            if done.value is None or self._over:
                self._end(ConnectionResetError())
            else:
                self._hand_over(done.value)
        except OSError as fault:
            self._end(fault)
        else:
            waiter._asyncio_future_blocking = False  # noqa: SLF001 - the word of whoever awaits a future
            waiter.add_done_callback(self._advance)
            return
        self._server.connections.discard(cast("Connection", self))

    def _hand_over(self, transport: asyncio.Transport) -> None:
        protocol: Any = self._protocol
        if isinstance(protocol, Connection):
            try:
                self._describe(protocol, transport.get_extra_info("ssl_object"))
            except Exception:
                transport.abort()  # nobody would ever read from it
                self._server.connections.discard(cast("Connection", self))
                raise
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._early:
            protocol.data_received(b"".join(self._early))
        if self._eof and not protocol.eof_received():
            transport.close()

    def _describe(self, connection: Connection, tls: ssl.SSLObject) -> None:
        cipher = tls.cipher()
        connection.scheme = "https"
        connection.tls_protocol = tls.version()
        connection.tls_cipher = cipher[0] if cipher is not None else None
        connection.tls_resumed = bool(tls.session_reused)
        connection.tls = extension(tls, self._tls.certificate, self._tls.suites)

    def _end(self, fault: BaseException) -> None:
        hooks = self._server.hooks
        self.closed_at = perf_counter()
        if hooks.connection_opened is not None:
            hooks.connection_opened(self)
        if hooks.connection_closed is not None:
            hooks.connection_closed(self)
        if self.close_reason == "tls_error":
            self._failed(reason_of(fault), self.peer, fault)

    # --- in the place of a connection --------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Do nothing: the loop itself watches the deadline of a handshake."""

    def abandon(self, _ending: Ending) -> None:
        """Do nothing: no exchange has begun."""

    def close(self, reason: str, *, abort: bool = False) -> None:  # noqa: ARG002 - a connection's form
        """Cut it: what has not begun to be served when the time is up is not served."""
        self.close_reason = "shutdown"
        self._transport.abort()
        self._server.connections.discard(cast("Connection", self))
