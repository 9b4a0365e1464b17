"""deploy_under_load: all workers are replaced twice while people work; nobody may notice.

Connections are kept and used often, so that requests arrive on those that the old workers are about to close.
"""

from locust import task

from loadtests import faults
from loadtests.shapes import Phase, Phases
from loadtests.users import ObservedUser, pause


class Person(ObservedUser):
    wait_time = pause(0.02, 0.1)

    @task(5)
    def fast(self):
        self.client.get("/fast")

    @task(2)
    def slow(self):
        self.client.get("/slow?seconds=0.3", name="/slow")

    @task(1)
    def stream(self):
        self.client.get("/stream?chunks=10&seconds=0.05", name="/stream")


class Shape(Phases):
    phases = (Phase(users=20, seconds=24),)


faults.at(0.1)(faults.reload)
faults.at(0.5)(faults.reload)
