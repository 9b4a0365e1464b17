"""ramp_to_break: a little more every few seconds, on a timetable, until the server leaves its SLO: that is the knee.

The knee is the highest rate at which the server's p95 to the first byte and its share of 503s are still within
bounds all the time, not for a moment. Run at 70 % of it.
"""

from locust import task

from loadtests.observe import OBSERVER
from loadtests.shapes import Phases, ramp
from loadtests.story import knee
from loadtests.users import PacedUser

TTFB_P95_SECONDS = 0.25
REFUSED_SHARE = 0.05


class Caller(PacedUser):
    rate = 4.0

    @task
    def work(self):
        with self.client.get("/slow?seconds=0.06", name="/slow", catch_response=True) as answer:
            if answer.status_code == 503:
                answer.success()  # refused, as the knee is looked for


class Shape(Phases):
    phases = ramp(first=10, last=60, steps=11, seconds=4.0)  # 40 to 240 requests each second


def find_knee(story):
    found = knee(
        story.timeline, ttfb_p95=TTFB_P95_SECONDS, refused_share=REFUSED_SHARE, offered_by_user=Caller.rate
    )
    if found is not None:
        story.facts["knee"], story.facts["knee_rate"] = str(found), found.rate


OBSERVER.concluders.append(find_knee)
OBSERVER.progress_seconds = 1.0
