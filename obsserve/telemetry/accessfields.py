"""What the access line says of an exchange: the record that every rendering of it shares.

`AccessRecord.of` is the reference: it names each field, decides whether it is present, cleans and cuts it.
The fast renderer in `accesslog` writes the same from cached fragments, and a test holds the two equal.
"""

from __future__ import annotations

import re
import time
from json.encoder import encode_basestring_ascii as quote
from typing import TYPE_CHECKING, Any, Final, Literal

from obsserve.telemetry.catalogue import KNOWN_METHODS, LAG_FLAG_SECONDS, OTHER
from obsserve.telemetry.plain import dumps, plain

if TYPE_CHECKING:
    from obsserve.telemetry.accessextras import LineExtras
    from obsserve.telemetry.catalogue import Outcome
    from obsserve.telemetry.logfields import FieldPolicy
    from obsserve.telemetry.observer import Address, ConnectionView, ExchangeView, SessionView
    from obsserve.telemetry.redact import QueryPolicy

Level = Literal["info", "warning", "error"]
Record = dict[str, Any]

# The close code of a server that restarts (RFC 6455 7.4.1, IANA).
SERVICE_RESTART: Final = 1012

# Longest value in characters, before JSON escaping; 256 for what is not named.
_CAPS: Final = {"url_path": 2048, "url_query": 2048, "user_agent_original": 512}
_CAP: Final = 256
# Of all that the application has bound, as JSON.
_BOUND_CAP: Final = 1024
# A line that is too long is rendered again with the caps divided, until it fits; no cap below this.
_LEAST_CAP: Final = 8

_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?")
_KNOWN_METHODS: Final = frozenset(KNOWN_METHODS)

# A float this large has no fraction: adding it rounds to a whole number without a call.
ROUND: Final = 1.5 * 2**52


class Fields:
    """The fields of a line, or of a part of it, while they are put together; cuts what is too long."""

    __slots__ = ("_divisor", "cut", "values")

    def __init__(self, divisor: int = 1) -> None:
        self.values: Record = {}
        self.cut: list[str] = []
        self._divisor = divisor

    def text(self, name: str, value: str | bytes) -> None:
        self.values[name] = self._capped(name, value)

    def item(self, name: str, value: str | bytes, most: int) -> None:
        """Add a value to a field that holds several, at most so many."""
        held = self.values.setdefault(name, [])
        if len(held) < most:
            held.append(self._capped(name, value))
        elif name not in self.cut:
            self.cut.append(name)

    def bound(self, fields: Record) -> None:
        """Put what the application has bound, an object of its own; what does not fit is left out."""
        shown: Record = {}
        room = max(_BOUND_CAP // self._divisor, _LEAST_CAP)
        for name, value in fields.items():
            held = {str(plain(name)): plain(value)}
            room -= len(dumps(held))
            if room < 0:
                self.cut.append("app")
                break
            shown.update(held)
        if shown:
            self.values["app"] = shown

    def _capped(self, name: str, value: str | bytes) -> str:
        if isinstance(value, bytes):
            value = value.decode("utf-8", "backslashreplace")
        elif not value.isascii():
            value = re.sub("[\ud800-\udfff]", "\ufffd", value)
        cap = max(_CAPS.get(name, _CAP) // self._divisor, _LEAST_CAP)
        if len(value) > cap:
            value = value[:cap]
            if name not in self.cut:
                self.cut.append(name)
        return value

    def seconds(self, name: str, start: float, end: float) -> None:
        if start and end:
            self.values[name] = end - start


def decimal(micros: float) -> str:
    """Return microseconds as seconds with six decimals."""
    # Also for what is not a number: a line must stay JSON whatever a clock says.
    return f"{micros / 1e6:.6f}" if -1e15 < micros < 1e15 else "0.000000"


def _json(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, float):
        return decimal(value * 1e6 + ROUND - ROUND)
    if isinstance(value, list):
        return f"[{','.join(map(quote, value))}]"
    if isinstance(value, dict):
        return dumps(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    return "false" if value is False else str(value)


def members(values: Record) -> str:
    """Render fields as the inside of a JSON object, each with a comma before it."""
    return "".join([f',"{name}":{_json(value)}' for name, value in values.items()])


def level_of(view: ExchangeView) -> Level:
    """Return the level of the line for this exchange: whose trouble it was decides."""
    outcome, status = view.outcome, view.status
    by_server = view.response_origin == "server"
    if outcome == "app_error" or view.exception is not None:
        return "error"
    if status is not None and status >= 500:
        return "warning" if by_server and status == 503 else "error"
    return "info" if outcome == "ok" or (outcome == "client_error" and not by_server) else "warning"


def event_of(view: ExchangeView) -> str:
    return "websocket.handshake" if view.websocket else "http.request"


def put_ids(fields: Fields, view: ExchangeView) -> None:
    fields.text("request_id", view.request_id)
    trace = view.trace
    if trace is not None:
        fields.values.update(
            trace_id=trace.trace_id_hex, span_id=trace.span_id_hex, trace_flags=trace.flags_hex
        )


_SESSION_LEVELS: Final[dict[str, Level]] = {"ok": "info", "app_error": "error"}


def session_outcome(session: SessionView) -> Outcome:
    """Return how a WebSocket's session ended, in the words of exchanges."""
    if session.exception is not None:
        return "app_error"
    if session.close_initiator == "none":
        return "client_disconnected"
    if session.ping_timed_out:
        return "timeout"
    if session.close_initiator == "server":
        return "shutdown" if session.close_code == SERVICE_RESTART else "protocol_error"
    return "ok"


def session_level(session: SessionView) -> Level:
    """Return the level of the line for this session."""
    return _SESSION_LEVELS.get(session_outcome(session), "warning")


def put_method(fields: Fields, method: str, scheme: str) -> None:
    if not method:
        return
    known = method in _KNOWN_METHODS
    fields.text("http_request_method", method if known else OTHER)
    if not known:
        fields.text("http_request_method_original", method)
    fields.text("url_scheme", scheme)


def put_answer(fields: Fields, route: str, status: int | None, version: str, host: bytes | None) -> None:
    if route:
        fields.text("http_route", route)
    else:
        fields.values["http_route"] = None
    fields.values["http_response_status_code"] = status
    if version:
        fields.text("network_protocol_version", version)
    if host:
        _put_host(fields, host)


def utc(second: float) -> str:
    """Return an RFC 3339 time up to the seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def timestamp(wall: float) -> str:
    second = wall // 1.0
    return f"{utc(second)}.{int((wall - second) * 1e6):06d}Z"


def _put_host(fields: Fields, host: bytes) -> None:
    text = host.decode("utf-8", "backslashreplace").rpartition("@")[2]  # user-info is nobody's business
    match = _HOST.fullmatch(text)
    if match is None:
        fields.text("server_address", text)
        return
    fields.text("server_address", match[1].strip("[]"))
    if match[2]:
        fields.values["server_port"] = int(match[2])


def put_peer(fields: Fields, connection: ConnectionView) -> None:
    if connection.peer is not None:
        address, port = connection.peer
        fields.text("network_peer_address", address)
        if port is not None:
            fields.values["network_peer_port"] = port


def put_sender(fields: Fields, view: ExchangeView) -> None:
    if view.client is not None:
        fields.text("client_address", view.client[0])
    put_peer(fields, view.connection)
    if view.forwarded_trusted is not None:
        fields.values["forwarded_trusted"] = view.forwarded_trusted
    agent = view.fields.get(b"user-agent")
    if agent is not None:
        fields.text("user_agent_original", agent)


def put_sizes(fields: Fields, view: ExchangeView) -> None:
    fields.values["http_request_body_size"] = view.request_body_size
    fields.values["http_response_body_size"] = view.response_body_size
    fields.values["http_request_size"] = view.request_size
    fields.values["http_response_size"] = view.response_size


def put_stages(fields: Fields, view: ExchangeView) -> None:
    fields.values["duration_seconds"] = view.ended - view.began
    fields.seconds("ttfb_seconds", view.head_done, view.first_byte)
    fields.seconds("queue_seconds", view.head_done, view.app_started)
    fields.seconds("receive_seconds", view.head_done, view.body_done)
    fields.seconds("app_seconds", view.app_started, view.response_started)
    fields.seconds("send_seconds", view.first_byte, view.ended)
    if view.first_byte:
        fields.values["write_blocked_seconds"] = view.write_blocked


def put_listener(fields: Fields, connection: ConnectionView) -> None:
    fields.text("listener", connection.listener)
    if connection.tls_protocol is not None:
        fields.text("tls_protocol_version", connection.tls_protocol)
        fields.text("tls_cipher", connection.tls_cipher or "")
        fields.values["tls_resumed"] = connection.tls_resumed
        subject = (connection.tls or {}).get("client_cert_name")
        if subject:
            fields.text("tls_client_subject", subject)


def put_ending(fields: Fields, view: ExchangeView, lag: float) -> None:
    fields.values["outcome"] = view.outcome
    fields.values["response_origin"] = view.response_origin
    flags = [*view.flags, "LG"] if lag > LAG_FLAG_SECONDS else list(view.flags)
    if flags:
        fields.values["flags"] = flags
    if view.outcome != "ok":
        fields.text("termination_detail", view.ending.detail)
    if view.error_type is not None:
        fields.text("error_type", view.error_type)
    if view.disconnect_phase is not None:
        fields.values["disconnect_phase"] = view.disconnect_phase


class AccessRecord:
    """Makes the record of an exchange.

    Args:
        service: the fields that say which process this is.
        policy: what may be said of a query.
        extras: adds captured headers and the line's weight.
        shape: changes single fields.
    """

    __slots__ = ("extras", "policy", "service", "shape")

    def __init__(
        self,
        service: Record,
        policy: QueryPolicy,
        extras: LineExtras | None = None,
        shape: FieldPolicy | None = None,
    ) -> None:
        self.service = service
        self.policy = policy
        self.extras = extras
        self.shape = shape

    def of(self, view: ExchangeView, *, offset: float, lag: float, divisor: int = 1) -> Record:
        """Return the fields of the line for this exchange, in their order.

        Args:
            view: the exchange that has ended.
            offset: what turns its times into epoch seconds.
            lag: worst lag of the event loop meanwhile, in seconds.
            divisor: by how much to lower the caps of the values.
        """
        fields = Fields(divisor)
        values = fields.values
        values["timestamp"] = timestamp(offset + view.ended)
        values["start_time"] = timestamp(offset + view.began)
        self.put_envelope(fields, level_of(view), event_of(view))
        put_ids(fields, view)
        put_method(fields, view.method, view.scheme)
        self.put_target(fields, view.raw_path, view.query_string)
        put_answer(fields, view.route, view.status, view.http_version, view.fields.get(b"host"))
        put_sender(fields, view)
        put_sizes(fields, view)
        put_stages(fields, view)
        values["loop_lag_max_seconds"] = float(lag)
        fields.text("connection_id", view.connection.id)
        values["connection_request"] = view.connection_request
        put_listener(fields, view.connection)
        put_ending(fields, view, lag)
        return self._finished(fields, view)

    def _finished(self, fields: Fields, view: ExchangeView) -> Record:
        if self.extras is not None:
            self.extras.put(fields, view)
        if view.bound is not None:
            fields.bound(view.bound)
        if fields.cut:
            fields.values["truncated"] = fields.cut
        return fields.values if self.shape is None else self.shape.shaped(fields.values)

    def of_session(self, session: SessionView, *, offset: float, lag: float, divisor: int = 1) -> Record:
        """Return the fields of the line for a WebSocket's session, in their order; see `of`."""
        view = session.exchange
        outcome = session_outcome(session)
        fields = Fields(divisor)
        values = fields.values
        values["timestamp"] = timestamp(offset + session.closed_at)
        values["start_time"] = timestamp(offset + session.opened_at)
        self.put_envelope(fields, session_level(session), "websocket.session")
        put_ids(fields, view)
        put_method(fields, view.method, view.scheme)
        self.put_target(fields, view.raw_path, view.query_string)
        put_answer(fields, session.route, view.status, view.http_version, view.fields.get(b"host"))
        put_sender(fields, view)
        values["duration_seconds"] = session.closed_at - session.opened_at
        values["loop_lag_max_seconds"] = float(lag)
        fields.text("connection_id", view.connection.id)
        values["connection_request"] = view.connection_request
        put_listener(fields, view.connection)
        values["outcome"] = outcome
        if session.error_type is not None:
            fields.text("error_type", session.error_type)
        values["websocket_close_code"] = session.close_code
        values["websocket_close_initiator"] = session.close_initiator
        for direction in ("received", "sent"):
            values[f"websocket_messages_{direction}"] = getattr(session, f"messages_{direction}")
        for direction in ("received", "sent"):
            values[f"websocket_bytes_{direction}"] = getattr(session, f"bytes_{direction}")
        return self._finished(fields, view)

    def put_envelope(self, fields: Fields, level: Level, event: str) -> None:
        fields.values.update({"level": level, "event": event, "schema": 1, "logger": "obsserve.access"})
        for name, value in self.service.items():
            if isinstance(value, str):
                fields.text(name, value)
            else:
                fields.values[name] = value

    def put_target(self, fields: Fields, raw_path: bytes, query: bytes) -> None:
        if raw_path:
            fields.text("url_path", raw_path)
        if query:
            shown = self.policy.apply(query.decode("utf-8", "backslashreplace"))
            if shown is not None:
                fields.text("url_query", shown)


_LEVEL_COLORS: Final = {"info": "32", "warning": "33", "error": "31"}


def console_line(values: Record, wall: float, client: Address | None, *, colored: bool) -> str:
    """Return the fields of a line as a person at a terminal wants to read them, in local time.

    Args:
        values: the fields, see `AccessLog.record`.
        wall: end of the exchange in epoch seconds.
        client: address and port.
        colored: whether to mark level and status with ANSI colours.
    """
    level = str(values["level"])
    status = values["http_response_status_code"]
    query = values.get("url_query")
    method = values.get("http_request_method_original") or values.get("http_request_method")
    request = f"{method or '-'} {values.get('url_path', '-')}{f'?{query}' if query else ''}"
    if version := values.get("network_protocol_version"):
        request = f"{request} HTTP/{version}"
    paint = painted if colored else _plain
    color = _LEVEL_COLORS[level]
    words = [
        time.strftime("%H:%M:%S", time.localtime(wall)) + f".{int(wall % 1.0 * 1e3):03d}",
        paint(f"{level.upper():<7}", color),
        _client_text(client),
        f'"{printable(request)}"',
        paint("-" if status is None else str(status), color),
        _volume(values),
        f"{float(values['duration_seconds']) * 1e3:.2f}ms",
    ]
    if flags := values.get("flags"):
        words.append(",".join(flags))
    if code := values.get("websocket_close_code"):
        words.append(f"closed {code} by {values['websocket_close_initiator']}")
    words += [printable(values[name]) for name in ("termination_detail", "error_type") if name in values]
    return " ".join(words)


def _volume(values: Record) -> str:
    """What went over the wire: a response's body, or a WebSocket's messages in and out."""
    if "websocket_close_code" in values:
        return f"{values['websocket_messages_received']} in {values['websocket_messages_sent']} out"
    return f"{values['http_response_body_size']}B"


def painted(text: str, color: str) -> str:
    return f"\x1b[{color}m{text}\x1b[0m"


def _plain(text: str, _color: str) -> str:
    return text


def _client_text(client: Address | None) -> str:
    if client is None:
        return "-"
    host, port = client
    if port is None:
        return printable(host)
    return printable(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def printable(text: str) -> str:
    """Return the text with everything escaped that a terminal could take for a command."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
