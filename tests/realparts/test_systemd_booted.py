"""The shipped units in a systemd that was booted for them: a Debian of its own, in a container of systemd-nspawn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import missing, program

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# procps has the kill of ExecReload
PACKAGES = "systemd,systemd-sysv,dbus,procps,python3,python3-venv"
CHECK = """[Unit]
After=multi-user.target
[Service]
ExecStart=/usr/bin/python3 /opt/check.py
[Install]
WantedBy=multi-user.target
"""

pytestmark = [pytest.mark.full, pytest.mark.timeout(1500)]


def command(*words, **options):
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=900, check=False, **options
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """The root directory of a Debian 12 with the package installed as the unit expects it."""
    for name, package in (
        ("mmdebstrap", "mmdebstrap"),
        ("systemd-nspawn", "systemd-container"),
        ("script", "bsdutils"),
    ):
        program(name, f"apt-get install {package}")
    if os.geteuid() != 0:
        missing("only root may boot a container: run as root")
    folder = tmp_path_factory.mktemp("machine")
    root, wheels = folder / "root", folder / "wheels"
    command("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", folder / "root.tar")
    root.mkdir()
    command("tar", "-xf", folder / "root.tar", "-C", root)
    command(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, ROOT)
    (wheel,) = wheels.glob("obsserve-*.whl")
    command(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", "3.11",
            "-d", wheels, wheel)  # fmt: skip
    shutil.copytree(wheels, root / "opt/wheels")
    command("chroot", root, "python3", "-m", "venv", "/opt/app/venv")
    command("chroot", root, "/opt/app/venv/bin/pip", "install", "--quiet", "--no-index", "--find-links",
            "/opt/wheels", "obsserve")  # fmt: skip
    for unit in ("obsserve.service", "obsserve.socket"):
        shutil.copy(ROOT / "deploy/systemd" / unit, root / "etc/systemd/system")
    shutil.copy(HERE / "booted_check.py", root / "opt/check.py")
    (root / "etc/systemd/system/check.service").write_text(CHECK)
    command("chroot", root, "systemctl", "enable", "--quiet", "check.service")
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def found(machine):
    """What the check found, once the machine has powered itself off."""
    # A pty for the console; not registered, because nothing here runs machined; cgroup v2, because with v1 a
    # systemd in a container is not told that a service has no process left, and waits for its time-out.
    boot = f"systemd-nspawn --quiet --boot --directory={machine} --private-network --register=no --keep-unit"
    environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    log = machine.parent / "boot.log"
    subprocess.run(
        ["timeout", "--signal=KILL", "400", "script", "--quiet", "--return", "--command", boot, str(log)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=False,
    )  # fmt: skip
    result = machine / "opt/found.json"
    assert result.exists(), log.read_text(errors="replace")[-3000:]
    facts = json.loads(result.read_text())
    assert "error" not in facts, facts
    return facts


def test_the_first_connection_starts_the_service(found):
    assert (found["socket"], found["before"], found["answer"]) == (0, "inactive", 200)
    assert found["started"] == {
        "ActiveState": "active",
        "SubState": "running",
        "Type": "notify",
        "User": "obsserve",
        "NRestarts": "0",
        "StatusText": "Serving on http://127.0.0.1:8000 with 1 worker",
    }


def test_it_has_no_privilege(found):
    status = dict(line.split(":\t", 1) for line in found["status_of_process"].splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert "0" not in status["Uid"].split()


def test_a_reload_replaces_the_worker_and_keeps_the_service(found):
    assert (found["reload"], found["reloaded"], found["answer_after_reload"]) == (0, True, 200)
    assert found["after_reload"] == {"ActiveState": "active", "NRestarts": "0", "same": True}


def test_the_watchdog_ends_a_service_whose_loop_is_blocked(found):
    assert found["restart"] == 0
    assert found["blocked"] != 200
    assert (found["killed"], found["answer_after_watchdog"]) == (True, True)
    assert any("Watchdog timeout" in line for line in found["journal"])


def test_it_stops_cleanly(found):
    assert found["stop"] == 0
    assert found["stopped"] == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}


def test_an_application_that_cannot_start_is_not_tried_again(found):
    assert found["start_broken"] != 0
    assert found["broken"] == {
        "ActiveState": "failed",
        "Result": "exit-code",
        "ExecMainStatus": "3",
        "NRestarts": "0",
    }


def test_the_journal_has_json_lines(found):
    lines = [json.loads(line) for line in found["journal"] if line.startswith("{")]
    assert {"server.start", "http.request", "server.stop"} <= {line["event"] for line in lines}
    assert any("nowhere" in line for line in found["journal"])
