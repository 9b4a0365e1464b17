from __future__ import annotations

import pytest

from obsserve.http.forwarded import TrustedPeers, forwarded_client, forwarded_scheme, split_address


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
    found = forwarded_client([(b"x-forwarded-for", value)], TrustedPeers(trusted))
    assert (found[0] if found else None) == client


def test_several_forwarding_fields_are_one_list():
    headers = [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")]
    assert forwarded_client(headers, TrustedPeers(["2.2.2.2"])) == ("1.1.1.1", 0)


@pytest.mark.parametrize(
    ("value", "scheme"), [(b"HTTPS", "https"), (b" wss ", "https"), (b"http", "http"), (b"x", None)]
)
def test_the_forwarded_scheme(value, scheme):
    assert forwarded_scheme(value) == scheme
