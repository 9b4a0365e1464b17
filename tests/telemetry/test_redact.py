"""The query policy: what of a query may leave the process."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obsserve.telemetry.redact import REDACTED, AttributePolicy, QueryPolicy, query_policy


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("a=1&b=2", "a=REDACTED&b=REDACTED"),
        ("page=2&token=x", "page=2&token=REDACTED"),
        ("page=1;token=x", "page=1;token=REDACTED"),
        ("a=", "a="),
        ("a=b=c", "a=REDACTED"),
        ("eyJhbGciOi", "REDACTED"),
        ("=secret", "=REDACTED"),
        ("&&", "&&"),
        ("pag%65=7", "pag%65=7"),
        ("", ""),
    ],
)
def test_redact_all_keeps_keys_and_allowed_values_only(query, shown):
    assert QueryPolicy("redact-all", ("page",)).apply(query) == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("q=shoes&page=2", "q=shoes&page=2"),
        ("X-Amz-Signature=ab&sig=cd", "X-Amz-Signature=REDACTED&sig=REDACTED"),
        ("access_token=x&PASSWORD=y&api-key=z", "access_token=REDACTED&PASSWORD=REDACTED&api-key=REDACTED"),
        ("pass%77ord=y", "pass%77ord=REDACTED"),
        ("author=me", "author=me"),
        ("session_ok=1", "session_ok=1"),
    ],
)
def test_redact_listed_hides_what_names_a_secret(query, shown):
    assert QueryPolicy("redact-listed", ("session_ok",)).apply(query) == shown


def test_drop_and_keep():
    assert QueryPolicy("drop").apply("a=1") is None
    assert QueryPolicy("keep").apply("a=1") == "a=1"


def test_auto_redacts_what_is_stored_and_keeps_what_a_terminal_shows():
    assert query_policy("auto", "json", ()).mode == "redact-all"
    assert query_policy("auto", "console", ()).mode == "keep"
    assert query_policy("drop", "console", ()).mode == "drop"


@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.text(min_size=1).map(lambda text: f"s3cr3t{text}")), min_size=1
    )
)
def test_no_value_outside_the_allow_list_appears(pairs):
    query = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs)
    shown = QueryPolicy("redact-all", ("page",)).apply(query)
    for (key, _), piece in zip(pairs, shown.split("&"), strict=True):
        assert key == "page" or piece == f"{quote(key, safe='')}={REDACTED}"


class TestAttributesOfOthers:
    """What instrumentation writes into spans."""

    def test_urls_and_queries(self):
        policy = AttributePolicy(QueryPolicy("redact-all", ("page",)))
        shown = policy.apply(
            {
                "http.url": "http://me:pw@shop/x?token=s3cret&page=2#top",
                "url.full": "https://shop/x",
                "http.target": "/x?a=s3cret",
                "url.query": "s3cret&page=3",
                "url.original": ["no", "text"],
                "http.method": "GET",
            }
        )
        assert shown == {
            "http.url": "http://shop/x?token=REDACTED&page=2#top",
            "url.full": "https://shop/x",
            "http.target": "/x?a=REDACTED",
            "url.query": "REDACTED&page=3",
            "url.original": ["no", "text"],
            "http.method": "GET",
        }

    def test_the_other_modes(self):
        given = {"url.query": "a=1", "http.url": "http://shop/?a=1"}
        assert AttributePolicy(QueryPolicy("drop")).apply(given) == {"http.url": "http://shop/"}
        assert AttributePolicy(QueryPolicy("keep")).apply(given) == given

    def test_without_any_nothing_is_copied(self):
        given = {"db.system": "sqlite"}
        assert AttributePolicy(QueryPolicy("redact-all")).apply(given) is given
