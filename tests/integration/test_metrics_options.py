"""What the options of the metrics port change in a real scrape."""

from __future__ import annotations

import httpx
import pytest
from conftest import total

COUNT = "http_server_request_duration_seconds_count"
SIZES = "http_server_response_body_size_bytes_sum"


@pytest.mark.parametrize(
    ("options", "routes", "has_sizes"),
    [
        ([], {"/items/{item_id}", "/stream/{parts}"}, False),
        (["--metrics-body-size"], {"/items/{item_id}", "/stream/{parts}"}, True),
        (["--metrics-profile", "full"], {"/items/{item_id}", "/stream/{parts}"}, True),
        (["--metrics-profile", "minimal"], {""}, False),
    ],
)
def test_profiles(serve, options, routes, has_sizes):
    server = serve("apps:fastapi", "--port", "0", "--metrics-port", "0", *options)
    answers = [httpx.get(f"{server.url}{path}") for path in ("/items/1", "/stream/2")]
    server.access_lines(2)
    samples = server.metrics()
    assert {labels["http_route"] for labels, value in samples[COUNT] if value} == routes
    assert total(samples, COUNT) == 2
    assert (SIZES in samples) == has_sizes
    if has_sizes:
        assert total(samples, SIZES) == sum(len(answer.content) for answer in answers)


def test_the_target_is_described(serve):
    server = serve(
        "apps:plain", "--port", "0", "--metrics-port", "0", "--service-name", "shop",
        environment={"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"},
    )  # fmt: skip
    httpx.get(server.url)
    (line,) = server.access_lines(1)
    ((labels, value),) = server.metrics()["target_info"]
    assert value == 1
    assert labels["service_name"] == "shop" == line["service_name"]
    assert labels["service_instance_id"] == line["service_instance_id"]
    assert labels["deployment_environment_name"] == "test"
    assert total(server.metrics(), "obsserve_limit", limit="fds") > 0
