"""steady: the same rate all the time, on a timetable that does not wait for the server.

Each user asks ten times a second. What the server is late by shows in the corrected latency, not in fewer requests.
"""

from locust import task

from loadtests.shapes import Phase, Phases
from loadtests.users import PacedUser


class Caller(PacedUser):
    rate = 10.0

    @task
    def fast(self):
        self.client.get("/fast")


class Shape(Phases):
    phases = (Phase(users=10, seconds=20),)
