from obsserve.resource import resource_attributes


def test_pairs():
    given = "host.name=box,service.name=shop,team=a%20b,broken, k8s.pod.name = p,=x"
    assert resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": given}) == {
        "host.name": "box",
        "service.name": "shop",
        "team": "a b",
        "k8s.pod.name": "p",
    }


def test_without_the_variable():
    assert resource_attributes({}) == {}
