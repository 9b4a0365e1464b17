"""What tracing costs a request: `python tests/telemetry/measure_tracing.py`.

The best of several rounds, in nanoseconds, over exchanges whose attributes are as dear as the real ones'.
"""

import contextvars
import sys
import timeit
from types import SimpleNamespace

sys.path.insert(0, __file__.rpartition("/")[0])

from tracedoubles import Clock, Lag

from obsserve.http.connection import Connection
from obsserve.http.exchange import Exchange
from obsserve.http.head import Target
from obsserve.telemetry.appspans import ApplicationProvider
from obsserve.telemetry.catalogue import COMPLETE
from obsserve.telemetry.otlp import ExporterNoise
from obsserve.telemetry.propagation import Propagation, TrustPolicy
from obsserve.telemetry.sampling import sampling_of
from obsserve.telemetry.spanencoder import ExchangeEncoder
from obsserve.telemetry.spanfigures import TraceFigures
from obsserve.telemetry.spanqueue import SpanQueue
from obsserve.telemetry.spanrecord import SpanProjection
from obsserve.telemetry.traceconfig import TracingConfiguration
from obsserve.telemetry.tracing import Tracing

HEADERS = [(b"host", b"example.org"), (b"user-agent", b"wrk/4.1"), (b"accept", b"*/*")]
PARENT = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
TARGET = Target("/items/7", b"/items/7", b"", None, True)
ROUNDS, CALLS = 300, 2000  # short rounds: some of them are not disturbed


class Discarding(SpanQueue):
    """Takes spans like the real one, without a sender."""

    def wake_sender(self):
        self.spans.clear()


def tracing(sampler, argument=""):
    configuration = TracingConfiguration()
    figures = TraceFigures(None)
    projection = SpanProjection(configuration)
    sampling = sampling_of(sampler, argument, print)
    return Tracing(
        configuration,
        sampling=sampling,
        propagation=Propagation(TrustPolicy("peers"), print, print),
        projection=projection,
        encoder=ExchangeEncoder(projection, Clock(), Lag()),
        queue=Discarding(lambda: None, figures, print, capacity=2048, batch_size=256, schedule_delay=5.0),
        figures=figures,
        application=ApplicationProvider(configuration, {}, sampling),
        noise=ExporterNoise(print, "nobody"),
    )


def exchange(headers):
    connection = Connection.__new__(Connection)
    connection.peer = ("127.0.0.1", 50000)
    connection.serial, connection.requests, connection.scheme = 7, 1, "http"
    connection.server = SimpleNamespace(instance="c0ffee00")
    connection.client = connection.peer
    view = Exchange(connection, 100.0)
    view.method, view.parts, view.status, view.ending = "GET", TARGET, 200, COMPLETE
    view.request_headers, view.fields = headers, dict(headers)
    view.head_done, view.app_started, view.first_byte, view.ended = 100.0001, 100.0002, 100.001, 100.0015
    view._request_id = "0af7651916cd43dd8448eb211c80319c"
    vars(view).update(_route="/items/{id}", route="/items/{id}")
    view.context = contextvars.Context()
    return view


def best(observer, view):
    calls = {"started": observer.exchange_started, "ended": observer.exchange_ended, "view": view}
    observer.exchange_started(view)
    times = timeit.repeat("started(view); ended(view)", globals=calls, number=CALLS, repeat=ROUNDS)
    return min(times) / CALLS * 1e9


if __name__ == "__main__":
    print(sys.version.split()[0])
    for name, sampler, headers in (
        ("not sampled", "always_off", HEADERS),
        ("not sampled, with a parent", "always_off", [*HEADERS, PARENT]),
        ("sampled", "always_on", HEADERS),
        ("sampled, with a parent", "always_on", [*HEADERS, PARENT]),
    ):
        print(f"{best(tracing(sampler), exchange(headers)):6.0f} ns  {name}")
