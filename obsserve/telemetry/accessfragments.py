"""The parts of access lines that many lines share, rendered once.

Owns the caches of fragments, which are bounded by count and by size of key and text, and are emptied when full.
What is cut, or too large to be kept, has no fragment: its line is rendered from its record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from obsserve.telemetry.accessfields import (
    ROUND,
    Fields,
    decimal,
    event_of,
    level_of,
    put_answer,
    put_ending,
    put_listener,
    put_method,
    put_sender,
    put_sizes,
)
from obsserve.telemetry.catalogue import LAG_FLAG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.telemetry.accessfields import AccessRecord, Level, Record
    from obsserve.telemetry.observer import Address, ExchangeView, TargetView

# method, target, route, status, version, forwarded scheme, Host; the target's identity stands for its text
RequestKey = tuple[str, "TargetView", str, int | None, str, str | None, bytes | None]
# the connection's serial, the forwarded client, whether it is trusted, User-Agent
SenderKey = tuple[int, "Address | None", bool | None, bytes | None]
# body received, body sent, request, response
SizesKey = tuple[int, int, int, int]

_CACHE_ENTRIES: Final = 1024
_SENDER_ENTRIES: Final = 4096  # one for each active connection, about 4 MiB
_KEY_LIMIT: Final = 512
# The most that each kind of fragment may hold. With 900 for the rest of a line, that is its numbers and
# the request's id (at most 128 characters, which the server has checked), a line of fragments is
# shorter than 4096 without being measured.
_ENVELOPE_LIMIT: Final = 448
_REQUEST_LIMIT: Final = 1152
_SENDER_LIMIT: Final = 1088
_ENDING_LIMIT: Final = 320


class _Seconds(dict[float, str]):
    """Seconds as text with six decimals, by `seconds * 1e6 + ROUND`; kept below 8 ms.

    To look it up costs less than to format a float, and a line has eight of them.
    """

    def __missing__(self, key: float) -> str:
        micros = key - ROUND
        text = decimal(micros)
        if 0 <= micros < 8192:
            self[key] = text
        return text


def _make_room(cache: dict[Any, Any], entries: int | None = None) -> None:
    if len(cache) >= (_CACHE_ENTRIES if entries is None else entries):
        cache.clear()


SECONDS: Final = _Seconds()


def ending_key(view: ExchangeView, lag: float) -> object:
    return (
        view.outcome,
        view.response_origin,
        view.ending.detail,
        view.error_type,
        view.disconnect_phase,
        lag > LAG_FLAG_SECONDS,
        *view.flags,
    )


def _remember(cache: dict[Any, str], key: object, size: int, text: str | None, limit: int) -> bool:
    """Keep a fragment; False when it has none, because something is cut, or is too large to be kept."""
    if text is None or len(text) > limit or size > _KEY_LIMIT:
        return False
    _make_room(cache)
    cache[key] = text
    return True


class Fragments:
    """The fragments of the lines of one access log.

    Args:
        record: says what they hold.
        render: makes members of a JSON object of fields.
    """

    def __init__(self, record: AccessRecord, render: Callable[[Record], str]) -> None:
        self._record = record
        self._members = render
        self._envelopes: dict[tuple[str, str], str] = {}
        self._requests: dict[RequestKey, str] = {}
        self._senders: dict[SenderKey, tuple[str, str, str]] = {}
        self._sizes: dict[SizesKey, str] = {}
        self._endings: dict[object, str] = {}

    def _prepare(self, view: ExchangeView, lag: float) -> bool:
        """Render every fragment that the line of this exchange needs; False when one cannot be kept."""
        kind = (level_of(view), event_of(view))
        ending = ending_key(view, lag)
        return (
            (kind in self._envelopes or self._prepare_envelope(*kind))
            and (ending in self._endings or self._prepare_ending(ending, view, lag))
            and self._prepare_request(view)
            and self._prepare_sender(view)
            and self._prepare_sizes(view)
        )

    def _prepare_envelope(self, level: Level, event: str) -> bool:
        fields = Fields()
        self._record.put_envelope(fields, level, event)
        text = f'Z"{self._members(fields.values)},"request_id":"'
        return not fields.cut and _remember(self._envelopes, (level, event), 0, text, _ENVELOPE_LIMIT)

    def _prepare_ending(self, key: object, view: ExchangeView, lag: float) -> bool:
        fields = Fields()
        put_ending(fields, view, lag)
        text = None if fields.cut else f"{self._members(fields.values)}}}\n"
        return _remember(self._endings, key, len(view.error_type or ""), text, _ENDING_LIMIT)

    def _prepare_request(self, view: ExchangeView) -> bool:
        host = view.fields.get(b"host")
        assert view.parts is not None
        key = (
            view.method,
            view.parts,
            view.route,
            view.status,
            view.http_version,
            view.forwarded_scheme,
            host,
        )
        if key in self._requests:
            return True
        fields = Fields()
        put_method(fields, view.method, view.scheme)
        self._record.put_target(fields, view.raw_path, view.query_string)
        put_answer(fields, view.route, view.status, view.http_version, host)
        size = len(view.raw_path) + len(view.query_string) + len(host or b"")
        text = None if fields.cut else f'"{self._members(fields.values)}'
        return _remember(self._requests, key, size, text, _REQUEST_LIMIT)

    def _prepare_sender(self, view: ExchangeView) -> bool:
        connection, agent = view.connection, view.fields.get(b"user-agent")
        key = (connection.serial, view.forwarded_client, view.forwarded_trusted, agent)
        if key in self._senders:
            return True
        sender, about, listener = Fields(), Fields(), Fields()
        put_sender(sender, view)
        about.text("connection_id", connection.id)
        put_listener(listener, connection)
        texts = (
            self._members(sender.values),
            f'{self._members(about.values)},"connection_request":',
            self._members(listener.values),
        )
        if sender.cut or about.cut or listener.cut or sum(map(len, texts)) > _SENDER_LIMIT:
            return False
        _make_room(self._senders, _SENDER_ENTRIES)
        self._senders[key] = texts
        return True

    def _prepare_sizes(self, view: ExchangeView) -> bool:
        fields = Fields()
        put_sizes(fields, view)
        key = (view.request_body_size, view.response_body_size, view.request_size, view.response_size)
        return _remember(self._sizes, key, 0, self._members(fields.values), _REQUEST_LIMIT)
