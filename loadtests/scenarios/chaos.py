"""chaos: a worker is killed, the collector dies, another worker is killed.

What was in the killed workers is lost, and nothing else: every request is either observed or without an answer, the
workers come back, and the spans that cannot be exported are counted.
"""

from locust import task

from loadtests import faults
from loadtests.shapes import Phase, Phases
from loadtests.users import PacedUser


class Caller(PacedUser):
    rate = 8.0

    @task(3)
    def fast(self):
        self.client.get("/fast")

    @task(1)
    def slow(self):
        self.client.get("/slow?seconds=0.05", name="/slow")


class Shape(Phases):
    phases = (Phase(users=15, seconds=28),)


faults.at(0.15)(faults.kill_worker)
faults.at(0.35)(faults.stop_collector)
faults.at(0.55)(faults.kill_worker)
