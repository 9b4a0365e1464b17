"""Every LogQL and TraceQL expression that is shipped: panels, data links, links between data sources."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml

from dashboards.src.config import CONFIG

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "deploy/grafana/provisioning/datasources/obsserve.yml"
LANGUAGES = {"loki": "logql", "tempo": "traceql"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True)
class Expression:
    """One expression.

    Args:
        place: where it stands, for the name of a test.
        language: logql or traceql.
        text: as it is written, variables in it.
        multi: names of the variables of which one may choose several.
    """

    place: str
    language: str
    text: str
    multi: frozenset[str] = frozenset()

    @property
    def filled(self):
        """The text with what Grafana puts in the place of variables."""
        text = re.sub(r"\$__auto|\$__interval|\$__range", "5m", self.text)
        text = re.sub(r"\$\{__trace\.traceId\}|\$\{__data\.fields\.trace_id\}", TRACE, text)
        return re.sub(r"\$\{[^}]*\}|\$\w+", ".+", text)


def _language(datasource):
    uid = datasource["uid"]
    kinds = {CONFIG.loki_uid: "loki", CONFIG.tempo_uid: "tempo", "${loki}": "loki", "${tempo}": "tempo"}
    return LANGUAGES.get(kinds.get(uid, ""))


def _linked(url):
    """The queries of a link to Explore."""
    for panes in parse_qs(urlsplit(url).query).get("panes", ()):
        for pane in json.loads(panes).values():
            yield from pane["queries"]


def _of_page(name, dashboard):
    several = (one["name"] for one in dashboard["templating"]["list"] if one.get("multi"))
    multi = frozenset(several)
    panels = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]
    for panel in panels:
        place = f"{name}: {panel['title']}"
        found = list(panel.get("targets", ()))
        config = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
        links = list(config["defaults"].get("links", ()))
        for override in config["overrides"]:
            for prop in override["properties"]:
                links += prop["value"] if prop["id"] == "links" else ()
        for link in links:
            found += _linked(link["url"]) if link["url"].startswith("/explore") else ()
        for query in found:
            language = _language(query["datasource"])
            if language is not None:
                yield Expression(place, language, query.get("expr") or query["query"], multi)


def _of_sources():
    for source in yaml.safe_load(SOURCES.read_text())["datasources"]:
        data = source["jsonData"]
        if "tracesToLogsV2" in data:
            text = data["tracesToLogsV2"]["query"].replace("$$", "$")
            yield Expression("data source Tempo: to logs", "logql", text)


def expressions():
    """Return them all, each once for each page."""
    found = [*_of_sources()]
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        found += _of_page(path.stem, json.loads(path.read_text()))
    seen = {(one.place.split(":")[0], one.language, one.text): one for one in found}
    # What is nothing but a trace's id is asked for as such and is not TraceQL.
    return [one for one in seen.values() if one.filled not in (".+", TRACE)]
