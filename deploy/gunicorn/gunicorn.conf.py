"""gunicorn with obsserve: `gunicorn -c gunicorn.conf.py app:app`.

BIND, WEB_CONCURRENCY and OBSSERVE_METRICS_PORT in the environment change what is likeliest to be changed.
"""

import os

from obsserve.gunicorn import *  # noqa: F403 - the hooks: the arbiter serves one metrics port for all workers

worker_class = "obsserve.workers.ObsserveWorker"
bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
if "OBSSERVE_METRICS_PORT" not in os.environ:
    raw_env = ["OBSSERVE_METRICS_PORT=9464"]

accesslog = "-"  # JSON lines on standard output
keepalive = 75  # seconds; longer than the proxy keeps an idle connection (60 in deploy/nginx), so that it closes first
timeout = 30  # a worker whose event loop is blocked for so long is killed
graceful_timeout = 30
max_requests = 0
