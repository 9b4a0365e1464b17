"""upload: bodies of many sizes, with a length, in chunks, and announced with `Expect: 100-continue`; some too large.

What is sent comes back and is compared. A body beyond the server's limit is refused before it is sent: 413.
"""

import random

from locust import task

from loadtests.observe import OBSERVER
from loadtests.shapes import Phase, Phases
from loadtests.users import ObservedUser, pause

BLOCK = random.randbytes(1 << 20)
ACCEPTED = 512 * 1024  # the server's limit is a little higher
PIECE = 16 * 1024


def body():
    size = min(ACCEPTED, int(1024 * 2 ** random.uniform(0, 9)))
    start = random.randrange(len(BLOCK) - size)
    return BLOCK[start : start + size]


class Uploader(ObservedUser):
    wait_time = pause(0.05, 0.2)

    @task(4)
    def whole(self):
        self.send(body(), "/echo whole")

    @task(2)
    def in_chunks(self):
        data = body()
        pieces = (data[at : at + PIECE] for at in range(0, len(data), PIECE))
        self.send(data, "/echo chunked", sent_as=pieces)

    @task(2)
    def announced(self):
        self.send(body(), "/echo expect", headers={"Expect": "100-continue"})

    @task(1)
    def too_large(self):
        expect = {"Expect": "100-continue"}
        with self.client.post(
            "/echo", data=BLOCK, name="/echo 413", headers=expect, catch_response=True
        ) as answer:
            if answer.status_code == 413:
                answer.success()
            else:
                answer.failure(f"{len(BLOCK)} bytes are too many, yet the answer is {answer.status_code}")

    def send(self, data, name, *, sent_as=None, headers=None):
        with self.client.post(
            "/echo", data=sent_as or data, name=name, headers=headers, catch_response=True
        ) as answer:
            if answer.status_code == 200:
                OBSERVER.books.tallies["bytes_sent"] += len(data)
                if answer.content != data:
                    answer.failure(f"{len(data)} bytes came back as {len(answer.content or b'')} others")


class Shape(Phases):
    phases = (Phase(users=10, seconds=20),)
