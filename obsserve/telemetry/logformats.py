"""`--access-log-format`: the access line as Apache or gunicorn would write it.

Owns the lines that are rendered and not yet handed to the sink. Rules:
- What comes from the client is escaped as Apache escapes it: one exchange is one line of ASCII, whatever
  it sends, and a quote in a header does not end a quoted field.
- The query follows `--log-query`, as everywhere. The user's name of Basic credentials is shown, as a claim;
  a header that carries a secret is shown as REDACTED.
- Times are local, as in both models.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from obsserve.accessformat import parse_access_format
from obsserve.telemetry.logsink import NoCounters, line_format
from obsserve.telemetry.redact import redaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.accessformat import Atom, ParsedFormat
    from obsserve.telemetry.logsink import LogCounters, LogSettings, LogSink
    from obsserve.telemetry.observer import Address, ExchangeView, Headers, WallClock
    from obsserve.telemetry.redact import Redaction

    Renderer = Callable[["ExchangeView"], str]

# Handed to the sink when so many lines wait even between two ticks.
HANDOVER_LINES: Final = 64
_LONGEST_VALUE: Final = 2048
_APACHE_TIME: Final = "[%d/%b/%Y:%H:%M:%S %z]"
_TO_ESCAPE: Final = re.compile(r"[^ !#-\[\]-~]")
_NAMED_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_FRACTIONS: Final = {"sec": 1.0, "msec": 1e3, "usec": 1e6}


def escaped(value: str | bytes) -> str:
    """Return printable ASCII in which quotes, backslashes and everything else stand escaped."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if len(text) > _LONGEST_VALUE:
        text = text[:_LONGEST_VALUE]
    return _TO_ESCAPE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    named = _NAMED_ESCAPES.get(character)
    if named is not None:
        return named
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


class AccessFormat:
    """Renders exchanges in a format.

    Args:
        parsed: the format.
        policy: what may be said.
        clock: turns the exchanges' times into wall-clock time.
    """

    def __init__(self, parsed: ParsedFormat, policy: Redaction, clock: WallClock) -> None:
        self._policy = policy
        self._clock = clock
        self._second = -1
        self._time = ""
        gunicorn = parsed.language == "gunicorn"
        self._pieces: list[str | Renderer] = [
            piece if isinstance(piece, str) else self._renderer(piece, gunicorn=gunicorn)
            for piece in parsed.pieces
        ]

    def line(self, view: ExchangeView) -> str:
        """Return the line of an exchange that has ended, without a newline."""
        return "".join([piece if isinstance(piece, str) else piece(view) for piece in self._pieces])

    def _renderer(self, atom: Atom, *, gunicorn: bool) -> Renderer:
        render = (_gunicorn if gunicorn else _apache)(atom, self)
        if atom.padding:
            return lambda view: f"%{atom.padding}s" % render(view)
        if not atom.statuses:
            return render
        return lambda view: render(view) if (view.status in atom.statuses) is not atom.unless else "-"

    # --- what needs policy or clock ----------------------------------------------------------

    def query(self, view: ExchangeView) -> str:
        if not view.query_string:
            return ""
        return escaped(self._policy.query.apply(view.query_string.decode("latin-1")) or "")

    def question(self, view: ExchangeView) -> str:
        """Return the query with its question mark."""
        query = self.query(view)
        return f"?{query}" if query else ""

    def target(self, view: ExchangeView) -> str:
        return escaped(view.raw_path) + self.question(view)

    def request_line(self, view: ExchangeView) -> str:
        if not view.method:
            return "-"
        return f"{escaped(view.method)} {self.target(view)} {_protocol(view)}".rstrip()

    def client(self, view: ExchangeView) -> str:
        return self._address(view.client)

    def peer(self, view: ExchangeView) -> str:
        return self._address(view.connection.peer)

    def _address(self, address: Address | None) -> str:
        text = self._policy.address_text(address[0]) if address else None
        return escaped(text) if text else "-"

    def given(self, kind: str, name: str) -> Renderer:
        """Return what renders a request header (i), a response header (o) or an environment variable (e)."""
        if kind == "e":
            value = escaped(os.environ.get(name, "-"))
            return lambda _view: value
        shown = self._policy.headers.shown(name)
        return lambda view: "-" if (found := _field(view, kind, name)) is None else escaped(shown(found))

    def began(self, view: ExchangeView) -> float:
        return self._clock.offset + view.began

    def ended(self, view: ExchangeView) -> float:
        return self._clock.offset + view.ended

    def time(self, view: ExchangeView) -> str:
        """Return when the request began; rendered once for each second."""
        second = int(self.began(view))
        if second != self._second:
            self._second = second
            self._time = time.strftime(_APACHE_TIME, time.localtime(second))
        return self._time

    def given_time(self, form: str) -> Renderer:
        """Return what renders Apache's %{form}t."""
        which = self.ended if form.startswith("end:") else self.began
        form = form.removeprefix("begin:").removeprefix("end:")
        if form in _FRACTIONS:
            return lambda view: str(int(which(view) * _FRACTIONS[form]))
        if form in ("msec_frac", "usec_frac"):
            digits = 3 if form == "msec_frac" else 6
            return lambda view: f"{which(view) % 1.0:.6f}"[2 : 2 + digits]
        return lambda view: time.strftime(form or "%c", time.localtime(which(view)))


def _apache(atom: Atom, form: AccessFormat) -> Renderer:
    name, argument = atom.name, atom.argument
    if argument is not None:
        if name == "t":
            return form.given_time(argument)
        if name == "T":
            unit = {"ms": 1e3, "us": 1e6}.get(argument, 1.0)
            return lambda view: str(int(_duration(view) * unit))
        if name == "p":
            return {"remote": _peer_port, "canonical": _host_port}.get(argument, _local_port)
        if name == "a":
            return form.peer
        return form.given(name, argument)
    renderers: dict[str, Renderer] = {
        "q": form.question,
        "r": form.request_line,
        "t": form.time,
        "a": form.client,
        "A": lambda view: view.connection.local[0] if view.connection.local else "-",
        "H": lambda view: _protocol(view) or "-",
        "I": lambda view: str(view.request_size),
        "k": lambda view: str(view.connection_request - 1),
        "L": lambda view: view.request_id or "-",
        "O": lambda view: str(view.response_size),
        "P": lambda _view: str(os.getpid()),
        "p": _local_port,
        "S": lambda view: str(view.response_size + view.request_size),
        "T": lambda view: str(int(_duration(view))),
        "V": _host,
        "v": _host,
    }
    return renderers[name] if name in renderers else _of_both(name, form)


def _gunicorn(atom: Atom, form: AccessFormat) -> Renderer:
    name, argument = atom.name, atom.argument
    if argument is not None:
        return form.given(name, argument)
    renderers: dict[str, Renderer] = {
        "q": form.query,
        "r": form.request_line,
        "R": form.target,
        "t": form.time,
        "Uq": form.target,
        "H": _protocol,
        "f": form.given("i", "referer"),
        "a": form.given("i", "user-agent"),
        "T": lambda view: str(int(_duration(view))),
        "M": lambda view: str(int(_duration(view) * 1e3)),
        "L": lambda view: f"{_duration(view):.6f}",
        "p": lambda _view: f"<{os.getpid()}>",
        "S": lambda view: view.scheme or "-",
        "st": _phrase,
    }
    return renderers[name] if name in renderers else _of_both(name, form)


def _of_both(name: str, form: AccessFormat) -> Renderer:
    """Return what renders an atom that means the same in both languages."""
    renderers: dict[str, Renderer] = {
        "h": form.client,
        "l": lambda _view: "-",
        "u": _user,
        "m": lambda view: escaped(view.method) or "-",
        "U": lambda view: escaped(view.raw_path) or "-",
        "s": lambda view: "-" if view.status is None else str(view.status),
        "B": lambda view: str(view.response_body_size),
        "b": lambda view: str(view.response_body_size or "-"),
        "D": lambda view: str(int(_duration(view) * 1e6)),
    }
    return renderers[name]


def _field(view: ExchangeView, kind: str, name: str) -> bytes | None:
    headers: Headers = view.request_headers if kind == "i" else view.response_headers
    wanted = name.lower().encode("latin-1", "replace")
    found = [value for field, value in headers if field.lower() == wanted]
    return b", ".join(found) if found else None


def _duration(view: ExchangeView) -> float:
    return max(view.ended - view.began, 0.0)


def _protocol(view: ExchangeView) -> str:
    return f"HTTP/{view.http_version}" if view.http_version else ""


def _port(address: Any) -> str:
    return str(address[1]) if address and address[1] is not None else "-"


def _peer_port(view: ExchangeView) -> str:
    return _port(view.connection.peer)


def _local_port(view: ExchangeView) -> str:
    return _port(view.connection.local)


def _host(view: ExchangeView) -> str:
    host = view.fields.get(b"host", b"").rpartition(b"@")[2]
    return escaped(host.rpartition(b":")[0] if _has_port(host) else host) or "-"


def _host_port(view: ExchangeView) -> str:
    host = view.fields.get(b"host", b"")
    return host.rpartition(b":")[2].decode() if _has_port(host) else _local_port(view)


def _has_port(host: bytes) -> bool:
    return host.rpartition(b":")[2].isdigit()


def _phrase(view: ExchangeView) -> str:
    try:
        return HTTPStatus(view.status or 0).phrase
    except ValueError:
        return "-"


def _user(view: ExchangeView) -> str:
    """Return the name in Basic credentials (RFC 7617), which nobody has verified."""
    scheme, _, credentials = view.fields.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic":
        return "-"
    try:
        name = base64.b64decode(credentials, validate=True).partition(b":")[0]
    except (binascii.Error, ValueError):
        return "-"
    # It stands unquoted between spaces.
    return escaped(name).replace(" ", "\\x20") or "-"


class FormattedAccessLog:
    """Observer that writes the access line in a format of the user's.

    Args:
        sink: takes the lines.
        settings: format, query policy.
        text: the format.
        clock: the server's, refreshed by its ticker.
        counters: told of each line that was cut.
    """

    def __init__(
        self,
        sink: LogSink,
        settings: LogSettings,
        text: str,
        *,
        clock: WallClock,
        counters: LogCounters | None = None,
    ) -> None:
        self._sink = sink
        self._counters: LogCounters = NoCounters() if counters is None else counters
        # What is stored and what a terminal shows are told apart as for the server's own lines.
        policy = redaction(settings, line_format(settings.log_format, sink.fd))
        self._format = AccessFormat(parse_access_format(text), policy, clock)
        self._limit = sink.line_limit - 1
        self._lines: list[str] = []
        self._important: list[int] = []

    def exchange_ended(self, view: ExchangeView) -> None:
        line = self._format.line(view)
        if len(line) > self._limit:
            line = line[: self._limit]
            self._counters.truncated("access")
        self._lines.append(line)
        if view.outcome != "ok":
            self._important.append(len(self._lines))
        if len(self._lines) >= HANDOVER_LINES:
            self._hand_over()

    def flush(self) -> None:
        """Hand over what is rendered and let the sink tell the counters. The ticker calls this."""
        self._hand_over()
        self._sink.flush()

    def close(self, deadline_seconds: float) -> None:
        """Hand over what is rendered and wait until it is written, for at most so many seconds."""
        self._hand_over()
        self._sink.close(deadline_seconds)

    def _hand_over(self) -> None:
        if self._lines:
            lines = "\n".join([*self._lines, ""]).encode("ascii", "backslashreplace")
            self._sink.offer(lines, "access", self._important)
            self._lines, self._important = [], []
