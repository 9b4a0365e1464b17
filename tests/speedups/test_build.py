"""The package is built with its part in C where there is a compiler, and without it where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
UNNEEDED = shutil.ignore_patterns(
    ".git",
    ".venv*",
    "build",
    "dist",
    "docs",
    "tests",
    "*.so",
    "*.pyd",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
)


@pytest.mark.parametrize(
    "environment, pure",
    [({}, False), ({"CC": "/bin/false"}, True), ({"OBSSERVE_PURE_PYTHON": "1"}, True)],
    ids=["a compiler", "no compiler", "not wanted"],
)
def test_wheel(environment, pure, tmp_path):
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    shutil.copytree(ROOT, source, ignore=UNNEEDED)
    # What these tests themselves were asked to leave aside must not decide what is built.
    inherited = {name: value for name, value in os.environ.items() if name != "OBSSERVE_PURE_PYTHON"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", wheels, source],
        env={**inherited, **environment}, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = wheels.glob("obsserve-*.whl")
    native = [
        name
        for name in ZipFile(wheel).namelist()
        if name.startswith("obsserve/speedups/_native.") and name[-3:] != "pyi"
    ]
    assert len(native) == (0 if pure else 1)
    assert wheel.name.endswith("-py3-none-any.whl") is pure
