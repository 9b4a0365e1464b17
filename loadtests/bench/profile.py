"""Where one server's time goes during a slice, by cProfile: which function, not how much (it slows what it sees)."""

import pstats
import signal
import tempfile
from pathlib import Path

from . import load
from .servers import SERVERS, Server, started
from .suites import Suite

SHOWN = 30


def profile(name: str, suite: Suite, core: int, seconds: float) -> None:
    server = SERVERS[name]
    with tempfile.TemporaryDirectory(prefix="obsserve-bench-") as directory:
        figures = Path(directory) / "profile"
        profiled = Server(
            server.name,
            f"-m cProfile -o {figures} {server.arguments}",
            server.package,
            server.environment,
            server.logs_lines,
        )
        case = suite.cases[0]
        with started(profiled, suite.app, core, Path(directory)) as running:
            running.wait_until_ready(case)
            load.full_load(running, case, seconds)
            # Servers raise SIGTERM again once they have ended, and the figures would be lost with them.
            running.process.send_signal(signal.SIGINT)
            running.process.wait(30)
        pstats.Stats(str(figures)).sort_stats("tottime").print_stats(SHOWN)
