"""overload: first as many users as the server admits, then ten times as many.

Whoever is refused comes back when `Retry-After` says, as a well-behaved client does. What counts is the goodput: a
server that sheds keeps it, one that admits everybody collapses.
"""

import time

from locust import task

from loadtests.observe import OBSERVER
from loadtests.shapes import Phase, Phases
from loadtests.users import ObservedUser, pause

LONGEST_RETRY_SECONDS = 5.0


class Insistent(ObservedUser):
    wait_time = pause(0.0, 0.01)

    @task
    def work(self):
        with self.client.get("/slow?seconds=0.05", name="/slow", catch_response=True) as answer:
            if answer.status_code != 503:
                return
            answer.success()  # refusing is what is asked of it
            retry_after = (answer.headers or {}).get("retry-after")
        if retry_after is not None:
            OBSERVER.books.tallies["retry_after"] += 1
            time.sleep(min(float(retry_after), LONGEST_RETRY_SECONDS))


class Shape(Phases):
    phases = (Phase(users=6, seconds=8), Phase(users=60, seconds=16))
