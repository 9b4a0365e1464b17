import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from obsserve.telemetry.exposition import Exposition
from obsserve.telemetry.lateexposition import LateExposition


def test_it_is_made_once_however_many_ask_at_the_same_time():
    made = []
    together = Barrier(8)

    def make():
        made.append(Exposition([]))
        return made[-1]

    late = LateExposition(make)
    assert not made

    def ask(_):
        together.wait(10)
        return late.scrape().body

    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(ask, range(8)))
    assert len(made) == 1
    assert all(b"obsserve_metrics_series" in body for body in bodies)


def test_it_answers_as_the_exposition_does():
    exposition = Exposition([])
    late = LateExposition(lambda: exposition)
    page = late.scrape("application/openmetrics-text; version=1.0.0", "gzip", ["obsserve_metrics_series"])
    assert page.content_type.startswith("application/openmetrics-text")
    assert page.content_encoding == "gzip"
    assert {figures.metric.name for figures in late.read().own} >= {"obsserve_metrics_series"}
    late.count_failures(2)
    assert b"obsserve_metrics_scrape_errors_total 2.0" in late.scrape().body
    assert {family.name for family in late.collect()} == {family.name for family in exposition.collect()}


def test_the_client_library_is_not_imported_before():
    code = (
        "import sys; from obsserve.telemetry.lateexposition import LateExposition\n"
        "assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
