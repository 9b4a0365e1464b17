"""Which exchanges leave a line, with what weight, and what of them a line may say."""

import asyncio
import json
import logging
import random
import tempfile
from collections import Counter

import pytest
from fakes_access import CLOCK, LAG, T0, AccessSettings, Counted, connection, exchange

from obsserve.errors import ConfigError
from obsserve.logoptions import FieldRule, PathRatio
from obsserve.settings import Settings
from obsserve.telemetry.accessoutput import AccessOutput
from obsserve.telemetry.logpolicy import ALWAYS, FILTERED, Selection
from obsserve.telemetry.redact import masked

QUICK = {"ended": T0 + 0.0034}


@pytest.fixture(autouse=True)
def information_is_logged():
    logger = logging.getLogger("obsserve.access")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


class Trace:
    trace_id_hex, span_id_hex, flags_hex = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "01"
    log_fragment = f'","trace_id":"{trace_id_hex}","span_id":"{span_id_hex}","trace_flags":"{flags_hex}'

    def __init__(self, sampled):
        self.sampled = sampled


def selection(**options):
    return Selection(AccessSettings(**options))


class Written:
    """The access log, into a file."""

    def __init__(self, **options):
        self.counted = Counted()
        self._file = tempfile.TemporaryFile()
        self.output = AccessOutput(
            AccessSettings(**options), stdout=self._file.fileno(), clock=CLOCK, lag=LAG, counters=self.counted
        )
        (self.observer,) = self.output.observers

    def text(self, *views):
        asyncio.run(self._tell(views))
        self.output.close(10.0)
        with self._file as file:
            file.seek(0)
            return file.read().decode("ascii")

    async def _tell(self, views):  # a loop runs where exchanges end, so that lines may wait for its next turn
        for view in views:
            self.observer.exchange_ended(view)

    def lines(self, *views):
        return [json.loads(line) for line in self.text(*views).splitlines()]


class TestWhichExchanges:
    def test_without_options_nothing_stands_in_front_of_the_line(self):
        assert not Selection.needed(AccessSettings())

    @pytest.mark.parametrize(
        ("change", "share"),
        [
            ({}, 0.25),
            ({"status": 404, "outcome": "client_error"}, 0.25),
            ({"status": 500, "outcome": "server_error"}, ALWAYS),
            ({"status": None, "outcome": "client_disconnected"}, ALWAYS),
            ({"ended": T0 + 1.0}, ALWAYS),
            ({"trace": Trace(True)}, ALWAYS),
            ({"trace": Trace(False)}, 0.25),
        ],
    )
    def test_only_ordinary_ones_are_sampled(self, change, share):
        assert selection(log_sample_ratio=0.25).share(exchange(**{**QUICK, **change})) == share

    @pytest.mark.parametrize(
        ("change", "share"),
        [
            ({"raw_path": b"/healthz"}, FILTERED),
            ({"raw_path": b"/healthz", "trace": Trace(True)}, FILTERED),
            ({"raw_path": b"/healthz", "status": 404, "outcome": "client_error"}, ALWAYS),
            ({"raw_path": b"/healthz", "status": 503, "outcome": "server_error"}, ALWAYS),
            ({"raw_path": b"/healthz", "ended": T0 + 2}, ALWAYS),
            ({"raw_path": b"/healthz/x"}, ALWAYS),
            ({"raw_path": b"/static/a/b.css"}, FILTERED),
            ({"raw_path": b"/x/static/"}, ALWAYS),
        ],
    )
    def test_exclusions_are_for_successes(self, change, share):
        found = selection(access_log_exclude=("/healthz", "/static/*"))
        assert found.share(exchange(**{**QUICK, **change})) == share

    def test_the_first_path_that_fits_counts(self):
        found = selection(
            log_sample_ratio=0.5, log_sample_path=(PathRatio("/a/b", 1.0), PathRatio("/a*", 0.0))
        )
        shares = [found.share(exchange(raw_path=path, **QUICK)) for path in (b"/a/b", b"/a/c", b"/b")]
        assert shares == [1.0, 0.0, 0.5]

    def test_lines_stand_for_all_exchanges(self):
        """Every exchange is counted once, and the weights add up to all of them."""
        drawn = random.Random(7)
        written = Written(log_sample_ratio=0.25, access_log_exclude=("/live",), log_buffer_bytes=1 << 24)
        views = []
        for _ in range(4000):
            kind = drawn.random()
            views.append(
                exchange(raw_path=b"/live", **QUICK)
                if kind < 0.2
                else exchange(status=500, outcome="server_error", **QUICK)
                if kind < 0.3
                else exchange(**QUICK)
            )
        ordinary = sum(view.status == 200 and view.raw_path != b"/live" for view in views)
        lines = written.lines(*views)
        results = written.counted.results
        assert results["written"] == len(lines)
        assert results["written"] + results["sampled_out"] + results["filtered"] == 4000
        assert results["filtered"] == sum(view.raw_path == b"/live" for view in views)
        by_status = Counter(line["http_response_status_code"] for line in lines)
        assert by_status[500] == sum(view.status == 500 for view in views)
        weighed = sum(1 / line["sample_rate"] for line in lines if "sample_rate" in line)
        assert weighed == pytest.approx(ordinary, rel=0.15)
        assert all("sample_rate" not in line for line in lines if line["http_response_status_code"] == 500)


class TestHeaders:
    HEADERS = (
        (b"x-tenant", b"blue"),
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"authorization", b"Bearer s3cr3t"),
        (b"x-upload-token", b"s3cr3t"),
        (b"referer", b"https://me:s3cr3t@shop.example/a?code=s3cr3t&page=3"),
    )

    def test_they_are_arrays_and_secrets_are_hidden(self):
        names = ("x-tenant", "accept", "authorization", "x-upload-token", "referer", "x-not-sent")
        written = Written(log_request_header=names, log_response_header=("set-cookie", "x-cache"))
        view = exchange(
            self.HEADERS, [(b"Set-Cookie", b"sid=s3cr3t"), (b"x-cache", b"hit")], query_string=b""
        )
        first, second = written.lines(view, view)  # from its record, and from fragments
        assert list(first) == list(second)
        assert "s3cr3t" not in json.dumps([first, second])
        for line in (first, second):
            assert line["http_request_header_x_tenant"] == ["blue"]
            assert line["http_request_header_accept"] == ["a", "b"]
            assert line["http_request_header_authorization"] == ["REDACTED"]
            assert line["http_request_header_x_upload_token"] == ["REDACTED"]
            assert line["http_request_header_referer"] == ["https://shop.example/a?code=REDACTED&page=3"]
            assert line["http_response_header_set_cookie"] == ["REDACTED"]
            assert line["http_response_header_x_cache"] == ["hit"]
            assert "http_request_header_x_not_sent" not in line

    def test_long_and_many_values_are_cut(self):
        written = Written(log_request_header=("x-long", "x-many"))
        (line,) = written.lines(exchange([(b"x-long", b"y" * 5000), *[(b"x-many", b"z" * 400)] * 50]))
        assert line["truncated"] == ["http_request_header_x_long", "http_request_header_x_many"]
        assert len(line["http_request_header_x_many"]) == 8
        assert len(json.dumps(line)) < 4096 + 200

    def test_the_environment_names_further_secrets(self, monkeypatch):
        monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", "x-ten.*,(")
        (line,) = Written(log_request_header=("x-tenant",)).lines(exchange(self.HEADERS))
        assert line["http_request_header_x_tenant"] == ["REDACTED"]


class TestFields:
    def test_drop_redact_hash_rename(self):
        rules = (
            FieldRule("user_agent_original", "drop"),
            FieldRule("url_path", "redact"),
            FieldRule("network_peer_address", "hash"),
            FieldRule("request_id", "rename", "rid"),
        )
        written = Written(log_field=rules, log_hash_key="k")
        one, two = written.lines(exchange(), exchange(connection=connection(peer=("10.0.0.2", 1))))
        assert "user_agent_original" not in one
        assert one["url_path"] == "REDACTED"
        assert one["rid"] == "0123456789abcdef"
        assert "request_id" not in one
        assert len(one["network_peer_address"]) == 16
        assert one["network_peer_address"] != two["network_peer_address"]

    @pytest.mark.parametrize("mode", ["fragments", "record"])
    def test_addresses_are_masked_in_both_ways_of_rendering(self, mode):
        written = Written(log_client_ip="mask")
        change = {"bound": {"user": 7}} if mode == "record" else {}
        for line in written.lines(exchange(**change), exchange(**change)):
            assert (line["client_address"], line["network_peer_address"]) == ("192.0.2.0", "10.0.0.0")

    @pytest.mark.parametrize("log_format", ["console", "common"])
    def test_addresses_are_masked_in_every_format(self, log_format):
        written = Written(
            log_client_ip="mask",
            log_format="console" if log_format == "console" else "json",
            access_log_format="common" if log_format == "common" else None,
        )
        text = written.text(exchange())
        assert "192.0.2.0" in text
        assert "192.0.2.7" not in text

    def test_otel_keys_are_dotted(self):
        (line,) = Written(log_keys="otel", log_request_header=("x-tenant",)).lines(
            exchange([(b"x-tenant", b"blue")], trace=Trace(True))
        )
        assert line["http.response.status_code"] == 200
        assert line["http.request.header.x-tenant"] == ["blue"]
        assert line["trace_id"] == Trace.trace_id_hex
        assert not {"http_route", "url_path", "request_id"} & line.keys()

    def test_499_is_only_for_clients_that_left(self):
        gone = {"status": None, "outcome": "client_disconnected", "first_byte": 0.0}
        one, two = Written(log_status_499=True).lines(
            exchange(**gone), exchange(**{**gone, "outcome": "shutdown"})
        )
        assert (one["http_response_status_code"], two["http_response_status_code"]) == (499, None)

    def test_what_the_application_binds_is_an_object_of_its_own(self):
        bound = {"level": "none", "user": 7, "odd": object, "\ud800": float("nan")}
        (line,) = Written().lines(exchange(bound=bound))
        assert line["level"] == "info"
        assert line["app"]["level"] == "none"
        assert line["app"]["user"] == 7
        (line,) = Written().lines(exchange(bound={"a": 1, "b": "x" * 5000}))
        assert line["app"] == {"a": 1}
        assert line["truncated"] == ["app"]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0"),
        ("2001:db8:1:2::3", "2001:db8:1::"),
        ("::ffff:192.0.2.77", "192.0.2.0"),
        ("fe80::1%eth0", "fe80::"),
        ("/run/app.sock", "/run/app.sock"),
        ("unknown", "REDACTED"),
        ("", ""),
    ],
)
def test_masked(address, network):
    assert masked(address) == network


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"log_client_ip": "hash"}, "log_hash_key"),
        ({"log_field": ["url_path=hash"]}, "log_hash_key"),
        ({"log_field": ["no_such=drop"]}, "no_such"),
        ({"log_field": ["url_path=rename"]}, "what to do"),
        ({"log_field": ["url_path"]}, "what to do"),
        ({"log_sample_path": ["/x"]}, "no ratio"),
        ({"log_sample_path": ["/x=2"]}, "no share"),
        ({"access_log_exclude": ["healthz"]}, "no path"),
        ({"log_sample_ratio": "often"}, "not a number"),
    ],
)
def test_mistakes_are_named(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Settings(app="x:y", **options)
