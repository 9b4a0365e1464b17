"""The application's own metrics over several real workers: one page, true sums, through replacements and blocked loops."""

from __future__ import annotations

import os
import signal
import subprocess

import httpx
import pytest
from conftest import total, wait_for

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def orders(server, count):
    """Have both workers take orders; return how many each of them took."""
    taken = {}
    for _ in range(count):
        pid = int(httpx.get(f"{server.url}/order").text)
        taken[pid] = taken.get(pid, 0) + 1
    return taken


def orders_of_both(server):
    taken = {}

    def both():
        for pid, count in orders(server, 1).items():
            taken[pid] = taken.get(pid, 0) + count
        return len(taken) == 2

    wait_for(both, "an order at each of two workers")
    return taken


@pytest.fixture
def shop(serve):
    return serve("app_metrics_app:shop", "--port", "0", "--metrics-port", "0", "--workers", "2")


def test_every_type_is_merged_without_set_up(shop):
    taken = orders_of_both(shop)
    count = sum(taken.values())
    samples = shop.metrics()
    # A scrape asks the workers: what they have counted by then is on the page.
    assert total(samples, "shop_orders_total", kind="book") == count
    assert (
        total(samples, "shop_price_euros_bucket", le="10.0")
        == total(samples, "shop_price_euros_count")
        == count
    )
    assert total(samples, "shop_wait_seconds_sum") == count / 2
    assert samples["shop_build_info"] == [({"version": "1.2"}, 1.0)]
    assert sorted(value for _, value in samples["shop_carts"]) == sorted(taken.values())
    assert {labels["worker"] for labels, _ in samples["shop_carts"]} == {"0", "1"}
    assert total(samples, "shop_stock") == 10
    assert samples["shop_oldest"] == [({}, min(taken))]
    assert samples["shop_largest"] == [({}, max(taken))]
    assert samples["shop_latest"][0][1] in taken
    assert len(samples["shop_mode"]) == 4
    assert total(samples, "shop_parcels_total") == 4
    assert {value for _, value in samples["shop_shelves"]} == set(taken)
    assert {labels["worker"] for labels, _ in samples["obsserve_metrics_snapshot_age_seconds"]} == {"0", "1"}
    assert total(samples, "obsserve_metrics_snapshot_errors_total") == 0
    # What the library knows of its process is there once, as the server's own.
    assert {labels["worker"] for labels, _ in samples["process_cpu_seconds_total"]} == {"main", "0", "1"}


def test_openmetrics_has_the_exemplars_of_the_application(shop):
    count = len(orders_of_both(shop))
    assert count
    page = httpx.get(shop.metrics_url, headers=OPENMETRICS).text
    (line,) = [line for line in page.splitlines() if line.startswith('shop_orders_total{kind="book"}')]
    assert f'# {{trace_id="{"ab" * 16}"}} 1.0' in line
    chosen = httpx.get(shop.metrics_url, params={"name[]": ["shop_orders_total", "shop_stock"]}).text
    assert {line.split("{")[0].split(" ")[0] for line in chosen.splitlines() if line[0] != "#"} == {
        "shop_orders_total",
        "shop_stock",
    }


def test_a_process_that_is_gone_leaves_its_counts_and_takes_its_gauges_along(shop):
    count = sum(orders_of_both(shop).values())
    before = {labels["worker"]: value for labels, value in shop.metrics()["obsserve_worker_pid"]}
    count += sum(orders(shop, 3).values())  # since the last scrape: told when the process ends
    shop.process.send_signal(signal.SIGHUP)
    wait_for(
        lambda: total(shop.metrics(), "obsserve_worker_restarts_total", reason="reload") == 2, "new workers"
    )
    wait_for(lambda: total(shop.metrics(), "shop_stock") == 10, "the former workers' end")
    samples = shop.metrics()
    assert total(samples, "shop_orders_total", kind="book") == count
    assert total(samples, "shop_parcels_total") == 8
    assert not set(before.values()) & {value for _, value in samples["shop_shelves"]}
    assert total(samples, "shop_carts") == 0
    # A kill can take what was counted since the last snapshot along; a scrape has just made one.
    victim = int(samples["obsserve_worker_pid"][0][1])
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: total(shop.metrics(), "shop_parcels_total") == 10, "a successor")
    assert total(shop.metrics(), "shop_orders_total", kind="book") == count


def test_a_blocked_loop_is_scraped_all_the_same(shop):
    orders_of_both(shop)
    with subprocess.Popen(["curl", "-s", f"{shop.url}/block"], stdout=subprocess.DEVNULL) as client:
        wait_for(lambda: total(shop.metrics(), "shop_orders_total", kind="slow") == 1, "the blocking request")
        ages = [value for _, value in shop.metrics()["obsserve_metrics_snapshot_age_seconds"]]
        assert max(ages) < 5
        assert client.poll() is None, "the loop is still blocked"


def test_a_stopped_worker_is_shown_as_it_was(shop):
    count = sum(orders_of_both(shop).values())
    assert total(shop.metrics(), "shop_orders_total", kind="book") == count
    victim = int(shop.metrics()["obsserve_worker_pid"][0][1])
    os.kill(victim, signal.SIGSTOP)
    try:
        wait_for(
            lambda: max(v for _, v in shop.metrics()["obsserve_metrics_snapshot_age_seconds"]) > 2,
            "a snapshot that grows old",
        )
        assert total(shop.metrics(), "shop_orders_total", kind="book") == count
    finally:
        os.kill(victim, signal.SIGCONT)
    wait_for(
        lambda: max(v for _, v in shop.metrics()["obsserve_metrics_snapshot_age_seconds"]) < 2,
        "a fresh snapshot",
    )


def test_one_process_needs_no_merging(serve):
    server = serve("app_metrics_app:shop", "--port", "0", "--metrics-port", "0")
    httpx.get(f"{server.url}/order")
    samples = server.metrics()
    assert samples["shop_orders_total"] == [({"kind": "book"}, 1.0)]
    assert samples["shop_stock"] == [({}, 5.0)]
    assert "obsserve_metrics_snapshot_age_seconds" not in samples
