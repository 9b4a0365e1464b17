"""--access-log-format: each atom, and that nothing from outside can end the line or a quoted field."""

import base64
import os
import re
import shlex
import time

import pytest
from fakes_access import CLOCK, WALL, AccessSettings, Counted, connection, exchange
from hypothesis import given
from hypothesis import strategies as st

from obsserve.accessformat import (
    APACHE_ATOMS,
    APACHE_ATOMS_WITH_ARGUMENT,
    GUNICORN_ATOMS,
    GUNICORN_ATOMS_WITH_ARGUMENT,
    parse_access_format,
)
from obsserve.checks import BadValue
from obsserve.telemetry.logformats import AccessFormat, FormattedAccessLog, escaped
from obsserve.telemetry.logsink import LogSink
from redactions import of_query

REQUEST_TIME = time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(WALL))
GUNICORN_DEFAULT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


def line(text, view=None, mode="keep", **changes):
    form = AccessFormat(parse_access_format(text), of_query(mode, ("page",)), CLOCK)
    return form.line(view or exchange(**changes))


class TestWhole:
    def test_apaches_common(self):
        wanted = f'192.0.2.7 - - {REQUEST_TIME} "GET /items/17?q=s3cr3t&page=2 HTTP/1.1" 200 12'
        assert line("common") == wanted

    def test_apaches_combined(self):
        view = exchange([(b"referer", b"http://shop.example/")])
        assert line("combined", view).endswith(' 200 12 "http://shop.example/" "curl/8"')
        assert line("combined").endswith(' "-" "curl/8"')

    def test_gunicorns_default(self):
        wanted = f'192.0.2.7 - - {REQUEST_TIME} "GET /items/17?q=s3cr3t&page=2 HTTP/1.1" 200 12 "-" "curl/8"'
        assert line(GUNICORN_DEFAULT) == wanted

    @pytest.mark.parametrize("text", ["common", GUNICORN_DEFAULT])
    def test_the_query_follows_its_policy(self, text):
        assert "?q=REDACTED&page=2 " in line(text, mode="redact-all")
        assert '"GET /items/17 HTTP/1.1"' in line(text, mode="drop")

    def test_a_request_that_could_not_be_read(self):
        view = exchange(
            method="", raw_path=b"", query_string=b"", http_version="", status=400, client=None, fields={},
            request_headers=[],
        )  # fmt: skip
        assert line('%h "%r" %s %m %U %q %H %v', view) == '- "-" 400 - -  - -'
        assert line('%(h)s "%(r)s" %(s)s %(m)s %(U)s %(q)s %(H)s', view) == '- "-" 400 - -  '


class TestApache:
    @pytest.mark.parametrize(
        ("atom", "wanted"),
        [
            ("%a", "192.0.2.7"),
            ("%{c}a", "10.0.0.1"),
            ("%A", "127.0.0.1"),
            ("%B", "12"),
            ("%b", "12"),
            ("%D", "1234500"),
            ("%H", "HTTP/1.1"),
            ("%{host}i", "shop.example:8000"),
            ("%I", "100"),
            ("%k", "2"),
            ("%L", "0123456789abcdef"),
            ("%m", "GET"),
            ("%{X-Kind}o", "a, b"),
            ("%O", "150"),
            ("%p", "8000"),
            ("%{remote}p", "40123"),
            ("%{canonical}p", "8000"),
            ("%{local}p", "8000"),
            pytest.param("%P", str(os.getpid()), id="process"),
            ("%q", "?q=s3cr3t&page=2"),
            ("%>s", "200"),
            ("%<s", "200"),
            ("%S", "250"),
            ("%T", "1"),
            ("%{ms}T", "1234"),
            ("%{us}T", "1234500"),
            ("%{s}T", "1"),
            ("%t", REQUEST_TIME),
            ("%{sec}t", "1700000000"),
            ("%{end:msec}t", "1700000001234"),
            ("%{end:msec_frac}t", "234"),
            ("%{begin:usec_frac}t", "000000"),
            ("%{%Y}t", "2023"),
            ("%u", "-"),
            ("%U", "/items/17"),
            ("%v", "shop.example"),
            ("%V", "shop.example"),
            ("%200,304{host}i", "shop.example:8000"),
            ("%!200,304{host}i", "-"),
            ("%404s", "-"),
            ("%!404s", "200"),
            ("100%%", "100%"),
        ],
    )
    def test_an_atom(self, atom, wanted):
        view = exchange(response_headers=[(b"x-kind", b"a"), (b"X-Kind", b"b")])
        assert line(atom, view) == wanted

    def test_nothing_sent(self):
        view = exchange(status=None, response_body_size=0, connection=connection(peer=None, local=None))
        assert line("%s %b %B %A %{c}a %p", view) == "- - 0 - - -"

    def test_the_port_of_a_host_without_one(self):
        view = exchange(fields={b"host": b"[::1]"})
        assert line("%v %{canonical}p", view) == "[::1] 8000"

    def test_a_unix_socket(self):
        view = exchange(client=None, connection=connection(peer=None, local=("/run/shop.sock", None)))
        assert line("%h %A %p", view) == "- /run/shop.sock -"


class TestGunicorn:
    @pytest.mark.parametrize(
        ("atom", "wanted"),
        [
            ("%(m)s", "GET"),
            ("%(U)s", "/items/17"),
            ("%(q)s", "q=s3cr3t&page=2"),
            ("%(H)s", "HTTP/1.1"),
            ("%(B)s", "12"),
            ("%(T)s", "1"),
            ("%(D)s", "1234500"),
            ("%(M)s", "1234"),
            ("%(L)s", "1.234500"),
            pytest.param("%(p)s", f"<{os.getpid()}>", id="process"),
            ("%({Host}i)s", "shop.example:8000"),
            ("%({x-kind}o)s", "a"),
            ("%({nothing}i)s", "-"),
            ("%(R)s", "/items/17?q=s3cr3t&page=2"),
            ("%(Uq)s", "/items/17?q=s3cr3t&page=2"),
            ("%(S)s", "http"),
            ("%(st)s", "OK"),
            ("%(s)5s|", "  200|"),
            ("%(D)-9d|", "1234500  |"),
            ("%(m)s 100%%", "GET 100%"),
        ],
    )
    def test_an_atom(self, atom, wanted):
        assert line(atom, exchange(response_headers=[(b"x-kind", b"a")])) == wanted

    def test_a_status_without_a_phrase(self):
        assert line("%(st)s", status=None) == "-"
        assert line("%(st)s", status=799) == "-"


class TestValues:
    def test_the_environment_is_read_once(self, monkeypatch):
        monkeypatch.setenv("REGION", "eu 1\n")
        monkeypatch.delenv("NOWHERE", raising=False)
        assert line("%{REGION}e %{NOWHERE}e") == "eu 1\\n -"
        assert line("%({REGION}e)s") == "eu 1\\n"

    @pytest.mark.parametrize(
        ("credentials", "name"),
        [
            (b"Basic " + base64.b64encode(b"ada:secret"), "ada"),
            (b"basic " + base64.b64encode(b"a b:secret"), "a\\x20b"),
            (b"Basic " + base64.b64encode(b":secret"), "-"),
            (b"Basic ???", "-"),
            (b"Bearer secret", "-"),
        ],
    )
    def test_the_user_of_basic_credentials(self, credentials, name):
        shown = line("%u %(u)s" if False else "%u", exchange([(b"authorization", credentials)]))
        assert shown == name
        assert line("%(u)s", exchange([(b"authorization", credentials)])) == name

    @pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Api-Key", "X-Session-Id"])
    def test_headers_that_carry_secrets(self, name):
        view = exchange([(name.lower().encode(), b"secret")])
        assert line(f"%{{{name}}}i", view) == "REDACTED"
        assert line(f"%({{{name}}}i)s") == "-"
        assert line("%{Set-Cookie}o", exchange(response_headers=[(b"set-cookie", b"secret")])) == "REDACTED"


class TestSyntax:
    @pytest.mark.parametrize(
        "text", ["%", "100%", "%Z", "%{x}h", "%(Z)s", "%({x}h)s", "%(h)s %h", "%(h", "%{x}Z", ""]
    )
    def test_what_is_none(self, text):
        from obsserve.accessformat import access_log_format

        with pytest.raises(BadValue):
            access_log_format(text)

    def test_several_lines(self):
        from obsserve.accessformat import access_log_format

        with pytest.raises(BadValue, match="several lines"):
            access_log_format("%h\n%s")
        assert access_log_format("%h %s") == "%h %s"

    def test_every_atom_that_is_accepted_is_rendered(self):
        for atom in APACHE_ATOMS:
            assert isinstance(line(f"%{atom}"), str)
        for atom in APACHE_ATOMS_WITH_ARGUMENT:
            assert isinstance(line(f"%{{X}}{atom}"), str)
        for atom in GUNICORN_ATOMS:
            assert isinstance(line(f"%({atom})s"), str)
        for atom in GUNICORN_ATOMS_WITH_ARGUMENT:
            assert isinstance(line(f"%({{X}}{atom})s"), str)

    def test_text_between_atoms_stays(self):
        assert line("<%m> [%s]") == "<GET> [200]"


class TestSafety:
    @given(st.binary(max_size=64), st.binary(max_size=64), st.text(max_size=16))
    def test_whatever_is_sent_stays_in_its_field(self, path, agent, host):
        view = exchange([(b"x-any", agent)], raw_path=b"/" + path, client=(host, 1), query_string=path)
        shown = line('"%h" "%r" "%{X-Any}i" "%U"', view)
        assert shown.isascii()
        assert shown.isprintable()
        assert len(re.findall(r'"((?:[^"\\]|\\.)*)"', shown)) == 4
        assert re.fullmatch(r'"(?:[^"\\]|\\.)*"(?: "(?:[^"\\]|\\.)*"){3}', shown)

    def test_escapes(self):
        assert escaped('a"b\\c\n\x1b\u2028') == 'a\\"b\\\\c\\n\\x1b\\xe2\\x80\\xa8'
        assert shlex.split(f'"{escaped(chr(34))}"') == ['"']
        assert len(escaped("x" * 5000)) == 2048


class TestObserver:
    @pytest.fixture
    def written(self, tmp_path):
        path = tmp_path / "access.log"
        file = path.open("wb")
        sink = LogSink(file.fileno(), capacity_bytes=1 << 20, is_pipe=True)

        def close(log):
            log.close(5.0)
            file.close()
            return path.read_text().splitlines()

        yield sink, close
        file.close()

    def test_lines(self, written):
        sink, close = written
        log = FormattedAccessLog(sink, AccessSettings(), '%s "%r"', clock=CLOCK)
        for status in (200, 404):
            log.exchange_ended(exchange(status=status))
        assert close(log) == [f'{status} "GET /items/17?q=REDACTED&page=2 HTTP/1.1"' for status in (200, 404)]

    def test_a_line_that_is_too_long_is_cut_and_counted(self, written):
        sink, close = written
        counted = Counted()
        log = FormattedAccessLog(sink, AccessSettings(), "%U %U %U", clock=CLOCK, counters=counted)
        log.exchange_ended(exchange(raw_path=b"/" + b"x" * 3000))
        log.flush()
        (found,) = close(log)
        assert len(found) == 4095
        assert counted.results["truncated"] == 1

    def test_many_lines_are_handed_over_before_the_tick(self, written):
        sink, close = written
        log = FormattedAccessLog(sink, AccessSettings(), "%s", clock=CLOCK)
        for _ in range(100):
            log.exchange_ended(exchange(outcome="app_error"))
        assert close(log) == ["200"] * 100
