"""The collector for tests."""

import urllib.error
import urllib.request
import zlib

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from obsserve.telemetry.otlp_encode import RequestFrame, SpanRecord, encode_span
from obsserve.testing_otlp import Answer, OTLPSink

SPAN = encode_span(SpanRecord(trace_id=1, span_id=2, name="job", kind=1, start=1, end=2))
REQUEST = RequestFrame({}, "tests", "1").request([SPAN])
METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def http():
    with OTLPSink("http/protobuf") as sink:
        yield sink


def post(sink, body=REQUEST, path="/v1/traces", **headers):
    request = urllib.request.Request(f"{sink.endpoint}{path}", body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        return response.status


def test_over_grpc():
    with OTLPSink() as sink, grpc.insecure_channel(f"127.0.0.1:{sink.port}") as channel:
        call = channel.unary_unary(METHOD)
        call(REQUEST, timeout=10, metadata=(("x-tenant", "shop"),))
        assert [span.name for span in sink.wait_for(1)] == ["job"]
        assert sink.headers[0]["x-tenant"] == "shop"
        sink.answers.append(Answer("UNAVAILABLE"))
        with pytest.raises(grpc.RpcError) as refused:
            call(REQUEST, timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(sink.spans) == 1


def test_over_http(http):
    assert post(http) == 200
    assert post(http, zlib.compress(REQUEST), **{"content-encoding": "deflate"}) == 200
    assert http.requests == [ExportTraceServiceRequest.FromString(REQUEST)] * 2


def test_refusals(http):
    http.answer = Answer(503, retry_after=7)
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(http)
    assert (refused.value.code, refused.value.headers["retry-after"]) == (503, "7")
    refused.value.close()
    assert (http.attempts, http.spans) == (1, [])


def test_only_the_signals_of_opentelemetry_are_taken(http):
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(http, path="/v1/rumours")
    assert refused.value.code == 404
    refused.value.close()


def test_waiting_has_an_end(http):
    with pytest.raises(TimeoutError, match="0 spans of 1"):
        http.wait_for(1, timeout=0.01)
    with pytest.raises(TimeoutError, match="0 requests of 1"):
        http.wait_for_attempts(1, timeout=0.01)
