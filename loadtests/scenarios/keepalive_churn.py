"""keepalive_churn: connections that come and go: one for each request, kept, or left idle until the server closes them.

Nobody may notice, every connection is counted on both sides, and no descriptor stays behind.
"""

import random

from locust import constant_pacing, task

from loadtests.shapes import Phase, Phases
from loadtests.users import ObservedUser, pause

IDLE_SECONDS = 1  # after which the server closes; see its options


class Churner(ObservedUser):
    weight = 3
    wait_time = pause(0.02, 0.1)

    @task
    def one_connection_each(self):
        self.client.get("/fast", name="/fast close", headers={"Connection": "close"})


class Keeper(ObservedUser):
    weight = 2
    wait_time = constant_pacing(0.1)

    @task
    def kept(self):
        self.client.get("/fast", name="/fast kept")


class Idler(ObservedUser):
    weight = 2

    def wait_time(self):
        return random.choice((0.2, IDLE_SECONDS + 1.5))  # never when the server is just about to close

    @task
    def now_and_then(self):
        self.client.get("/fast", name="/fast idle")


class Shape(Phases):
    phases = (Phase(users=21, seconds=20),)
