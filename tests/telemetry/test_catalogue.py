"""The catalogue: its lists agree with each other, and its page is what the code reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import otelnames
from obsserve.telemetry.catalogue.page import reference

ROOT = Path(__file__).parents[2]


class TestPage:
    def test_the_committed_page_is_fresh(self):
        committed = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
        assert committed == reference(), "run: python -m obsserve.telemetry.catalogue > docs/telemetry.md"

    def test_the_module_prints_it(self):
        command = [sys.executable, "-W", "error", "-m", "obsserve.telemetry.catalogue"]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        assert printed.stdout == reference()

    def test_it_names_everything(self):
        page = reference()
        names = [*catalogue.METRICS, *catalogue.ENDINGS, *catalogue.FLAGS]
        names += [field.name for field in (*catalogue.LOG_FIELDS, *catalogue.SPAN_ATTRIBUTES)]
        tables = (catalogue.SESSION_ATTRIBUTES, catalogue.MESSAGE_ATTRIBUTES, catalogue.RELOAD_ATTRIBUTES)
        names += [attribute.name for table in tables for attribute in table]
        assert [name for name in names if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("metric", catalogue.METRICS.values(), ids=lambda metric: metric.name)
class TestMetrics:
    def test_a_name_says_type_and_unit(self, metric):
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.unit in ("", "seconds", "bytes")
        assert metric.name.removesuffix("_total").endswith(metric.unit)

    def test_only_histograms_have_buckets(self, metric):
        assert bool(metric.buckets) == (metric.type == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))

    def test_it_is_explained(self, metric):
        assert metric.help.endswith(".")

    def test_it_is_bounded(self, metric):
        assert 1 <= metric.bound <= 4000
        for label in metric.labels:
            values = catalogue.LABEL_VALUES.get((metric, label))
            assert values is None or len(values) <= metric.bound

    def test_the_values_of_its_labels_are_told(self, metric):
        build = ("version", "python_version", "python_implementation", "event_loop", "http_parser")
        python = ("implementation", "major", "minor", "patchlevel", "version")
        told = {label for each, label in catalogue.LABEL_VALUES if each is metric} | {*catalogue.LABEL_NOTES}
        if metric in (catalogue.BUILD_INFO, catalogue.PYTHON_INFO):
            told |= {*build, *python}
        assert set(metric.labels) <= told


def test_every_flag_is_somebodys():
    of_the_exchange = {"RS", "UP", "LG"}  # a reset, an upgrade, a loop that lagged: whatever the ending
    assert {ending.flag for ending in catalogue.ENDINGS.values()} - {None} | of_the_exchange == set(
        catalogue.FLAGS
    )


def test_every_closed_list_is_of_a_label():
    for metric, label in catalogue.LABEL_VALUES:
        assert label in metric.labels


def test_endings_use_words_of_the_closed_lists():
    for ending in catalogue.ENDINGS.values():
        assert ending.flag is None or ending.flag in catalogue.FLAGS
        assert ending.close_reason in catalogue.CLOSE_REASONS
        assert ending.app_protocol_error in (None, *catalogue.APP_PROTOCOL_ERRORS)


class TestOTelNames:
    """How metrics are spelled over OTLP."""

    @pytest.mark.parametrize("name", [name for name in catalogue.METRICS if name != "target_info"])
    def test_what_prometheus_makes_of_it_is_the_name_of_the_exposition(self, name):
        assert otelnames.prometheus_name(otelnames.OTEL_METRICS[name]) == name

    def test_no_two_are_the_same(self):
        assert len({metric.name for metric in otelnames.OTEL_METRICS.values()}) == len(catalogue.METRICS) - 1

    def test_the_conventions_are_those_of_opentelemetry(self):
        """Name, unit and instrument are what the official package records with."""
        from opentelemetry.semconv._incubating.metrics import http_metrics, otel_metrics

        official = {}

        class Meter:
            def __getattr__(self, create):
                def record(name, description="", unit="", **_):
                    official[name] = (unit, create.removeprefix("create_").replace("_", ""))

                return record

        for module in (http_metrics, otel_metrics):
            for create in vars(module).values():
                if getattr(create, "__name__", "").startswith("create_"):
                    create(Meter())
        checked = 0
        for metric in otelnames.OTEL_METRICS.values():
            if metric.name.startswith(("http.", "otel.")):
                assert official[metric.name] == (metric.unit, metric.instrument)
                checked += 1
        assert checked == 20

    def test_labels(self):
        from opentelemetry.semconv._incubating.attributes import otel_attributes
        from opentelemetry.semconv.attributes import error_attributes, http_attributes, network_attributes

        names = otelnames.OTEL_LABELS
        assert names["http_request_method"] == http_attributes.HTTP_REQUEST_METHOD
        assert names["http_response_status_code"] == http_attributes.HTTP_RESPONSE_STATUS_CODE
        assert names["http_route"] == http_attributes.HTTP_ROUTE
        assert names["error_type"] == error_attributes.ERROR_TYPE
        assert names["network_protocol_version"] == network_attributes.NETWORK_PROTOCOL_VERSION
        assert names["otel_span_parent_origin"] == otel_attributes.OTEL_SPAN_PARENT_ORIGIN
        assert names["otel_span_sampling_result"] == otel_attributes.OTEL_SPAN_SAMPLING_RESULT
        for label, name in names.items():
            assert name.replace(".", "_") == label
