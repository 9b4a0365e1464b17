import atexit
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click
import pytest

import obsserve
from obsserve.errors import StartupError
from obsserve.main import main
from obsserve.server import latesignals
from tests.parts import package

ROOT = Path(__file__).parent.parent
APPLICATION = "async def app(scope, receive, send): ...\n"


class FakeServer:
    """Stands in for the server: starts unless told otherwise, and returns at once."""

    last_resort = None
    started = False
    outcome: BaseException | None = None
    starts = True
    signals: ClassVar[list[int]] = []
    last: "FakeServer | None" = None

    def __init__(self, config):
        self.config = config
        FakeServer.last = self

    def handle_exit(self, sig, frame):
        FakeServer.signals.append(sig)

    def abandon(self):
        """Nothing is open."""

    def run(self, sockets=None):
        self.started = self.starts
        if self.outcome:
            raise self.outcome


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty directory with an application, of which the process remembers nothing afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    for variable in [name for name in os.environ if name.startswith("OBSSERVE_")]:
        monkeypatch.delenv(variable)
    (tmp_path / "shop.py").write_text(APPLICATION)
    handlers = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for sig, handler in handlers.items():  # the command keeps them: its process is about to end
        signal.signal(sig, handler)
    atexit.unregister(latesignals.ignore)
    sys.modules.pop("shop", None)


@pytest.fixture
def server(monkeypatch):
    server_module = types.ModuleType("obsserve.server.server")
    server_module.Server = type("Server", (FakeServer,), {})
    logging_module = types.ModuleType("obsserve.telemetry.logging")
    logging_module.configure_logging = lambda settings: None
    logging_module.server_logger = logging_module.server_sink = lambda: None
    monkeypatch.setitem(sys.modules, server_module.__name__, server_module)
    monkeypatch.setitem(sys.modules, logging_module.__name__, logging_module)
    FakeServer.signals.clear()
    return server_module.Server


@dataclass
class Ended:
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def invoke(capsys, monkeypatch):
    """Run the command in this process, with these variables set."""

    def call(*arguments, **environ):
        for variable, value in environ.items():
            monkeypatch.setenv(variable, value)
        with pytest.raises(SystemExit) as ended:
            main(list(arguments), prog_name="obsserve")
        written = capsys.readouterr()
        return Ended(ended.value.code, written.out, written.err)

    return call


@pytest.fixture
def command():
    """Start the command in a process of its own, which does not outlive the test."""
    with contextlib.ExitStack() as running:

        def start(*arguments, **environ):
            process = subprocess.Popen(
                [sys.executable, "-m", "obsserve", *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield start


class TestServing:
    def test_options_reach_the_server(self, invoke, server):
        result = invoke(
            "shop:app", "--port", "0", "--no-access-log", "--header", "X-A:1", OBSSERVE_BACKLOG="7"
        )
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
        settings = FakeServer.last.config.settings
        assert (settings.port, settings.access_log, settings.backlog) == (0, False, 7)
        assert settings.headers == (("X-A", "1"),)

    def test_the_application_from_the_environment(self, invoke, server):
        assert invoke(OBSSERVE_APP="shop:app").exit_code == 0
        assert FakeServer.last.config.app == "shop:app"

    def test_the_application_from_a_file(self, invoke, server, project):
        (project / "pyproject.toml").write_text("[tool.obsserve]\napp = 'shop:app'\n")
        assert invoke().exit_code == 0

    def test_an_application_elsewhere(self, invoke, server, project):
        (project / "src").mkdir()
        (project / "shop.py").rename(project / "src" / "shop.py")
        assert invoke("shop:app", "--app-dir", "src").exit_code == 0

    def test_run_takes_the_object(self, server):
        async def app(scope, receive, send): ...

        obsserve.run(app, port=0)
        assert FakeServer.last.config.app is app

    def test_run_does_not_read_the_environment(self, server, monkeypatch):
        monkeypatch.setenv("OBSSERVE_PORT", "1")
        obsserve.run(lambda scope, receive, send: None)
        assert FakeServer.last.config.settings.port == 8000

    def test_a_signal_that_comes_late_does_not_kill(self, invoke, server):
        invoke("shop:app")
        signal.raise_signal(signal.SIGTERM)
        assert server.signals == [signal.SIGTERM]

    def test_run_gives_the_signal_back(self, server):
        before = signal.getsignal(signal.SIGTERM)
        obsserve.run(lambda scope, receive, send: None)
        assert signal.getsignal(signal.SIGTERM) is before

    def test_in_another_thread_signals_are_left_alone(self, server):
        thread = threading.Thread(target=obsserve.run, args=(lambda scope, receive, send: None,))
        thread.start()
        thread.join(10)
        assert FakeServer.last.started

    def test_an_interrupt_is_a_clean_end(self, invoke, server):
        server.outcome = KeyboardInterrupt()
        assert invoke("shop:app").exit_code == 0

    def test_a_server_that_did_not_start(self, invoke, server):
        server.starts = False
        assert invoke("shop:app").exit_code == 3

    def test_the_exit_code_of_the_server_itself(self, invoke, server):
        server.outcome = SystemExit(3)
        assert invoke("shop:app").exit_code == 3

    def test_a_start_up_error_is_one_line(self, invoke, server):
        server.outcome = StartupError("Cannot listen on 127.0.0.1:80: Permission denied")
        result = invoke("shop:app")
        assert result.exit_code == 3
        assert result.stderr == "obsserve: error: Cannot listen on 127.0.0.1:80: Permission denied\n"


class TestMistakes:
    @pytest.mark.parametrize(
        ("app", "line"),
        [
            ("nowhere:app", 'Could not import module "nowhere".'),
            ("shop:nothing", 'Attribute "nothing" not found in module "shop".'),
            ("shop", 'Import string "shop" must be in format "<module>:<attribute>".'),
        ],
    )
    def test_an_application_that_is_not_there(self, invoke, server, app, line):
        result = invoke(app)
        assert result.exit_code == 3
        assert result.stderr == f"obsserve: error: Error loading ASGI app. {line}\n"

    def test_an_application_that_raises(self, invoke, server, project):
        (project / "shop.py").write_text("import no_such_dependency\n")
        result = invoke("shop:app")
        assert result.exit_code == 3
        lines = result.stderr.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert "shop.py" in lines[1]
        assert lines[-2] == "ModuleNotFoundError: No module named 'no_such_dependency'"
        assert lines[-1].startswith(
            "obsserve: error: Error loading ASGI app. 'shop:app' raised ModuleNotFoundError"
        )
        assert result.stderr.count("Traceback") == 1

    def test_values_that_cannot_be_used(self, invoke, server):
        result = invoke("nowhere:app", "--port", "abc", "--backlog", "0")
        assert result.exit_code == 2
        assert result.stderr == (
            "obsserve: error: 2 problems in the configuration\n"
            "  port: 'abc' is not a whole number (from --port); give a whole number from 0 to 65535\n"
            "  backlog: 0 is too small (from --backlog); give a whole number of at least 1\n"
        )

    def test_run_tells_mistakes_in_the_same_way(self, server, capsys):
        with pytest.raises(SystemExit, match="2"):
            obsserve.run("shop:app", port=-1)
        assert capsys.readouterr().err.startswith("obsserve: error: port: -1 is too small; give")

    def test_no_application(self, invoke):
        result = invoke()
        assert result.exit_code == 2
        assert "Missing argument 'APP'" in result.stderr

    def test_a_flag_that_does_not_exist(self, invoke):
        result = invoke("shop:app", "--prot", "1")
        assert result.exit_code == 2
        assert "--port" in result.stderr

    def test_an_unknown_variable_is_a_warning(self, invoke, server):
        result = invoke("shop:app", OBSSERVE_PROT="1")
        assert result.exit_code == 0
        assert (
            result.stderr == "obsserve: warning: OBSSERVE_PROT sets no option; did you mean OBSSERVE_PORT?\n"
        )


class TestInformation:
    def test_version(self, invoke):
        result = invoke("--version")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"obsserve {obsserve.__version__} with ")

    @pytest.mark.parametrize("columns", [80, 120])
    def test_help_fits_the_terminal(self, command, columns):
        text, _ = command("--help", COLUMNS=str(columns)).communicate()
        lines = text.splitlines()
        assert max(map(len, lines)) <= columns
        assert max(map(len, lines)) > columns - 10, "it uses the width that it has"

    def test_help_has_headings_and_every_flag(self, invoke):
        from obsserve.options import SHARED

        text = invoke("--help").stdout
        for option in SHARED.values():
            assert option.flag in text
            assert f"\n{option.group}:\n" in text

    def test_check_config(self, invoke):
        assert invoke("shop:app", "--check-config").exit_code == 0
        result = invoke("shop:app", "--check-config", "--port", "-1")
        assert result.exit_code == 2
        assert "port: -1 is too small" in result.stderr

    def test_check_config_imports_nothing(self, invoke, project):
        (project / "shop.py").write_text("raise RuntimeError\n")
        assert invoke("shop:app", "--check-config").exit_code == 0

    def test_print_config(self, invoke):
        result = invoke("shop:app", "--print-config", "--port", "0")
        assert result.exit_code == 0
        assert any(
            line.startswith("port = 0 ") and line.endswith("# --port") for line in result.stdout.splitlines()
        )

    @pytest.mark.parametrize("choice", ["httptools", "h11"])
    def test_shell_completion_knows_the_choices(self, choice):
        context = click.Context(main)
        (http,) = (parameter for parameter in main.get_params(context) if parameter.name == "http")
        assert [item.value for item in http.shell_complete(context, choice[:2])] == [choice]


class TestPackage:
    def test_what_it_exposes(self):
        assert set(obsserve.__all__) == {"Config", "Server", "__version__", "main", "run"}
        assert obsserve.main is main

    def test_the_server_is_there_when_asked_for(self, server):
        assert obsserve.Server is server
        assert importlib.import_module("obsserve.main").Server is server

    @pytest.mark.parametrize("name", ["obsserve", "obsserve.main"])
    def test_nothing_else_is(self, name):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = importlib.import_module(name).nothing


def test_help_imports_none_of_the_servers_parts():
    program = (
        "import sys\nfrom obsserve.main import main\nmain(['--help'], standalone_mode=False)\n"
        "heavy = {'asyncio', 'httptools', 'h11', 'uvloop', 'structlog', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_the_server_imports_only_the_parser_that_it_uses():
    package("httptools")
    program = (
        "import sys\nimport obsserve.server.server\nfrom obsserve.http.parser import parser_class\n"
        "parser_class('auto')\nassert 'h11' not in sys.modules\n"
        "assert parser_class('h11').__name__ == 'H11Parser'\nassert 'h11' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


class TestProcess:
    """The exit codes that matter, as a shell sees them."""

    def test_an_application_that_is_not_there(self, command):
        process = command("nowhere:app")
        _, errors = process.communicate()
        assert process.returncode == 3
        assert errors.splitlines()[-1].startswith("obsserve: error: ")
        assert "Traceback" not in errors

    def test_an_application_whose_start_fails(self, command, project):
        (project / "shop.py").write_text(
            "async def app(scope, receive, send):\n"
            "    await receive()\n"
            "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
        )
        process = command("shop:app", "--port", "0")
        _, errors = process.communicate()
        assert process.returncode == 3
        assert "no database" in errors
        assert "Traceback" not in errors

    def test_a_port_in_use(self, command):
        from obsserve.config import Config

        with Config(main, port=0).bind_socket() as taken:
            taken.listen()
            process = command("shop:app", "--port", str(taken.getsockname()[1]))
            _, errors = process.communicate()
        assert process.returncode == 3
        assert "Traceback" not in errors

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_is_a_clean_end(self, command, project, number):
        (project / "shop.py").write_text(
            "async def app(scope, receive, send):\n"
            "    if scope['type'] == 'lifespan':\n"
            "        await receive()\n"
            "        await send({'type': 'lifespan.startup.complete'})\n"
            "        await receive()\n"
            "        await send({'type': 'lifespan.shutdown.complete'})\n"
        )
        process = command("shop:app", "--port", "0")
        line = process.stderr.readline()
        while line and "127.0.0.1" not in line:
            line = process.stderr.readline()
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == 0, errors


class TestFlags:
    """Only those that are given are made; what is said of a mistake knows all of them."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["shop:app", "--prot", "1"], "--port"),
            (["shop:app", "--no-acces-log"], "--no-access-log"),
            (["shop:app", "--port"], "requires an argument"),
            (["shop:app", "two"], "unexpected extra argument"),
            (["shop:app", "--reload=yes"], "does not take a value"),
        ],
    )
    def test_mistakes(self, capsys, arguments, said):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert said in capsys.readouterr().err

    def test_each_form_is_understood(self, capsys):
        arguments = [
            "--port=8001",
            "--host",
            "::1",
            "--no-access-log",
            "--header",
            "a:b",
            "--header=c:d",
            "shop:app",
        ]
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--print-config"])
        assert end.value.code == 0
        printed = capsys.readouterr().out
        for line in (
            "port = 8001",
            'host = "::1"',
            "access_log = false",
            'headers = [["a", "b"], ["c", "d"]]',
        ):
            assert line in printed

    def test_help_beside_a_flag_shows_all(self, capsys):
        with pytest.raises(SystemExit):
            main(["--port", "1", "--help"])
        shown = capsys.readouterr().out
        assert all(flag in shown for flag in ("--port", "--metrics-port", "--ssl-certfile", "--check-config"))
