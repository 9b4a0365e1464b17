"""The generator of the dashboards, recording rules and alerts: `python -m dashboards.src` writes them all.

One module for each page, one panel library (`panels`), one block of configuration (`config`). What it writes is
committed, and a test says when it is stale.
"""
