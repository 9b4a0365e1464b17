"""Policies for tests of what they shape."""

from obsserve.telemetry.redact import HeaderPolicy, QueryPolicy, Redaction


def of_query(*arguments):
    query = QueryPolicy(*arguments)
    return Redaction(query, HeaderPolicy(query))
