"""The catalogue and what real servers say: nothing outside it, and under everything that can be provoked, everything inside it."""

from __future__ import annotations

import asyncio
import signal
import socket

import httpx
import trustme
from conftest import total, wait_for
from mix import Mix

from obsserve.telemetry import catalogue
from obsserve.telemetry.catalogue import otelnames
from obsserve.testing_otlp import OTLPSink

SERVER = 2  # opentelemetry.proto.trace.v1.Span.SpanKind
SUFFIXES = ("_bucket", "_count", "_sum")

# What stays at zero, or away, here, and where or why.
NOT_PROVOKED = {
    "obsserve_accept_errors_total": "needs a process without descriptors: test_faults.py",
    "obsserve_drain_interrupted_requests_total": "counted in the last moment of a server: test_shutdown.py",
    "obsserve_lifespan_failures_total": "the server ends with it: test_server.py",
    "obsserve_log_truncated_total": "test_logsink.py, test_accesslog.py",
    "obsserve_log_write_errors_total": "a full disk: test_faults_under_load.py",
    "obsserve_metrics_scrape_errors_total": "a faulty collector of the application: test_exposition.py",
    "obsserve_metrics_overflow_total": "test_cardinality.py",
    "obsserve_metrics_snapshot_errors_total": "test_appsnapshots.py",
    "obsserve_websocket_ping_rtt_seconds": "a ping each 20 s: test_websocket.py",
    "obsserve_websocket_ping_timeouts_total": "test_websocket.py",
    "obsserve_tls_certificate_reloads_total": "a renewed certificate: test_tls.py",
    "python_gc_objects_uncollectable_total": "Python collects everything",
    # Gauges that are at rest when the page is read.
    "http_server_active_requests": "at rest",
    "obsserve_connection_buffered_bytes": "at rest",
    "obsserve_connections_open": "at rest",
    "obsserve_connections_write_paused": "at rest",
    "obsserve_http_queued_requests": "at rest",
    "obsserve_listener_backlog_connections": "at rest",
    "obsserve_log_queue_records": "at rest",
    "obsserve_websocket_connections_open": "at rest",
    "obsserve_websocket_receive_queue_messages": "at rest",
    "obsserve_worker_active_requests": "at rest",
    "obsserve_worker_connections_open": "at rest",
    "otel_sdk_exporter_log_inflight": "at rest",
    "otel_sdk_exporter_metric_data_point_inflight": "at rest",
    "otel_sdk_exporter_span_inflight": "at rest",
    "otel_sdk_processor_log_queue_size": "at rest",
    "otel_sdk_processor_span_queue_size": "at rest",
    "otel_sdk_span_live": "at rest",
}
FIELDS_NOT_PROVOKED = {
    "app": "fields that the application binds: test_accesslog.py",
    "tls_client_subject": "a client certificate: test_tls.py",
    "tls_resumed": "only with a session that a client resumes: test_tls.py",
}


ATTRIBUTES_NOT_PROVOKED = {"obsserve.reload.files": "needs --reload: test_reloading.py"}


def base_name(sample):
    if sample in catalogue.METRICS:
        return sample
    return next((sample.removesuffix(end) for end in SUFFIXES if sample.endswith(end)), sample)


def check_metrics(samples):
    """Nothing outside the catalogue: no name, no label."""
    for sample, found in samples.items():
        metric = catalogue.METRICS.get(base_name(sample))
        assert metric is not None, sample
        if metric is catalogue.TARGET_INFO:
            continue
        allowed = {*metric.labels, catalogue.OVERFLOW_LABEL} | (
            {"le"} if sample.endswith("_bucket") else set()
        )
        for labels, _ in found:
            assert labels.keys() <= allowed, sample
            for label, value in labels.items():
                words = catalogue.LABEL_VALUES.get((metric, label))
                assert words is None or value in words or catalogue.OVERFLOW_LABEL in labels, (
                    sample,
                    label,
                    value,
                )


def nonzero(samples):
    return {base_name(sample) for sample, found in samples.items() if any(value for _, value in found)}


def belongs(key, name):
    """Whether a key is one of those that a name with a placeholder stands for."""
    return "<" in name and key.startswith(name.split("<")[0])


def check_lines(lines):
    fields = {field.name: field.type for field in catalogue.LOG_FIELDS}
    types = {"string": str, "int": int, "float": (int, float), "bool": bool, "array": list, "object": dict}
    for line in lines:
        for key, value in line.items():
            known = key if key in fields else next((name for name in fields if belongs(key, name)), None)
            assert known is not None, key
            assert value is None or isinstance(value, types[fields[known]]), (key, value)
        assert set(line.get("flags", ())) <= catalogue.FLAGS.keys()


def missing(known, seen):
    return {name for name in known if name not in seen and not any(belongs(key, name) for key in seen)}


def talk(url, data):
    host, port = url.split("://")[1].split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.settimeout(10)
        client.sendall(data)
        while client.recv(65536):
            pass


def test_a_server_under_everything_says_what_the_catalogue_says(serve, tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain = tmp_path / "cert.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(chain)
    pages, lines = [], []
    with OTLPSink() as sink:
        mixed = serve(
            "mix_apps:app", "--port", "0", "--metrics-port", "0", "--workers", "2", "--metrics-profile", "full",
            "--timeout-request-header", "0.4", "--timeout-request-body", "0.4", "--timeout-request", "0.6",
            "--limit-request-body", "10000", "--limit-request-headers", "16384", "--limit-concurrency", "4",
            "--log-request-header", "host", "--log-response-header", "x-pid",
            "--log-sample-path", "/sampled/*=0.3", "--trace-trust", "none", "--forwarded-allow-ips", "10.0.0.1",
            "--otlp-endpoint", sink.endpoint, "--otlp-logs", "--otlp-metrics", "--trace-keep-errors",
            "--trace-websocket-messages",
            environment={
                "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.3", "OTEL_METRIC_EXPORT_INTERVAL": "500",
            },
        )  # fmt: skip
        mix = Mix(mixed.url)
        asyncio.run(mix.run(400))
        with httpx.Client(base_url=mixed.url) as client:
            client.get("/ok/1?page=1", headers={"traceparent": "nonsense", "X-Forwarded-For": "192.0.2.1"})
            client.get("/ok/1", headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})
            client.request("BREW", "/ok/1")
            client.get("/ok/1", headers={"User-Agent": "x" * 4000})
            for _ in range(30):  # of which some are kept, with a weight
                client.get("/sampled/1")
        talk(
            mixed.url,
            b"GET /ok/1 HTTP/1.1\r\nHost: x\r\n\r\n" * 2
            + b"GET /ok/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        mixed.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: total(mixed.metrics(), "obsserve_worker_restarts_total", reason="reload") == 2,
            "new workers",
        )

        def at_rest():
            samples = mixed.metrics()
            busy = total(samples, "http_server_active_requests") + total(samples, "obsserve_connections_open")
            return busy == total(samples, "obsserve_log_queue_records") == 0

        wait_for(at_rest, "everything to come to rest", 30)
        pages.append(mixed.metrics())
        assert mixed.stop() == 0
        lines += mixed.access_lines(1)

        secure = serve(
            "apps:fastapi", "--port", "0", "--metrics-port", "0", "--ssl-certfile", str(chain),
            "--otlp-endpoint", sink.endpoint, "--forwarded-allow-ips", "127.0.0.1",
        )  # fmt: skip
        tls = httpx.create_ssl_context()
        authority.configure_trust(tls)
        with httpx.Client(
            base_url=secure.url.replace("http://", "https://"), verify=tls, timeout=20
        ) as client:
            for path in ("/items/1?page=1", "/items/none", "/block/1.5", "/raise"):
                client.get(path, headers={"X-Forwarded-For": "192.0.2.7", "User-Agent": "locust/2"})
        talk(secure.url.replace("https://", "http://"), b"no TLS at all\r\n\r\n")
        wait_for(lambda: total(secure.metrics(), "obsserve_event_loop_stalls_total") >= 1, "a stall")
        httpx.get(secure.metrics_url, headers={"Accept": "application/openmetrics-text"})
        pages.append(secure.metrics())
        assert secure.stop() == 0
        lines += secure.access_lines(4)

        proxied = serve(
            "apps:plain", "--port", "0", "--metrics-port", "0", "--proxy-protocol", "--no-access-log",
            "--supervise", "--otlp-endpoint", sink.endpoint,
        )  # fmt: skip
        talk(proxied.url, b"NOT PROXY\r\n\r\n")
        proxied.process.send_signal(signal.SIGHUP)
        reload = wait_for(
            lambda: [s for s in sink.spans if any(p.value.string_value == "signal" for p in s.attributes)],
            "the span of a reload",
        )
        assert [span.name for span in reload][-1] == "server.reload"
        pages.append(proxied.metrics())
        spans, pushed = sink.spans, sink.metrics

    for page in pages:
        check_metrics(page)
    check_lines(lines)
    seen = set().union(*map(nonzero, pages))
    assert sorted(catalogue.METRICS.keys() - seen - NOT_PROVOKED.keys()) == []
    assert sorted(NOT_PROVOKED.keys() - catalogue.METRICS.keys()) == []

    known = {metric.name: metric for metric in otelnames.OTEL_METRICS.values()}
    for metric in pushed:
        kind = metric.WhichOneof("data")
        found = (
            "updowncounter"
            if kind == "sum" and not metric.sum.is_monotonic
            else kind.replace("sum", "counter")
        )
        expected = known[metric.name]  # nothing outside the catalogue
        assert (metric.unit, found) == (expected.unit, expected.instrument), metric.name
    shown = {name for name in pages[0] if name != "target_info"}
    assert {otelnames.OTEL_METRICS[base_name(name)].name for name in shown} <= {
        metric.name for metric in pushed
    }

    fields = {field.name for field in catalogue.LOG_FIELDS}
    assert sorted(missing(fields, {key for line in lines for key in line}) - FIELDS_NOT_PROVOKED.keys()) == []

    tables = (
        catalogue.SPAN_ATTRIBUTES,
        catalogue.SESSION_ATTRIBUTES,
        catalogue.MESSAGE_ATTRIBUTES,
        catalogue.RELOAD_ATTRIBUTES,
    )
    attributes = {attribute.name for table in tables for attribute in table}
    # FastAPI makes spans of its own.
    names = ("websocket", "lifespan", "server.")
    own = [span for span in spans if span.kind == SERVER or span.name.startswith(names)]
    found = {pair.key for span in own for pair in span.attributes}
    outside = {key for key in found if not any(key == name or belongs(key, name) for name in attributes)}
    assert sorted(outside) == []
    assert sorted(missing(attributes, found) - ATTRIBUTES_NOT_PROVOKED.keys()) == []
