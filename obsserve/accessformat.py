"""The two languages of `--access-log-format`, Apache's and gunicorn's, split into text and atoms.

What each atom prints is in `obsserve.telemetry.logformats`; here is only which ones there are, so that a
mistake is found with the other options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from obsserve.checks import BadValue, filled_text

# Formats that have a name in Apache's own configuration.
NAMED: Final = {
    "common": '%h %l %u %t "%r" %>s %b',
    "combined": '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"',
}

APACHE_ATOMS: Final = frozenset("aABbDHhIkLlmOPpqrSsTtUuVv")
# Atoms that take an argument, as in %{Referer}i: a header, a variable, a form of time, whose address or port.
APACHE_ATOMS_WITH_ARGUMENT: Final = frozenset("aeioptT")
GUNICORN_ATOMS: Final = frozenset(
    [
        "h",
        "l",
        "u",
        "t",
        "r",
        "m",
        "U",
        "q",
        "H",
        "s",
        "B",
        "b",
        "f",
        "a",
        "T",
        "D",
        "M",
        "L",
        "p",
        "S",
        "R",
        "st",
        "Uq",
    ]
)
GUNICORN_ATOMS_WITH_ARGUMENT: Final = frozenset("eio")

_GUNICORN: Final = re.compile(r"%%|%\((?:\{([^}]*)\}([a-z])|(\w+))\)([-0 +#]*[0-9]*(?:\.[0-9]+)?)[a-z]")
_APACHE: Final = re.compile(r"%%|%(!?)((?:[0-9]{3},?)*)[<>]?(?:\{([^}]*)\})?([A-Za-z])")


@dataclass(frozen=True, slots=True)
class Atom:
    """One piece of a format that stands for something of the request.

    Args:
        name: its letter or word.
        argument: what stood in braces; None when nothing did.
        padding: flags and width of gunicorn's form, as for `%`.
        statuses: the statuses for which it prints, empty for all.
        unless: it prints for all statuses but those.
    """

    name: str
    argument: str | None = None
    padding: str = ""
    statuses: frozenset[int] = frozenset()
    unless: bool = False


Piece = str | Atom


@dataclass(frozen=True, slots=True)
class ParsedFormat:
    """A format's language and pieces."""

    language: Literal["apache", "gunicorn"]
    pieces: tuple[Piece, ...]


def parse_access_format(text: str) -> ParsedFormat:
    """Split a format; `%(` anywhere makes it gunicorn's.

    Raises:
        BadValue: it holds an atom that is not known, or a lone percent sign.
    """
    text = NAMED.get(text, text)
    gunicorn = "%(" in text
    pieces: list[Piece] = []
    end = 0
    for match in (_GUNICORN if gunicorn else _APACHE).finditer(text):
        pieces += _plain(text[end : match.start()])
        end = match.end()
        if match[0] == "%%":
            pieces.append("%")
        else:
            pieces.append(_gunicorn_atom(match) if gunicorn else _apache_atom(match))
    pieces += _plain(text[end:])
    return ParsedFormat("gunicorn" if gunicorn else "apache", tuple(pieces))


def access_log_format(value: Any) -> str:
    """Accept a format in either language, or the name of one."""
    text = filled_text(value)
    if "\n" in text:
        raise BadValue(f"{text!r} has several lines", "give a format of one line")
    parse_access_format(text)
    return text


def _plain(text: str) -> list[str]:
    if "%" in text:
        raise BadValue(f"there is no atom at {text[text.index('%') :][:12]!r}", "write %% for a percent sign")
    return [text] if text else []


def _gunicorn_atom(match: re.Match[str]) -> Atom:
    argument, letter, word, padding = match.groups()
    if letter is not None:
        _require(letter in GUNICORN_ATOMS_WITH_ARGUMENT, match)
        return Atom(letter, argument, padding)
    _require(word in GUNICORN_ATOMS, match)
    return Atom(word, None, padding)


def _apache_atom(match: re.Match[str]) -> Atom:
    unless, statuses, argument, letter = match.groups()
    _require(letter in (APACHE_ATOMS if argument is None else APACHE_ATOMS_WITH_ARGUMENT), match)
    listed = frozenset(int(status) for status in statuses.split(",") if status)
    return Atom(letter, argument, "", listed, bool(unless))


def _require(known: bool, match: re.Match[str]) -> None:
    if not known:
        raise BadValue(f"there is no atom {match[0]!r}", "docs/migrating.md lists them")
