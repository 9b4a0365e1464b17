"""The response half of an exchange: what the application sends, as bytes on the wire.

Owns the response's progress and framing; `Exchange` adds the end.

Speed: `send` has a short path for a complete body of the announced length, which is what most responses are
(`python -m loadtests.bench hello`).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from obsserve.http.flow import DONE, EXPECT_START, HELD, STREAMING
from obsserve.http.framing import (
    CHUNKED,
    CLOSE,
    LAST_CHUNK,
    LENGTH,
    NONE,
    choose,
    encode_chunk,
    forbids_length,
)
from obsserve.http.head import BadResponseError, serialise_head
from obsserve.http.record import Record
from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import COMPLETE

if TYPE_CHECKING:
    from obsserve.http.head import ResponseHead
    from obsserve.telemetry.catalogue import Ending

Message = dict[str, Any]


class ASGIMessageError(RuntimeError):
    """The application sent a message that the ASGI specification does not allow here."""


class Response(Record):
    """What has been sent, and what may still be."""

    keep_alive: bool
    # HTTP/1.1, kept alive, not HEAD: the response head can be taken from the cache as it is.
    plain: bool
    # The client waits for 100 Continue before it sends the body.
    expect_continue: bool
    body_complete = False
    phase: int
    _framing = LENGTH
    _remaining = 0
    _head: ResponseHead

    # --- what the exchange adds ----------------------------------------------------------------

    def end(self, ending: Ending) -> None:
        """End the exchange."""
        raise NotImplementedError

    def _settle(self, ending: Ending, now: float) -> None:
        raise NotImplementedError

    def _settle_soon(self, now: float) -> None:
        raise NotImplementedError

    # --- what the application does wrong -------------------------------------------------------

    def _misuse(self, reason: str, message: str) -> None:
        self._note_misuse(reason)
        self.connection.server.reporter.app_misuse(self, reason, message)

    def _note_misuse(self, reason: str) -> None:
        self.ordinary = False
        if self.app_protocol_error is None:
            self.app_protocol_error = reason

    def _refuse_message(self, reason: str, message: str) -> ASGIMessageError:
        self._note_misuse(reason)
        return ASGIMessageError(message)

    # --- the response --------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """ASGI: take the next event of the response."""
        kind = message["type"]
        if kind == "http.response.body":
            if self.phase == HELD:
                body = message.get("body", b"")
                # The short path: everything is here, of the announced length, for an ordinary client.
                if (
                    self.plain
                    and body.__class__ is bytes
                    and self._head.complete_length == len(body)
                    and not message.get("more_body", False)
                ):
                    head = self._head
                    if self.id_line and not head.identified:
                        data = b"".join((head.open, self.id_line, b"\r\n", body))
                    else:
                        data = head.complete + body
                    self.phase = DONE
                    self.response_body_size = len(body)
                    self.response_size += len(data)
                    self.connection.transport.write(data)
                    self.first_byte = now = perf_counter()
                    if self.status < 500:
                        self._settle(COMPLETE, now)
                    else:
                        self._settle_soon(now)
                else:
                    self._send_first(body, more=message.get("more_body", False))
            elif self.phase == STREAMING:
                self._send_more(message.get("body", b""), more=message.get("more_body", False))
            elif self.phase == EXPECT_START:
                raise self._refuse_message(
                    "bad_message", "http.response.body was sent before http.response.start"
                )
            else:
                self._sent_late(kind)
            if self.connection.write_paused:
                await self.connection.drained()
        elif kind == "http.response.start":
            if self.phase == EXPECT_START:
                self._start(message)
            elif self.phase == DONE:
                self._sent_late(kind)
            else:
                raise self._refuse_message("duplicate_start", "http.response.start was sent twice")
        else:
            raise self._refuse_message("bad_message", f"{kind!r} is no message of an HTTP response")

    def _sent_late(self, kind: str) -> None:
        """Ignore what is sent to a client that is gone (ASGI 2.3); refuse what follows a whole response."""
        if self.ending is COMPLETE and self.response_origin == "app":
            message = f"{kind!r} was sent after the response was complete"
            self.connection.server.reporter.app_misuse(self, "send_after_close", message)
            raise ASGIMessageError(message)

    def _start(self, message: Message) -> None:
        server = self.connection.server
        key = (message["status"], *message.get("headers", ()))
        try:
            head = server.heads.get(key)
        except TypeError:  # pairs that are lists
            head = None
        if head is None:
            head = self._serialise(key[0], key[1:])
        self._head = head
        self.status = head.status
        self.response_headers = head.headers
        self.response_started = perf_counter()
        if head.close or server.draining or (self.expect_continue and not self.body_complete):
            self.keep_alive = self.plain = False
        self.phase = HELD
        held = server.held
        if not held.exchanges:
            held.release_soon()
        held.exchanges.append(self)

    def _serialise(self, status: Any, headers: tuple[Any, ...]) -> ResponseHead:
        server = self.connection.server
        if status == 101:  # RFC 9110 15.2.2: what would follow is no HTTP
            raise self._refuse_message("bad_message", "101 answers a WebSocket only, by websocket.accept")
        try:
            head = serialise_head(
                status, headers, server.default_headers, server.date, server.request_id_header
            )
        except BadResponseError as error:
            raise self._refuse_message("bad_message", str(error)) from None
        server.heads.remember((head.status, *head.headers), head)
        return head

    def flush_head(self) -> None:
        """Send the head alone: no body part followed in the loop turn of the response's start."""
        self._write_head(None)

    def _send_first(self, body: Any, *, more: bool) -> None:
        body = self._bytes_of(body)
        self._write_head(None if more else len(body), body)
        self._advance(len(body), more=more)

    def _bytes_of(self, body: Any) -> bytes:
        """Return a part of the body as bytes of its own: what the application keeps may change."""
        if body.__class__ is bytes:
            return body
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise self._refuse_message(
                "bad_message", f"the response body is {type(body).__name__}, not bytes"
            )
        return bytes(body)

    def _send_more(self, body: Any, *, more: bool) -> None:
        body = self._bytes_of(body)
        self._check_length(len(body))
        framing = self._framing
        if framing == CHUNKED:
            data = encode_chunk(body) if body else b""
            if not more:
                data += LAST_CHUNK
        else:
            data = b"" if framing == NONE else body
        if framing != NONE:
            self.response_body_size += len(body)
        if data:
            self._write(data)
        self._advance(len(body), more=more)

    def _check_length(self, size: int) -> None:
        if self._framing == LENGTH and size > self._remaining:
            self._misuse("body_too_long", "the response body is longer than its content-length")
            self.end(catalogue.APP_BODY_TOO_LONG)
            raise ASGIMessageError("the response body is longer than its content-length")

    def _advance(self, size: int, *, more: bool) -> None:
        if self._framing == LENGTH:
            self._remaining -= size
        if more:
            return
        if self._framing == LENGTH and self._remaining > 0:
            self._misuse("body_too_short", "the response body is shorter than its content-length")
            self.end(catalogue.APP_BODY_TOO_SHORT)
            raise ASGIMessageError("the response body is shorter than its content-length")
        self.phase = DONE
        if self.status < 500:
            self._settle(COMPLETE, perf_counter())
        else:
            self._settle_soon(perf_counter())

    def _write_head(self, whole_length: int | None, body: bytes = b"") -> None:
        """Send the head, and with it the first part of the body.

        Args:
            whole_length: the length of the whole body, if this part is all of it.
            body: the part.
        """
        head = self._head
        status = self.status
        length = head.content_length if head.content_length is not None else whole_length
        self._framing = framing = choose(self.method, status, self.http_version, length)
        if framing == LENGTH:
            self._remaining = length or 0
            self._check_first(len(body))
        elif framing == NONE and head.content_length is None and not (self.method == "HEAD" and length):
            length = None  # RFC 9110 8.6: only the length that a GET would have had
        lines = [head.start]
        if length is not None and not forbids_length(status):
            lines.append(b"content-length: %d\r\n" % length)
        elif framing == CHUNKED:
            lines.append(b"transfer-encoding: chunked\r\n")
        elif framing == CLOSE:
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        elif self.http_version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        if self.id_line and not head.identified:
            lines.append(self.id_line)
        if self.trace_line:
            lines.append(self.trace_line)
        lines.append(b"\r\n")
        if body and framing != NONE:
            self.response_body_size += len(body)
            lines.append(encode_chunk(body) if framing == CHUNKED else body)
        self.phase = STREAMING
        self.first_byte = perf_counter()
        self._write(b"".join(lines))

    def _check_first(self, size: int) -> None:
        if size > self._remaining:  # nothing is on the wire yet: a clean 500 is still possible
            raise self._refuse_message("body_too_long", "the response body is longer than its content-length")

    def _write(self, data: bytes) -> None:
        self.response_size += len(data)
        self.connection.transport.write(data)
