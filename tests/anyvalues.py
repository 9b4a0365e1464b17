"""What OTLP's messages hold, as Python's own values."""

from __future__ import annotations


def value(held):
    """Return an `AnyValue` as what it stands for; None when it is empty."""
    kind = held.WhichOneof("value")
    if kind == "array_value":
        return [value(item) for item in held.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: value(pair.value) for pair in held.kvlist_value.values}
    return None if kind is None else getattr(held, kind)


def attributes(holder):
    """Return the attributes of a span, an event, a log record or a resource."""
    return {pair.key: value(pair.value) for pair in holder.attributes}
