"""One request and its response: the request's body, the application's run, the time stamps, one end.

Owns the request body's buffer; the response is in `response.py`. Rules: `end()` takes effect once, and nothing
is written after it; what the application sends too late is ignored, what it sends wrongly raises.

    EXPECT_START ──start──▶ HELD ──first body part, or end of the loop turn──▶ STREAMING ──last part──▶ DONE
         └──── refusal, exception, deadline, disconnect ────▶ DONE ◀──────────────┘

Speed: what every request reads is in slots, and class-level defaults stand for everything else that an
ordinary request leaves alone (`python -m loadtests.bench instructions`).
"""

from __future__ import annotations

from asyncio import CancelledError
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from obsserve.http.flow import DONE, EXPECT_START, HELD, HIGH_WATER, STREAMING, Waiters
from obsserve.http.framing import CLOSE, LENGTH
from obsserve.http.head import serialise_head
from obsserve.http.response import Message, Response
from obsserve.http.scope import SCOPE_SIZE
from obsserve.speedups import native
from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import COMPLETE, error_type_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from obsserve.http.connection import Connection
    from obsserve.http.framing import BodyEnd
    from obsserve.http.head import ResponseHead
    from obsserve.telemetry.catalogue import Ending

# Replaced when the head is complete, never changed.
_NO_FIELDS: Final[dict[bytes, bytes]] = {}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange(Response):
    """One request and its response; what is observed of it is its `Record`.

    Args:
        connection: the one that the request came on.
        began: when its first byte was seen, `time.perf_counter` seconds.
        connection_request: its number on the connection.
        scheme: of its URL, as long as nobody knows better.
    """

    # What every request reads before anybody sets it: CPython 3.11 is slow to find a class-level default by
    # way of an instance. The rest keeps its defaults, because to set them would cost more than it saves.
    __slots__ = (
        "_announced_route",
        "_request_id",
        "announced",
        "app_started",
        "began",
        "body_done",
        "connection",
        "connection_request",
        "ended",
        "ending",
        "expect_continue",
        "fields",
        "first_byte",
        "forwarded_client",
        "forwarded_scheme",
        "forwarded_trusted",
        "head_done",
        "http_version",
        "id_line",
        "keep_alive",
        "method",
        "ordinary",
        "parts",
        "phase",
        "plain",
        "refusal",
        "request_body_size",
        "request_size",
        "response_body_size",
        "response_size",
        "response_started",
        "route",
        "scheme",
        "status",
        "trace",
        "waiters",
    )

    task: asyncio.Task[None] | None = None
    # Finds the end of a body that spans several reads.
    body_end: BodyEnd | None = None
    trailer_size = 0
    refusal: Ending | None
    started = False
    # Since when it has waited for its turn, while it does; and whether its turn has come.
    queued_at = 0.0
    admitted = False
    announced: bool
    _body: list[bytes] | None = None
    _buffered = 0
    _delivered = False
    _complete_at = 0.0
    waiters: Waiters | None
    # The application was told that its client is gone, because the server is about to be.
    dismissed = False

    def __init__(self, connection: Connection, began: float, connection_request: int, scheme: str) -> None:
        self.connection = connection
        self.began = began
        self.connection_request = connection_request
        self.scheme = scheme
        self.ordinary = self.keep_alive = self.plain = True
        self.announced = self.expect_continue = False
        self.head_done = self.body_done = self.app_started = 0.0
        self.response_started = self.first_byte = self.ended = 0.0
        self.phase = EXPECT_START
        self.request_size = self.request_body_size = self.response_size = self.response_body_size = 0
        self.method = ""
        self.fields = _NO_FIELDS
        self.parts = self.status = None
        self.http_version = "1.1"
        self.route = self._announced_route = ""
        self.id_line = b""
        self.forwarded_client = self.forwarded_scheme = self.forwarded_trusted = None
        self.ending = self.refusal = self.trace = self.waiters = self._request_id = None

    # --- the request -------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take a part of the request body."""
        size = len(data)
        self.request_body_size += size
        if self.phase == DONE:
            return
        if self._body is None:
            self._body = [data]
        else:
            self._body.append(data)
        self._buffered += size
        if self._buffered > HIGH_WATER:
            self.connection.pause_reading()
        if self.waiters is not None:
            self.waiters.wake()

    def wake(self) -> None:
        """Let a waiting `receive()` look again."""
        if self.waiters is not None:
            self.waiters.wake()

    def take_unread(self) -> int:
        """Forget what the application did not read of the body; return its size in bytes."""
        unread, self._body, self._buffered = self._buffered, None, 0
        return unread

    def upgrade_to(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Make this the handshake of a WebSocket.

        Args:
            run: takes the place of `run`.
        """
        self.keep_alive = self.plain = False  # the connection speaks HTTP no more, whatever the answer
        self.run = run  # type: ignore[method-assign]

    def switch_protocols(self, head: bytes, status: int = 101) -> None:
        """End the handshake with its 101 response, or with another that was made elsewhere.

        Args:
            head: the whole response head; of another status, the whole response.
            status: what the head says.
        """
        self.status = status
        self.first_byte = perf_counter()
        self._write(head)
        self.phase = DONE
        self._settle(COMPLETE, self.first_byte)

    async def receive(self) -> Message:
        """ASGI: return the next event of the request."""
        if self.expect_continue and self.phase == EXPECT_START and not self.body_complete:
            self.expect_continue = False
            self._write(CONTINUE)
            self.connection.read_at = perf_counter()  # only now is the client expected to go on
        while True:
            if self.phase == DONE:
                return {"type": "http.disconnect"}
            if self._body is not None or (self.body_complete and not self._delivered):
                return self._take_body()
            if self._delivered and self.connection.server.dismissing:
                self.dismissed = True
                return {"type": "http.disconnect"}
            if self.waiters is None:
                self.waiters = Waiters(self.connection.server.loop)
            await self.waiters.wait()

    def _take_body(self) -> Message:
        body = self._body
        if body is None:
            data = b""
        else:
            data = body[0] if len(body) == 1 else b"".join(body)
            self._body = None
            self._buffered = 0
            self.connection.resume_reading()
        self._delivered = self.body_complete
        return {"type": "http.request", "body": data, "more_body": not self.body_complete}

    # --- the application ---------------------------------------------------------------------

    async def run(self) -> None:
        """Run the application for this request; the body of the request's task."""
        server = self.connection.server
        running = server.hooks.exchange_running
        if running is not None:
            try:
                running(self)
            except Exception as fault:  # noqa: BLE001 - a fault in telemetry never touches a request
                server.hooks.failed("exchange_running", fault)
        self.app_started = perf_counter()
        try:
            result = await server.app(self.scope, self.receive, self.send)
        except BaseException as exception:  # noqa: BLE001 - whatever it is ends this exchange, not the server
            self.app_raised(exception)
        else:
            if self.phase != DONE or result is not None:
                self.app_returned(result)
        finally:
            # The task is done but for its own bookkeeping; the set only kept it alive.
            server.tasks.discard(self.task)
            self.task = None  # its context may hold this exchange: leave no cycle to the collector

    def app_raised(self, exception: BaseException) -> None:
        reporter = self.connection.server.reporter
        if self.phase == DONE:
            if self._complete_at and self.ending is None:
                self.exception = exception
                self._settle(catalogue.APP_EXCEPTION, self._complete_at)
                reporter.app_exception(self, exception, after_end=False)
                return
            # A request whose client is gone or whose time is up was cancelled, or noticed it: no news.
            cut_off = self.connection.server.dismissing and isinstance(exception, CancelledError)
            if self.ending is COMPLETE and not cut_off:
                reporter.app_exception(self, exception, after_end=True)
            return
        self.exception = exception
        if self.dismissed:
            self.answer_and_end(catalogue.WORKER_SHUTDOWN)
            return
        if self.phase == STREAMING:
            self.end(catalogue.APP_EXCEPTION_AFTER_START)
        else:
            self.answer_and_end(catalogue.APP_EXCEPTION)
        reporter.app_exception(self, exception, after_end=False)

    def app_returned(self, result: object) -> None:
        if result is not None:
            self._misuse("bad_message", f"the application returned {type(result).__name__}, not None")
        if self.dismissed and self.phase != DONE:
            self.answer_and_end(catalogue.WORKER_SHUTDOWN)
        elif self.phase == EXPECT_START:
            self._misuse("no_response", "the application returned without a response")
            self.answer_and_end(catalogue.APP_NO_RESPONSE)
        elif self.phase in (HELD, STREAMING):
            self._misuse("incomplete_response", "the application returned before its response was complete")
            if self.phase == HELD:
                self.flush_head()
            self.end(catalogue.APP_INCOMPLETE_RESPONSE)

    # --- the end -----------------------------------------------------------------------------

    def waited(self, seconds: float) -> None:
        """Add time for which the response waited on a slow reader."""
        self.ordinary = False
        self.write_blocked += seconds

    def answer_and_end(self, ending: Ending) -> None:
        """Send the response that the server itself makes for this ending, if one is still possible."""
        status = ending.status
        if self.queued_at:
            self.connection.leave_queue(self)
        if self.phase in (EXPECT_START, HELD) and status is not None:
            self.status = status
            self.response_origin = "server"
            self.keep_alive = False
            self._head = self._server_head(ending, status)
            text = f"{HTTPStatus(status).phrase}".encode()
            self.response_headers = ()
            self._write_head(len(text), text)
        self.end(ending)

    def _server_head(self, ending: Ending, status: int) -> ResponseHead:
        server = self.connection.server
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if ending.rejection is not None:
            headers.append((b"retry-after", b"1"))
        if ending is catalogue.UPGRADE_REQUIRED:  # RFC 6455 4.2.2, RFC 9110 15.5.22
            headers += [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]
        return serialise_head(status, headers, server.default_headers, server.date)

    def disconnect(self, *, reset: bool) -> None:
        """End because the client has gone.

        Args:
            reset: by a reset, not by an orderly close.
        """
        self.reset = reset
        if self._complete_at:  # the whole response was sent
            self.end(COMPLETE)
            return
        if self.phase == STREAMING and self._head.event_stream:
            self.end(catalogue.STREAM_CLOSED_BY_CLIENT)
            return
        if not self.body_complete:
            self.disconnect_phase = "request_body"
        elif self.phase != STREAMING:
            self.disconnect_phase = "waiting"
        else:
            self.disconnect_phase = "response" if self._framing == LENGTH else "stream"
        self.end(catalogue.CLIENT_DISCONNECTED)

    def end(self, ending: Ending) -> None:
        """End the exchange, unless it has ended: exactly one end is recorded."""
        if self.ending is not None:
            return
        if self._complete_at:
            self._settle(COMPLETE, self._complete_at)
            return
        if self.phase in (EXPECT_START, HELD):  # nothing went out
            self.status = None
            self.response_origin = "none"
        self.phase = DONE
        if ending is not COMPLETE:
            self.keep_alive = False
        self._settle(ending, perf_counter())

    def _settle_soon(self, now: float) -> None:
        """End after a complete 5xx response, but let the application say why it sent it.

        Frameworks answer an exception of the application with a 500 of their own and raise it again in the
        same step; the record then carries the exception. The time of the end is that of the last byte.
        """
        self._complete_at = now
        self.connection.server.loop.call_soon(self._settle, COMPLETE, now)

    def _settle(self, ending: Ending, now: float) -> None:
        """Take the end, tell the observers, and give the connection back."""
        if self.ending is not None:
            return
        self.ending = ending
        self.ended = now
        status = self.status
        if ending is not COMPLETE or (status is not None and status >= 500):
            self.ordinary = False
            self.error_type = error_type_of(ending, status, self.exception)
        connection = self.connection
        server = connection.server
        if self.started:
            server.active -= 1
            if not server.room:
                server.admission.released()
        elif self.queued_at:
            connection.leave_queue(self)
        connection.account(self)
        hooks = server.hooks
        ended = hooks.exchange_ended
        if ended is not None:
            scope = self.scope
            if self._announced_route or (scope is not None and len(scope) != SCOPE_SIZE):
                self.learn_route()  # else nobody has put anything there that would tell it
            try:
                ended(self)
            except Exception as fault:  # noqa: BLE001 - a fault in telemetry never touches a response
                hooks.failed("exchange_ended", fault)
        self.scope = None  # the scope refers to the exchange: do not leave a cycle to the collector
        if self.waiters is not None:
            self.waiters.wake()
        connection.exchange_ended(self)

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for the server, not the server for the client."""
        return self.expect_continue and not self.request_body_size

    @property
    def delimited_by_close(self) -> bool:
        """Whether only the end of the connection ends the response's body."""
        return bool(self.first_byte) and self._framing == CLOSE


def _share_keys() -> None:
    """Set what every request sets, first and in one go.

    CPython keeps the first thirty names that a class's instances ever set inside the instance; a further one
    gives it a dict of its own, and every access to it is slower from then on.
    """
    first = Exchange.__new__(Exchange)
    for name in (
        *("connection", "connection_request", "began", "request_headers", "fields", "head_done", "method"),
        *("parts", "started", "scope", "context", "task", "request_size", "body_complete", "body_done"),
        *("_head", "status", "response_headers", "response_started", "response_body_size"),
        *("first_byte", "ended"),
    ):
        setattr(first, name, None)


_share_keys()


def _making() -> Callable[[Connection, float, int, str], Exchange]:
    """Return what makes an exchange: the class, or what does the same in C."""
    if native is None:
        return Exchange
    first = Exchange(cast("Connection", None), 0.0, 0, "")
    made: Callable[[Connection, float, int, str], Exchange] = native.Prototype(
        first=first, slots=Exchange.__slots__, given=("connection", "began", "connection_request", "scheme")
    )
    return made


make_exchange: Final = _making()
