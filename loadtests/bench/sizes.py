"""What telemetry weighs: `python -m loadtests.bench.sizes`.

Serves an application of as many routes as asked for, each answered 200 and 404, and prints what docs/scaling.md
multiplies: series and bytes of a scrape, bytes of an access line, bytes of a span, with --otlp-metrics bytes of a push.
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from obsserve.testing_otlp import OTLPSink

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    number = scope["path"].strip("/").partition("/")[0]
    scope["route"] = type("Route", (), {"path": f"/{number}/{{item}}"})
    status = 404 if scope["query_string"] == b"missing" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--routes", type=int, default=20)
    parser.add_argument("--requests", type=int, default=50, help="of each route and status")
    parser.add_argument("--workers", type=int, default=1)
    given, options = parser.parse_known_args()  # what is left are options of the server
    with tempfile.TemporaryDirectory() as name, OTLPSink() as sink:
        folder = Path(name)
        (folder / "measured.py").write_text(APPLICATION)
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            server = subprocess.Popen(
                [sys.executable, "-m", "obsserve", "measured:app", "--port", "0", "--metrics-port", "0",
                 "--otlp-endpoint", sink.endpoint, "--workers", str(given.workers), "--app-dir", name, *options],
                stdout=out, stderr=err, env={**os.environ, "OTEL_SERVICE_NAME": "measured", "OTEL_METRIC_EXPORT_INTERVAL": "1000"},
            )  # fmt: skip
        try:
            report(folder, sink, server, given)
        finally:
            server.terminate()
            server.wait(30)


def addresses(folder, server):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        words = (folder / "err").read_text().split('"address":"')
        if len(words) > 2:
            return [word.partition('"')[0] for word in words[1:3]]
        time.sleep(0.05)
    raise SystemExit((folder / "err").read_text())


def report(folder, sink, server, given):
    url, metrics = addresses(folder, server)
    before = series(get(metrics))
    for route in range(given.routes):
        for query in ("", "?missing"):
            for number in range(given.requests):
                get(f"{url}/{route}/{number}{query}")
    requests = given.routes * 2 * given.requests
    spans = sink.wait_for(requests, 60)
    deadline = time.monotonic() + 20
    while (lines := (folder / "out").read_text().splitlines()) and len(lines) < requests:
        assert time.monotonic() < deadline, "lines are missing"
        time.sleep(0.05)
    page = get(metrics)
    began = time.perf_counter()
    for _ in range(20):
        get(metrics)
    scrape = (time.perf_counter() - began) / 20
    bodies = [request.SerializeToString() for request in sink.requests]
    size = sum(len(line) + 1 for line in lines)
    packed = len(gzip.compress("\n".join(lines).encode(), 6))
    print(f"{given.routes} routes, 2 statuses each, {given.workers} workers, {requests} requests")
    print(f"series before any request        {before}")
    print(f"series                           {series(page)}")
    print(f"series for each route and status {(series(page) - before) / (given.routes * 2):.1f}")
    print(
        f"scrape                           {len(page)} bytes, {len(gzip.compress(page))} gzipped, {scrape * 1000:.1f} ms"
    )
    print(
        f"access line                      {size / len(lines):.0f} bytes, {packed / len(lines):.0f} gzipped"
    )
    print(f"span over OTLP                   {sum(map(len, bodies)) / len(spans):.0f} bytes")
    if sink.metric_requests:
        push(sink)


def push(sink):
    """Print the size of the first push that says all, which may be several requests."""
    known = len(sink.metric_requests)
    deadline = time.monotonic() + 20
    found = []
    while len(moments := {moment(request) for request in found}) < 3:
        assert time.monotonic() < deadline, "pushes are missing"
        time.sleep(0.05)
        found = sink.metric_requests[known:]
    whole = sorted(moments)[1]
    bodies = [request.SerializeToString() for request in found if moment(request) == whole]
    packed = sum(len(gzip.compress(body, 6)) for body in bodies)
    print(f"push over OTLP                   {sum(map(len, bodies))} bytes, {packed} gzipped")


def moment(request):
    metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    return getattr(metric, metric.WhichOneof("data")).data_points[0].time_unix_nano


def series(page):
    return sum(not line.startswith(b"#") for line in page.splitlines() if line)


if __name__ == "__main__":
    main()
