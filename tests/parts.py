"""Programs, packages and rights that tests need: without one of them a test is skipped, and in CI it fails."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

BIN = Path(sys.executable).parent
PATH = f"{BIN}:{os.environ['PATH']}:/usr/sbin"
# pyproject.toml asks for these on this platform only.
_FAST = {"httptools", "uvloop"}
_HAS_FAST = sys.platform != "win32" and platform.python_implementation() == "CPython"


def missing(message) -> NoReturn:
    """Skip the test; in CI, which installs everything, it fails.

    Args:
        message: what is missing, and how one gets it.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message, allow_module_level=True)


def program(name, install):
    """Return where a program is: that of this Python's environment, or the system's.

    Args:
        name: of the program.
        install: the command that installs it.
    """
    path = shutil.which(name, path=PATH)
    return path if path is not None else missing(f"{name} is not installed: {install}")


def package(name):
    """Return a module of a package that the `test` extra brings."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if name in _FAST and not _HAS_FAST:
            pytest.skip(f"{name} is not for this platform", allow_module_level=True)
        missing(f"{name} is not installed: pip install 'obsserve[test]'")
