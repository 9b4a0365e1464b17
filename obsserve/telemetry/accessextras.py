"""What a line of the access log holds beyond its own fields: captured headers, and its weight.

`LineExtras` says what they are; `ExtendedAccessLog` puts them behind the fields of the fast line, so that those
who ask for them pay for them alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from obsserve.telemetry.accessfields import Fields
from obsserve.telemetry.accesslog import AccessLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from obsserve.telemetry.accessfields import Level
    from obsserve.telemetry.hooks import ExchangeHook
    from obsserve.telemetry.observer import ExchangeView, Headers
    from obsserve.telemetry.redact import HeaderPolicy

    Capture = dict[bytes, tuple[str, Callable[[bytes], str]]]

# How many values of one header stand in a line.
_MOST_VALUES: Final = 8


class LineExtras:
    """Puts captured headers and the line's weight into its fields.

    Args:
        request_headers: names of request headers to capture, in lower case.
        response_headers: likewise, of response headers.
        policy: what of their values may be shown.
    """

    def __init__(
        self, request_headers: Iterable[str], response_headers: Iterable[str], policy: HeaderPolicy
    ) -> None:
        self._request = _capture("http_request_header_", request_headers, policy)
        self._response = _capture("http_response_header_", response_headers, policy)
        self.sample_rate = 1.0

    def put(self, fields: Fields, view: ExchangeView) -> None:
        """Add to the fields of a line what this exchange has of it."""
        if self._request:
            _put_headers(fields, self._request, view.request_headers)
        if self._response:
            _put_headers(fields, self._response, view.response_headers)
        if self.sample_rate < 1:
            fields.values["sample_rate"] = self.sample_rate


def _capture(start: str, names: Iterable[str], policy: HeaderPolicy) -> Capture:
    return {
        name.encode("latin-1"): (start + name.lower().replace("-", "_"), policy.shown(name)) for name in names
    }


def _put_headers(fields: Fields, wanted: Capture, headers: Headers) -> None:
    for name, value in headers:
        found = wanted.get(name) or wanted.get(name.lower())
        if found is not None:
            fields.item(found[0], found[1](value), _MOST_VALUES)


class ExtendedAccessLog(AccessLog):
    """The access log, with what `LineExtras` adds to its lines."""

    def __init__(self, *args: Any, extras: LineExtras, **named: Any) -> None:
        self._extras = extras
        # Whose line is being rendered from fragments, and lacks what is added.
        self._incomplete: ExchangeView | None = None
        super().__init__(*args, extras=extras, **named)
        if self.format == "json":
            self._write_base: ExchangeHook = self._write_long if self._has_short_way else self._write_whole
            self.exchange_ended = self._write_extended

    def _write_extended(self, view: ExchangeView) -> None:
        self._incomplete = view
        try:
            self._write_base(view)
        finally:
            self._incomplete = None

    def _add(self, line: str, level: Level) -> None:
        """Add a line, with what it lacks before its last brace."""
        view, self._incomplete = self._incomplete, None
        if view is not None:
            fields = Fields()
            self._extras.put(fields, view)
            if fields.values:
                line = f"{line[:-2]}{self._members(fields.values)}}}\n"
                if fields.cut or len(line) > self._limit:
                    self._write_whole(view)
                    return
        super()._add(line, level)

    def _write_whole(self, view: ExchangeView) -> None:
        self._incomplete = None  # a record has everything
        super()._write_whole(view)
