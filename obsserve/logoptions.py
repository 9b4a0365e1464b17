"""The little languages of the access log's options: which paths, which fields.

What they do is in `obsserve.telemetry.logpolicy` and `obsserve.telemetry.logfields`; here is only how they are
written, so that a mistake is found with the other options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from obsserve.checks import BadValue, filled_text, ratio

FieldMode = Literal["keep", "drop", "redact", "hash", "rename"]
_MODES: Final = get_args(FieldMode)
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_CAPTURED: Final = ("http_request_header_", "http_response_header_")
_FIELD_REMEDY: Final = "give NAME=drop, NAME=redact, NAME=hash or NAME=rename:OTHER"


@dataclass(frozen=True, slots=True)
class PathRatio:
    """Which share of the ordinary lines at some paths is written."""

    pattern: str
    ratio: float

    def __str__(self) -> str:
        return f"{self.pattern}={self.ratio:g}"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What becomes of one field of the access line."""

    name: str
    mode: FieldMode
    new_name: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.mode}" + (f":{self.new_name}" if self.new_name else "")


def path_pattern(value: Any) -> str:
    """Accept a path, in which `*` stands for any text."""
    pattern = filled_text(value)
    if not pattern.startswith(("/", "*")):
        raise BadValue(f"{pattern!r} is no path", "give a path such as /healthz or /static/*")
    return pattern


def path_ratio(value: Any) -> PathRatio:
    """Accept `PATTERN=RATIO`."""
    if isinstance(value, PathRatio):
        return value
    pattern, equals, share = filled_text(value).rpartition("=")
    if not equals:
        raise BadValue(f"{value!r} has no ratio", "give PATTERN=RATIO, such as /static/*=0.01")
    return PathRatio(path_pattern(pattern), ratio(share))


def field_rule(value: Any) -> FieldRule:
    """Accept `NAME=drop`, `NAME=redact`, `NAME=hash` or `NAME=rename:OTHER`."""
    if isinstance(value, FieldRule):
        return value
    name, _, mode = filled_text(value).partition("=")
    mode, _, new_name = mode.partition(":")
    if not _known(name):
        raise BadValue(f"there is no field {name!r}", "docs/telemetry.md lists the fields of the access line")
    if mode not in _MODES or bool(new_name) is not (mode == "rename"):
        raise BadValue(f"{value!r} does not say what to do", _FIELD_REMEDY)
    if new_name and _FIELD_NAME.fullmatch(new_name) is None:
        raise BadValue(f"{new_name!r} is no name for a field", "give letters, digits and _ . -")
    return FieldRule(name, mode, new_name)  # type: ignore[arg-type]  # it is one of the words


def _known(name: str) -> bool:
    # Only a list of names: the catalogue imports nothing of ours.
    from obsserve.telemetry.catalogue import LOG_FIELDS  # noqa: PLC0415

    return any(name == field.name for field in LOG_FIELDS) or (
        name.startswith(_CAPTURED) and _FIELD_NAME.fullmatch(name) is not None
    )
