"""A server's regions over many generations of workers."""

from __future__ import annotations

import os

from obsserve.telemetry import catalogue
from obsserve.telemetry.cells import Cells, Family
from obsserve.telemetry.exposition import Exposition
from obsserve.telemetry.regions import Regions

REQUESTS = catalogue.WORKER_REQUESTS
OPEN = catalogue.WORKER_CONNECTIONS_OPEN


def worker(regions, key, requests, connections=0.0, slot="0"):
    cells = Cells.create(rows=64, exemplars=8)
    Family(cells, REQUESTS).add(requests, slot)
    Family(cells, OPEN).set(connections, slot)
    regions.add(key, cells.reader())
    return cells


def value(regions, metric):
    families = {family.name: family for family in Exposition(regions).collect()}
    return sum(sample.value for sample in families[metric.name.removesuffix("_total")].samples)


def test_a_draining_process_leaves_the_gauges_of_its_slot_to_its_successor():
    regions = Regions()
    worker(regions, "old", 5.0, 3.0)
    worker(regions, "new", 1.0, 2.0)
    regions.retire("old")
    assert value(regions, OPEN) == 2.0
    assert value(regions, REQUESTS) == 6.0


def test_a_thousand_generations_cost_a_scrape_as_much_as_none():
    regions = Regions()
    descriptors = len(os.listdir("/proc/self/fd"))
    for generation in range(1000):
        worker(regions, generation, 2.0).close()
        regions.fold(generation)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert value(regions, REQUESTS) == 2000.0
    living, gone = regions.rows()
    assert (len(living), len(gone)) == (0, 1)


def test_folding_an_unknown_process_does_nothing():
    regions = Regions()
    worker(regions, "somebody", 5.0, 3.0)
    before = regions.rows()
    regions.fold("nobody")
    assert regions.rows() == before
    assert value(regions, REQUESTS) == 5.0
    assert value(regions, OPEN) == 3.0
