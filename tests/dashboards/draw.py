"""Draw every page with Grafana's own components and live data: `make look`, or `python -m tests.dashboards.draw FOLDER`.

A developer's tool: npm installs half a gigabyte into build/look (`LOOK` names another folder), chromium draws
(`apt-get install chromium`). It prints the panels without data, and leaves one picture for each page.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.dashboards.scene import scene

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("look")
SECONDS = 60  # of traffic before the worker is killed
PROGRAMS = ("page.jsx", "shoot.mjs", "sources.mjs", "grammar.mjs", "loki.mjs", "tempo.mjs")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    modules = Path(os.environ.get("LOOK", ROOT / "build/look"))
    modules.mkdir(parents=True, exist_ok=True)
    if not (modules / "node_modules/@grafana/ui").exists():
        shutil.copy(SOURCE / "package.json", modules)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=modules, check=True)
    for name in PROGRAMS:  # node looks for modules beside the file that imports them
        shutil.copy(SOURCE / name, modules)
    pages = sorted((ROOT / "dashboards").glob("*.json"))
    with tempfile.TemporaryDirectory() as temporary:
        start = int(time.time())
        with scene(Path(temporary), SECONDS) as prometheus:
            kept = Path(temporary) / "kept.json"
            kept.write_text(json.dumps(what_was_kept(prometheus)))
            figures = (str(start + 5), str(int(time.time())), "15s")
            command = [
                "node",
                "shoot.mjs",
                str(folder),
                prometheus.url,
                str(kept),
                *figures,
                *map(str, pages),
            ]
            result = subprocess.run(command, cwd=modules, stdout=subprocess.PIPE, text=True, timeout=400)
    for line in result.stdout.splitlines():
        print(json.loads(line))
    sys.exit(result.returncode)


def what_was_kept(prometheus):
    """What Loki and Tempo would have: the files with the servers' lines, and the spans that the collector got."""
    good, bad = prometheus.servers
    lines = [str(path) for path in (good.stdout_path, good.stderr_path, bad.stderr_path)]
    return {"lines": lines, "spans": [*spans(prometheus.sink)]}


def spans(sink):
    for request in sink.requests:
        for resource in request.resource_spans:
            service = attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    yield {
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "error": span.status.code == span.status.STATUS_CODE_ERROR,
                        "start": span.start_time_unix_nano / 1e6,
                        "duration": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                        "attributes": attributes(span.attributes),
                        "resource": service,
                    }


def attributes(found):
    """Attributes as a dictionary; those that are lists are left out."""
    plain = {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in found}
    return {key: value for key, value in plain.items() if isinstance(value, str | int | float)}


if __name__ == "__main__":
    main()
