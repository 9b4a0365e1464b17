"""What /metrics answers: the cells of all serving processes and the application's own metrics.

Formats, content negotiation, escaping and compression are the Prometheus client library's. Only one thing is
done beside it, because thousands of series through its objects hold the interpreter for 50 ms and more: the
lines of a whole scrape are put together from prefixes, each cut once from what the library itself renders
for that series. A test compares the two byte for byte.

The exposition does not touch a serving process: it reads memory, and calls its `sources`. It can be used from
any thread; scrapes take turns.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

import prometheus_client
from prometheus_client.core import Exemplar, Metric, Sample
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.utils import floatToGoString

from obsserve.telemetry import catalogue
from obsserve.telemetry.appmetrics import collectors
from obsserve.telemetry.cells import (
    DURATION,
    DURATION_SUM,
    FIRST_BYTE,
    FIRST_BYTE_SUM,
    QUEUE_SUM,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    duration_counts,
    first_byte_counts,
    keep_newest,
    queue_counts,
    steady,
)
from obsserve.telemetry.pace import step_back, unhurried
from obsserve.telemetry.regions import Regions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from obsserve.telemetry import cells
    from obsserve.telemetry.cells import Base, CellsReader, Labels, Row

    Figure = tuple[str, Labels, float]
    Source = Callable[[], Iterable[Figure]]

_written: Final[Callable[[float], str]] = floatToGoString
_EOF: Final = b"# EOF\n"
_EXCHANGE_ROW: Final = 60
_COMPRESSION: Final = 5
_LINES_AT_A_TIME: Final = 128
_GZIP: Final = 31  # zlib's number for gzip's header and trailer around the largest window


class Page(NamedTuple):
    """One rendered scrape."""

    content_type: str
    content_encoding: str | None
    body: bytes


class Figures(NamedTuple):
    """One of the server's own metrics as it would be exposed.

    Arguments:
        metric: of the catalogue; the labels of target_info are the resource's.
        values: by label values, None for the overflow set; a histogram's are its cumulated buckets, the last one
            infinity, then count and sum.
        exemplars: by label values, each by its position in the values.
    """

    metric: catalogue.Metric
    values: Mapping[Labels | None, Sequence[float]]
    exemplars: Mapping[Labels | None, Mapping[int, cells.Exemplar]]


class Reading(NamedTuple):
    """What a scrape would show at one moment, as numbers."""

    own: Sequence[Figures]
    app: Sequence[Metric]


class _Family:
    """The series of one metric: values as they are exposed, and their exemplars by position."""

    def __init__(self, metric: catalogue.Metric) -> None:
        self.metric = metric
        self.values: dict[Labels | None, list[float]] = {}
        self.exemplars: dict[Labels | None, dict[int, cells.Exemplar]] = {}

    def add(
        self,
        labels: Labels | None,
        values: Sequence[float],
        exemplars: dict[int, cells.Exemplar] | None = None,
    ) -> None:
        known = self.values.get(labels)
        self.values[labels] = (
            list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]
        )
        if exemplars:
            keep_newest(self.exemplars.setdefault(labels, {}), exemplars)

    def total(self) -> float:
        return sum(values[0] for values in self.values.values())

    def overflowed(self) -> float:
        """Return how many observations are in the overflow set; call before `cumulate`."""
        values = self.values.get(None)
        if values is None:
            return 0.0
        return sum(values[:-1]) if self.metric.buckets else values[0]

    def cumulate(self) -> None:
        """Turn a histogram's bucket counts and sum into cumulated buckets, count and sum."""
        for labels, (*counts, total) in unhurried(self.values.items()):
            *buckets, count = accumulate(counts)
            self.values[labels] = [*buckets, count, count, steady(total)]

    def settle(self) -> None:
        """Make a counter's values what they will not fall below again."""
        for values in self.values.values():
            values[0] = steady(values[0])


class _Table:
    """All families of one scrape."""

    def __init__(self) -> None:
        self.families = {name: _Family(metric) for name, metric in catalogue.METRICS.items()}
        self._ended: dict[Labels, float] = {}
        self._begun: dict[Labels, float] = {}
        # What is derived from the rows of exchanges is there, at zero, before the first exchange.
        self[catalogue.QUEUE].add((), [0.0] * (len(catalogue.QUEUE_BUCKETS) + 2))
        self[catalogue.REQUEST_BODY_BYTES].add((), [0.0])
        self[catalogue.RESPONSE_BODY_BYTES].add((), [0.0])

    def __getitem__(self, metric: catalogue.Metric) -> _Family:
        return self.families[metric.name]

    def add_rows(self, rows: Iterable[Row]) -> None:
        for row in unhurried(rows):
            if row.metric == catalogue.REQUEST_DURATION.name:
                self._add_exchanges(row)
            elif row.metric == catalogue.ACTIVE_REQUESTS.name:
                if row.labels is not None:
                    self._begun[row.labels] = self._begun.get(row.labels, 0.0) + row.values[0]
            else:
                family = self.families.get(row.metric)
                if family is not None:
                    buckets = family.metric.buckets
                    values = row.values[: len(buckets) + 2 if buckets else 1]
                    if row.labels is not None or any(values):
                        family.add(row.labels, values, row.exemplars)

    def _add_exchanges(self, row: Row) -> None:
        values = list(row.values[:_EXCHANGE_ROW])
        durations = duration_counts(values)
        count = sum(durations)
        if row.labels is None or len(row.labels) == 2:
            labels = waited_labels = None
        else:
            labels = row.labels
            waited_labels = (labels[0], labels[3])
        if row.labels is not None:
            key = row.labels[:2]
            self._ended[key] = self._ended.get(key, 0.0) + count
        if not count:
            return
        exemplars = row.exemplars
        self[catalogue.REQUEST_DURATION].add(
            labels, [*durations, values[DURATION_SUM]], _shifted(exemplars, DURATION)
        )
        self[catalogue.TIME_TO_FIRST_BYTE].add(
            waited_labels,
            [*first_byte_counts(values), values[FIRST_BYTE_SUM]],
            _shifted(exemplars, FIRST_BYTE),
        )
        self[catalogue.QUEUE].add((), [*queue_counts(values), values[QUEUE_SUM]])
        self[catalogue.REQUEST_BODY_BYTES].add((), [values[REQUEST_BYTES]])
        self[catalogue.RESPONSE_BODY_BYTES].add((), [values[RESPONSE_BYTES]])

    def derive_gauges(self) -> None:
        """Make the gauges that are differences; call while only living processes are in the table."""
        for labels, begun in self._begun.items():
            self[catalogue.ACTIVE_REQUESTS].add(labels, [max(begun - self._ended.get(labels, 0.0), 0.0)])
        states = self[catalogue.CONNECTIONS_OPEN]
        if states.values:
            opened = self[catalogue.CONNECTIONS_ACCEPTED].total() - self[catalogue.CONNECTIONS_CLOSED].total()
            states.add(("idle",), [max(opened - states.total(), 0.0)])

    def finish(self) -> None:
        """Count what overflowed, and cumulate."""
        for family in tuple(self.families.values()):
            if overflowed := family.overflowed():
                self[catalogue.OVERFLOW].add((family.metric.name,), [overflowed])
            if family.metric.buckets:
                family.cumulate()
            elif family.metric.type == "counter":
                family.settle()


def _shifted(exemplars: dict[int, cells.Exemplar], first: int) -> dict[int, cells.Exemplar]:
    return {
        column - first: exemplar
        for column, exemplar in exemplars.items()
        if first <= column <= first + len(catalogue.LATENCY_BUCKETS)
    }


class _Families:
    """What the library's encoders want: something to collect."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Exposition:
    """Renders scrapes.

    Arguments:
        readers: the regions of the serving processes; read anew at each scrape.
        sources: called at each scrape for figures that are in no region: metric name, label values, value.
        base: what processes that are gone had counted.
        app: collects the application's own metrics where it is not in this process.
        resource: attributes of the resource, the labels of target_info; without any there is none.

    Whoever changes the readers or the base holds `lock` meanwhile, as a scrape does.

    """

    def __init__(
        self,
        readers: Collection[CellsReader] | Regions,
        sources: Iterable[Source] = (),
        base: Base | None = None,
        *,
        app: Callable[[], Iterable[Metric]] | None = None,
        resource: Mapping[str, str] | None = None,
    ) -> None:
        self._regions = readers if isinstance(readers, Regions) else Regions(readers, base)
        self._app = app
        self._resource = {_label_name(name): str(value) for name, value in (resource or {}).items()}
        self._sources = tuple(sources)
        self._turn = self.lock = threading.Lock()
        self._prefixes: dict[tuple[str, Labels | None], tuple[str, ...]] = {}
        self._headers: dict[tuple[str, str], str] = {}
        self._scrapes = {"text": 0, "openmetrics": 0}
        self._errors = 0
        self._last_duration = 0.0

    def scrape(self, accept: str = "", accept_encoding: str = "", names: Collection[str] = ()) -> Page:
        """Render everything, or what the names select.

        Arguments:
            accept: the scraper's header of this name.
            accept_encoding: likewise.
            names: of metrics or samples; empty for all.

        """
        with self._turn:
            began = time.perf_counter()
            encoder, content_type = choose_encoder(accept)
            is_openmetrics = content_type.startswith("application/openmetrics-text")
            self._scrapes["openmetrics" if is_openmetrics else "text"] += 1
            app = list(self._app_families())
            families = self._gather(len([sample for family in app for sample in family.samples]))
            if names:
                chosen = (_restricted(family, names) for family in (*_collected(families), *app))
                parts = [self._rendered(encoder, family) for family in chosen if family.samples]
            else:
                parts = [*self._lines(families, encoder, content_type, is_openmetrics)]
                parts += [self._rendered(encoder, family) for family in app]
            if is_openmetrics:
                parts.append(_EOF)
            self._last_duration = time.perf_counter() - began
        if gzip_accepted(accept_encoding):
            return Page(content_type, "gzip", _compressed(parts))
        return Page(content_type, None, b"".join(parts))

    def collect(self) -> Iterator[Metric]:
        """Yield the server's own metrics as the library's objects: this is one of its collectors."""
        with self._turn:
            yield from _collected(self._gather(0))

    def read(self) -> Reading:
        """Return what a scrape would show, for who does not scrape; it is counted as none."""
        with self._turn:
            app = list(self._app_families())
            families = self._gather(sum(len(family.samples) for family in app))
            own = [Figures(family.metric, family.values, family.exemplars) for family in families]
            return Reading(own, app)

    def count_failures(self, failures: int) -> None:
        """Count families of a reading that could not be used."""
        with self._turn:
            self._errors += failures

    def _gather(self, app_series: int) -> list[_Family]:
        table = _Table()
        living, gone = self._regions.rows()
        table.add_rows(living)
        table.derive_gauges()
        table.add_rows(gone)
        for source in self._sources:
            try:
                for name, labels, value in source():
                    table.families[name].add(labels, [value])
            except Exception:  # noqa: BLE001 - one figure that cannot be had must not hide the rest
                self._errors += 1
        for form, count in self._scrapes.items():
            table[catalogue.SCRAPES].add((form,), [count])
        table[catalogue.SCRAPE_ERRORS].add((), [self._errors])
        table[catalogue.SCRAPE_DURATION].add((), [self._last_duration])
        if self._resource:
            info = _Family(catalogue.TARGET_INFO._replace(labels=tuple(self._resource)))
            info.add(tuple(self._resource.values()), [1.0])
            table.families[catalogue.TARGET_INFO.name] = info
        table.finish()
        families = [family for family in table.families.values() if family.values]
        own_series = sum(len(values) for family in families for values in family.values.values())
        series = table[catalogue.SERIES]
        series.add((), [own_series + 1 + app_series])
        return [*families, series]

    def _app_families(self) -> Iterator[Metric]:
        """Yield the application's own families; those with a name of ours are the library's duplicates."""
        asked = (
            [self._app]
            if self._app is not None
            else [ask for ask, _ in collectors(prometheus_client.REGISTRY)]
        )
        for collect in asked:
            try:
                for family in collect():
                    if family.name not in _TAKEN and not any(
                        sample.name in _TAKEN for sample in family.samples
                    ):
                        yield _without_created(family)
            except Exception:  # noqa: BLE001 - the application's collector failed, the rest is still worth having
                self._errors += 1

    def _rendered(self, encoder: Callable[[_Families], bytes], family: Metric) -> bytes:
        try:
            return encoder(_Families(family)).removesuffix(_EOF)
        except Exception:  # noqa: BLE001 - a family that cannot be rendered must not take the others along
            self._errors += 1
            return b""

    # --- The short way ---

    def _lines(
        self,
        families: Iterable[_Family],
        encoder: Callable[[_Families], bytes],
        content_type: str,
        is_openmetrics: bool,
    ) -> Iterator[bytes]:
        lines: list[str] = []
        for family in families:
            name = family.metric.name
            header = self._headers.get((name, content_type))
            if header is None:
                rendered = encoder(_Families(_library_family(family.metric))).removesuffix(_EOF).decode()
                header = self._headers[name, content_type] = rendered.rstrip("\n")
            lines.append(header)
            for labels, values in family.values.items():
                if len(lines) >= _LINES_AT_A_TIME:
                    lines.append("")
                    yield "\n".join(lines).encode()
                    lines.clear()
                    step_back()
                prefixes = self._prefixes.get((name, labels)) or self._cut_prefixes(family.metric, labels)
                exemplars = family.exemplars.get(labels) if is_openmetrics else None
                lines += [
                    prefix + (repr(value) if 0.0 <= value < 1e6 else _written(value))
                    for prefix, value in zip(prefixes, map(float, values), strict=True)
                ]
                for position, exemplar in exemplars.items() if exemplars else ():
                    lines[position - len(values)] += _exemplar_text(exemplar)
        lines.append("")
        yield "\n".join(lines).encode()

    def _cut_prefixes(self, metric: catalogue.Metric, labels: Labels | None) -> tuple[str, ...]:
        family = _library_family(metric)
        family.samples = _samples(metric, labels, [0.0] * (len(metric.buckets) + 3 if metric.buckets else 1))
        text = prometheus_client.generate_latest(_Families(family)).decode()
        lines = text.removesuffix("\n").split("\n")[2:]  # after HELP and TYPE
        prefixes = self._prefixes[metric.name, labels] = tuple(line.removesuffix("0.0") for line in lines)
        return prefixes


def _compressed(parts: Iterable[bytes]) -> bytes:
    compress = zlib.compressobj(_COMPRESSION, wbits=_GZIP)
    compressed = []
    for part in parts:
        compressed.append(compress.compress(part))
        step_back()  # zlib has let the interpreter go, not the processor
    return b"".join((*compressed, compress.flush()))


def _collected(families: Iterable[_Family]) -> Iterator[Metric]:
    for family in families:
        collected = _library_family(family.metric)
        for labels, values in family.values.items():
            collected.samples += _samples(family.metric, labels, values, family.exemplars.get(labels))
        yield collected


def _label_name(attribute: str) -> str:
    """Return the label of a resource attribute, by the rule of OpenTelemetry for Prometheus."""
    label = re.sub(r"[^a-zA-Z0-9_]+", "_", attribute)
    return f"key_{label}" if label[:1].isdigit() else label


def _library_family(metric: catalogue.Metric) -> Metric:
    return Metric(metric.name.removesuffix("_total"), metric.help, metric.type, metric.unit)


def _samples(
    metric: catalogue.Metric,
    labels: Labels | None,
    values: Sequence[float],
    exemplars: dict[int, cells.Exemplar] | None = None,
) -> list[Sample]:
    exemplars = exemplars or {}
    pairs = (
        {catalogue.OVERFLOW_LABEL: "true"}
        if labels is None
        else dict(zip(metric.labels, labels, strict=True))
    )
    if not metric.buckets:
        return [Sample(metric.name, pairs, values[0], None, _library_exemplar(exemplars.get(0)))]
    bounds = (*map(_written, metric.buckets), "+Inf")
    samples = [
        Sample(
            f"{metric.name}_bucket", {**pairs, "le": bound}, value, None, _library_exemplar(exemplars.get(n))
        )
        for n, (bound, value) in enumerate(zip(bounds, values, strict=False))
    ]
    *_, count, total = values
    return [
        *samples,
        Sample(f"{metric.name}_count", pairs, count),
        Sample(f"{metric.name}_sum", pairs, total),
    ]


def _library_exemplar(exemplar: cells.Exemplar | None) -> Exemplar | None:
    if exemplar is None:
        return None
    # 63 characters of the 128 that OpenMetrics 1.0 allows.
    labels = {"span_id": exemplar.span_id, "trace_id": exemplar.trace_id}
    return Exemplar(labels, exemplar.value, exemplar.timestamp)


def _exemplar_text(exemplar: cells.Exemplar) -> str:
    value = _written(exemplar.value)
    return f' # {{span_id="{exemplar.span_id}",trace_id="{exemplar.trace_id}"}} {value} {exemplar.timestamp}'


def _restricted(family: Metric, names: Collection[str]) -> Metric:
    exposed = f"{family.name}_total" if family.type == "counter" else family.name
    if family.name in names or exposed in names:
        return family
    chosen = Metric(family.name, family.documentation, family.type, family.unit)
    chosen.samples = [sample for sample in family.samples if sample.name in names]
    return chosen


def _without_created(family: Metric) -> Metric:
    created = f"{family.name}_created"
    if not any(sample.name == created for sample in family.samples):
        return family
    rest = Metric(family.name, family.documentation, family.type, family.unit)
    rest.samples = [sample for sample in family.samples if sample.name != created]
    return rest


_TAKEN: Final = frozenset(
    name
    for metric in catalogue.METRICS.values()
    for name in (
        metric.name,
        metric.name.removesuffix("_total"),
        *(f"{metric.name}{suffix}" for suffix in ("_bucket", "_count", "_sum") if metric.buckets),
    )
)
