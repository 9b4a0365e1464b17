"""Both codecs against RFC 6455 and 7692: any split of the bytes gives the same events, and each fault its code.

The cases are those of the Autobahn test suite's chapters 1 to 7, 9 (limits) and 12 (compression), on frames that
are made here and not by a library.
"""

from __future__ import annotations

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obsserve.websocket.codec import codec_named

CODECS = ("websockets", "wsproto")
TEXT, BINARY, CONTINUED, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
MAX_SIZE = 100_000


def frame(opcode, payload=b"", *, fin=True, rsv=0, mask=b"\x01\x02\x03\x04", masked=True, length_bytes=None):
    """A client's frame (RFC 6455 5.2)."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    marker = {0: size, 2: 126, 8: 127}[length_bytes]
    head = bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | marker])
    if length_bytes:
        head += size.to_bytes(length_bytes, "big")
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def close(code, reason=b""):
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def server_frames(data):
    """What the server wrote, as (first byte, payload)."""
    found = []
    while data:
        first, size, head = data[0], data[1], 2
        assert size < 128, "a server masks nothing"
        if size == 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[2:10], "big"), 10
        found.append((first, data[head : head + size]))
        data = data[head + size :]
    return found


class Peer:
    """A codec, and all that it told and wrote."""

    def __init__(self, name, *, max_size=MAX_SIZE, offer=None):
        self.events = []
        self.written = b""
        make, negotiate = codec_named(name)
        self.answer, extensions = negotiate(offer) if offer else (None, [])
        self.codec = make(self, self.write, max_size, extensions)

    def write(self, data):
        self.written += data

    def on_message(self, data, size):
        assert size == len(data.encode() if isinstance(data, str) else data)
        self.events.append(("message", data))

    def on_pong(self, payload):
        self.events.append(("pong", payload))

    def on_close(self, code, reason):
        self.events.append(("close", code, reason))

    def on_failure(self, code, reason):
        self.events.append(("failure", code))

    def feed(self, data, cuts=()):
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, end in zip(edges, edges[1:], strict=False):
            self.codec.feed(data[start:end])
        return self


def code_sent(peer):
    """The code of the close frame that the server wrote last."""
    first, payload = server_frames(peer.written)[-1]
    assert first == 0x88
    return int.from_bytes(payload[:2], "big")


# --- what is right --------------------------------------------------------------------------------

sizes = st.sampled_from([0, 1, 2, 7, 124, 125, 126, 127, 128, 4000, 65535, 65536, 70000])
texts = st.text(max_size=60) | sizes.map(lambda size: "x" * size)
payloads = st.binary(max_size=200) | sizes.map(lambda size: bytes(size))
masks = st.binary(min_size=4, max_size=4)
small = st.binary(max_size=125)
cuts = st.lists(st.integers(0, 1 << 20), max_size=12) | st.just(range(0, 1 << 12))


@st.composite
def conversations(draw):
    """Frames of a client, and the events and pongs that they stand for."""
    data, events, pongs = b"", [], []

    def control():
        nonlocal data
        if draw(st.booleans()):
            payload, opcode = draw(small), draw(st.sampled_from([PING, PONG]))
            data += frame(opcode, payload, mask=draw(masks))
            (pongs if opcode == PING else events).append(payload if opcode == PING else ("pong", payload))

    for _ in range(draw(st.integers(0, 5))):
        control()
        text = draw(st.booleans())
        message = draw(texts) if text else draw(payloads)
        payload = message.encode() if text else message
        pieces = [0, *sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3))), len(payload)]
        parts = [payload[start:end] for start, end in zip(pieces, pieces[1:], strict=False)]
        for index, part in enumerate(parts):
            opcode = CONTINUED if index else TEXT if text else BINARY
            data += frame(opcode, part, fin=index == len(parts) - 1, mask=draw(masks))
            if index < len(parts) - 1:
                control()  # between the fragments of a message (5.4)
        events.append(("message", message))
    control()
    if draw(st.booleans()):
        code = draw(st.sampled_from([1000, 1001, 1003, 1007, 1011, 3000, 3999, 4000, 4999]))
        reason = draw(st.text(max_size=30))
        data += close(code, reason.encode()) + draw(st.binary(max_size=30))
        events.append(("close", code, reason))
    return data, events, pongs


@pytest.mark.parametrize("name", CODECS)
@given(conversations(), cuts)
@settings(max_examples=150, deadline=None)
def test_any_split_gives_the_same_events(name, conversation, cuts):
    data, events, pongs = conversation
    peer = Peer(name).feed(data, cuts)
    assert peer.events == events
    answers = server_frames(peer.written)
    assert [payload for first, payload in answers if first == 0x8A] == pongs
    closes = [payload for first, payload in answers if first == 0x88]
    assert len(closes) == (1 if events and events[-1][0] == "close" else 0), "the close is answered, once"


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("length_bytes", [2, 8])
def test_a_length_in_more_bytes_than_it_needs(name, length_bytes):
    """The minimum is a duty of senders (5.2); what is read is the same however it was written."""
    peer = Peer(name).feed(frame(TEXT, b"hi", length_bytes=length_bytes))
    assert peer.events in ([("message", "hi")], [("failure", 1002)])


@pytest.mark.parametrize("name", CODECS)
def test_a_close_without_a_code(name):
    peer = Peer(name).feed(frame(CLOSE))
    assert peer.events == [("close", 1005, "")]
    assert server_frames(peer.written)[-1][0] == 0x88


# --- what is wrong --------------------------------------------------------------------------------

SPLIT = "κόσμε".encode()
WRONG = {
    **{f"reserved bits {rsv}": (frame(TEXT, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"reserved bits {rsv} of a ping": (frame(PING, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"opcode {opcode}": (frame(opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "not masked": (frame(TEXT, b"x", masked=False), 1002),
    "a ping that is not masked": (frame(PING, masked=False), 1002),
    "a close that is not masked": (frame(CLOSE, masked=False), 1002),
    "a long ping": (frame(PING, bytes(126)), 1002),
    "a long close": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "a ping in fragments": (frame(PING, b"x", fin=False), 1002),
    "a close in fragments": (frame(CLOSE, fin=False), 1002),
    "a continuation of nothing": (frame(CONTINUED, b"x"), 1002),
    "a continuation behind a message": (frame(TEXT, b"x") + frame(CONTINUED, b"x"), 1002),
    "a message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
    "another kind within a message": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"x"), 1002),
    "the highest bit of the length": (b"\x82\xff" + (1 << 63).to_bytes(8, "big") + bytes(4), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    **{f"close code {code}": (close(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)},
    "a reason that is no UTF-8": (close(1000, b"\xff\xfe"), 1007),
    "no UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "UTF-8 that stops": (frame(TEXT, SPLIT[:-1]), 1007),
    "a surrogate in UTF-8": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "more than Unicode has": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "an overlong form": (frame(TEXT, b"\xc0\xaf"), 1007),
    "no UTF-8 over fragments": (
        frame(TEXT, SPLIT[:3], fin=False) + frame(PING) + frame(CONTINUED, b"\xff" + SPLIT[3:]), 1007,
    ),
    "UTF-8 over fragments that stops": (
        frame(TEXT, SPLIT[:3], fin=False) + frame(CONTINUED, SPLIT[3:-1]), 1007,
    ),
    "too long": (frame(BINARY, bytes(MAX_SIZE + 1)), 1009),
    "too long in fragments": (
        frame(BINARY, bytes(MAX_SIZE // 2), fin=False) * 1
        + frame(CONTINUED, bytes(MAX_SIZE // 2), fin=False)
        + frame(CONTINUED, b"x"), 1009,
    ),
    "too long by what it announces": (b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4) + bytes(MAX_SIZE + 1), 1009),
}  # fmt: skip


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("cuts", [(), range(1, 300)], ids=["whole", "byte by byte"])
def test_what_is_wrong_has_its_code(name, case, cuts):
    data, code = WRONG[case]
    peer = Peer(name).feed(data, cuts)
    # Of a length that nothing can have, either may be said.
    codes = (1002, 1009) if case == "the highest bit of the length" else (code,)
    assert peer.events[-1][0] == "failure", peer.events
    assert peer.events[-1][1] == code_sent(peer)
    assert code_sent(peer) in codes
    told, written = list(peer.events), peer.written
    peer.feed(frame(TEXT, b"behind it"))
    assert (peer.events, peer.written) == (told, written), "what follows a failure is not read"


@pytest.mark.parametrize("name", CODECS)
def test_what_is_right_before_a_fault_counts(name):
    peer = Peer(name).feed(frame(TEXT, b"hello") + frame(PING, b"p") + frame(TEXT, b"x", rsv=7))
    assert peer.events == [("message", "hello"), ("failure", 1002)]
    assert server_frames(peer.written)[0] == (0x8A, b"p")


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("offer", [None, b"permessage-deflate"])
@given(st.binary(max_size=400), cuts)
@settings(max_examples=300, deadline=None)
def test_garbage_never_raises(name, offer, data, cuts):
    peer = Peer(name, offer=offer).feed(data, cuts)
    ends = [event for event in peer.events if event[0] in ("failure", "close")]
    assert len(ends) <= 1
    assert not ends or peer.events[-1] == ends[0]
    server_frames(peer.written)


@pytest.mark.parametrize("name", CODECS)
@given(conversations(), st.integers(0, 1 << 20), st.integers(1, 255), cuts)
@settings(max_examples=100, deadline=None)
def test_a_damaged_byte_never_raises(name, conversation, position, change, cuts):
    data = bytearray(conversation[0])
    if data:
        data[position % len(data)] ^= change
    peer = Peer(name).feed(bytes(data), cuts)
    assert sum(event[0] in ("failure", "close") for event in peer.events) <= 1


# --- compression ----------------------------------------------------------------------------------


def deflated(data, *, bits=15):
    """A message's payload as RFC 7692 7.2.1 has it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("name", CODECS)
@given(st.lists(texts, min_size=1, max_size=4), cuts)
@settings(max_examples=60, deadline=None)
def test_compressed_messages(name, messages, cuts):
    peer = Peer(name, offer=b"permessage-deflate; client_no_context_takeover")
    assert peer.answer is not None
    data = b""
    for message in messages:
        whole = deflated(message.encode(), bits=12 if b"client_max_window_bits" in peer.answer else 15)
        half = len(whole) // 2
        data += frame(TEXT, whole[:half], rsv=4, fin=False) + frame(PING) + frame(CONTINUED, whole[half:])
    assert peer.feed(data, cuts).events == [("message", message) for message in messages]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("forget", [b"", b"; server_no_context_takeover; client_no_context_takeover"])
def test_every_window(name, bits, forget):
    """Declined, or spoken."""
    offer = b"permessage-deflate; server_max_window_bits=%d; client_max_window_bits=%d%b" % (
        bits,
        bits,
        forget,
    )
    peer = Peer(name, offer=offer)
    if peer.answer is None:
        return
    assert (b"server_no_context_takeover" in peer.answer) == bool(forget)
    text = "".join(f"{number} " for number in range(3000))
    for _ in range(2):
        peer.codec.send_text(text)
    if b"client_no" in peer.answer or not forget:
        peer.feed(frame(TEXT, deflated(text.encode(), bits=max(min(bits, 12), 9)), rsv=4))
        assert peer.events == [("message", text)]
    inflate = zlib.decompressobj(-max(bits, 9))
    for _, payload in server_frames(peer.written):
        if forget:
            inflate = zlib.decompressobj(-max(bits, 9))
        assert inflate.decompress(payload + b"\0\0\xff\xff").decode() == text


@pytest.mark.parametrize("name", CODECS)
def test_messages_that_are_not_compressed_beside_ones_that_are(name):
    peer = Peer(name, offer=b"permessage-deflate")
    peer.feed(frame(TEXT, b"plain") + frame(TEXT, deflated(b"small"), rsv=4) + frame(BINARY, b"plain"))
    assert [data for _, data in peer.events] == ["plain", "small", b"plain"]


@pytest.mark.parametrize("name", CODECS)
def test_what_is_sent_can_be_read(name):
    peer = Peer(name, offer=b"permessage-deflate")
    sent = ["short", "x" * 5000, "ü" * 3000]
    for text in sent:
        assert peer.codec.send_text(text) == len(text.encode())
    peer.codec.send_bytes(bytes(5000))
    inflate = zlib.decompressobj(-15)
    found = []
    for first, payload in server_frames(peer.written):
        data = payload
        if first & 0x40:
            data = inflate.decompress(payload + b"\0\0\xff\xff")
        found.append(data.decode() if first & 15 == TEXT else data)
    assert found == [*sent, bytes(5000)]


@pytest.mark.parametrize("name", CODECS)
def test_what_is_no_deflate_stream(name):
    peer = Peer(name, offer=b"permessage-deflate").feed(frame(BINARY, b"\xff" * 50, rsv=4))
    (event,) = peer.events
    assert event[0] == "failure"
    assert event[1] in (1002, 1007, 1011)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("fragments", [1, 5])
def test_a_bomb_is_bounded(name, fragments):
    """64 MiB of zeros in 64 KiB: refused with 1009 before they are in memory."""
    bomb = deflated(bytes(1 << 26), bits=12)
    step = -(-len(bomb) // fragments)
    parts = [bomb[start : start + step] for start in range(0, len(bomb), step)]
    mask = os.urandom(4)
    data = [
        frame(
            CONTINUED if index else BINARY,
            part,
            rsv=0 if index else 4,
            fin=index == len(parts) - 1,
            mask=mask,
        )
        for index, part in enumerate(parts)
    ]
    peer = Peer(name, offer=b"permessage-deflate")
    tracemalloc.start()
    try:
        for each in data:
            peer.feed(each, range(0, len(each), 65536))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peer.events == [("failure", 1009)]
    assert code_sent(peer) == 1009
    assert peak < 8 << 20


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "offer",
    [
        b"permessage-deflate; server_max_window_bits=7",
        b"permessage-deflate; client_max_window_bits=99",
        b"permessage-deflate; client_max_window_bits=x",
        b"permessage-deflate; unheard_of",
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        b"x-webkit-deflate-frame",
        b";;;",
        b"permessage-deflate; server_max_window_bits",
        b"\xff",
    ],
)
def test_an_offer_that_cannot_be_taken(name, offer):
    """RFC 7692 7.1: declined, and the WebSocket opens without compression."""
    peer = Peer(name, offer=offer)
    assert peer.answer is None
    assert peer.feed(frame(TEXT, b"x")).events == [("message", "x")]


@pytest.mark.parametrize("name", CODECS)
def test_the_next_offer_is_taken_then(name):
    peer = Peer(name, offer=b"permessage-deflate; server_max_window_bits=7, permessage-deflate")
    assert peer.answer is not None
    assert peer.feed(frame(TEXT, deflated(b"x"), rsv=4)).events == [("message", "x")]
