"""The access log: one line for each exchange, rendered when it has ended.

Owns the lines that are rendered and not yet handed to the sink; its fragments are in `accessfragments`.
Rules:
- A line is one JSON object of ASCII characters on one line, with the keys of `LOG_FIELDS` in their
  order, or one readable line for a terminal. Nothing that a client sends can change that.
- `AccessRecord` says what a line holds. `_write_short` puts the same together from cached fragments,
  because every request pays for it. What is too long for a fragment is rendered from the record.
- Everything here runs in the serving thread; the sink's thread sees only finished lines.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from obsserve.telemetry.accessfields import (
    ROUND,
    AccessRecord,
    console_line,
    event_of,
    level_of,
    members,
    session_level,
    utc,
)
from obsserve.telemetry.accessfragments import SECONDS, Fragments, ending_key
from obsserve.telemetry.accesslines import ORDINARY_ENDING, PIECES, Lines, lines_class
from obsserve.telemetry.catalogue import LAG_FLAG_SECONDS
from obsserve.telemetry.logfields import field_policy
from obsserve.telemetry.logsink import NoCounters, colors_wanted, line_format
from obsserve.telemetry.redact import redaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.telemetry.accessextras import LineExtras
    from obsserve.telemetry.accessfields import Level, Record
    from obsserve.telemetry.hooks import ExchangeHook
    from obsserve.telemetry.logsink import LineSink, LogCounters, LogSettings
    from obsserve.telemetry.observer import Address, ExchangeView, LoopLag, SessionView, WallClock

# Handed to the sink when so many wait even between two ticks: about 64 KiB.
HANDOVER_LINES: Final = 64

_LARGEST_DIVISOR: Final = 256
# What the fast line writes by itself: a policy for one of these makes every line one of its record.
_INLINE: Final = frozenset(
    [
        "timestamp",
        "start_time",
        "request_id",
        "trace_id",
        "span_id",
        "trace_flags",
        "duration_seconds",
        "ttfb_seconds",
        "queue_seconds",
        "receive_seconds",
        "app_seconds",
        "send_seconds",
        "write_blocked_seconds",
        "loop_lag_max_seconds",
        "connection_id",
        "connection_request",
        "outcome",
        "response_origin",
    ]
)

_error_log: Final = logging.getLogger("obsserve.error")


def _earlier_start(wall: float) -> tuple[str, float]:
    second = wall // 1.0
    return f'Z","start_time":"{utc(second)}.', wall - second


class AccessLog(Fragments):
    """Observer that writes the access line.

    Args:
        sink: takes the lines.
        settings: format, query policy, colours and the service's name.
        clock: the server's, refreshed by its ticker.
        lag: what is known of the event loop's lag.
        counters: told of each line in which something was cut.
        service_instance_id: one for all workers of a server; made up when not given.
        worker: slot of this worker.
        extras: what lines hold beyond their own fields; for `ExtendedAccessLog`.
    """

    def __init__(
        self,
        sink: LineSink,
        settings: LogSettings,
        *,
        clock: WallClock,
        lag: LoopLag,
        counters: LogCounters | None = None,
        service_instance_id: str | None = None,
        worker: int = 0,
        extras: LineExtras | None = None,
    ) -> None:
        self.format: Final = line_format(settings.log_format, sink.fd)
        self._sink = sink
        self._clock = clock
        self._lag = lag
        self._counters: LogCounters = NoCounters() if counters is None else counters
        self._colored = colors_wanted(settings.use_colors, sink.fd)
        self._limit = sink.line_limit
        self._redaction = redaction(settings, self.format)
        shape = field_policy(settings, self._redaction.address) if self.format == "json" else None
        record = AccessRecord(
            service={
                "service_name": settings.service_name,
                "service_instance_id": service_instance_id or str(uuid.uuid4()),
                "worker": worker,
                "process_pid": os.getpid(),
            },
            policy=self._redaction.query,
            extras=extras,
            shape=shape,
        )
        super().__init__(record, members if shape is None else shape.members)

        # The numbers of the lines that matter, among those that are rendered.
        self._important: list[int] = []
        # Ended in this turn of the loop, not rendered yet. Who wants to know what that costs replaces `render`.
        self._ended: list[ExchangeView] = []
        self._has_failed = False
        self.render = self._render

        short = self.format == "json" and self._prepare_envelope("info", "http.request")
        self._ordinary_envelope = self._envelopes.get(("info", "http.request"), "")
        make_lines = lines_class()
        self._lines = make_lines(
            requests=self._requests,
            senders=self._senders,
            sizes=self._sizes,
            pieces=PIECES,
            envelope=self._ordinary_envelope,
            clock=clock,
            lag=lag,
            otherwise=self._write_otherwise,
            full=self._hand_over,
            most=HANDOVER_LINES,
        )
        self._turn_second(0.0)
        # Decided once: the hook is the renderer itself.
        self._has_short_way = short and (shape is None or not shape.touches(_INLINE))
        self.exchange_ended: ExchangeHook = self._write_console
        if self._has_short_way:
            # In C it is over before its data is out of the processor's cache; in Python it waits for a turn of the loop.
            self.exchange_ended = self._collect if make_lines is Lines else self._lines.write
        elif self.format == "json":
            self.exchange_ended = self._write_whole

    def flush(self) -> None:
        """Hand over what is rendered and let the sink tell the counters. The ticker calls this."""
        self.render()
        self._hand_over()
        self._sink.flush()

    def close(self, deadline_seconds: float) -> None:
        """Hand over what is rendered and wait until it is written, for at most so many seconds."""
        self.render()
        self._hand_over()
        self._sink.close(deadline_seconds)

    def _hand_over(self) -> None:
        if self._lines.count:
            lines, count = self._lines.take()
            important, self._important = self._important, []
            self._sink.offer(lines, "access", important, count)

    # --- Lines for programs -------------------------------------------------------------------

    def _collect(self, view: ExchangeView) -> None:
        """Take this exchange for the lines of the loop's next turn.

        Between requests, lines push the requests' data out of the processor's cache, and the other way
        round: one after the other they cost less.
        """
        ended = self._ended
        if not ended:
            try:
                asyncio.get_running_loop().call_soon(self.render)
            except RuntimeError:  # no loop runs any more, or it is closed
                self._write_long(view)
                return
        ended.append(view)

    @property
    def waiting(self) -> int:
        """How many exchanges have ended since the last time."""
        return len(self._ended)

    def _render(self) -> None:
        """Write the lines of the exchanges that have ended since the last time.

        This runs outside the guard of `Hooks`: what goes wrong here costs one line, and is counted.
        """
        views, self._ended = self._ended, []
        if not views:
            return
        calm = False
        with suppress(Exception):  # a view that cannot tell its times fails below
            # Seldom has the loop lagged: then one question answers for all of them.
            calm = not self._lag.max_between(min([view.began for view in views]), views[-1].ended)
        for view in views:
            try:
                if calm and view.ordinary:
                    self._lines.write(view)
                else:
                    self._write_long(view)
            except Exception as fault:  # noqa: BLE001 - a fault in telemetry touches nothing else
                self._lost(fault)

    def _write_otherwise(self, view: ExchangeView) -> None:
        """Add the line of an exchange for which there was no short way."""
        try:
            self._write_long(view)
        except Exception as fault:  # noqa: BLE001 - as above
            self._lost(fault)

    def _lost(self, fault: Exception) -> None:
        """Count a line that could not be rendered, and say so the first time."""
        self._counters.add("access", "failed")
        if not self._has_failed:
            self._has_failed = True
            _error_log.error("A line of the access log could not be rendered", exc_info=fault)

    def _write_long(self, view: ExchangeView) -> None:
        """Add this exchange's line, whatever it is."""
        began = view.began
        ended = view.ended
        head_done = view.head_done
        app_started = view.app_started
        body_done = view.body_done
        response_started = view.response_started
        first_byte = view.first_byte
        target = view.parts
        status = view.status
        if (
            not (response_started and body_done and first_byte)
            or target is None
            or status is None
            or view.bound
        ):
            self._write_whole(view)  # a stage is missing, which is seldom so, or the application adds fields
            return
        connection = view.connection
        sent = view.fields
        trace = view.trace
        lag = self._lag.max_between(began, ended)
        try:
            if (
                view.outcome == "ok"
                and view.response_origin == "app"
                and view.error_type is None  # as there is none after an exception
                and status < 500
                and not view.flags
                and lag <= LAG_FLAG_SECONDS
                and not view.websocket
            ):
                level: Level = "info"
                envelope = self._ordinary_envelope
                ending = ORDINARY_ENDING
            else:
                level = level_of(view)
                envelope = self._envelopes[level, event_of(view)]
                ending = self._endings[ending_key(view, lag)]
            request = self._requests[
                view.method,
                target,
                view.route,
                status,
                view.http_version,
                view.forwarded_scheme,
                sent.get(b"host"),
            ]
            sender, about, listener = self._senders[
                connection.serial, view.forwarded_client, view.forwarded_trusted, sent.get(b"user-agent")
            ]
            sizes = self._sizes[
                view.request_body_size, view.response_body_size, view.request_size, view.response_size
            ]
        except KeyError:
            # A fragment is not known yet. When one cannot be kept, because it is long or must be cut,
            # the line is written from its record.
            if self._prepare(view, lag):
                self._write_long(view)
            else:
                self._write_whole(view)
            return

        offset = self._clock.offset
        fraction = offset + ended - self._second
        if not 0.0 <= fraction < 1.0:
            fraction = self._turn_second(offset + ended)
        start_head = self._start_head
        start_fraction = offset + began - self._second
        if start_fraction < 0.0:
            start_head, start_fraction = _earlier_start(offset + began)
        ids = "" if trace is None else trace.log_fragment
        line = (
            f"{self._head}{int(fraction * 1e6):06d}{start_head}{int(start_fraction * 1e6):06d}{envelope}"
            f"{view.request_id}{ids}{request}{sender}{sizes}"
            f',"duration_seconds":{SECONDS[(ended - began) * 1e6 + ROUND]}'
            f',"ttfb_seconds":{SECONDS[(first_byte - head_done) * 1e6 + ROUND]}'
            f',"queue_seconds":{SECONDS[(app_started - head_done) * 1e6 + ROUND]}'
            f',"receive_seconds":{SECONDS[(body_done - head_done) * 1e6 + ROUND]}'
            f',"app_seconds":{SECONDS[(response_started - app_started) * 1e6 + ROUND]}'
            f',"send_seconds":{SECONDS[(ended - first_byte) * 1e6 + ROUND]}'
            f',"write_blocked_seconds":{SECONDS[view.write_blocked * 1e6 + ROUND]}'
            f',"loop_lag_max_seconds":{SECONDS[lag * 1e6 + ROUND]}'
            f"{about}{view.connection_request}{listener}{ending}"
        )
        self._add(line, level)

    def _add(self, line: str, level: Level) -> None:
        if level != "info":
            self._important.append(self._lines.count + 1)
        self._lines.add(line)

    def _turn_second(self, wall: float) -> float:
        self._second = wall // 1.0
        text = utc(self._second)
        self._head = f'{{"timestamp":"{text}.'
        self._start_head = f'Z","start_time":"{text}.'
        self._lines.turn(self._second, self._head, self._start_head)
        return wall - self._second

    def _write_whole(self, view: ExchangeView) -> None:
        """Write a line from its record."""
        self._write_record(lambda divisor: self._values(view, divisor), level_of(view))

    def _write_record(self, record: Callable[[int], Record], level: Level) -> None:
        """Write a record as a line, with lower caps until it fits."""
        divisor = 1
        while True:
            values = record(divisor)
            line = f"{{{members(values)[1:]}}}\n"
            if len(line) <= self._limit or divisor >= _LARGEST_DIVISOR:
                break
            divisor *= 2
        self._append(line, values, level)

    def session_ended(self, session: SessionView) -> None:
        """Write the line of a WebSocket's session."""
        self.render()  # the line of its handshake comes first
        lag = self._lag.max_between(session.opened_at, session.closed_at)
        offset = self._clock.offset

        def record(divisor: int) -> Record:
            return self._record.of_session(session, offset=offset, lag=lag, divisor=divisor)

        if self.format == "json":
            self._write_record(record, session_level(session))
        else:
            wall = offset + session.closed_at
            self._write_readable(record(1), wall, session.exchange.client, session_level(session))

    def _values(self, view: ExchangeView, divisor: int = 1) -> Record:
        lag = self._lag.max_between(view.began, view.ended)
        return self._record.of(view, offset=self._clock.offset, lag=lag, divisor=divisor)

    def _append(self, line: str, values: Record, level: Level) -> None:
        if "truncated" in values:
            self._counters.truncated("access")
        self._add(line, level)

    # --- Lines for people ---------------------------------------------------------------------

    def _write_console(self, view: ExchangeView) -> None:
        wall = self._clock.offset + view.ended
        self._write_readable(self._values(view), wall, view.client, level_of(view))

    def _write_readable(self, values: Record, wall: float, client: Address | None, level: Level) -> None:
        text = console_line(values, wall, self._redaction.client(client), colored=self._colored)
        line = text.encode("ascii", "backslashreplace").decode()
        if len(line) >= self._limit:
            line = line[: self._limit - 1]
            values["truncated"] = ["line"]
        self._append(f"{line}\n", values, level)
