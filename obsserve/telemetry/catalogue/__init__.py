"""The one source of telemetry names: how an exchange can end, each metric, each log field, each span attribute.

Owns the closed lists of the telemetry contract, a chapter in each module. Code, exposition, log rendering and
the generated page docs/telemetry.md read these tables; nothing else spells a metric name or an outcome. The chapter
`otelnames` is imported by who pushes metrics, not here: most servers do without.
"""

# ruff: noqa: F403 - the chapters are one catalogue to its readers

from obsserve.telemetry.catalogue.endings import *
from obsserve.telemetry.catalogue.labels import *
from obsserve.telemetry.catalogue.lines import *
from obsserve.telemetry.catalogue.metrics import *
from obsserve.telemetry.catalogue.spans import *
