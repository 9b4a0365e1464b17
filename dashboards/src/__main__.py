"""Write everything that is generated: `python -m dashboards.src [DIRECTORY]`, the checkout by default."""

from __future__ import annotations

import sys
from pathlib import Path

from .output import files


def main() -> None:
    """Write the files, and nothing else."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2]
    for name, text in files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


main()
