"""The scenarios against a real server, as a user runs them. Locust patches the process it is imported in: it runs
in processes of its own."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.expectations import SCENARIOS
from tests.parts import missing

ROOT = Path(__file__).parents[2]
SHORT = ("steady", "api_mix")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def locust():
    if importlib.util.find_spec("locust") is None:  # not imported: it patches the standard library
        missing("Locust is not installed: pip install 'obsserve[loadtest]'")


class Run:
    """One run of `python -m loadtests`."""

    def __init__(self, folder, scenario, *arguments):
        ended = subprocess.run(
            [sys.executable, "-m", "loadtests", scenario, "--report", str(folder), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        self.code, self.said = ended.returncode, f"{ended.stdout}\n{ended.stderr}"
        self.lines = ended.stdout.splitlines()
        path = folder / f"{scenario}.json"
        self.report = json.loads(path.read_text()) if path.exists() else None
        self.page = (folder / f"{scenario}.html").read_text() if path.exists() else ""

    def breaches(self):
        return [text.split()[1].rstrip(":") for text in self.lines if text.startswith("BREACH")]


def patient(scenario):
    """Times are not what a machine that does other things meanwhile can promise; counts are."""
    times = [f"--slo={name}<=20" for name in SCENARIOS[scenario].slo if name.endswith("_seconds")]
    assert len(times) >= 2
    return times


@pytest.mark.parametrize("scenario", SHORT)
def test_short_form(tmp_path, scenario):
    run = Run(tmp_path, scenario, "--run-time", "4s", *patient(scenario))
    assert run.code == 0, run.said
    assert f"verdict: {scenario} passed" in run.lines
    assert [text for text in run.lines if " users " in text and "p95 client" in text], run.said
    found = run.report
    assert found["passed"]
    assert found["reconciliation"]["holds"]
    assert found["client"]["sent"] == found["server"]["observed"] == found["access_log"]["requests"] >= 100
    assert found["reconciliation"]["lost"] == 0
    assert "<svg" in run.page


@pytest.mark.full
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_keeps_its_slo(tmp_path, scenario):
    run = Run(tmp_path, scenario)
    assert run.code == 0, run.said
    assert run.report["passed"]
    assert run.report["seconds"] < 60
