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
SOURCE = ROOT / "dashboards/look"
SECONDS = 60  # of traffic before the worker is killed
# Their data is in Loki and Tempo.
WITHOUT = {"obsserve-logs.json"}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    modules = Path(os.environ.get("LOOK", ROOT / "build/look"))
    modules.mkdir(parents=True, exist_ok=True)
    if not (modules / "node_modules/@grafana/ui").exists():
        shutil.copy(SOURCE / "package.json", modules)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=modules, check=True)
    for name in ("page.jsx", "shoot.mjs"):  # node looks for modules beside the file that imports them
        shutil.copy(SOURCE / name, modules)
    pages = sorted(path for path in (ROOT / "dashboards").glob("*.json") if path.name not in WITHOUT)
    with tempfile.TemporaryDirectory() as temporary:
        start = int(time.time())
        with scene(Path(temporary), SECONDS) as prometheus:
            figures = (str(start + 5), str(int(time.time())), "15s")
            command = ["node", "shoot.mjs", str(folder), prometheus.url, *figures, *map(str, pages)]
            result = subprocess.run(command, cwd=modules, stdout=subprocess.PIPE, text=True, timeout=400)
    for line in result.stdout.splitlines():
        print(json.loads(line))
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
