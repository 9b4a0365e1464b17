"""soak: the same load for a long time; what grows is a leak.

The slope of each worker's memory and of its open descriptors, from /metrics, after the first third of the run. The
short form finds gross leaks only: ``--run-time 4h`` is what it is made for.
"""

from locust import task

from loadtests.shapes import Phase, Phases
from loadtests.users import PacedUser


class Caller(PacedUser):
    rate = 8.0

    @task(6)
    def fast(self):
        self.client.get("/fast")

    @task(2)
    def echo(self):
        self.client.post("/echo", data=b"x" * 4096)

    @task(1)
    def stream(self):
        self.client.get("/stream?chunks=5", name="/stream")

    @task(1)
    def nothing(self):
        with self.client.get("/status/404", name="/status/{code}", catch_response=True) as answer:
            if answer.status_code == 404:
                answer.success()


class Shape(Phases):
    phases = (Phase(users=15, seconds=36),)
