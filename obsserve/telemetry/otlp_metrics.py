"""Pure: figures as OTLP bytes (opentelemetry/proto/metrics/v1/metrics.proto), without building messages.

The server's own metrics have the names, units and instruments of the catalogue's OpenTelemetry spelling. The
application's stay under the names that `prometheus_client` knows them by, as OpenTelemetry wants of Prometheus names.
Everything is cumulative: a push says all that one before it said.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import islice
from operator import sub
from struct import Struct, pack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from obsserve.telemetry.catalogue import OVERFLOW_LABEL
from obsserve.telemetry.catalogue.otelnames import OTEL_INTEGERS, OTEL_LABELS, OTEL_METRICS
from obsserve.telemetry.otlp_encode import attributes, delimited
from obsserve.telemetry.pace import unhurried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric, Sample

    from obsserve.telemetry.catalogue import Metric as CatalogueMetric
    from obsserve.telemetry.catalogue.otelnames import OTelMetric
    from obsserve.telemetry.exposition import Figures, Reading

    Pairs = tuple[tuple[str, str], ...]

# How many points stand in one Metric, so that no message is long in the making; others of its name follow.
POINTS_AT_A_TIME: Final = 64

_time: Final = Struct("<BQ").pack
_number: Final = Struct("<Bd").pack
_integer: Final = Struct("<Bq").pack
_DATA: Final = {
    "gauge": b"\x2a",
    "updowncounter": b"\x3a",
    "counter": b"\x3a",
    "histogram": b"\x4a",
    "summary": b"\x5a",
}
_CUMULATIVE: Final = b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"
_AFTER_THE_POINTS: Final = {
    "counter": _CUMULATIVE + _MONOTONIC,
    "updowncounter": _CUMULATIVE,
    "histogram": _CUMULATIVE,
}
_OF_A_NUMBER: Final = b"\x3a"
_OF_A_HISTOGRAM: Final = b"\x4a"
_EXEMPLAR_OF_A_NUMBER: Final = b"\x2a"
_EXEMPLAR_OF_A_HISTOGRAM: Final = b"\x42"
_UNITS: Final = {"seconds": "s", "bytes": "By"}


class Moment(NamedTuple):
    """Since when and until when something was counted, nanoseconds since the epoch.

    Args:
        since: the server began to count.
        process: its process began, and with it what Python and the application count.
        now: the figures were read.
    """

    since: int
    process: int
    now: int


class Encoded(NamedTuple):
    """A Metric's content, and how many points it has."""

    content: bytes
    points: int


def encode_reading(reading: Reading, moment: Moment) -> tuple[list[Encoded], int]:
    """Return what a scrape would show as metrics, and how many families of the application cannot be encoded.

    Args:
        reading: the figures.
        moment: its times.
    """
    found: list[Encoded] = []
    for figures in reading.own:
        known = OTEL_METRICS.get(figures.metric.name)
        if known is not None:
            found += _encode_own(figures, known, moment)
    failures = 0
    for family in reading.app:
        try:
            found += list(_encode_app(family, moment))
        except Exception:  # noqa: BLE001 - whatever a collector of the application yields, the others are worth having
            failures += 1
    return found, failures


# --- The server's own -------------------------------------------------------------------------


def _encode_own(figures: Figures, known: OTelMetric, moment: Moment) -> Iterator[Encoded]:
    metric = figures.metric
    # What the Prometheus client libraries count goes back to the start of the process.
    since = moment.since if "." in known.name else moment.process
    if known.instrument == "gauge":
        since = 0
    times = _times(since, moment.now)
    head = _head(known.name, metric.help, known.unit)
    point = _own_histogram if metric.buckets else _own_number
    points = (
        point(metric, labels, values, figures.exemplars.get(labels, {}), times)
        for labels, values in figures.values.items()
    )
    return _in_parts(head, known.instrument, points)


def _own_number(
    metric: CatalogueMetric, labels: Any, values: Sequence[float], exemplars: Mapping[int, Any], times: bytes
) -> bytes:
    value = float(values[0])
    # Times are fractions, even where one happens to be whole; all else is counted.
    number = _number(0x21, value) if metric.unit == "seconds" else _whole(0x31, 0x21, value)
    point = times + number + _own_attributes(_OF_A_NUMBER, metric.labels, labels)
    for exemplar in exemplars.values():
        point += _own_exemplar(_EXEMPLAR_OF_A_NUMBER, exemplar)
    return point


def _own_histogram(
    metric: CatalogueMetric, labels: Any, values: Sequence[float], exemplars: Mapping[int, Any], times: bytes
) -> bytes:
    *cumulated, _, total = values
    point = (
        times
        + _histogram(metric.buckets, cumulated, total)
        + _own_attributes(_OF_A_HISTOGRAM, metric.labels, labels)
    )
    for exemplar in exemplars.values():
        point += _own_exemplar(_EXEMPLAR_OF_A_HISTOGRAM, exemplar)
    return point


@lru_cache(maxsize=8192)
def _own_attributes(tag: bytes, names: tuple[str, ...], values: tuple[str, ...] | None) -> bytes:
    if values is None:
        return attributes(tag, {OTEL_LABELS[OVERFLOW_LABEL]: True})
    return attributes(
        tag,
        {
            OTEL_LABELS.get(name, name): int(value) if name in OTEL_INTEGERS and value.isdecimal() else value
            for name, value in zip(names, values, strict=True)
            if value
        },
    )


def _own_exemplar(tag: bytes, exemplar: Any) -> bytes:
    return _exemplar(tag, exemplar.value, exemplar.timestamp, (exemplar.trace_id, exemplar.span_id), {})


# --- The application's ------------------------------------------------------------------------


def _encode_app(family: Metric, moment: Moment) -> Iterator[Encoded]:
    """Yield a family of the client library's; what OTLP has no type for becomes gauges under its samples' names."""
    unit = _UNITS.get(family.unit, family.unit)
    times = _times(moment.process, moment.now)
    rest: dict[str, list[Sample]] = {}
    if family.type == "counter":
        counted = [sample for sample in family.samples if sample.name == f"{family.name}_total"]
        points = (_app_number(sample, times) for sample in counted)
        yield from _in_parts(_head(family.name, family.documentation, unit), "counter", points)
        left = [sample for sample in family.samples if sample.name != f"{family.name}_total"]
    elif family.type in ("histogram", "summary"):
        is_histogram = family.type == "histogram"
        sets = _by_label_set(family, "le" if is_histogram else "quantile")
        point = _app_histogram if is_histogram else _app_summary
        points = (point(pairs, one, times) for pairs, one in sets.items() if one.is_whole)
        head = _head(family.name, family.documentation, unit)
        yield from _in_parts(head, family.type, points)
        left = [sample for one in sets.values() if not one.is_whole for sample in one.samples]
    else:
        left = list(family.samples)
    for sample in left:
        rest.setdefault(sample.name, []).append(sample)
    for name, samples in rest.items():
        head = _head(name, family.documentation, unit)
        yield from _in_parts(
            head, "gauge", (_app_number(sample, _times(0, moment.now)) for sample in samples)
        )


class _LabelSet:
    """What a histogram or summary says of one label set."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.count: float | None = None
        self.sum: float | None = None
        self.exemplars: list[Any] = []
        self.samples: list[Sample] = []
        self.is_histogram = False

    @property
    def is_whole(self) -> bool:
        """Whether it is one that OTLP has a point for."""
        if self.is_histogram:
            return bool(self.steps) and self.steps[-1][0] == math.inf
        return self.count is not None


def _by_label_set(family: Metric, inner: str) -> dict[Pairs, _LabelSet]:
    sets: dict[Pairs, _LabelSet] = {}
    for sample in family.samples:
        pairs = tuple((name, value) for name, value in sample.labels.items() if name != inner)
        one = sets.get(pairs)
        if one is None:
            one = sets[pairs] = _LabelSet()
            one.is_histogram = inner == "le"
        one.samples.append(sample)
        if inner in sample.labels:
            one.steps.append((float(sample.labels[inner]), sample.value))
        elif sample.name == f"{family.name}_count":
            one.count = sample.value
        elif sample.name == f"{family.name}_sum":
            one.sum = sample.value
        if sample.exemplar is not None:
            one.exemplars.append(sample.exemplar)
    for one in sets.values():
        one.steps.sort()
    return sets


def _app_number(sample: Sample, times: bytes) -> bytes:
    return (
        times
        + _number(0x21, float(sample.value))
        + _app_attributes(_OF_A_NUMBER, sample.labels.items())
        + (b"" if sample.exemplar is None else _app_exemplar(_EXEMPLAR_OF_A_NUMBER, sample.exemplar))
    )


def _app_histogram(pairs: Pairs, one: _LabelSet, times: bytes) -> bytes:
    bounds = [bound for bound, _ in one.steps[:-1]]
    return (
        times
        + _histogram(bounds, [value for _, value in one.steps], one.sum)
        + _app_attributes(_OF_A_HISTOGRAM, pairs)
        + b"".join(_app_exemplar(_EXEMPLAR_OF_A_HISTOGRAM, exemplar) for exemplar in one.exemplars)
    )


def _app_summary(pairs: Pairs, one: _LabelSet, times: bytes) -> bytes:
    quantiles = (_number(0x09, quantile) + _number(0x11, value) for quantile, value in one.steps)
    return (
        times
        + _time(0x21, int(one.count or 0))
        + _number(0x29, one.sum or 0.0)
        + b"".join(delimited(b"\x32", quantile) for quantile in quantiles)
        + _app_attributes(_OF_A_NUMBER, pairs)
    )


def _app_attributes(tag: bytes, pairs: Iterable[tuple[str, str]]) -> bytes:
    return attributes(tag, {name: value for name, value in pairs if value})


def _app_exemplar(tag: bytes, exemplar: Any) -> bytes:
    labels = dict(exemplar.labels)
    ids = labels.pop("trace_id", ""), labels.pop("span_id", "")
    return _exemplar(tag, exemplar.value, float(exemplar.timestamp or 0.0), ids, labels)


# --- Both -------------------------------------------------------------------------------------


def _head(name: str, text: str, unit: str) -> bytes:
    parts = ((b"\x0a", name), (b"\x12", text), (b"\x1a", unit))
    return b"".join(delimited(tag, part.encode("utf-8", "replace")) for tag, part in parts if part)


def _times(since: int, now: int) -> bytes:
    return (_time(0x11, since) if since else b"") + _time(0x19, now)


def _in_parts(head: bytes, kind: str, points: Iterable[bytes]) -> Iterator[Encoded]:
    points = unhurried(points)
    while some := list(islice(points, POINTS_AT_A_TIME)):
        data = b"".join(delimited(b"\x0a", point) for point in some) + _AFTER_THE_POINTS.get(kind, b"")
        yield Encoded(head + delimited(_DATA[kind], data), len(some))


def _whole(whole_tag: int, fraction_tag: int, value: float) -> bytes:
    if value.is_integer() and abs(value) < 2**63:
        return _integer(whole_tag, int(value))
    return _number(fraction_tag, value)


def _histogram(bounds: Sequence[float], cumulated: Sequence[float], total: float | None) -> bytes:
    """Return count, sum, buckets and bounds; the last bucket is infinity's and has no bound."""
    whole = [*map(int, cumulated)]
    counts = map(sub, whole, (0, *whole))
    return (
        _time(0x21, whole[-1])
        + (b"" if total is None else _number(0x29, total))
        + delimited(b"\x32", pack(f"<{len(whole)}Q", *counts))
        + _packed(tuple(bounds))
    )


@lru_cache(maxsize=256)
def _packed(bounds: tuple[float, ...]) -> bytes:
    return delimited(b"\x3a", pack(f"<{len(bounds)}d", *bounds))


def _exemplar(
    tag: bytes, value: float, timestamp: float, ids: tuple[str, str], others: Mapping[str, str]
) -> bytes:
    content = _time(0x11, int(timestamp * 1e9)) + _number(0x19, value)
    for number_tag, text, size in ((b"\x2a", ids[0], 16), (b"\x22", ids[1], 8)):
        number = _bytes_of(text)
        if len(number) == size:
            content += delimited(number_tag, number)
    return delimited(tag, content + attributes(_OF_A_NUMBER, others))


def _bytes_of(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
