"""The metrics port: a listener of its own, on a thread of its own, with an event loop of its own.

Owns the socket from `bind` on, and the thread from `start` to `stop`. It answers while the application blocks
the serving loop. Every conversation is one request and one response, within a deadline, and there is a bound
on how many there are. A scrape runs on yet another thread, one at a time, because a collector of the
application may block: the probes go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from obsserve.admin.app import AdminApp, Answer, BadRequestError, parse_head
from obsserve.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.admin.app import AdminState, Request
    from obsserve.admin.inspection import Inspection
    from obsserve.telemetry.exposition import Exposition
    from obsserve.telemetry.lateexposition import LateExposition

MAX_CONNECTIONS: Final = 64
MAX_HEAD: Final = 8192  # bytes
DEADLINE: Final = 5.0  # seconds to send a request head, and to take a response
SCRAPE_DEADLINE: Final = 10.0  # seconds, Prometheus's default scrape_timeout
NODE_EXPORTER_PORT: Final = 9100
SUGGESTED_PORT: Final = 9464  # OpenTelemetry's default for a Prometheus exporter


class AdminServer:
    """Serves the metrics port.

    Arguments:
        host: address to bind.
        port: TCP port; 0 for any free one.
        state: what the probes answer from.
        exposition: what /metrics answers with.
        inspection: what the pages under /-/ ask; without it there are none.
        max_connections: further ones get 503 at once.

    """

    def __init__(
        self,
        host: str,
        port: int,
        state: AdminState,
        exposition: Exposition | LateExposition,
        *,
        inspection: Inspection | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._host = host
        self._port = port
        self._app = AdminApp(state, exposition, inspection)
        self._max_connections = max_connections
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._serving = threading.Event()
        self._conversations: set[asyncio.Task[None]] = set()
        # The scrape and the inspection that are under way.
        self._running: dict[Callable[[Request], Answer], asyncio.Future[Answer]] = {}

    def bind(self) -> None:
        """Take the port, without serving it yet.

        Raises:
            StartupError: it cannot be had.

        """
        try:
            # As bytes, for which no codec has to be imported.
            host = self._host.encode() if self._host.isascii() else self._host
            found = socket.getaddrinfo(host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            self._socket = socket.create_server(address[:2], family=family, backlog=128)
        except OSError as error:
            raise StartupError(_why_not(self._host, self._port, error)) from error

    @property
    def address(self) -> tuple[str, int]:
        """Host and real port; after `bind`."""
        if self._socket is None:
            return self._host, self._port
        host, port = self._socket.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Serve, on a thread; returns when it does."""
        if self._socket is None:
            self.bind()
        self._thread = threading.Thread(target=self._run, name="obsserve-admin", daemon=True)
        self._thread.start()
        self._serving.wait(DEADLINE)

    def abandon(self) -> None:
        """In a forked child: let go of the port, which stays the parent's."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def stop(self, timeout: float = 2.0) -> None:
        """Stop serving and close the port; waits at most `timeout` seconds for the thread."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended by itself
                loop.call_soon_threadsafe(stopping.set)
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- On the thread ---

    def _run(self) -> None:
        # Plain asyncio, whatever policy the application has set: nothing here is in a hurry.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_report)
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._converse, sock=self._socket, limit=MAX_HEAD)
        self._serving.set()
        await self._stopping.wait()
        server.close()
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        has_room = len(self._conversations) < self._max_connections
        self._conversations.add(task)
        try:
            method, answer = "GET", Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections\n")
            if has_room:
                method, answer = await self._answer(reader)
            writer.write(_response(answer, with_body=method != "HEAD"))
            async with asyncio.timeout(DEADLINE):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # the client left, or was too slow, or we are leaving
        finally:
            self._conversations.discard(task)

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, Answer]:
        try:
            async with asyncio.timeout(DEADLINE):
                head = await reader.readuntil(b"\r\n\r\n")
            request = parse_head(head)
        except asyncio.LimitOverrunError:
            return "GET", Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"request head too large\n")
        except BadRequestError:
            return "GET", Answer(HTTPStatus.BAD_REQUEST, b"bad request\n")
        answer = self._app.probe(request)
        if answer is None:
            app = self._app
            work = app.scrape if request.path == "/metrics" else app.inspect
            answer = await self._on_thread(work, request)
        return request.method, answer

    async def _on_thread(self, work: Callable[[Request], Answer], request: Request) -> Answer:
        """Have an answer made on a thread of its own; one of each kind at a time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SCRAPE_DEADLINE):
                while (under_way := self._running.get(work)) is not None and not under_way.done():
                    await asyncio.wait([under_way])
                answer = self._running[work] = loop.create_future()
                arguments = (work, request, loop, answer)
                threading.Thread(target=_work, args=arguments, daemon=True).start()
                return await asyncio.shield(answer)
        except TimeoutError:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"a collector takes too long\n")


def _work(
    work: Callable[[Request], Answer],
    request: Request,
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Answer],
) -> None:
    try:
        answer = work(request)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the scraper is told
        answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"the {work.__name__} failed: {fault!r}\n".encode())
    with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
        loop.call_soon_threadsafe(_resolve, future, answer)


def _resolve(scrape: asyncio.Future[Answer], answer: Answer) -> None:
    if not scrape.done():
        scrape.set_result(answer)


def _response(answer: Answer, *, with_body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status:d} {_phrase(answer.status)}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head + answer.body if with_body else head


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report a fault of the loop, but not that descriptors have run out.

    asyncio would tell of that a hundred times a second; the serving loop tells of it once.
    """
    fault = context.get("exception")
    if not (isinstance(fault, OSError) and fault.errno in (errno.EMFILE, errno.ENFILE)):
        loop.default_exception_handler(context)


def _why_not(host: str, port: int, error: OSError) -> str:
    where = f"the metrics port {f'[{host}]' if ':' in host else host}:{port}"
    if error.errno != errno.EADDRINUSE:
        # asyncio adds the address to what the system says, which stands here already.
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]
        return f"Cannot listen on {where}: {reason}; --metrics-host takes an address of this machine"
    advice = f"choose another one, for example --metrics-port {SUGGESTED_PORT}"
    if port == NODE_EXPORTER_PORT:
        return f"Cannot listen on {where}: it is in use ({port} is node_exporter's default port); {advice}"
    return f"Cannot listen on {where}: it is in use; {advice if port != SUGGESTED_PORT else 'choose another one'}"
