import asyncio
import importlib.util
import logging
import os
import socket
import stat
import sys
from configparser import RawConfigParser
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from obsserve.asgi.interfaces import ASGI2Application
from obsserve.asgi.lifespan import Lifespan
from obsserve.config import LOGGING_CONFIG, OPTIONS, STARTUP_FAILURE, Config, LogLevel, Settings
from obsserve.errors import ConfigError, StartupError
from tests.parts import package


PARSER = RawConfigParser()


async def application(scope, receive, send): ...


class CallableApplication:
    async def __call__(self, scope, receive, send): ...


def create_application():
    return application


async def coroutine_factory():
    return application


def create_nothing():
    return None


def create_trouble():
    raise LookupError("no database")


def problems_of(**options):
    with pytest.raises(ConfigError) as caught:
        Settings(**{"app": application, **options})
    return {problem.option: problem for problem in caught.value.problems}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)


class TestSettings:
    def test_defaults(self):
        settings = Settings(app="main:app")
        assert (settings.host, settings.port, settings.backlog) == ("127.0.0.1", 8000, 2048)
        assert settings.forwarded_allow_ips == ("127.0.0.1", "::1")
        assert settings.log_level == LogLevel.INFO
        assert settings.timeout_graceful_shutdown == 20
        assert settings.limit_concurrency is None
        assert settings.service_name == "main:app"

    def test_they_are_frozen(self):
        with pytest.raises(FrozenInstanceError):
            Settings(app=application).port = 1

    def test_each_default_passes_its_own_check(self):
        settings = Settings(app=application)
        again = Settings(**{name: getattr(settings, name) for name in OPTIONS})
        assert again == settings

    def test_all_problems_are_reported_together(self):
        problems = problems_of(port="abc", lifespan="perhaps", timeout_write=-1)
        assert set(problems) == {"port", "lifespan", "timeout_write"}
        assert (
            str(problems["port"]) == "port: 'abc' is not a whole number; give a whole number from 0 to 65535"
        )

    def test_the_message_lists_every_problem(self):
        with pytest.raises(ConfigError) as caught:
            Settings(app=application, port=-1, backlog=0)
        assert str(caught.value).splitlines() == [
            "2 problems in the configuration",
            "  port: -1 is too small; give a whole number from 0 to 65535",
            "  backlog: 0 is too small; give a whole number of at least 1",
        ]
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("app", None),
            ("app", ""),
            ("app", 5),
            ("host", 5),
            ("host", "a\0b"),
            ("port", 65536),
            ("port", True),
            ("port", 80.5),
            ("uds", ""),
            ("uds_permissions", "rw"),
            ("uds_permissions", "1777"),
            ("uds_permissions", 1000),
            ("uds_permissions", True),
            ("fd", -1),
            ("factory", "perhaps"),
            ("headers", 5),
            ("headers", [5]),
            ("headers", ["X-No-Colon"]),
            ("headers", ["Bad Name:1"]),
            ("headers", [("X-Split", "a\r\nX-More: b")]),
            ("headers", [("X-Wide", "\u2028")]),
            ("headers", [("Content-Length", "5")]),
            ("forwarded_allow_ips", 5),
            ("limit_concurrency", 0),
            ("limit_request_body", -1),
            ("limit_request_line", "off"),
            ("timeout_keep_alive", "soon"),
            ("timeout_keep_alive", -0.5),
            ("timeout_keep_alive", True),
            ("timeout_request", 0),
            ("timeout_request", float("nan")),
            ("timeout_request", float("inf")),
            ("log_level", "loud"),
            ("log_level", 0),
            ("log_buffer_bytes", 100),
            ("metrics_port", -1),
            ("interface", "asgi4"),
            ("loop", "trio"),
            ("loop", ":factory"),
            ("http", "fast"),
            ("http", 5),
            ("callback_notify", "later"),
            ("timeout_notify", 0),
            ("h11_max_incomplete_event_size", 0),
            ("log_config", 5),
            ("log_config", ""),
            ("forwarded_allow_ips", "10.0.0.0/99"),
        ],
    )
    def test_what_cannot_be_used(self, name, value):
        problem = problems_of(**{name: value})[name]
        assert problem.what
        assert problem.remedy

    @pytest.mark.parametrize(
        ("name", "given", "held"),
        [
            ("port", "8080", 8080),
            ("port", 0, 0),
            ("fd", 0, 0),
            ("timeout_write", 5, 5.0),
            ("timeout_write", "0.25", 0.25),
            ("timeout_write", "off", None),
            ("timeout_write", "None", None),
            ("timeout_write", None, None),
            ("timeout_keep_alive", 0, 0.0),
            ("timeout_keep_alive", None, 5.0),
            ("metrics_port", "0", 0),
            ("metrics_port", "off", None),
            ("access_log", "false", False),
            ("access_log", "1", True),
            ("use_colors", "auto", None),
            ("lifespan", "ON", "on"),
            ("log_level", None, 20),
            ("log_level", "TRACE", 5),
            ("log_level", "30", 30),
            ("log_level", 15, 15),
            ("headers", None, ()),
            ("headers", "X-A: 1", (("X-A", " 1"),)),
            ("headers", [["X-A", "1:2"], "X-B:é"], (("X-A", "1:2"), ("X-B", "é"))),
            ("forwarded_allow_ips", "10.0.0.0/8, ::1,", ("10.0.0.0/8", "::1")),
            ("forwarded_allow_ips", "10.0.0.1/8,/run/proxy.sock", ("10.0.0.1/8", "/run/proxy.sock")),
            ("forwarded_allow_ips", ["*"], ("*",)),
            ("log_query_allow", ["page", "sort"], ("page", "sort")),
            ("service_name", "shop", "shop"),
            ("loop", "NONE", "none"),
            ("loop", "mine:Loop", "mine:Loop"),
            ("http", "H11", "h11"),
            ("http", "mine:Protocol", "mine:Protocol"),
            ("http", CallableApplication, CallableApplication),
            ("log_config", None, None),
            ("log_config", "none", None),
            ("log_config", LOGGING_CONFIG, "built-in"),
            ("log_config", {"version": 1}, {"version": 1}),
            ("log_config", Path("log.ini"), "log.ini"),
            ("log_config", PARSER, PARSER),
            ("reset_contextvars", True, True),
        ],
    )
    def test_what_is_held_of_what_is_given(self, name, given, held):
        assert getattr(Settings(**{"app": application, name: given}), name) == held

    @pytest.mark.parametrize(("http", "limit"), [("h11", 1000), ("httptools", 65536)])
    def test_the_size_of_an_incomplete_event_is_h11s(self, http, limit):
        settings = Settings(app=application, http=http, h11_max_incomplete_event_size=1000)
        assert settings.limit_request_headers == limit

    @pytest.mark.parametrize(("found", "limit"), [(None, 1000), (object(), 65536)])
    def test_also_when_h11_is_what_there_is(self, monkeypatch, found, limit):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
        settings = Settings(app=application, h11_max_incomplete_event_size=1000)
        assert settings.limit_request_headers == limit

    def test_a_wsgi_application_has_no_websockets(self):
        assert Settings(app=application, interface="wsgi").ws == "none"

    def test_contradictions(self):
        assert problems_of(uds="/tmp/socket", fd=3).keys() == {"uds"}
        assert problems_of(port=9000, metrics_port=9000).keys() == {"metrics_port"}
        assert problems_of(ready_min_workers=2).keys() == {"ready_min_workers"}
        assert problems_of(shutdown_delay=30).keys() == {"shutdown_delay"}

    @pytest.mark.parametrize("options", [{"ssl_cert_reqs": 2}, {"ssl_ca_certs": "ca.pem"}])
    def test_client_certificates_are_not_asked_for_in_the_clear(self, options):
        with pytest.raises(StartupError, match=next(iter(options))):
            Config(application, **options).load_ssl()

    @pytest.mark.parametrize(
        "option", ["workers", "shutdown_delay", "timeout_graceful_shutdown", "ready_min_workers", "log_field"]
    )
    def test_what_is_no_value_is_not_compared_with_others(self, option):
        assert problems_of(**{option: "x"}).keys() == {option}

    def test_two_ephemeral_ports_do_not_collide(self):
        assert Settings(app=application, port=0, metrics_port=0).metrics_port == 0

    def test_a_unix_socket_leaves_the_port_to_the_metrics(self):
        assert Settings(app=application, uds="/tmp/socket", port=9000, metrics_port=9000).metrics_port == 9000

    def test_variables_of_other_systems(self, monkeypatch):
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.1.2.3")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        settings = Settings(app="main:app")
        assert settings.forwarded_allow_ips == ("10.1.2.3",)
        assert settings.service_name == "shop"
        assert Settings(app="main:app", forwarded_allow_ips="*").forwarded_allow_ips == ("*",)

    def test_the_service_is_named_after_the_application(self):
        assert Settings(app=application).service_name == f"{__name__}:application"
        assert Settings(app=CallableApplication()).service_name == "unknown_service:obsserve"

    def test_else_as_the_resource_says(self, monkeypatch):
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a,service.name=till")
        assert Settings(app="main:app").service_name == "till"
        assert Settings(app="main:app", service_name="mine").service_name == "mine"
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        assert Settings(app="main:app").service_name == "shop"


class TestTable:
    def test_names_are_unique_and_groups_together(self):
        rows = list(OPTIONS.values())
        assert len({row.flag for row in rows}) == len(rows)
        order = [row.group for row in rows]
        assert order == sorted(order, key=order.index), "the rows of a group stand together"

    def test_a_help_text_is_a_sentence(self):
        for row in OPTIONS.values():
            assert row.help.endswith("."), row.name

    def test_times_and_sizes_name_their_unit(self):
        for row in OPTIONS.values():
            if row.metavar.startswith(("SECONDS", "BYTES")):
                unit = row.metavar.partition("|")[0].lower()
                assert unit in row.help, row.name


class TestConfig:
    def test_attributes_may_change_until_settings_are_taken(self):
        config = Config("main:app", port=9000)
        assert (config.app, config.port, config.host) == ("main:app", 9000, "127.0.0.1")
        config.port = 0
        config.headers.append(("X-A", "1"))
        assert config.settings.port == 0
        assert config.settings.headers == (("X-A", "1"),)
        assert Config("main:app").headers == []

    def test_making_one_does_nothing(self):
        config = Config("no_such_module:app", port="not yet checked")
        assert not config.loaded
        assert config.loaded_app is None

    def test_an_unknown_keyword(self):
        with pytest.raises(TypeError, match="there is no option 'prot'; did you mean port?"):
            Config(application, prot=1)

    def test_problems_say_where_the_value_came_from(self):
        config = Config(application, port="abc")
        config.origins["port"] = "OBSSERVE_PORT"
        with pytest.raises(
            ConfigError, match=r"port: 'abc' is not a whole number \(from OBSSERVE_PORT\); give"
        ):
            _ = config.settings

    def test_the_classes_that_serve(self):
        config = Config(application)
        assert config.http_protocol_class.__name__ == "Connection"
        assert config.ws_protocol_class.__name__ == "WebSocketConnection"
        assert issubclass(config.lifespan_class, Lifespan)
        assert Config(application, ws="none").ws_protocol_class is None
        assert config.ssl is None

    def test_a_protocol_class_of_somebody_else(self):
        assert Config(application, http=asyncio.Protocol).http_protocol_class is asyncio.Protocol
        assert Config(application, http="asyncio:Protocol").http_protocol_class is asyncio.Protocol
        with pytest.raises(
            StartupError, match="Error loading the HTTP protocol class. Could not import module"
        ):
            _ = Config(application, http="nowhere:Protocol").http_protocol_class
        assert Config(application, ws="asyncio:Protocol").ws_protocol_class is asyncio.Protocol

    def test_the_loop_is_not_set_up_by_hand(self):
        with pytest.raises(AttributeError, match="get_loop_factory"):
            Config(application).setup_event_loop()

    def test_an_env_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "environ", {"SHOP_MODE": "kept"})
        (tmp_path / ".env").write_text("SHOP_MODE=test\nSHOP_KEY=1\nFORWARDED_ALLOW_IPS=10.0.0.1\n")
        config = Config(application, env_file=tmp_path / ".env")
        assert os.environ["SHOP_KEY"] == "1"
        assert os.environ["SHOP_MODE"] == "kept"
        assert config.forwarded_allow_ips == "10.0.0.1"

    def test_an_env_file_without_the_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "dotenv", None)
        with pytest.raises(
            ConfigError, match=r"env_file: python-dotenv is not installed; pip install 'obsserve"
        ):
            Config(application, env_file=".env")

    def test_what_this_version_does_not_do(self):
        config = Config(application)
        assert not config.is_ssl
        assert not config.should_reload
        assert not config.use_subprocess
        assert config.asgi_version == "3.0"
        assert STARTUP_FAILURE == 3

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, [(b"server", b"obsserve")]),
            ({"server_header": False}, []),
            ({"headers": [("X-A", " é")]}, [(b"server", b"obsserve"), (b"x-a", b" \xe9")]),
            ({"headers": [("Server", "mine")]}, [(b"server", b"mine")]),
        ],
    )
    def test_encoded_headers(self, options, expected):
        assert Config(application, **options).encoded_headers == expected


class TestLoading:
    def test_load_keeps_the_application(self):
        config = Config(f"{__name__}:application")
        config.load()
        assert config.loaded
        assert config.loaded_app is application

    @pytest.mark.parametrize("app", [application, CallableApplication()])
    def test_an_application_is_not_called(self, app):
        assert Config(app).load_app() is app

    def test_a_factory(self, caplog):
        assert Config(create_application, factory=True).load_app() is application
        assert not caplog.records

    def test_a_factory_that_nobody_announced(self, caplog):
        assert Config(f"{__name__}:create_application").load_app() is application
        assert "--factory" in caplog.text

    @pytest.mark.parametrize(
        ("app", "reason"),
        [
            (application, "cannot be called without arguments"),
            (coroutine_factory, "is a coroutine function"),
            (create_nothing, "cannot be called: it is of type NoneType"),
            (create_trouble, "raised LookupError when it was called"),
        ],
    )
    def test_a_factory_that_makes_no_application(self, app, reason):
        with pytest.raises(StartupError, match=reason) as caught:
            Config(app, factory=True).load_app()
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == STARTUP_FAILURE
        assert ("LookupError: no database" in caught.value.traceback) == (app is create_trouble)

    def test_what_cannot_be_called(self):
        with pytest.raises(StartupError, match="cannot be called: it is of type str"):
            Config("os:name").load_app()

    def test_a_module_that_is_not_there(self):
        with pytest.raises(StartupError) as caught:
            Config("no_such_module:app").load()
        assert str(caught.value) == 'Error loading ASGI app. Could not import module "no_such_module".'
        assert not caught.value.traceback

    def test_a_module_that_raises_keeps_its_traceback(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", sys.path[:])
        (tmp_path / "broken_on_import.py").write_text("import no_such_dependency\n")
        with pytest.raises(StartupError, match="raised ModuleNotFoundError when it was imported") as caught:
            Config("broken_on_import:app", app_dir=tmp_path).load_app()
        assert caught.value.traceback.count("File ") == 1
        assert "broken_on_import.py" in caught.value.traceback

    def test_the_application_directory_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", sys.path[:])
        monkeypatch.delitem(sys.modules, "in_app_dir", raising=False)
        (tmp_path / "in_app_dir.py").write_text("async def app(scope, receive, send): ...\n")
        assert Config("in_app_dir:app", app_dir=str(tmp_path)).load_app().__name__ == "app"
        assert sys.path[0] == str(tmp_path)


class TestInterface:
    def test_asgi2(self):
        class OldApplication:
            def __init__(self, scope): ...

            async def __call__(self, receive, send): ...

        config = Config(OldApplication)
        assert config.asgi_version == "3.0"
        config.load()
        assert isinstance(config.loaded_app, ASGI2Application)
        assert (config.interface, config.asgi_version) == ("asgi2", "2.0")

    def test_asgi3(self):
        config = Config(application)
        config.load()
        assert config.interface == "asgi3"

    def test_wsgi(self):
        def wsgi(environ, start_response): ...

        config = Config(wsgi, interface="wsgi")
        config.load()
        assert (config.asgi_version, config.ws_protocol_class) == ("3.0", None)

    def test_trace_logs_messages(self):
        config = Config(application, log_level="trace")
        assert type(config.load_app()).__name__ == "MessageLoggerMiddleware"

    def test_a_foreign_protocol_class_gets_the_proxys_headers_by_middleware(self):
        assert (
            type(Config(application, http=asyncio.Protocol).load_app()).__name__ == "ProxyHeadersMiddleware"
        )
        assert Config(application, http=asyncio.Protocol, proxy_headers=False).load_app() is application


class TestLogging:
    def test_the_dictionary_is_the_default_and_its_levels_count(self):
        config = Config(application)
        assert config.log_config is LOGGING_CONFIG
        assert config.log_level is None
        assert config.settings.log_level == LogLevel.INFO

    def test_the_built_in_one(self, monkeypatch):
        configured = []
        monkeypatch.setattr("obsserve.telemetry.logging.configure_logging", configured.append)
        config = Config(application)
        config.configure_logging()
        assert configured == [config.settings]

    def test_it_is_configured_once(self, monkeypatch):
        configured = []
        monkeypatch.setattr("obsserve.telemetry.logging.configure_logging", configured.append)
        config = Config(application)
        config.configure_logging()
        config.configure_logging()
        assert len(configured) == 1, "an application that has changed a level keeps it"
        config.log_level = "debug"
        config.configure_logging()
        assert len(configured) == 2

    def test_a_changed_dictionary_is_used(self, monkeypatch):
        applied = []
        monkeypatch.setattr(
            "obsserve.logconfig.apply_log_config", lambda given, **rest: applied.append((given, rest))
        )
        monkeypatch.setitem(LOGGING_CONFIG["formatters"]["access"], "fmt", "%(asctime)s %(message)s")
        Config(application, log_level="warning", access_log=False).configure_logging()
        rest = {"log_level": logging.WARNING, "access_log": False, "use_colors": None}
        assert applied == [(LOGGING_CONFIG, rest)]


class TestSockets:
    def test_tcp(self):
        with Config(application, port=0).bind_socket() as sock:
            assert sock.family == socket.AF_INET
            assert sock.getsockname()[1] > 0
            assert sock.get_inheritable()

    def test_a_port_in_use(self):
        with Config(application, port=0).bind_socket() as taken:
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(StartupError, match=f"Cannot listen on 127.0.0.1:{port}: "):
                Config(application, port=port).bind_socket()

    def test_an_address_that_is_not_ours(self):
        with pytest.raises(StartupError, match=r"Cannot listen on \[2001:db8::1\]:8000: "):
            Config(application, host="2001:db8::1").bind_socket()

    def test_one_socket_of_a_name_with_several_addresses(self):
        with Config(application, host="localhost", port=0).bind_socket() as sock:
            assert sock.family == socket.AF_INET

    def test_a_unix_socket(self, tmp_path):
        path = tmp_path / "socket"
        with Config(application, uds=path).bind_socket() as listening:
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            listening.listen()
            with pytest.raises(StartupError, match=f"Cannot listen on {path}: "):
                Config(application, uds=path).bind_socket()

    def test_a_file_descriptor_of_any_family(self):
        with socket.socket() as given:
            given.bind(("127.0.0.1", 0))
            with Config(application, fd=given.fileno()).bind_socket() as sock:
                assert sock.getsockname() == given.getsockname()
            os.fstat(given.fileno())  # it is still open

    def test_a_file_descriptor_that_is_no_socket(self, tmp_path):
        with (tmp_path / "file").open("w") as file, pytest.raises(StartupError, match="file descriptor"):
            Config(application, fd=file.fileno()).bind_socket()


class TestLoop:
    def test_asyncio(self):
        assert Config(application, loop="asyncio").get_loop_factory() is asyncio.new_event_loop

    @pytest.mark.parametrize("name", ["auto", "uvloop"])
    def test_uvloop(self, name):
        uvloop = package("uvloop")
        assert Config(application, loop=name).get_loop_factory() is uvloop.new_event_loop

    def test_a_factory_of_somebody_else(self):
        factory = Config(application, loop="asyncio:SelectorEventLoop").get_loop_factory()
        made = factory()
        made.close()
        assert isinstance(made, asyncio.SelectorEventLoop)

    def test_none_leaves_it_to_the_policy(self):
        assert Config(application, loop="none").get_loop_factory() is None

    @pytest.mark.parametrize("loop", ["nowhere:Loop", "asyncio:Nothing", "os:name"])
    def test_a_factory_that_is_not_there(self, loop):
        with pytest.raises(StartupError, match="Error loading the loop factory") as caught:
            Config(application, loop=loop).get_loop_factory()
        assert caught.value.exit_code == STARTUP_FAILURE

    @pytest.mark.parametrize(
        ("loop", "says"),
        [("builtins:dict", "returned a dict, not an event loop"), ("builtins:iter", "raised TypeError when")],
    )
    def test_a_factory_that_makes_no_loop(self, loop, says):
        with pytest.raises(StartupError, match=says):
            Config(application, loop=loop).get_loop_factory()()

    def test_a_factory_whose_module_raises(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "broken_loop.py").write_text("raise LookupError('no loop')\n")
        with pytest.raises(StartupError, match="raised LookupError") as caught:
            Config(application, loop="broken_loop:Loop").get_loop_factory()
        assert "no loop" in caught.value.traceback

    def test_without_uvloop(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "uvloop", None)
        assert Config(application).get_loop_factory() is asyncio.new_event_loop
        with pytest.raises(StartupError, match="uvloop is not installed"):
            Config(application, loop="uvloop").get_loop_factory()
