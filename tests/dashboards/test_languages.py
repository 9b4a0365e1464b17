"""LogQL and TraceQL: read by Grafana's own grammars, naming only fields of the lines and attributes of the spans."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import get_args

import pytest

from obsserve.telemetry.catalogue import LOG_FIELDS, SESSION_ATTRIBUTES, SPAN_ATTRIBUTES
from obsserve.telemetry.catalogue.endings import Outcome
from obsserve.telemetry.runtime import target_resource
from tests.dashboards.languages import ROOT, expressions
from tests.parts import program

ALL = expressions()
LOOK = ROOT / "tests/dashboards/look"
FIELDS = {field.name for field in LOG_FIELDS}
ATTRIBUTES = {attribute.name for attribute in (*SPAN_ATTRIBUTES, *SESSION_ATTRIBUTES)}
RESOURCE = set(target_resource("shop", "one", "1"))
# What Loki has as the labels of a stream: resource attributes, as its defaults for OTLP spell them.
STREAM = {"service_name"}
# What the lines have that are no access lines.
EVERY_LINE = {"message"}
INTRINSIC = {"kind", "status", "duration", "name"}
OUTCOMES = set(get_args(Outcome))
VALUES = {
    "event": {"http.request", "websocket.handshake", "websocket.session"},
    "level": {"debug", "info", "warning", "error", "critical"},
    "outcome": OUTCOMES,
}


def named(one):
    return f"{one.language} {one.place} {one.text[-40:]}"


def fields_of(text):
    """The labels of a LogQL expression: (in the selector, behind it)."""
    selector, _, rest = re.sub(r"`[^`]*`|\"[^\"]*\"", "``", text).partition("}")
    inside = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
    behind = set(re.findall(r"\|\s*(\w+)\s*(?:=~|!~|!=|=|>=|<=|>|<)", rest))
    behind |= set(re.findall(r"\bunwrap (\w+)", rest))
    for group in re.findall(r"\bby \(([^)]*)\)", re.sub(r"`[^`]*`|\"[^\"]*\"", "``", text)):
        behind |= {name.strip() for name in group.split(",")}
    return inside, behind


def test_there_are_both_languages():
    assert len([one for one in ALL if one.language == "logql"]) > 10
    assert len([one for one in ALL if one.language == "traceql"]) > 4
    assert any(one.place.startswith("data source") for one in ALL)


@pytest.mark.parametrize("one", ALL, ids=named)
def test_an_expression_names_what_lines_and_spans_have(one):
    if one.language == "logql":
        inside, behind = fields_of(one.filled)
        assert inside and inside <= STREAM
        assert behind <= FIELDS
        assert set(re.findall(r"{{\s*\.(\w+)", one.text)) <= FIELDS | EVERY_LINE
        return
    text = re.sub(r"\"[^\"]*\"", '""', one.filled)
    assert set(re.findall(r"\bspan\.([\w.]+)", text)) <= ATTRIBUTES
    assert set(re.findall(r"\bresource\.([\w.]+)", text)) <= RESOURCE
    bare = set(re.findall(r"(?<![\w.])([a-z]+)\s*(?:=|>|<|!)", text)) - {"span", "resource"}
    assert bare <= INTRINSIC


@pytest.mark.parametrize("one", [one for one in ALL if one.language == "logql"], ids=named)
def test_what_it_filters_for_can_be(one):
    asked = re.findall(r"\|\s*(\w+)\s*(=~|=)\s*[`\"]([^`\"]*)[`\"]", one.text)
    # Two values of one field match no line.
    exact = [name for name, operator, _ in asked if operator == "="]
    assert len(exact) == len(set(exact))
    for name, _, value in asked:
        if name in VALUES:
            assert set(value.split("|")) <= VALUES[name]


@pytest.mark.parametrize("one", [one for one in ALL if one.language == "logql"], ids=named)
def test_several_choices_stand_in_double_quotes(one):
    """Grafana escapes them for such a string, with two backslashes; between backticks both would count."""
    strings = re.findall(r"`[^`]*`|\"[^\"]*\"", one.text)
    for name in one.multi:
        mine = [string for string in strings if re.search(rf"\$({name}\b|{{{name}[:}}])", string)]
        assert all(string.startswith('"') for string in mine)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """What Grafana's grammars say of each expression: its broken places and the names in it."""
    npm = program("npm", "apt-get install npm")
    folder = tmp_path_factory.mktemp("languages")
    wanted = json.loads((LOOK / "package.json").read_text())["dependencies"]
    names = ("@grafana/lezer-logql", "@grafana/lezer-traceql", "@lezer/lr", "@lezer/common")
    command = [npm, "install", "--no-audit", "--no-fund", *(f"{name}@{wanted[name]}" for name in names)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    for name in ("grammar.mjs", "parse.mjs"):
        shutil.copy(LOOK / name, folder)

    def parse(*asked):
        given = json.dumps([{"language": language, "text": text} for language, text in asked])
        done = subprocess.run(
            ["node", "parse.mjs"], cwd=folder, input=given, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return parse


@pytest.mark.full
@pytest.mark.timeout(400)
def test_grafanas_grammars_read_every_expression(parsed):
    for one, found in zip(ALL, parsed(*((one.language, one.filled) for one in ALL)), strict=True):
        assert not found["errors"], (named(one), one.filled, found["errors"])
        if one.language == "logql":
            # Both readers, that one and the one above, find the same names.
            assert set(found["names"]) == set.union(*fields_of(one.filled)), named(one)
        else:
            assert set(found["names"]) <= ATTRIBUTES | RESOURCE, named(one)


@pytest.mark.full
@pytest.mark.timeout(400)
def test_those_grammars_refuse(parsed):
    broken = (
        ("logql", '{service_name="a"} | json | | level=`error`'),
        ("logql", '{service_name="a"} | json | level=error'),
        ("logql", 'sum by (outcome) (rate({service_name="a"} | json))'),
        ("traceql", "{ kind = = server }"),
        ("traceql", '{ span.http.route =~ "a" && }'),
    )
    for (_, text), found in zip(broken, parsed(*broken), strict=True):
        assert found["errors"], text
