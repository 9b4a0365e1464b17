"""Compare servers on one machine: ``python -m loadtests.bench hello``.

All servers are up at once on one core, the load generator has the other; slices are interleaved, and every
figure that is gated is the median of per-round ratios to the reference peer (docs/performance.md, Method).
Python's standard library, wrk and h2load; Linux, because the figures come from /proc.
"""
