"""The shipped Dockerfile, built and run by a Docker of the test's own.

Base images cannot be pulled here: a Debian with the same `python` stands in for python:3.x-slim, and pip takes what it
needs from a folder, by INSTALL, as somebody does who builds without a network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.parts import missing, program
from tests.waiting import wait_for

wait_for = partial(wait_for, deadline=60.0, interval=0.1)

ROOT = Path(__file__).parents[2]
PACKAGES = "python3,python3-venv,python-is-python3"
INSTALL = "--no-index --find-links wheels obsserve[otlp]"

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    """A function that runs docker against a daemon of its own."""
    program("dockerd", "apt-get install docker.io")
    program("mmdebstrap", "apt-get install mmdebstrap")
    if os.geteuid() != 0:
        missing("only root may start a Docker daemon: run as root")
    folder = tmp_path_factory.mktemp("docker")
    address = f"unix://{folder}/sock"
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["/usr/sbin/dockerd", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
             "--storage-driver=overlay2", f"--data-root={folder}/data", f"--exec-root={folder}/exec",
             "-H", address, f"--pidfile={folder}/pid"],
            stdout=log, stderr=log,
        )  # fmt: skip

    def run(*arguments, check=True, timeout=600):
        done = subprocess.run(
            ["/usr/bin/docker", *map(str, arguments)],
            capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "DOCKER_HOST": address, "DOCKER_BUILDKIT": "1"},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    run.address = address
    try:
        wait_for(lambda: daemon.poll() is not None or run("info", check=False).returncode == 0, "the daemon")
        assert daemon.poll() is None, (folder / "log").read_text()[-2000:]
        yield run
    finally:
        daemon.terminate()
        daemon.wait(60)
        # The host's network namespace stays mounted there, and a folder with a mount in it cannot be removed.
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", line.split()[1]], check=False, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image(docker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    command("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", folder / "base.tar")
    docker("import", folder / "base.tar", "python:3.11-slim")
    (folder / "base.tar").unlink()
    wheels = folder / "wheels"
    command(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, ROOT)
    (wheel,) = wheels.glob("obsserve-*.whl")
    command(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", "3.11",
            "-d", wheels, f"{wheel}[otlp]")  # fmt: skip
    shutil.copy(ROOT / "deploy/Dockerfile", folder)
    docker("build", "--network=host", "--target", "app", "--build-arg", "PYTHON=3.11", "--build-arg", f"INSTALL={INSTALL}",
           "--build-arg", "COMPILER=", "-t", "obsserve-demo", folder)  # fmt: skip
    return "obsserve-demo"


def command(*words):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{words}\n{done.stderr[-3000:]}"


@pytest.fixture
def container(docker, image):
    """A function that runs a container as compose.yaml does, on the host's network because this daemon has none."""
    started = []

    def run(*arguments, **environment):
        variables = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        done = docker("run", "-d", "--network=host", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
                      "--security-opt=no-new-privileges", "--health-interval=1s", *variables, image, *arguments)  # fmt: skip
        started.append(done.stdout.strip())
        return started[-1]

    yield run
    for name in started:
        docker("rm", "-f", name)


def inspect(docker, name):
    return json.loads(docker("inspect", name).stdout)[0]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_is_healthy_serves_without_root_and_drains_on_sigterm(docker, container, workers):
    name = container(
        "obsserve.demo:app", OBSSERVE_PORT="18731", OBSSERVE_METRICS_PORT="18732", OBSSERVE_WORKERS=workers
    )
    health = wait_for(
        lambda: (found := inspect(docker, name)["State"]["Health"])["Status"] == "healthy" and found,
        "a healthy container",
    )
    assert health["Log"][-1]["ExitCode"] == 0
    assert httpx.get("http://127.0.0.1:18731/fast").status_code == 200
    assert inspect(docker, name)["Config"]["User"] == "10001:10001"
    status = docker("exec", name, "cat", "/proc/1/status").stdout
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(facts["Uid"].split()) == {"10001"}
    assert facts["NoNewPrivs"] == "1"
    assert docker("exec", name, "touch", "/app/x", check=False).returncode != 0
    assert docker("exec", name, "cat", "/proc/1/cmdline").stdout.split("\0")[1].endswith("/obsserve")

    with httpx.stream("GET", "http://127.0.0.1:18731/stream?chunks=6&seconds=1", timeout=30) as stream:
        parts = stream.iter_raw()
        next(parts)
        stopping = subprocess.Popen(
            ["/usr/bin/docker", "stop", "-t", "30", name],
            env={**os.environ, "DOCKER_HOST": docker.address}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert len(list(parts)) >= 1  # the response that was running comes to its end
    assert stopping.wait(40) == 0
    assert inspect(docker, name)["State"]["ExitCode"] == 0
    logs = docker("logs", name)
    lines = [json.loads(line) for line in (logs.stdout + logs.stderr).splitlines() if line.startswith("{")]
    assert {"server.start", "http.request", "server.stop"} <= {line["event"] for line in lines}


def test_an_application_that_cannot_start(docker, container):
    name = container("nowhere:app")
    assert docker("wait", name).stdout.strip() == "3"


def test_it_is_unhealthy_while_it_is_not_ready(docker, container):
    name = container("obsserve.demo:app", OBSSERVE_PORT="18733", OBSSERVE_METRICS_PORT="18734")
    wait_for(lambda: inspect(docker, name)["State"]["Health"]["Status"] == "healthy", "a healthy container")
    asked = docker("exec", "-e", "OBSSERVE_METRICS_PORT=18735", name, "obsserve", "healthcheck", check=False)
    assert asked.returncode == 1
    assert "refused" in asked.stderr
