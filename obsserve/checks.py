"""Checks of one option's value: each takes what was given and returns what Settings holds, or raises BadValue.

A check accepts text as well as the type itself, because flags and variables are text and Python's callers often
pass on a variable of their own, such as `port=os.environ["PORT"]`.
"""

from __future__ import annotations

import enum
import math
import operator
import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

Check = Callable[[Any], Any]

_ON = frozenset({"1", "on", "t", "true", "y", "yes"})
_OFF = frozenset({"0", "off", "f", "false", "n", "no"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})


class LogLevel(enum.IntEnum):
    """The levels of `logging`, and uvicorn's `trace` below them."""

    CRITICAL = 50
    ERROR = 40
    WARNING = 30
    INFO = 20
    DEBUG = 10
    TRACE = 5


class BadValue(ValueError):  # noqa: N818  (it never leaves the configuration as an exception)
    """A value cannot be used.

    Arguments:
        what: what is wrong with it, the value included.
        remedy: what to give instead.

    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


def checked_by(function: str) -> Check:
    """Check by a function of another module, which is imported once there is something to check.

    Args:
        function: `module:name`.
    """

    def check(value: Any) -> Any:
        module, _, name = function.partition(":")
        return getattr(import_module(module), name)(value)

    return check


def application(value: Any) -> Any:
    """Accept an import string, which the importer reads, or the application itself."""
    if isinstance(value, str):
        return filled_text(value)
    if not callable(value):
        raise BadValue("it is nothing that can be called", "give module:attribute, or the application itself")
    return value


def text(value: Any) -> str:
    """Accept a string or a path."""
    try:
        given = os.fspath(value)
    except TypeError:
        given = None
    if not isinstance(given, str) or "\0" in given:
        raise BadValue(f"{value!r} is not text", "give a string")
    return given


def filled_text(value: Any) -> str:
    given = text(value)
    if not given:
        raise BadValue("it is empty", "give a name")
    return given


def directory(value: Any) -> str:
    """Accept the path of a directory that is there."""
    given = filled_text(value)
    if not Path(given).is_dir():
        raise BadValue(f"{given!r} is not a directory", "give one that exists")
    return given


def switch(value: Any) -> bool:
    word = str(value).lower()
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise BadValue(f"{value!r} is neither true nor false", "give true or false")


def one_of(choices: tuple[str, ...]) -> Check:
    """Accept one of the words, in any case."""

    def check(value: Any) -> str:
        word = str(value).lower()
        if word not in choices:
            raise BadValue(f"{value!r} is not one of the choices", f"give one of {', '.join(choices)}")
        return word

    return check


def one_of_or_import(choices: tuple[str, ...], what: str) -> Check:
    """Accept one of the words, in any case, or where to import something else from, `module:attribute`.

    Args:
        choices: the words.
        what: what else it may be, for the message.
    """

    def check(value: Any) -> str:
        word = str(value)
        if word.lower() in choices:
            return word.lower()
        module, _, attribute = word.partition(":")
        if isinstance(value, str) and module and attribute:
            return word
        remedy = f"give one of {', '.join(choices)}, or {what} as module:attribute"
        raise BadValue(f"{value!r} is not one of the choices", remedy)

    return check


def protocol_class(choices: tuple[str, ...]) -> Check:
    """Accept the name of one of our own, or a protocol class with uvicorn's constructor: itself, or as module:Class."""
    named = one_of_or_import(choices, "a protocol class")

    def check(value: Any) -> Any:
        return value if isinstance(value, type) else named(value)

    return check


def awaited(value: Any) -> Any:
    """Accept a function that is awaited."""
    if not callable(value):
        raise BadValue(f"{value!r} cannot be called", "give a coroutine function without arguments")
    return value


def called(value: Any) -> Any:
    """Accept a function."""
    if not callable(value):
        raise BadValue(f"{value!r} cannot be called", "give a function")
    return value


def tls_version(value: Any) -> int:
    """Accept a protocol number of the ssl module that stands for TLS 1.2 or later."""
    remedy = "leave it out for TLS 1.2 and later, or give 5 for TLS 1.2 only"
    number: int = whole(0)(value)
    if number in (3, 4):  # RFC 8996 forbids them
        raise BadValue(f"{number} stands for TLS 1.{number - 3}, which is not served", remedy)
    if number not in (2, 5, 17):
        raise BadValue(f"{number} is no protocol of a TLS server", remedy)
    return number


def whole(minimum: int, maximum: int | None = None) -> Check:
    """Accept a whole number within bounds, both included."""
    remedy = f"give a whole number of at least {minimum}"
    if maximum is not None:
        remedy = f"give a whole number from {minimum} to {maximum}"

    def check(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else operator.index(value)
        except (TypeError, ValueError):
            raise BadValue(f"{value!r} is not a whole number", remedy) from None
        if isinstance(value, bool):
            raise BadValue(f"{value!r} is not a whole number", remedy)
        if number < minimum:
            raise BadValue(f"{number} is too small", remedy)
        if maximum is not None and number > maximum:
            raise BadValue(f"{number} is too large", remedy)
        return number

    return check


def permissions(value: Any) -> str:
    """Accept the permission bits of a file, octal text as chmod takes it or their number; return octal text."""
    remedy = "give octal digits, such as 0660 (in Python and TOML a number is 0o660)"
    try:
        number = int(value, 8) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        raise BadValue(f"{value!r} is not a file mode", remedy) from None
    if isinstance(value, bool) or not 0 <= number <= 0o777:
        raise BadValue(f"{value!r} is not a file mode", remedy)
    return f"{number:04o}"


def size(value: Any) -> int:
    """Accept a number of bytes; K, M, G and T after it stand for the powers of 1024, as with systemd."""
    remedy = "give bytes, such as 536870912, or 512M"
    word = "" if isinstance(value, bool) else str(value).strip().upper().removesuffix("IB").removesuffix("B")
    power = "KMGT".find(word[-1:]) + 1 if word else 0
    try:
        number = int(float(word.rstrip("KMGT")) * 1024**power)
    except (ValueError, OverflowError):
        raise BadValue(f"{value!r} is not a size", remedy) from None
    if number < 1:
        raise BadValue(f"{value!r} is too small", remedy)
    return number


def _seconds(value: Any, remedy: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadValue(f"{value!r} is not a number of seconds", remedy)
    return number


def seconds(value: Any) -> float:
    """Accept a duration that is longer than nothing."""
    remedy = "give seconds, more than 0"
    number = _seconds(value, remedy)
    if number <= 0:
        raise BadValue(f"{number:g} is too short", remedy)
    return number


def seconds_or_zero(value: Any) -> float:
    """Accept a duration where 0 means at once."""
    remedy = "give seconds, 0 or more"
    number = _seconds(value, remedy)
    if number < 0:
        raise BadValue(f"{number:g} is negative", remedy)
    return number


def ratio(value: Any) -> float:
    """Accept a share from 0 to 1."""
    remedy = "give a number from 0 to 1"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadValue(f"{value!r} is not a number", remedy) from None
    if not 0 <= number <= 1:
        raise BadValue(f"{number:g} is no share", remedy)
    return number


def header_name(value: Any) -> str:
    """Accept the name of a header field, in any case."""
    name = text(value).lower()
    if not _TOKEN.fullmatch(name):
        raise BadValue(f"{name!r} is not a header name", "give a token (RFC 9110, section 5.1)")
    if name in _FRAMING_HEADERS:
        raise BadValue(f"{name} belongs to each response's own framing", "choose another")
    return name


def log_level(value: Any) -> int:
    """Accept the name of a level in any case, or the number of one."""
    word = str(value).upper()
    if word in LogLevel.__members__:
        return LogLevel[word]
    try:
        number = whole(1)(value)
    except BadValue:
        names = ", ".join(level.name.lower() for level in LogLevel)
        raise BadValue(f"{value!r} is not a log level", f"give one of {names}") from None
    return LogLevel(number) if number in set(LogLevel) else number


def comma_list(value: Any) -> tuple[str, ...]:
    """Accept a comma-separated string, or a sequence of strings."""
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(stripped for part in parts if (stripped := text(part).strip()))
    except TypeError:
        raise BadValue(f"{value!r} is not a list", "give names separated by commas") from None


def peers(value: Any) -> tuple[str, ...]:
    """Accept addresses, networks and literals, as `comma_list` does; what looks like a network has to be one."""
    given = comma_list(value)
    for peer in given:
        if "/" in peer and not peer.startswith("/"):
            from ipaddress import ip_network  # noqa: PLC0415  (most servers name no network)

            try:
                ip_network(peer, strict=False)
            except ValueError:
                raise BadValue(f"{peer!r} is not a network", "give CIDR, such as 10.0.0.0/8") from None
    return given


def some_of(choices: tuple[str, ...]) -> Check:
    """Accept some of the words, separated by commas or as a sequence, in any case; their order is kept."""
    one = one_of(choices)

    def check(value: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(one, comma_list(value))))

    return check


def header(value: Any) -> tuple[str, str]:
    """Accept `Name:Value`, or a pair of name and value; the value keeps its spaces, as with uvicorn."""
    remedy = "give Name:Value"
    if isinstance(value, str):
        name, colon, content = value.partition(":")
        if not colon:
            raise BadValue(f"{value!r} has no colon", remedy)
    else:
        try:
            name, content = map(text, value)
        except (TypeError, ValueError):
            raise BadValue(f"{value!r} is not a pair of strings", remedy) from None
    if not _TOKEN.fullmatch(name):
        raise BadValue(f"{name!r} is not a header name", f"{remedy} (RFC 9110, section 5.1)")
    if name.lower() in _FRAMING_HEADERS:
        raise BadValue(f"{name} belongs to each response's own framing", "leave it to the server")
    if any(ord(character) > 0xFF or character in "\r\n\0" for character in content):
        raise BadValue(f"{content!r} cannot be a header value", "give Latin-1 text on one line")
    return name, content
