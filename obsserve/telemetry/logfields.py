"""What becomes of single fields of the access line: dropped, redacted, hashed, renamed; other spellings.

`FieldPolicy` changes records, and parts of them, after they are made: it knows fields by name alone. Where only
fields change that stand in cached fragments, the line is as cheap as ever (`touches`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from obsserve.telemetry.accessfields import members
from obsserve.telemetry.catalogue import CLIENT_CLOSED_REQUEST, OTEL_LOG_KEYS
from obsserve.telemetry.redact import REDACTED, hashed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from obsserve.telemetry.accessfields import Record
    from obsserve.telemetry.redact import AddressPolicy

_ABSENT: Final = object()


class FieldSettings(Protocol):
    """What decides about single fields."""

    @property
    def log_field(self) -> tuple[Any, ...]: ...
    @property
    def log_keys(self) -> str: ...
    @property
    def log_status_499(self) -> bool: ...
    @property
    def log_hash_key(self) -> str | None: ...


def field_policy(settings: FieldSettings, address: AddressPolicy | None) -> FieldPolicy | None:
    """Return the policy that the options ask for; None when every field stays as it is.

    Args:
        settings: the options.
        address: for the fields that hold a client's address.
    """
    if (
        not settings.log_field
        and settings.log_keys == "prometheus"
        and not settings.log_status_499
        and address is None
    ):
        return None
    return FieldPolicy(settings, address)


class FieldPolicy:
    """Changes records of the access line.

    Args:
        settings: the options.
        address: for the fields that hold a client's address.
    """

    def __init__(self, settings: FieldSettings, address: AddressPolicy | None = None) -> None:
        self._says_499 = settings.log_status_499
        self._names: dict[str, str] = dict(OTEL_LOG_KEYS) if settings.log_keys == "otel" else {}
        self._dotted = settings.log_keys == "otel"
        self._changes: dict[str, Callable[[Any], Any]] = {}
        if address is not None:
            for name in ("client_address", "network_peer_address"):
                self._changes[name] = lambda value: _ABSENT if (v := address.apply(value)) is None else v
        key = (settings.log_hash_key or "").encode()
        for rule in settings.log_field:
            if rule.mode == "drop":
                self._changes[rule.name] = lambda _value: _ABSENT
            elif rule.mode == "redact":
                self._changes[rule.name] = lambda _value: REDACTED
            elif rule.mode == "hash":
                self._changes[rule.name] = lambda value: hashed(key, str(value))
            elif rule.mode == "rename":
                self._names[rule.name] = rule.new_name

    def touches(self, names: Collection[str]) -> bool:
        """Return whether any of these fields is changed or has another name."""
        return any(name in self._changes or name in self._names for name in names)

    def shaped(self, values: Record) -> Record:
        """Return the fields, or a part of them, as they are to be written."""
        if (
            self._says_499
            and values.get("outcome") == "client_disconnected"
            and values.get("http_response_status_code", 0) is None
        ):
            values["http_response_status_code"] = CLIENT_CLOSED_REQUEST
        shaped: Record = {}
        for name, value in values.items():
            change = self._changes.get(name)
            new = value if change is None or value is None else change(value)
            if name == "truncated":
                new = [self._name(cut) for cut in value]
            if new is not _ABSENT:
                shaped[self._name(name)] = new
        return shaped

    def members(self, values: Record) -> str:
        """Render fields as the inside of a JSON object, as they are to be written."""
        return members(self.shaped(values))

    def _name(self, name: str) -> str:
        found = self._names.get(name)
        if found is not None:
            return found
        if self._dotted:
            for start in ("http_request_header_", "http_response_header_"):
                if name.startswith(start):
                    # The real spelling has hyphens; a header's name has no underscore but by accident.
                    return start.replace("_", ".") + name.removeprefix(start).replace("_", "-")
        return name
