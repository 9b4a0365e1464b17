"""The few exceptions that a caller of obsserve can see; each knows the exit code that it ends the process with."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class ObsserveError(Exception):
    """Whatever obsserve raises on purpose."""

    exit_code: ClassVar[int] = 1


class Problem(NamedTuple):
    """One thing that is wrong with the configuration.

    Arguments:
        option: the name it was given under: an option, or a key or variable that is none.
        what: what is wrong with it.
        remedy: what to do instead.
        where: the flag, variable or file that it came from; empty for a keyword in Python.

    """

    option: str
    what: str
    remedy: str
    where: str = ""

    def __str__(self) -> str:
        origin = f" (from {self.where})" if self.where else ""
        return f"{self.option}: {self.what}{origin}; {self.remedy}"


class ConfigError(ObsserveError):
    """The configuration cannot be used; `problems` holds everything that is wrong with it, not only the first."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        if len(lines) == 1:
            return lines[0]
        return "\n  ".join([f"{len(lines)} problems in the configuration", *lines])


class StartupError(ObsserveError):
    """The server cannot start.

    Arguments:
        message: one line for the operator.
        traceback: where the application itself raised, ready to print; empty if it did not.

    """

    exit_code = 3

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message, traceback)
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return self.message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the remedy for an unknown word: the known one that it resembles, or where they are listed."""
    import difflib  # noqa: PLC0415  (only mistakes need it)

    closest = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {closest[0]}?" if closest else "obsserve --help lists what there is"
