"""`python -m obsserve.telemetry.catalogue > docs/telemetry.md`."""

from obsserve.telemetry.catalogue.page import reference

print(reference(), end="")  # noqa: T201 - a command
