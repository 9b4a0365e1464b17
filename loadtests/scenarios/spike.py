"""spike: a quiet service, twelve times the load all at once, and quiet again.

The rate is kept on a timetable, so that what piles up shows. What counts is that nothing is lost, and how things are
when it is over.
"""

from locust import task

from loadtests.shapes import Phase, Phases
from loadtests.users import PacedUser


class Caller(PacedUser):
    rate = 5.0

    @task(4)
    def fast(self):
        self.client.get("/fast")

    @task(1)
    def slow(self):
        self.client.get("/slow?seconds=0.02", name="/slow")


class Shape(Phases):
    phases = (Phase(users=4, seconds=6), Phase(users=48, seconds=8), Phase(users=4, seconds=12))
