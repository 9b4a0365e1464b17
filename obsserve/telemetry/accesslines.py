"""Access lines that wait to be handed over, and the short way to that of an ordinary exchange.

`Lines` of `speedups` does the same in C, and takes its place where it was built. Both put a line together from
the fragments of `accessfragments`, in the order of `AccessRecord`; whatever else a line needs, `AccessLog` renders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from obsserve.speedups import native
from obsserve.telemetry.accessfields import ROUND
from obsserve.telemetry.accessfragments import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from obsserve.telemetry.accessfragments import RequestKey, SenderKey, SizesKey
    from obsserve.telemetry.observer import ExchangeView, LoopLag, WallClock

ORDINARY_ENDING: Final = ',"outcome":"ok","response_origin":"app"}\n'

# What stands between the numbers of an ordinary line: one that was read and answered at once.
PIECES: Final = (
    ',"duration_seconds":',
    ',"ttfb_seconds":',
    ',"queue_seconds":',
    ',"receive_seconds":0.000000,"app_seconds":',
    ',"send_seconds":0.000000,"write_blocked_seconds":0.000000,"loop_lag_max_seconds":0.000000',
    ORDINARY_ENDING,
)

_THREE_DIGITS: Final = [f"{number:03d}" for number in range(1000)]


class Lines:
    """Lines that wait.

    Args:
        requests: fragments of method, target and answer.
        senders: fragments of the sender, and what stands around the number of its request.
        sizes: fragments of sizes.
        pieces: `PIECES`.
        envelope: of a line that tells of nothing unusual.
        clock: the server's, refreshed by its ticker.
        lag: of the event loop; asked by the part in C, here by who writes.
        otherwise: renders the line of an exchange for which there is no short way.
        full: called when so many lines wait.
        most: how many that are.
    """

    def __init__(
        self,
        *,
        requests: dict[RequestKey, str],
        senders: dict[SenderKey, tuple[str, str, str]],
        sizes: dict[SizesKey, str],
        pieces: tuple[str, ...],
        envelope: str,
        clock: WallClock,
        lag: LoopLag,  # noqa: ARG002 - the twin's
        otherwise: Callable[[ExchangeView], None],
        full: Callable[[], None],
        most: int,
    ) -> None:
        self._requests = requests
        self._senders = senders
        self._sizes = sizes
        (
            self._before_duration,
            self._before_ttfb,
            self._before_queue,
            self._before_app,
            self._after_app,
            self._ending,
        ) = pieces
        self._envelope = envelope
        self._clock = clock
        self._otherwise = otherwise
        self._full = full
        self._most = most
        # Pieces whose concatenation is so many whole lines.
        self._pieces: list[str] = []
        self.count = 0
        self.turn(0.0, "", "")

    def turn(self, second: float, head: str, start_head: str) -> None:
        """Take the text of a new second.

        Args:
            second: epoch seconds.
            head: a line's beginning, up to the microseconds of its end.
            start_head: what stands from there to those of its start.
        """
        self._second = second
        self._head = head
        self._start_head = start_head
        self._millis = -1  # the one that `_millis_head` ends with
        self._millis_head = ""

    def take(self) -> tuple[bytes, int]:
        """Return the lines that wait, and how many they are; none wait afterwards."""
        pieces, self._pieces = self._pieces, []
        count, self.count = self.count, 0
        return "".join(pieces).encode("ascii"), count

    def add(self, line: str) -> int:
        """Add a line that was rendered elsewhere; return its number among those that wait."""
        self._pieces.append(line)
        return self._counted()

    def _counted(self) -> int:
        self.count = count = self.count + 1
        if count >= self._most:
            self._full()
        return count

    def write(self, view: ExchangeView) -> None:
        """Add the line of an ordinary exchange during which the loop did not lag; hand another one over.

        Flatter than a function should be, because every request pays for it (`python tests/telemetry/test_accesslog.py`).
        """
        began = view.began
        status = view.status
        if not (began == view.head_done == view.body_done and view.first_byte == view.ended) or status >= 400:  # type: ignore[operator]  # an ordinary exchange has a status
            self._otherwise(view)
            return
        sent = view.fields
        try:
            request = self._requests[
                view.method,
                view.parts,  # type: ignore[index]  # an ordinary request has a target
                view.route,
                status,
                "1.1",
                view.forwarded_scheme,
                sent.get(b"host"),
            ]
            sender, about, listener = self._senders[
                view.connection.serial, view.forwarded_client, view.forwarded_trusted, sent.get(b"user-agent")
            ]
            sizes = self._sizes[
                view.request_body_size, view.response_body_size, view.request_size, view.response_size
            ]
        except KeyError:
            self._otherwise(view)
            return
        ended = view.ended
        fraction = (self._clock.offset + ended - self._second) * 1e6
        duration = (ended - began) * 1e6
        start = fraction - duration
        if start < 0.0 or fraction >= 1e6:  # not within the second whose text is at hand
            self._otherwise(view)
            return
        end_micros = int(fraction)
        millis = end_micros // 1000
        if millis != self._millis:
            self._millis = millis
            self._millis_head = f"{self._head}{_THREE_DIGITS[millis]}"
        start_micros = int(start)
        start_millis = start_micros // 1000
        app_started = view.app_started
        total = SECONDS[duration + ROUND]
        trace = view.trace
        # Pieces that many lines share, not lines: a kilobyte each is cache that requests need.
        self._pieces += (
            self._millis_head,
            _THREE_DIGITS[end_micros - millis * 1000],
            self._start_head,
            _THREE_DIGITS[start_millis],
            _THREE_DIGITS[start_micros - start_millis * 1000],
            self._envelope,
            view.request_id,
            "" if trace is None else trace.log_fragment,
            request,
            sender,
            sizes,
            self._before_duration,
            total,
            self._before_ttfb,
            total,
            self._before_queue,
            SECONDS[(app_started - began) * 1e6 + ROUND],
            self._before_app,
            SECONDS[(view.response_started - app_started) * 1e6 + ROUND],
            self._after_app,
            about,
            str(view.connection_request),
            listener,
            self._ending,
        )
        self._counted()


def lines_class() -> Any:
    """Return the class that keeps lines: that in C where it was built."""
    return Lines if native is None else native.Lines
