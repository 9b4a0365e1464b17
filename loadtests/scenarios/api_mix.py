"""api_mix: people who use everything, each thing as often as its weight says, and think in between.

Mistakes are part of it: a 404 and a 500 are good answers here when they are what was asked for.
"""

import random

from locust import task

from loadtests.shapes import Phase, Phases
from loadtests.users import ObservedUser, pause


class Person(ObservedUser):
    wait_time = pause(0.05, 0.4)

    @task(10)
    def fast(self):
        self.client.get("/fast")

    @task(3)
    def slow(self):
        self.client.get("/slow?seconds=0.05", name="/slow")

    @task(3)
    def echo(self):
        body = random.randbytes(random.randint(1, 16_384))
        with self.client.post("/echo", data=body, catch_response=True) as answer:
            if answer.content != body:
                answer.failure(f"{len(body)} bytes came back as {len(answer.content or b'')}")

    @task(2)
    def stream(self):
        self.client.get("/stream?chunks=10", name="/stream")

    @task(2)
    def status(self):
        self.asked_for(random.choice((204, 302, 304, 404, 418)))

    @task(1)
    def failure(self):
        self.asked_for(500, "/fail")

    def asked_for(self, status, path=None):
        path, name = (path, path) if path else (f"/status/{status}", "/status/{code}")
        with self.client.get(path, name=name, catch_response=True, allow_redirects=False) as answer:
            if answer.status_code == status:
                answer.success()


class Shape(Phases):
    phases = (Phase(users=30, seconds=20, spawn_rate=10),)
