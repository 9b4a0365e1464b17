"""What both parsers tell of the same bytes."""

from __future__ import annotations

import pytest

from obsserve.http.h11parser import H11Parser
from obsserve.http.parser import METHODS, UpgradeOffered, parser_class
from tests.parts import package


class Events:
    def __init__(self):
        self.told = []

    def on_message_begin(self):
        self.told.append("begin")
        self.url = b""

    def on_url(self, fragment):
        self.url += fragment

    def on_header(self, name, value):
        self.told.append((name.lower(), value))

    def on_headers_complete(self):
        self.told.append((self.parser.method(), self.url, self.parser.http_version()))

    def on_body(self, data):
        self.told.append(data)

    def on_message_complete(self):
        self.told.append("complete")


@pytest.fixture
def events(parser):
    events = Events()
    events.parser = parser_class(parser)(events)
    return events


def test_a_message_is_told_in_order(events):
    events.parser.feed(b"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
    head = [(b"host", b"h"), (b"content-length", b"2"), ("POST", b"/a?b", "1.1")]
    assert events.told == ["begin", *head, b"hi", "complete"]


@pytest.mark.parametrize("method", METHODS.values())
def test_every_known_method_is_read(events, method):
    target = "h:1" if method == "CONNECT" else "/"
    try:
        events.parser.feed(f"{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    except Exception as error:
        assert method == "CONNECT"
        assert isinstance(events.parser.diagnose(error, b""), UpgradeOffered)
    assert (method, target.encode(), "1.1") in events.told


def test_an_offered_upgrade_leaves_the_rest(events):
    head = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    with pytest.raises(Exception) as caught:
        events.parser.feed(head + b"rest")
    assert events.parser.offers_upgrade()
    assert events.parser.diagnose(caught.value, head + b"rest").rest == b"rest"


def test_a_fault_of_the_servers_own_is_not_taken_for_the_clients(events):
    def broken():
        raise KeyError("fault")

    events.on_headers_complete = broken
    events.parser = type(events.parser)(events)
    with pytest.raises(Exception) as caught:
        events.parser.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises(type(caught.value)):
        events.parser.diagnose(caught.value, b"")


def test_nothing_follows_a_request_that_closes(events):
    last = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    with pytest.raises(Exception) as caught:
        events.parser.feed(last + b"GET / HTTP/1.1\r\n")
    assert events.parser.diagnose(caught.value, b"") is None
    assert events.told.count("begin") == 1


def test_the_target_is_told_before_its_line_ends(events):
    events.parser.feed(b"GET /abc")
    assert events.url == b"/abc"


def test_auto_prefers_httptools(monkeypatch):
    package("httptools")
    assert parser_class("auto") is parser_class("httptools")
    monkeypatch.setattr("obsserve.http.parser.httptools", None)
    assert parser_class("auto") is parser_class("h11") is H11Parser
    with pytest.raises(ImportError, match="--http h11"):
        parser_class("httptools")
