"""What ends a run before its time."""


class BenchError(Exception):
    """What stops a run, in one line."""
