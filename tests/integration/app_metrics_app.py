"""An application that counts with prometheus_client, as any tutorial shows it: nothing is set up for several workers."""

from __future__ import annotations

import os
import time

from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.core import REGISTRY, CounterMetricFamily, GaugeMetricFamily

ORDERS = Counter("shop_orders", "Orders.", ["kind"])
PRICES = Histogram("shop_price_euros", "Prices.", buckets=(1, 10))
WAITS = Summary("shop_wait_seconds", "Waits.")
VERSION = Info("shop_build", "Build.")
VERSION.info({"version": "1.2"})
CARTS = Gauge("shop_carts", "Carts.")
STOCK = Gauge("shop_stock", "Stock.", multiprocess_mode="livesum")
OLDEST = Gauge("shop_oldest", "Oldest.", multiprocess_mode="min")
LARGEST = Gauge("shop_largest", "Largest.", multiprocess_mode="livemax")
LATEST = Gauge("shop_latest", "Latest.", multiprocess_mode="livemostrecent")
MODE = Enum("shop_mode", "Mode.", states=["open", "closed"])
STOCK.set(5)
OLDEST.set(os.getpid())
LARGEST.set(os.getpid())


class Warehouse:
    """A custom collector."""

    def collect(self):
        yield CounterMetricFamily("shop_parcels", "Parcels.", value=2)
        yield GaugeMetricFamily("shop_shelves", "Shelves.", value=os.getpid())


REGISTRY.register(Warehouse())


async def shop(scope, receive, send):
    """/order counts with the trace that it is told, /block holds the event loop, anything else says who answers."""
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/order":
        ORDERS.labels("book").inc(exemplar={"trace_id": "ab" * 16})
        PRICES.observe(7)
        WAITS.observe(0.5)
        CARTS.inc()
        LATEST.set(os.getpid())
    elif path == "/block":
        ORDERS.labels("slow").inc()
        time.sleep(8)
    body = str(os.getpid()).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})
