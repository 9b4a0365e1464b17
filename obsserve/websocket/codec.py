"""The frame codec's interface and its two adapters, websockets (default) and wsproto.

A codec turns bytes into calls on its `CodecEvents` and messages into bytes for `write`. It knows frames,
masks, fragments, compression and the closing handshake; it knows no ASGI and no clock.

Speed: `WebsocketsCodec` reads and writes small unfragmented frames itself, because that is what nearly all
frames are, and hands everything else to the library frame by frame
(`python -m loadtests.bench websocket`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

# Close codes (RFC 6455 7.4.1).
NORMAL: Final = 1000
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012

# Messages below this are not worth compressing (the default of ws for Node.js).
COMPRESS_FROM: Final = 1024
# Frames up to this are read by the short path; longer ones are the library's.
SHORT_FRAME: Final = 65535


class CodecEvents(Protocol):
    """What a codec calls."""

    def on_message(self, data: str | bytes, size: int) -> None: ...
    def on_pong(self, payload: bytes) -> None: ...
    def on_close(self, code: int, reason: str) -> None:
        """The peer closed; the answer is written already."""
        ...

    def on_failure(self, code: int, reason: str) -> None:
        """The peer broke the protocol; the close frame is written already."""
        ...


class Codec(Protocol):
    """Frames of one connection."""

    def feed(self, data: bytes) -> None: ...
    def send_text(self, text: str) -> int:
        """Send a message; return the size of its payload in bytes."""
        ...

    def send_bytes(self, data: bytes) -> None: ...
    def send_ping(self, payload: bytes) -> None: ...
    def send_close(self, code: int, reason: str) -> None: ...


CodecMaker = Any


class WebsocketsCodec:
    """Adapter for the sans-I/O core of `websockets`.

    Args:
        events: told of what arrives.
        write: takes bytes for the peer.
        max_size: the largest message in bytes; a larger one is closed with 1009.
        extensions: as negotiated.
    """

    def __init__(
        self, events: CodecEvents, write: Callable[[bytes], object], max_size: int, extensions: list[Any]
    ) -> None:
        from websockets.frames import Opcode  # noqa: PLC0415 - not installed everywhere
        from websockets.protocol import Protocol as Library  # noqa: PLC0415
        from websockets.protocol import Side, State  # noqa: PLC0415

        self._events = events
        self._write = write
        self._max_size = max_size
        self._apply_mask = _unmasking()
        self._opcode = Opcode
        self._open = State.OPEN
        self._library = Library(Side.SERVER, state=State.OPEN, max_size=max_size)
        self._library.extensions = extensions
        self._compresses = bool(extensions)
        self._tail = b""
        self._library_needs = 0
        self._fragments: list[bytes] = []
        self._fragments_text = False
        self._ended = False

    # --- reading -----------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        position = 0
        end = len(data)
        while position < end and not self._ended:
            if self._library_needs:
                taken = min(self._library_needs, end - position)
                self._library_needs -= taken
                self._feed_library(data[position : position + taken])
                position += taken
                continue
            # One frame: two bytes, two or eight of length, four of mask, payload (RFC 6455 5.2).
            if end - position < 2:
                break
            first, length = data[position], data[position + 1]
            if length < 128:  # not masked: the library says what is wrong
                self._library_needs = 2
                continue
            if end - position < 6:
                break
            length -= 128
            header = 6
            if length == 126:
                header = 8
                if end - position < 8:
                    break
                length = data[position + 2] << 8 | data[position + 3]
            elif length == 127:
                header = 14
                if end - position < 14:
                    break
                length = int.from_bytes(data[position + 2 : position + 10], "big")
            whole = header + length
            if (
                (first == 0x81 or first == 0x82)  # noqa: PLR1714 - twice as fast as `in`
                and header != 14
                and length <= self._max_size
                and self._library.current_size is None
            ):
                if end - position < whole:
                    break
                start = position + header
                payload = self._apply_mask(data[start : position + whole], data[start - 4 : start])
                position += whole
                self._deliver(payload, text=first == 0x81)
            else:
                self._library_needs = whole
        if position < end and not self._ended:
            self._tail = data[position:] if position else data

    def _deliver(self, payload: bytes, *, text: bool) -> None:
        if not text:
            self._events.on_message(payload, len(payload))
            return
        try:
            decoded = payload.decode()
        except UnicodeDecodeError:
            self._fail(INVALID_DATA, "invalid UTF-8")
            return
        self._events.on_message(decoded, len(payload))

    def _feed_library(self, data: bytes) -> None:
        library = self._library
        library.receive_data(data)
        frames: list[Any] = library.events_received()
        opcode = self._opcode
        close: Any = None
        for frame in frames:
            kind = frame.opcode
            if kind is opcode.PONG:
                self._events.on_pong(bytes(frame.data))
            elif kind is opcode.CLOSE:
                close = library.close_rcvd
            elif kind in (opcode.TEXT, opcode.BINARY, opcode.CONT):
                self._collect(frame)
                if self._ended:
                    return
        self._flush()
        if library.parser_exc is not None:
            self._ended = True
            sent = library.close_sent
            self._events.on_failure(
                sent.code if sent is not None else ABNORMAL, sent.reason if sent is not None else ""
            )
        elif close is not None:
            self._ended = True
            self._events.on_close(int(close.code), close.reason)

    def _collect(self, frame: Any) -> None:
        """Put a fragmented message together."""
        if frame.opcode is not self._opcode.CONT:
            self._fragments_text = frame.opcode is self._opcode.TEXT
        if frame.fin and not self._fragments:
            self._deliver(bytes(frame.data), text=self._fragments_text)
            return
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            payload, self._fragments = b"".join(self._fragments), []
            self._deliver(payload, text=self._fragments_text)

    def _fail(self, code: int, reason: str) -> None:
        self._ended = True
        self._library.fail(code, reason)
        self._flush()
        self._events.on_failure(code, reason)

    # --- writing -----------------------------------------------------------------------------

    def send_text(self, text: str) -> int:
        data = text.encode()
        self._send(0x81, data)
        return len(data)

    def send_bytes(self, data: bytes) -> None:
        self._send(0x82, data)

    def _send(self, first: int, data: bytes) -> None:
        size = len(data)
        if self._compresses and size >= COMPRESS_FROM:
            if first == 0x81:
                self._library.send_text(data)
            else:
                self._library.send_binary(data)
            self._flush()
        elif size < 126:
            self._write(bytes((first, size)) + data)
        elif size < 65536:
            self._write(bytes((first, 126, size >> 8, size & 255)) + data)
        else:
            self._write(bytes((first, 127)) + size.to_bytes(8, "big") + data)

    def send_ping(self, payload: bytes) -> None:
        if self._library.state is self._open:
            self._library.send_ping(payload)
            self._flush()

    def send_close(self, code: int, reason: str) -> None:
        if self._library.state is self._open:
            self._library.send_close(code, reason)
            self._flush()

    def _flush(self) -> None:
        # An empty part asks for the end of the stream, which is the connection's to decide.
        data = b"".join(self._library.data_to_send())
        if data:
            self._write(data)


def _unmasking() -> Callable[[bytes, bytes], bytes]:
    """Return what takes a frame's mask off: compiled where websockets was built with its extension."""
    try:
        from websockets.speedups import apply_mask  # noqa: PLC0415 - not installed everywhere
    except ImportError:
        from websockets.utils import apply_mask  # noqa: PLC0415
    return apply_mask


class WsprotoCodec:
    """Adapter for wsproto; see `WebsocketsCodec` for the arguments."""

    def __init__(
        self, events: CodecEvents, write: Callable[[bytes], object], max_size: int, extensions: list[Any]
    ) -> None:
        from wsproto.connection import Connection, ConnectionState, ConnectionType  # noqa: PLC0415

        self._events = events
        self._write = write
        self._max_size = max_size
        for extension in extensions:
            extension.max_size = max_size
        self._library = Connection(ConnectionType.SERVER, extensions)
        self._open = ConnectionState.OPEN
        self._parts: list[Any] = []
        self._size = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        from wsproto import events  # noqa: PLC0415
        from wsproto.utilities import ProtocolError, RemoteProtocolError  # noqa: PLC0415

        if self._ended:
            return
        try:
            self._library.receive_data(data)
            for event in self._library.events():
                if isinstance(event, events.Message):
                    self._collect(event)
                elif isinstance(event, events.Ping):
                    self._write(self._library.send(event.response()))
                elif isinstance(event, events.Pong):
                    self._events.on_pong(bytes(event.payload))
                elif isinstance(event, events.CloseConnection):
                    if self._library.state is self._open:  # wsproto's way to say that the peer is wrong
                        self._fail(int(event.code), event.reason or "")
                        return
                    self._ended = True
                    if self._library.state is not self._library.state.CLOSED:
                        self._write(self._library.send(event.response()))
                    self._events.on_close(int(event.code), event.reason or "")
                if self._ended:
                    return
        except (RemoteProtocolError, ProtocolError) as error:
            hint = getattr(error, "event_hint", None)
            self._fail(int(getattr(hint, "code", 1002)), str(error))

    def _collect(self, event: Any) -> None:
        self._parts.append(event.data)
        self._size += len(event.data.encode() if isinstance(event.data, str) else event.data)
        if self._size > self._max_size:
            self._fail(TOO_BIG, f"message over {self._max_size} bytes")
        elif event.message_finished:
            parts, self._parts = self._parts, []
            size, self._size = self._size, 0
            whole = "".join(parts) if isinstance(parts[0], str) else b"".join(bytes(part) for part in parts)
            self._events.on_message(whole, size)

    def _fail(self, code: int, reason: str) -> None:
        self._ended = True
        self.send_close(code, reason)
        self._events.on_failure(code, reason)

    def send_text(self, text: str) -> int:
        from wsproto.events import TextMessage  # noqa: PLC0415

        self._write(self._library.send(TextMessage(text)))
        return len(text.encode())

    def send_bytes(self, data: bytes) -> None:
        from wsproto.events import BytesMessage  # noqa: PLC0415

        self._write(self._library.send(BytesMessage(data)))

    def send_ping(self, payload: bytes) -> None:
        from wsproto.events import Ping  # noqa: PLC0415

        if self._library.state is self._open:
            self._write(self._library.send(Ping(payload)))

    def send_close(self, code: int, reason: str) -> None:
        from wsproto.events import CloseConnection  # noqa: PLC0415

        if self._library.state is self._open:
            self._write(self._library.send(CloseConnection(code, reason)))


def negotiate_websockets(offer: bytes) -> tuple[bytes | None, list[Any]]:
    """Return the answer to a Sec-WebSocket-Extensions offer, and the extensions to use."""
    from websockets.exceptions import InvalidHeader, NegotiationError  # noqa: PLC0415
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory  # noqa: PLC0415
    from websockets.headers import build_extension, parse_extension  # noqa: PLC0415

    # uvicorn's parameters: 4 KiB windows hold the memory of a connection near 16 KiB.
    factory = ServerPerMessageDeflateFactory(
        server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
    )
    try:
        offers = parse_extension(offer.decode("latin-1"))
    except InvalidHeader:
        return None, []
    for name, parameters in offers:
        # A window of 8 bits can be read, but zlib cannot write one.
        if name == factory.name and ("server_max_window_bits", "8") not in parameters:
            try:
                answer, extension = factory.process_request_params(parameters, [])
            except NegotiationError:
                continue
            return build_extension([(name, answer)]).encode(), [extension]
    return None, []


def negotiate_wsproto(offer: bytes) -> tuple[bytes | None, list[Any]]:
    """Likewise, for wsproto."""
    from obsserve.websocket.deflate import BoundedDeflate, agree  # noqa: PLC0415 - it needs wsproto

    agreement = agree(offer.decode("latin-1"))
    if agreement is None:
        return None, []
    return agreement.answer().encode(), [BoundedDeflate(agreement, COMPRESS_FROM)]


def codec_named(name: str) -> tuple[Any, Any] | None:
    """Return the codec and its negotiation for a `--ws` value; None when WebSockets are off.

    Raises:
        ImportError: the library that is asked for is not installed.
    """
    from importlib.util import find_spec  # noqa: PLC0415

    found = {library: find_spec(library) is not None for library in ("websockets", "wsproto")}
    if name == "auto":
        name = next((library for library, there in found.items() if there), "none")
    if name == "none":
        return None
    if name == "websockets-sansio":  # uvicorn's word for it
        name = "websockets"
    if not found[name]:
        raise ImportError(f'{name} is not installed: choose another --ws, or run "pip install {name}"')
    if name == "websockets":
        return WebsocketsCodec, negotiate_websockets
    return WsprotoCodec, negotiate_wsproto
