"""The client's books: what was sent, what came back, and how long it took.

Each process of Locust keeps one. What is new in it is handed over now and then (`drain`), and added to the books
of the run (`merge`): on the master from its workers, or in the one process there is.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from loadtests.histogram import Histogram

REMEMBERED: Final = 10_000  # trace ids of requests without an answer


class Ledger:
    """Counts of exchanges.

    An exchange is a request with its response, the handshake of a WebSocket included. `begun` counts those of
    our own users before they are sent, so that one that is given up on the way is known too.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.failed = 0  # by Locust's judgement, messages on WebSockets included
        self.answered: Counter[str] = Counter()  # by status; the answer was whole
        self.cut: Counter[str] = Counter()  # by status; the connection broke within the answer
        self.unanswered: Counter[str] = Counter()  # by what went wrong
        self.errors: Counter[str] = Counter()  # the failures, in words
        self.tallies: Counter[str] = Counter()  # what a scenario counts besides
        self.lost_traces: list[str] = []  # of exchanges without a whole answer
        self.times = Histogram()  # of exchanges
        self.corrected = Histogram()  # the same from when they should have been sent
        self.named: dict[str, Histogram] = {}  # of everything, by its name

    @property
    def ended(self) -> int:
        """How many exchanges have come to an end that the client knows."""
        return self.answered.total() + self.cut.total() + self.unanswered.total()

    @property
    def sent(self) -> int:
        """How many exchanges there were."""
        return max(self.begun, self.ended)

    @property
    def abandoned(self) -> int:
        """How many were given up on the way."""
        return self.sent - self.ended

    @property
    def good(self) -> int:
        """How many were answered whole with a status below 400."""
        return sum(count for status, count in self.answered.items() if status < "400")

    @property
    def in_doubt(self) -> int:
        """How many the server may or may not have observed."""
        return self.cut.total() + self.unanswered.total() + self.abandoned

    def record(
        self,
        name: str,
        seconds: float,
        status: int,
        error: BaseException | None,
        *,
        cut: bool = False,
        late: float = 0.0,
        trace_id: str = "",
        exchange: bool = True,
    ) -> None:
        """Enter what Locust says of one request.

        Args:
            name: Locust's name of it.
            seconds: how long it took.
            status: of the response, 0 when there was none.
            error: why Locust holds it for failed, None when it does not.
            cut: whether the connection broke within the response.
            late: seconds between when it should have been sent and when it was.
            trace_id: of the traceparent that it carried.
            exchange: False for what is no HTTP exchange, such as a message on a WebSocket.
        """
        self.failed += error is not None
        if error is not None:
            self.errors[f"{name}: {type(error).__name__}: {error}"[:200]] += 1
        self.named.setdefault(name, Histogram()).add(seconds)
        if not exchange:
            return
        self.times.add(seconds)
        self.corrected.add(seconds + late)
        if status and not cut:
            self.answered[str(status)] += 1
            return
        if status:
            self.cut[str(status)] += 1
        else:
            self.unanswered[type(error).__name__] += 1
        if trace_id and len(self.lost_traces) < REMEMBERED:
            self.lost_traces.append(trace_id)

    def drain(self) -> dict[str, Any]:
        """Return everything as plain data, and begin anew."""
        data = self.as_dict()
        self.__init__()  # type: ignore[misc]  # the books are empty again
        return data

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        data: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Histogram):
                data[name] = value.as_dict()
            elif name == "named":
                data[name] = {key: histogram.as_dict() for key, histogram in value.items()}
            else:
                data[name] = value.copy() if isinstance(value, (Counter, list)) else value
        return data

    def merge(self, data: dict[str, Any]) -> None:
        """Add what `drain` gave, here or in another process."""
        for name, value in data.items():
            mine = getattr(self, name)
            if isinstance(mine, Histogram):
                mine.merge(Histogram(value))
            elif name == "named":
                for key, counts in value.items():
                    self.named.setdefault(key, Histogram()).merge(Histogram(counts))
            elif isinstance(mine, Counter):
                mine.update(value)
            elif isinstance(mine, list):
                mine += value[: REMEMBERED - len(mine)]
            else:
                setattr(self, name, mine + value)
