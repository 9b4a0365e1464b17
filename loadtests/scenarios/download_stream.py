"""download_stream: large bodies to the last byte, and server-sent events as they come.

Some who listen to events leave in the middle: that is how such a stream ends, and no error.
"""

import http.client
import time

from locust import task

from loadtests.observe import OBSERVER
from loadtests.shapes import Phase, Phases
from loadtests.users import HandmadeUser, ObservedUser, pause

CHUNKS, CHUNK_BYTES = 16, 65_535
EVENTS, EVENT_PAUSE = 6, 0.1


class Downloader(ObservedUser):
    weight = 2
    wait_time = pause(0.1, 0.4)

    @task
    def large(self):
        target = f"/stream?chunks={CHUNKS}&bytes={CHUNK_BYTES}"
        with self.client.get(target, name="/stream 1 MiB", catch_response=True) as answer:
            received = len(answer.content or b"")
            if answer.status_code == 200 and received != CHUNKS * (CHUNK_BYTES + 1):
                answer.failure(f"{received} bytes are not all")
            OBSERVER.books.tallies["bytes_received"] += received


class Listener(HandmadeUser):
    weight = 3
    wait_time = pause(0.1, 0.4)

    @task(3)
    def to_the_end(self):
        self.listen(EVENTS)

    @task(1)
    def leave_early(self):
        self.listen(2)

    def listen(self, wanted):
        """Read so many events; time the first, and how late each of the others comes."""
        connection = http.client.HTTPConnection(self.host.partition("://")[2], timeout=30)
        headers = self.begin()
        began, status, error = time.perf_counter(), 0, None
        try:
            connection.request("GET", f"/events?events={EVENTS}&seconds={EVENT_PAUSE}", headers=headers)
            answer = connection.getresponse()
            status, last = answer.status, None
            for _ in range(wanted):
                size = self.read_event(answer)
                now = time.perf_counter()
                self.fire("SSE", "first event" if last is None else "gap", last or began, exchange=False)
                last = now
                OBSERVER.books.tallies["bytes_received"] += size
            if wanted == EVENTS and answer.read():
                error = ValueError("more came than was asked for")
        except (OSError, ValueError, http.client.HTTPException) as problem:
            error = problem
        finally:
            connection.close()
        self.fire("GET", "/events", began, error, status=status)

    @staticmethod
    def read_event(answer):
        """Return the size of the next event."""
        size = 0
        while line := answer.readline():
            size += len(line)
            if line == b"\n":
                return size
        raise ValueError("the stream ended within an event")


class Shape(Phases):
    phases = (Phase(users=15, seconds=20),)
