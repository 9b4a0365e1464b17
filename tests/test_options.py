import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from obsserve import options
from obsserve.config import OPTIONS
from obsserve.errors import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolve(flags=None, *, file=None, **environ):
    return options.resolve({"app": "main:app", **(flags or {})}, file=file, environ=environ)


class TestPrecedence:
    def test_a_flag_before_the_environment_before_the_file_before_the_default(self, empty_directory):
        (empty_directory / "obsserve.toml").write_text("port = 1\nbacklog = 1\nlifespan = 'off'\n")
        resolution = resolve({"port": "3"}, file="obsserve.toml", OBSSERVE_PORT="2", OBSSERVE_BACKLOG="2")
        settings = resolution.config().settings
        assert (settings.port, settings.backlog, settings.lifespan, settings.host) == (
            3,
            2,
            "off",
            "127.0.0.1",
        )
        assert resolution.origins == {
            "app": "APP",
            "port": "--port",
            "backlog": "OBSSERVE_BACKLOG",
            "lifespan": "obsserve.toml",
        }

    def test_flags_that_were_not_given_override_nothing(self):
        resolution = resolve({"port": None, "headers": ()}, OBSSERVE_PORT="2", OBSSERVE_HEADERS="X-A:1")
        assert resolution.values == {"app": "main:app", "port": "2", "headers": ["X-A:1"]}

    def test_a_switch_turned_off_by_flag(self):
        assert (
            resolve({"access_log": False}, OBSSERVE_ACCESS_LOG="true").config().settings.access_log is False
        )

    def test_other_systems_variables_come_before_the_default_only(self, empty_directory):
        assert resolve(FORWARDED_ALLOW_IPS="10.0.0.1").origins["forwarded_allow_ips"] == "FORWARDED_ALLOW_IPS"
        (empty_directory / "obsserve.toml").write_text("forwarded_allow_ips = '10.0.0.2'")
        resolution = resolve(file="obsserve.toml", FORWARDED_ALLOW_IPS="10.0.0.1")
        assert resolution.config().settings.forwarded_allow_ips == ("10.0.0.2",)

    def test_variables_of_an_env_file_are_for_the_application_and_other_systems(
        self, empty_directory, monkeypatch
    ):
        monkeypatch.setattr(os, "environ", {})
        (empty_directory / ".env").write_text("FORWARDED_ALLOW_IPS=10.0.0.3\nOBSSERVE_PORT=1\n")
        config = resolve({"env_file": ".env"}).config()
        assert config.settings.forwarded_allow_ips == ("10.0.0.3",)
        assert config.origins["forwarded_allow_ips"] == "FORWARDED_ALLOW_IPS"
        assert config.settings.port == 8000
        assert os.environ["OBSSERVE_PORT"] == "1"

    def test_a_missing_env_file_is_one_of_the_problems(self, empty_directory):
        (empty_directory / "obsserve.toml").write_text("prot = 1\n")
        with pytest.raises(ConfigError) as caught:
            resolve({"env_file": "nowhere"}, file="obsserve.toml").config()
        assert [problem.option for problem in caught.value.problems] == ["prot", "env_file"]

    def test_problems_of_every_way_are_reported_together_with_their_origin(self, empty_directory):
        (empty_directory / "obsserve.toml").write_text("backlog = 0\nprot = 1\n")
        with pytest.raises(ConfigError) as caught:
            resolve({"lifespan": "maybe"}, file="obsserve.toml", OBSSERVE_PORT="abc").config()
        origins = {problem.option: problem.where for problem in caught.value.problems}
        assert origins == {
            "prot": "obsserve.toml",
            "backlog": "obsserve.toml",
            "port": "OBSSERVE_PORT",
            "lifespan": "--lifespan",
        }


class TestEnvironment:
    def test_every_option_has_a_variable(self):
        assert OPTIONS["headers"].variable == "OBSSERVE_HEADERS"
        assert resolve({"app": None}, OBSSERVE_APP="other:app").values["app"] == "other:app"

    def test_several_values_are_separated_by_spaces(self):
        settings = resolve(OBSSERVE_HEADERS="X-A:1 X-B:2").config().settings
        assert settings.headers == (("X-A", "1"), ("X-B", "2"))

    def test_an_empty_variable_is_not_set(self):
        assert "port" not in resolve(OBSSERVE_PORT="").values

    def test_off(self):
        assert resolve(OBSSERVE_TIMEOUT_WRITE="off").config().settings.timeout_write is None

    def test_an_unknown_variable_is_a_warning(self):
        resolution = resolve(OBSSERVE_PROT="1", OBSSERVE_CONFIG="", OBSSERVE_PURE_PYTHON="1", PATH="/bin")
        assert resolution.warnings == ("OBSSERVE_PROT sets no option; did you mean OBSSERVE_PORT?",)
        assert not resolution.problems

    def test_a_variable_of_uvicorn_is_a_warning(self):
        resolution = resolve(
            UVICORN_PORT="1", UVICORN_RELOAD_DIRS=".", UVICORN_HOST="a", OBSSERVE_HOST="b", UVICORN_X=""
        )
        assert resolution.warnings == (
            "UVICORN_PORT is not read; the variable is called OBSSERVE_PORT here",
            "UVICORN_RELOAD_DIRS is not read; the variable is called OBSSERVE_RELOAD_DIRS here",
        )


class TestFile:
    def test_types_of_toml(self, empty_directory):
        (empty_directory / "obsserve.toml").write_text(
            "port = 1\naccess_log = false\ntimeout_write = 0.5\ntimeout_request_body = 'off'\n"
            "headers = ['X-A:1', ['X-B', '2']]\nforwarded_allow_ips = ['10.0.0.1', '::1']\n"
        )
        settings = resolve(file="obsserve.toml").config().settings
        assert (settings.port, settings.access_log, settings.timeout_write) == (1, False, 0.5)
        assert settings.timeout_request_body is None
        assert settings.headers == (("X-A", "1"), ("X-B", "2"))
        assert settings.forwarded_allow_ips == ("10.0.0.1", "::1")

    def test_the_project_file_is_found(self, empty_directory):
        (empty_directory / "pyproject.toml").write_text("[tool.obsserve]\nport = 1\n")
        resolution = resolve()
        assert resolution.values["port"] == 1
        assert resolution.origins["port"] == "pyproject.toml"

    def test_a_variable_names_the_file(self, empty_directory):
        (empty_directory / "pyproject.toml").write_text("[tool.obsserve]\nport = 1\n")
        (empty_directory / "named.toml").write_text("port = 2\n")
        assert resolve(OBSSERVE_CONFIG="named.toml").values["port"] == 2

    def test_a_project_file_of_somebody_else_is_left_alone(self, empty_directory):
        (empty_directory / "pyproject.toml").write_text("this is not TOML")
        assert not resolve().problems

    @pytest.mark.parametrize("text", ["[tool.obsserve", "[tool]\nobsserve = 1\n"])
    def test_a_project_file_that_cannot_be_read(self, empty_directory, text):
        (empty_directory / "pyproject.toml").write_text(text)
        (problem,) = resolve().problems
        assert problem.what.startswith("pyproject.toml cannot be read: ")

    def test_a_named_file_must_exist(self):
        (problem,) = resolve(file="nowhere.toml").problems
        assert problem.what == "nowhere.toml cannot be read: No such file or directory"

    def test_what_only_python_can_give(self, empty_directory):
        (empty_directory / "obsserve.toml").write_text("timeout_notify = 5")
        resolution = resolve(file="obsserve.toml", OBSSERVE_TIMEOUT_NOTIFY="5")
        (problem,) = resolution.problems
        assert (problem.option, problem.what) == ("timeout_notify", "a file cannot give it")
        assert "timeout_notify" not in resolution.values
        assert "OBSSERVE_TIMEOUT_NOTIFY sets no option" in resolution.warnings[0]

    def test_a_table_of_logging(self, empty_directory):
        (empty_directory / "obsserve.toml").write_text(
            "[log_config]\nversion = 1\n[log_config.loggers.obsserve]\nhandlers = ['default']\n"
        )
        config = resolve(file="obsserve.toml").config()
        assert config.settings.log_config == {
            "version": 1,
            "loggers": {"obsserve": {"handlers": ["default"]}},
        }
        (empty_directory / "again.toml").write_text(options.printed(config))
        assert resolve(file="again.toml").config().settings == config.settings

    def test_an_unknown_key(self, empty_directory):
        (empty_directory / "obsserve.toml").write_text("timeout-write = 1")
        (problem,) = resolve(file="obsserve.toml").problems
        assert problem.remedy == "did you mean timeout_write?"


class TestDocumentation:
    def test_the_committed_page_is_fresh(self):
        committed = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
        assert committed == options.reference(), "run: python -m obsserve.options > docs/configuration.md"

    def test_the_module_prints_it(self):
        command = [sys.executable, "-W", "error", "-m", "obsserve.options"]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        assert printed.stdout == options.reference()
        assert not printed.stderr

    def test_it_does_not_depend_on_the_environment(self, monkeypatch):
        before = options.reference()
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.9.8.7")
        monkeypatch.setenv("OBSSERVE_PORT", "1")
        assert options.reference() == before

    def test_it_names_every_option(self):
        text = options.reference()
        for option in OPTIONS.values():
            variable = "from Python only" if option.from_python_only else f"`{option.variable}`"
            assert f"| `{option.name}` | {variable} |" in text


class TestPrinted:
    def test_a_printed_configuration_gives_the_same_again(self, empty_directory):
        config = resolve(
            {
                "headers": ("X-A: é", "X-B:2"),
                "log_level": "TRACE",
                "limit_concurrency": "5",
                "timeout_write": "off",
            }
        ).config()
        (empty_directory / "again.toml").write_text(options.printed(config), encoding="utf-8")
        assert resolve(file="again.toml").config().settings == config.settings

    def test_each_value_has_its_origin(self):
        lines = options.printed(resolve({"port": "0"}, OBSSERVE_HOST="::1").config()).splitlines()
        origins = {line.split(" = ")[0]: line.rpartition("  # ")[2] for line in lines if " = " in line}
        assert origins["port"] == "--port"
        assert origins["host"] == "OBSSERVE_HOST"
        assert origins["backlog"] == "default"
        assert origins["app"] == "APP"

    def test_it_is_toml(self):
        document = tomllib.loads(options.printed(resolve().config()))
        without_a_word_for_none = {
            "uds",
            "fd",
            "env_file",
            "h11_max_incomplete_event_size",
            "access_log_format",
            "log_hash_key",
            "otlp_protocol",
            "trace_sample_ratio",
            "ssl_ca_certs",
            "ssl_certfile",
            "ssl_keyfile",
            "ssl_keyfile_password",
            "ssl_ciphers",
        }
        assert document.keys() == options.SHARED.keys() - without_a_word_for_none
        assert json.dumps(document)
