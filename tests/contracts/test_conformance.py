"""The same application under obsserve, uvicorn and hypercorn: docs/conformance.md lists all that differs, and why."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conformance import REQUESTS, SERVERS, cells, differences, observe
from tests.parts import missing, package

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
OTHERS = ("uvicorn", "hypercorn")


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    for name in OTHERS:
        package(name)
    folder = tmp_path_factory.mktemp("conformance")
    with ThreadPoolExecutor() as pool:
        return dict(zip(SERVERS, pool.map(lambda name: observe(name, folder), SERVERS), strict=True))


def documented():
    """The rows of the page: cells without the reason, and the reason."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| Request |"):
            *found, why = re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))
            rows[tuple(found)] = why
    return rows


@pytest.mark.timeout(180)
def test_every_difference_is_listed_and_justified(observed):
    text = PAGE.read_text(encoding="utf-8")
    for name in OTHERS:
        if f"{name} {version(name)}" not in text:
            missing(f"the page was not written for {name} {version(name)}: print its rows anew")
    rows = {tuple(cells(row)) for row in differences(observed)}
    listed = documented()
    assert rows - listed.keys() == set(), "not listed in docs/conformance.md"
    assert listed.keys() - rows == set(), "listed, but no longer so"
    assert all(why.strip() for why in listed.values())


@pytest.mark.timeout(180)
def test_both_parsers_show_the_same_but_for_what_is_listed(observed):
    ours = {name: shown for name, shown in observed.items() if name.startswith("obsserve")}
    listed = {(row[0], row[1]) for row in documented() if row[2] != row[3]}
    assert {tuple(cells(row)[:2]) for row in differences(ours)} == listed


@pytest.mark.timeout(180)
def test_something_was_compared(observed):
    for shown in observed.values():
        assert shown.keys() >= REQUESTS.keys()
        assert shown["a body with a length"]["body.body"] == "hello"
        assert shown["a chunked body"]["body.body"] == "hello world"
        assert shown["a WebSocket"]["subprotocol"] == "two"
        assert shown["receive() after the response"]["received.type"] == "http.disconnect"
        assert shown["a client that goes away"]["received.type"] == "http.disconnect"
