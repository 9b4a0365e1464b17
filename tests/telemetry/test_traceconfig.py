"""Whether tracing is on, and what the options and OpenTelemetry's variables make of it."""

import sys
from types import SimpleNamespace

import pytest

from obsserve.errors import StartupError
from obsserve.telemetry import otlpdestination, traceconfig
from obsserve.telemetry.traceconfig import resource, tracing_configuration


def settings(**given):
    ordinary = {
        **{"otlp_endpoint": None, "otlp_protocol": None, "trace_sample_ratio": None, "trace_trust": "peers"},
        **{"service_name": "shop:app", "log_query": "auto", "log_query_allow": ()},
        **{"log_client_ip": "keep", "log_hash_key": None, "log_slow": 1.0, "trace_sample_path": ()},
        **{"trace_keep_errors": False, "trace_response": ()},
    }
    return SimpleNamespace(**ordinary | given)


def configured(environ=(), **given):
    return tracing_configuration(settings(**given), dict(environ))


class TestOnOrOff:
    def test_off_unless_asked_for(self):
        assert configured() is None

    @pytest.mark.parametrize(
        "variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    )
    def test_on_by_the_standard_variables(self, variable):
        found = configured({variable: "http://collector:4317"})
        assert found.endpoint is None, "the exporter reads its own variables"
        assert found.destination == "http://collector:4317"

    def test_on_by_name(self):
        assert configured({"OTEL_TRACES_EXPORTER": "otlp"}).destination == "http://localhost:4317"

    @pytest.mark.parametrize("environ", [{"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}])
    def test_the_off_switches_win(self, environ):
        assert configured(environ, otlp_endpoint="http://collector:4317") is None

    def test_another_exporter_is_refused(self):
        with pytest.raises(StartupError, match="OTEL_TRACES_EXPORTER=console"):
            configured({"OTEL_TRACES_EXPORTER": "console"}, otlp_endpoint="http://collector:4317")

    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_missing_packages_are_named(self, monkeypatch, protocol):
        monkeypatch.setattr(otlpdestination, "find_spec", lambda name: None)
        with pytest.raises(StartupError, match=r"pip install 'obsserve\[otlp\]'"):
            configured(otlp_endpoint="http://collector:4317", otlp_protocol=protocol)

    def test_a_missing_parent_package_too(self, monkeypatch):
        def find_spec(name):
            raise ModuleNotFoundError(name)

        monkeypatch.setattr(otlpdestination, "find_spec", find_spec)
        with pytest.raises(StartupError, match="obsserve"):
            configured(otlp_endpoint="http://collector:4317")

    def test_nothing_of_opentelemetry_is_imported(self):
        import subprocess

        code = (
            "import sys, obsserve.telemetry.traceconfig, obsserve.telemetry.spanfigures\n"
            "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestWhereTo:
    def test_grpc_is_the_default(self):
        found = configured(otlp_endpoint="http://collector:4317")
        assert (found.protocol, found.endpoint) == ("grpc", "http://collector:4317")

    @pytest.mark.parametrize(
        "given", ["http://collector:4318", "http://collector:4318/", "http://collector:4318/v1/traces"]
    )
    def test_http_appends_the_path(self, given):
        found = configured(otlp_endpoint=given, otlp_protocol="http/protobuf")
        assert found.endpoint == found.destination == "http://collector:4318/v1/traces"

    def test_protocol_from_the_environment(self):
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        found = configured(environ)
        assert (found.protocol, found.destination) == ("http/protobuf", "http://c:4318/v1/traces")
        environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "grpc"
        assert configured(environ).protocol == "grpc"
        assert configured(environ, otlp_protocol="http/protobuf").protocol == "http/protobuf"

    def test_unknown_protocol(self):
        with pytest.raises(StartupError, match="http/json"):
            configured({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, otlp_endpoint="http://c:4318")

    def test_an_address_is_no_url(self):
        with pytest.raises(StartupError, match="write http://collector:4317"):
            configured(otlp_endpoint="collector:4317")


class TestHow:
    def configured(self, **environ):
        return configured(environ, otlp_endpoint="http://collector:4317")

    def test_defaults(self):
        found = self.configured()
        assert (found.queue_size, found.batch_size, found.schedule_delay) == (2048, 512, 5.0)
        assert (found.sampler, found.trust, found.query.mode) == (
            "parentbased_always_on",
            "peers",
            "redact-all",
        )
        assert (found.attribute_limit, found.attribute_length, found.event_limit) == (128, None, 128)
        assert (found.exception_events, found.notes) == (True, ())

    def test_the_batch_variables(self):
        found = self.configured(
            OTEL_BSP_MAX_QUEUE_SIZE="100", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="400", OTEL_BSP_SCHEDULE_DELAY="250"
        )
        assert (found.queue_size, found.batch_size, found.schedule_delay) == (100, 100, 0.25)

    def test_what_is_no_number_is_told_and_not_used(self):
        found = self.configured(OTEL_BSP_MAX_QUEUE_SIZE="many", OTEL_BSP_SCHEDULE_DELAY="0")
        assert (found.queue_size, found.schedule_delay) == (2048, 5.0)
        assert len(found.notes) == 2
        assert "OTEL_BSP_MAX_QUEUE_SIZE='many'" in found.notes[0]

    def test_which_traces_the_metrics_name(self):
        assert self.configured().exemplars == "trace_based"
        assert self.configured(OTEL_METRICS_EXEMPLAR_FILTER="Always_On ").exemplars == "always_on"
        found = self.configured(OTEL_METRICS_EXEMPLAR_FILTER="sometimes")
        assert (found.exemplars, len(found.notes)) == ("trace_based", 1)
        assert "'sometimes'" in found.notes[0]

    def test_the_span_limits(self):
        found = self.configured(
            OTEL_ATTRIBUTE_COUNT_LIMIT="9",
            OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="7",
            OTEL_SPAN_EVENT_COUNT_LIMIT="0",
            OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="40",
        )
        assert (found.attribute_limit, found.event_limit, found.attribute_length) == (7, 0, 40)
        found = self.configured(OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="long")
        assert found.attribute_length is None

    def test_samplers(self):
        found = self.configured(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0.5")
        assert (found.sampler, found.sampler_argument) == ("traceidratio", "0.5")

    def test_the_ratio_option_wins(self):
        found = configured(
            {"OTEL_TRACES_SAMPLER": "always_off"}, otlp_endpoint="http://c:1", trace_sample_ratio=0.01
        )
        assert (found.sampler, found.sampler_argument) == ("parentbased_traceidratio", "0.01")

    @pytest.mark.parametrize(("word", "as_event"), [("", True), ("logs", False), ("logs/dup", True)])
    def test_how_exceptions_are_told(self, word, as_event):
        assert self.configured(OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN=word).exception_events is as_event

    def test_captured_headers(self):
        found = self.configured(
            OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST="accept, x-.*",
            OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE="content-type",
            OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS="x-card",
        )
        assert found.request_headers == ("accept", "x-.*")
        assert found.response_headers == ("content-type",)
        assert found.sensitive_headers == ("x-card",)


class TestResource:
    def test_what_it_holds(self):
        found = resource(
            configured(otlp_endpoint="http://c:1").service_name,
            service_instance_id="i-1",
            worker=3,
            version="1.2",
            environ={
                "OTEL_RESOURCE_ATTRIBUTES": "host.name=box,service.name=other,team=a%20b,broken, k8s.pod.name = p"
            },
        )
        assert found["service.name"] == "shop:app"
        assert found["service.instance.id"] == "i-1"
        assert found["host.name"] == "box"
        assert (found["team"], found["k8s.pod.name"]) == ("a b", "p")
        assert found["obsserve.worker"] == 3
        assert (found["webengine.name"], found["webengine.version"]) == ("obsserve", "1.2")
        assert found["process.runtime.name"] == sys.implementation.name
        assert found["telemetry.sdk.name"] == "opentelemetry"
        assert isinstance(found["process.pid"], int)
        assert "broken" not in found

    def test_a_version_that_is_not_known(self):
        assert traceconfig._version_of("no-such-distribution-of-ours") == "unknown"
