"""What all tests with real programs need."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PATH = f"{BIN}:{os.environ['PATH']}:/usr/sbin"


def need(name, install):
    """Return where a program is; without it the test is skipped, in CI it fails."""
    path = shutil.which(name, path=PATH)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed: {install}")
        pytest.skip(f"{name} is not installed: {install}")
    return path
