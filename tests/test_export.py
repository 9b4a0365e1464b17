"""`obsserve export`: from a checkout, and from the wheel that pip builds and installs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def export(*arguments, python=sys.executable, cwd=None):
    return subprocess.run(
        [python, "-m", "obsserve", "export", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, cwd=cwd,
    )  # fmt: skip


def names(folder):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def tracked(*folders):
    listed = subprocess.run(
        ["git", "ls-files", *folders], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if listed.returncode:
        pytest.skip("not in a checkout")
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_dashboards(tmp_path):
    done = export("dashboards", tmp_path / "new/folder")
    assert (done.returncode, done.stderr) == (0, "")
    expected = {path.name for path in (ROOT / "dashboards").glob("*.json")}
    assert expected <= names(tmp_path / "new/folder")
    assert not [name for name in names(tmp_path) if name.endswith(".py")]


def test_links_lead_to_ones_own_grafana(tmp_path):
    assert export("rules", tmp_path, "--grafana-url", "https://grafana.example.com/").returncode == 0
    text = (tmp_path / "alerts.yml").read_text()
    assert "http://localhost:3000" not in text
    assert "https://grafana.example.com/d/obsserve-overview" in text
    assert json.loads(text)["groups"]


def test_deploy_with_all_that_it_refers_to(tmp_path):
    assert export("deploy", tmp_path).returncode == 0
    for name in ("deploy/compose.yaml", "deploy/Dockerfile", "dashboards/obsserve-overview.json"):
        assert (tmp_path / name).is_file(), name
    assert any(name.startswith("loadtests/scenarios/") for name in names(tmp_path))


def test_nothing_is_overwritten_unless_it_is_asked_for(tmp_path):
    assert export("rules", tmp_path).returncode == 0
    (tmp_path / "alerts.yml").write_text("mine")
    (tmp_path / "else.yml").write_text("mine too")
    done = export("rules", tmp_path)
    assert done.returncode == 2
    assert "would be overwritten" in done.stderr
    assert "--force" in done.stderr
    assert (tmp_path / "alerts.yml").read_text() == "mine"
    assert export("rules", tmp_path, "--force").returncode == 0
    assert (tmp_path / "alerts.yml").read_text() != "mine"
    assert (tmp_path / "else.yml").read_text() == "mine too"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing argument"),
        (["everything", "x"], 2, "is not one of"),
        (["rules"], 2, "Missing argument"),
        (["rules", "file/below"], 1, "file"),
    ],
)
def test_mistakes(tmp_path, arguments, code, said):
    (tmp_path / "file").touch()
    done = export(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_from_a_wheel_that_pip_has_installed(tmp_path):
    wheels, target = tmp_path / "wheels", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", wheels, ROOT], check=True, timeout=300)
    (wheel,) = wheels.glob("obsserve-*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=120)
    python = venv / "bin/python"
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    site = Path(found.stdout.strip())
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=120)
    # What it depends on is the same as here: only the package itself is under test.
    (site / "here.pth").write_text(os.fspath(Path(__import__("click").__file__).parents[1]) + "\n")
    where = subprocess.run(
        [python, "-c", "import obsserve; print(obsserve.__file__)"],
        capture_output=True, text=True, check=True, timeout=30, cwd=tmp_path,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))

    done = export("deploy", target, python=python, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    hidden = ("dashboards/src/", "loadtests/bench/")
    expected = {name for name in tracked("deploy", "dashboards", "loadtests") if not name.startswith(hidden)}
    assert expected <= names(target)
    for name in expected:
        assert (target / name).read_bytes() == (ROOT / name).read_bytes(), name
