"""What OTEL_RESOURCE_ATTRIBUTES says of the service, for the options, the logs and the spans alike.

Imports nothing of OpenTelemetry: the variable also counts where nothing is traced.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE_ID: Final = "service.instance.id"


def resource_attributes(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what OTEL_RESOURCE_ATTRIBUTES says; pairs that are none are left out.

    Args:
        environ: the environment.
    """
    pairs = (item.partition("=") for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    return {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
