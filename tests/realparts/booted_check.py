"""Runs inside the booted system of test_systemd_booted.py; leaves a file with what it found, and powers off."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

URL = "http://127.0.0.1:8000"
FOUND = {}


def systemctl(*arguments):
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False).returncode


def show(*names):
    shown = subprocess.run(
        ["systemctl", "show", "obsserve", "-p", ",".join(names)], capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in shown.stdout.splitlines())


def get(path, url=URL, timeout=60):
    try:
        with urllib.request.urlopen(f"{url}{path}", timeout=timeout) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException) as error:
        return repr(error)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return value


def override(text):
    folder = Path("/run/systemd/system/obsserve.service.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "override.conf").write_text(f"[Service]\n{text}\n")
    systemctl("daemon-reload")


def check():
    FOUND["socket"] = systemctl("start", "obsserve.socket")
    FOUND["before"] = show("ActiveState")["ActiveState"]
    FOUND["answer"] = get("/fast")  # starts the service, and waits in the socket until it serves
    until(lambda: show("ActiveState")["ActiveState"] == "active")
    FOUND["started"] = show("ActiveState", "SubState", "StatusText", "Type", "User", "NRestarts")
    pid = show("MainPID")["MainPID"]
    FOUND["status_of_process"] = Path(f"/proc/{pid}/status").read_text()

    FOUND["reload"] = systemctl("reload", "obsserve")
    journal = "journalctl -u obsserve -o cat --no-pager"

    def readies():
        said = subprocess.run(journal.split(), capture_output=True, text=True, check=True).stdout
        return said.count('"worker.ready"') >= 2

    FOUND["reloaded"] = until(readies)
    FOUND["after_reload"] = show("ActiveState", "NRestarts") | {"same": show("MainPID")["MainPID"] == pid}
    FOUND["answer_after_reload"] = get("/fast")

    override("WatchdogSec=2")
    FOUND["restart"] = systemctl("restart", "obsserve")
    FOUND["blocked"] = get("/blocking?seconds=10", timeout=30)
    FOUND["killed"] = until(lambda: show("NRestarts")["NRestarts"] == "1")
    FOUND["answer_after_watchdog"] = until(lambda: get("/fast") == 200)
    until(lambda: show("ActiveState")["ActiveState"] == "active")

    FOUND["stop"] = systemctl("stop", "obsserve.socket", "obsserve.service")
    FOUND["stopped"] = show("ActiveState", "Result", "ExecMainStatus")

    override("ExecStart=\nExecStart=/usr/bin/env obsserve nowhere:app --supervise\nWatchdogSec=0")
    FOUND["start_broken"] = systemctl("start", "obsserve.service")
    # One that is restarted is "activating" in between, never "failed".
    until(lambda: show("ActiveState")["ActiveState"] == "failed")
    FOUND["broken"] = show("ActiveState", "Result", "ExecMainStatus", "NRestarts")
    said = subprocess.run(journal.split(), capture_output=True, text=True, check=True).stdout
    FOUND["journal"] = said.splitlines()


try:
    check()
except Exception as error:  # noqa: BLE001 - told to the test
    FOUND["error"] = repr(error)
finally:
    Path("/opt/found.json").write_text(json.dumps(FOUND))
    systemctl("poweroff")
