"""Where each signal goes over OTLP, and how it is spoken."""

from types import SimpleNamespace

import pytest

from obsserve.errors import StartupError
from obsserve.telemetry.otlpdestination import destination_of, is_exported

PATHS = {"TRACES": "/v1/traces", "LOGS": "/v1/logs", "METRICS": "/v1/metrics"}


def options(endpoint=None, protocol=None):
    return SimpleNamespace(otlp_endpoint=endpoint, otlp_protocol=protocol)


@pytest.fixture(params=PATHS)
def signal(request):
    return request.param


class TestWhether:
    def test_when_somebody_wants_it(self, signal):
        assert is_exported(signal, {}, wanted=True)
        assert not is_exported(signal, {}, wanted=False)

    def test_by_name(self, signal):
        assert is_exported(signal, {f"OTEL_{signal}_EXPORTER": "console, otlp"}, wanted=False)
        assert not is_exported(signal, {f"OTEL_{signal}_EXPORTER": "console"}, wanted=False)

    @pytest.mark.parametrize("off", ["none", "otlp,none"])
    def test_the_off_switches_win(self, signal, off):
        assert not is_exported(signal, {f"OTEL_{signal}_EXPORTER": off}, wanted=True)
        assert not is_exported(signal, {"OTEL_SDK_DISABLED": " True "}, wanted=True)


class TestWhereTo:
    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_by_default(self, signal, protocol):
        found = destination_of(signal, options(), {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
        local = {"grpc": "http://localhost:4317", "http/protobuf": f"http://localhost:4318{PATHS[signal]}"}
        assert found == (None, local[protocol], protocol)

    def test_the_signals_own_variables_come_first(self, signal):
        environ = {
            f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": "http://own:1/x",
            f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:2",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        assert destination_of(signal, options(), environ) == (None, "http://own:1/x", "http/protobuf")

    def test_the_option_comes_before_all_of_them(self, signal):
        environ = {f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": "http://own:1"}
        found = destination_of(signal, options("http://c:4317", "grpc"), environ)
        assert found == ("http://c:4317", "http://c:4317", "grpc")

    @pytest.mark.parametrize("given", ["http://c", "http://c/", "http://c/v1/traces"])
    def test_over_http_the_signals_path_is_appended(self, signal, given):
        found = destination_of(signal, options(given, "http/protobuf"), {})
        assert found.endpoint == found.destination == f"http://c{PATHS[signal]}"

    @pytest.mark.parametrize(
        ("given", "says"), [("c:4317", "write http://c:4317"), ("ftp://c", "neither http nor https")]
    )
    def test_what_is_no_url(self, signal, given, says):
        with pytest.raises(StartupError, match=says):
            destination_of(signal, options(given), {})

    def test_a_protocol_that_nobody_speaks(self, signal):
        with pytest.raises(StartupError, match="'thrift' is not known; use grpc or http/protobuf"):
            destination_of(signal, options(protocol="thrift"), {})
