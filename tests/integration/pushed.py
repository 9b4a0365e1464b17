"""What was pushed over OTLP, as the samples that OpenTelemetry's rules make of it for Prometheus."""

from __future__ import annotations

from prometheus_client.utils import floatToGoString

from obsserve.telemetry.catalogue import otelnames
from obsserve.telemetry.catalogue.otelnames import OTelMetric
from tests.anyvalues import attributes

POINTS = ("gauge", "sum", "histogram", "summary")


def labels_of(point):
    def text(value):
        return "true" if value is True else str(value)

    return {name.replace(".", "_"): text(value) for name, value in attributes(point).items()}


def pushes(sink):
    """The metrics of each push, by its time."""
    found = {}
    for metric in sink.metrics:
        points = getattr(metric, metric.WhichOneof("data")).data_points
        found.setdefault(points[0].time_unix_nano, []).append(metric)
    return found


def samples_of(metrics):
    """Samples by name, as `parse_metrics` of a scrape: a list of (labels, value)."""
    samples = {}

    def add(name, labels, value):
        samples.setdefault(name, []).append((labels, value))

    for metric in metrics:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        instrument = "counter" if kind == "sum" and data.is_monotonic else "gauge"
        name = otelnames.prometheus_name(OTelMetric(metric.name, metric.unit, instrument))
        for point in data.data_points:
            labels = labels_of(point)
            if kind in ("gauge", "sum"):
                add(name, labels, float(getattr(point, point.WhichOneof("value"))))
                continue
            if kind == "histogram":
                count = 0
                for bound, more in zip(
                    (*point.explicit_bounds, float("inf")), point.bucket_counts, strict=True
                ):
                    count += more
                    add(f"{name}_bucket", {**labels, "le": floatToGoString(bound)}, float(count))
                assert count == point.count
            add(f"{name}_count", labels, float(point.count))
            add(f"{name}_sum", labels, point.sum)
    return samples


def series(samples):
    """Values by name and labels; an empty label is none."""
    return {
        (name, frozenset((label, value) for label, value in labels.items() if value)): number
        for name, found in samples.items()
        for labels, number in found
    }
