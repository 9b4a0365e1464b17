"""Forwarding headers: which are believed, of whom, and what a request looks like then."""

from __future__ import annotations

import pytest
from wire import Site, request

from obsserve.http.forwarded import (
    Forwarding,
    TrustedPeers,
    forwarded_client,
    forwarded_elements,
    forwarded_scheme,
    split_address,
)


@pytest.mark.parametrize(
    ("peers", "host", "trusted"),
    [
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.1"], "127.0.0.2", False),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "::1", False),
        (["fd00::/8"], "fd00::1", True),
        (["*"], "anything", True),
        (["*"], None, True),
        (["/run/x.sock"], "/run/x.sock", True),
        (["127.0.0.1"], None, False),
        (["127.0.0.1"], "not an address", False),
        ([], "127.0.0.1", False),
    ],
)
def test_trust(peers, host, trusted):
    assert (host in TrustedPeers(peers)) is trusted


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", ("1.2.3.4", 0)),
        ("1.2.3.4:80", ("1.2.3.4", 80)),
        ("::1", ("::1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 0)),
        ("1.2.3.4:x", ("1.2.3.4", 0)),
        ("1.2.3.4:999999", ("1.2.3.4", 0)),
        ("unknown", ("unknown", 0)),
    ],
)
def test_an_address_is_split(text, address):
    assert split_address(text) == address


@pytest.mark.parametrize(
    ("value", "trusted", "client"),
    [
        (b"1.1.1.1, 2.2.2.2", ["9.9.9.9"], "2.2.2.2"),
        (b"1.1.1.1, 2.2.2.2", ["2.2.2.2"], "1.1.1.1"),
        (b"1.1.1.1, 2.2.2.2", ["1.1.1.1", "2.2.2.2"], "1.1.1.1"),
        (b"1.1.1.1, 2.2.2.2", ["*"], "1.1.1.1"),
        (b" , ", ["*"], None),
    ],
)
def test_the_client_is_the_nearest_hop_that_is_not_trusted(value, trusted, client):
    found = forwarded_client(value, TrustedPeers(trusted))
    assert (found[0] if found else None) == client


@pytest.mark.parametrize(
    ("value", "scheme"), [(b"HTTPS", "https"), (b" wss ", "https"), (b"http", "http"), (b"x", None)]
)
def test_the_forwarded_scheme(value, scheme):
    assert forwarded_scheme(value) == scheme


class TestPeers:
    @pytest.mark.parametrize(
        ("peers", "peer", "trusted"),
        [
            (["10.0.0.0/8"], ("::ffff:10.1.2.3", 5), True),
            (["10.0.0.1"], ("::ffff:10.0.0.1", 5), True),
            (["127.0.0.1", "::1"], None, False),
            (["127.0.0.1", "::1"], ("/run/proxy.sock", None), False),
            (["unix"], None, True),
            (["unix"], ("/run/proxy.sock", None), True),
            (["unix"], ("10.0.0.1", 5), False),
            (["*"], None, True),
        ],
    )
    def test_a_peer(self, peers, peer, trusted):
        assert TrustedPeers(peers).trusts(peer) is trusted


class TestStandardGrammar:
    """RFC 7239, sections 4 to 6, with its own examples."""

    @pytest.mark.parametrize(
        ("value", "elements"),
        [
            (b'for="_gazonk"', [{"for": "_gazonk"}]),
            (b'For="[2001:db8:cafe::17]:4711"', [{"for": "[2001:db8:cafe::17]:4711"}]),
            (
                b"for=192.0.2.60;proto=http;by=203.0.113.43",
                [{"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"}],
            ),
            (b"for=192.0.2.43, for=198.51.100.17", [{"for": "192.0.2.43"}, {"for": "198.51.100.17"}]),
            (b"for=_hidden, for=_SEVKISEK", [{"for": "_hidden"}, {"for": "_SEVKISEK"}]),
            (b'for="192.0.2.43:47011"', [{"for": "192.0.2.43:47011"}]),
            (b'for="192.0.2.43:_port"', [{"for": "192.0.2.43:_port"}]),
            (b"for=unknown", [{"for": "unknown"}]),
            (b'host="a.example:81";proto=https', [{"host": "a.example:81", "proto": "https"}]),
            (b'ext="a\\"b, c;d"', [{"ext": 'a"b, c;d'}]),
            (b"for=1.2.3.4;;proto=http;", [{"for": "1.2.3.4", "proto": "http"}]),
            (b",for=1.2.3.4 ,, for=5.6.7.8,", [{"for": "1.2.3.4"}, {"for": "5.6.7.8"}]),
            (b"", []),
        ],
    )
    def test_what_is_read(self, value, elements):
        assert forwarded_elements(value) == elements

    @pytest.mark.parametrize(
        "value",
        [
            b"for",
            b"for=",
            b"=1.2.3.4",
            b"for =1.2.3.4",
            b"for= 1.2.3.4",
            b"for=1.2.3.4 proto=http",
            b"for=1.2.3.4; proto=http",
            b"for=1.2.3.4 ;proto=http",
            b"for=[::1]",  # an IPv6 address has to be quoted
            b'for="::1"',  # and bracketed
            b"for=1.2.3.4:80",  # a colon is no token
            b'for="1.2.3.4:123456"',
            b"for=1.2.3",
            b"for=1.2.3.400",
            b'for="[::g]"',
            b'for="[1.2.3.4]"',
            b"for=example.org",
            b'for="_hidden',
            b'for="a\x00b"',
            b"for=1.2.3.4;for=5.6.7.8",
            b"for=1.2.3.4;FOR=5.6.7.8",
            b"by=nobody",
        ],
    )
    def test_what_is_refused_whole(self, value):
        assert forwarded_elements(value) is None


class TestForwarding:
    def facts(self, names, headers, trusted=("10.0.0.0/8",)):
        headers = [(name.encode(), value) for name, value in headers]
        return Forwarding(TrustedPeers(trusted), names).facts(dict(headers), headers)

    def test_several_fields_are_one_list(self):
        headers = [("x-forwarded-for", b"1.1.1.1"), ("x-forwarded-for", b"10.2.2.2")]
        assert self.facts(["x-forwarded-for"], headers).client == ("1.1.1.1", 0)

    def test_what_is_not_named_is_not_read(self):
        headers = [("x-forwarded-host", b"evil"), ("x-real-ip", b"6.6.6.6"), ("forwarded", b"for=6.6.6.6")]
        assert not any(self.facts(["x-forwarded-for", "x-forwarded-proto"], headers))

    @pytest.mark.parametrize(
        ("names", "client"),
        [(["x-real-ip", "x-forwarded-for"], "1.1.1.1"), (["x-forwarded-for", "x-real-ip"], "2.2.2.2")],
    )
    def test_the_first_of_the_list_wins(self, names, client):
        headers = [("x-forwarded-for", b"2.2.2.2"), ("x-real-ip", b"1.1.1.1")]
        assert self.facts(names, headers).client == (client, 0)

    def test_a_header_that_says_nothing_leaves_it_to_the_next(self):
        headers = [("x-forwarded-for", b"2.2.2.2"), ("forwarded", b"for=nonsense")]
        assert self.facts(["forwarded", "x-forwarded-for"], headers).client == ("2.2.2.2", 0)

    def test_the_standard_header_tells_of_the_hop_that_is_the_client(self):
        value = b'for=6.6.6.6;host=forged;proto=http, for="[2001:db8::1]:99";host=shop.example;proto=https, for=10.1.1.1;host=inner'
        facts = self.facts(["forwarded"], [("forwarded", value)])
        assert facts == (("2001:db8::1", 99), "https", b"shop.example", None, None)

    def test_an_obfuscated_client_has_its_name_and_an_unknown_one_none(self):
        assert self.facts(["forwarded"], [("forwarded", b"for=_a")]).client == ("_a", 0)
        assert self.facts(["forwarded"], [("forwarded", b"for=Unknown;proto=https")])[:2] == (None, "https")

    @pytest.mark.parametrize(
        ("name", "value", "fact"),
        [
            ("x-real-ip", b"2001:db8::1", ("2001:db8::1", 0)),
            ("x-real-ip", b"1.2.3.4, 5.6.7.8", None),
            ("x-forwarded-host", b"a.example:8443", b"a.example:8443"),
            ("x-forwarded-host", b"forged, a.example", b"a.example"),
            ("x-forwarded-host", b"a b", None),
            ("x-forwarded-port", b"8443", 8443),
            ("x-forwarded-port", b"0", None),
            ("x-forwarded-port", b"65536", None),
            ("x-forwarded-prefix", b"/shop/", b"/shop"),
            ("x-forwarded-prefix", b"/", None),
            ("x-forwarded-prefix", b"//evil.example", None),
            ("x-forwarded-prefix", b"shop", None),
            ("x-forwarded-prefix", b'/a"b', None),
        ],
    )
    def test_one_header(self, name, value, fact):
        assert next((it for it in self.facts([name], [(name, value)]) if it is not None), None) == fact

    def test_the_cache_is_bounded(self):
        forwarding = Forwarding(TrustedPeers(["*"]), ["x-forwarded-for"])
        for n in range(3000):
            fields = {b"x-forwarded-for": b"%d" % n if n % 2 else b"1" * 600}
            forwarding.facts(fields, list(fields.items()))
            assert len(forwarding._cache) <= forwarding.MAX_ENTRIES


ALL = "forwarded,x-forwarded-for,x-forwarded-proto,x-forwarded-host,x-forwarded-port,x-forwarded-prefix"


@pytest.mark.parametrize("parser", ["httptools", "h11"])
class TestScope:
    def scope(self, parser, *fields, peer="127.0.0.1", **options):
        scopes = []

        async def app(scope, receive, send):
            scopes.append(scope)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        self.site = Site(parser, app, **options)
        self.site.client(peername=(peer, 5000)).send(request(b"GET", b"/a%20b?q", *fields))
        self.site.close()
        return scopes[0]

    def test_by_default_only_client_and_scheme_are_taken(self, parser):
        fields = (b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil")
        scope = self.scope(parser, *fields, b"X-Forwarded-Prefix: /evil", b"Forwarded: for=6.6.6.6")
        assert (scope["client"], scope["scheme"], scope["root_path"]) == (("1.1.1.1", 0), "https", "")
        assert dict(scope["headers"])[b"host"] == b"example.org"
        assert self.site.reporter.ignored == []

    def test_all_of_them(self, parser):
        fields = (b"X-Forwarded-Host: shop.example", b"X-Forwarded-Port: 8443", b"X-Forwarded-Prefix: /x%2Fy")
        scope = self.scope(
            parser, *fields, b"Forwarded: for=1.1.1.1;proto=https", forwarded_headers=ALL, root_path="/api"
        )
        assert (scope["client"], scope["scheme"]) == (("1.1.1.1", 0), "https")
        assert scope["headers"][0] == (b"host", b"shop.example:8443")
        assert [name for name, _ in scope["headers"]].count(b"host") == 1
        assert (scope["root_path"], scope["path"]) == ("/x/y/api", "/x/y/api/a b")
        assert scope["raw_path"] == b"/x%2Fy/api/a%20b"

    def test_the_port_that_a_scheme_implies_is_left_out(self, parser):
        fields = (b"X-Forwarded-Port: 443", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: a:80")
        assert self.scope(parser, *fields, forwarded_headers=ALL)["headers"][0] == (b"host", b"a")

    def test_an_untrusted_peer_is_not_believed_and_that_is_told(self, parser):
        scope = self.scope(parser, b"X-Forwarded-For: 1.1.1.1", peer="192.0.2.1")
        assert scope["client"] == ("192.0.2.1", 5000)
        assert self.site.reporter.ignored == [("192.0.2.1", 5000)]

    def test_turned_off_nothing_is_believed_and_nothing_told(self, parser):
        scope = self.scope(parser, b"X-Forwarded-For: 1.1.1.1", proxy_headers=False)
        assert scope["client"] == ("127.0.0.1", 5000)
        assert self.site.reporter.ignored == []

    def test_a_refused_request_has_its_client_too(self, parser):
        site = Site(parser, None, limit_connections=1)
        first, second = site.client(), site.client()
        second.send(request(b"GET", b"/", b"X-Forwarded-For: 1.1.1.1"))
        assert (site.last.status, site.last.client) == (503, ("1.1.1.1", 0))
        site.close()
