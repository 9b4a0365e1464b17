"""Every option of uvicorn 0.54 exists here in its four ways, with its default, or is named below with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from obsserve import options
from obsserve.config import LOGGING_CONFIG, OPTIONS, Config
from tests.parts import missing, package

TESTS = Path(__file__).parents[1]

# What `Config` starts with, by keyword. Where obsserve differs on purpose the second value is uvicorn's.
OWN = {"timeout_graceful_shutdown": (20.0, None)}
DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8000,
    "uds": None,
    "fd": None,
    "loop": "auto",
    "http": "auto",
    "ws": "auto",
    "ws_max_size": 16 * 1024 * 1024,
    "ws_max_queue": 32,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
    "ws_per_message_deflate": True,
    "lifespan": "auto",
    "interface": "auto",
    "env_file": None,
    "log_config": LOGGING_CONFIG,
    "log_level": None,
    "access_log": True,
    "use_colors": None,
    "proxy_headers": True,
    "forwarded_allow_ips": "127.0.0.1,::1",
    "server_header": True,
    "date_header": True,
    "headers": [],
    "root_path": "",
    "limit_concurrency": None,
    "backlog": 2048,
    "timeout_keep_alive": 5,
    "timeout_graceful_shutdown": 20.0,
    "app_dir": "",
    "h11_max_incomplete_event_size": None,
    "reset_contextvars": False,
    "factory": False,
    "workers": 1,
    "limit_max_requests": None,
    "limit_max_requests_jitter": 0,
    "reload": False,
    "reload_dirs": [],
    "reload_includes": [],
    "reload_excludes": [],
    "reload_delay": 0.25,
    "ssl_keyfile": None,
    "ssl_certfile": None,
    "ssl_keyfile_password": None,
    "ssl_version": 17,
    "ssl_cert_reqs": 0,
    "ssl_ca_certs": None,
    "ssl_ciphers": None,
    "timeout_worker_healthcheck": 5,
}
# Empty lists here, None in uvicorn; and the flag, which gives one item, is in the singular.
LISTS = {"headers", "reload_dirs", "reload_includes", "reload_excludes"}
# uvicorn takes them from Python only, and so does obsserve.
FROM_PYTHON_ONLY = {"timeout_notify": 30, "callback_notify": None, "ssl_context_factory": None}

# Each with the reason for which it is not here.
ZTTP = "HTTP/2 in uvicorn is an experiment behind one parser, zttp, that obsserve does not use"
MISSING = {
    "http2": ZTTP,
}
# Words of uvicorn that an option does not take.
MISSING_CHOICES = {
    "http": {"zttp": ZTTP},
    "loop": {"zuvloop": "it is for Python 3.14 and later; --loop zuvloop:new_event_loop takes it"},
}
CHOICES = {
    "http": {"auto", "h11", "httptools", "zttp"},
    "loop": {"auto", "asyncio", "uvloop", "zuvloop", "none"},
    "ws": {"auto", "none", "websockets", "websockets-sansio", "wsproto"},
    "lifespan": {"auto", "on", "off"},
    "interface": {"auto", "asgi3", "asgi2", "wsgi"},
}
# A value that each option takes, other than its default, as text and as it is then held.
GIVEN = {
    "app": ("other:app", "other:app"),
    "host": ("::1", "::1"),
    "port": ("9000", 9000),
    "uds": ("/run/shop", "/run/shop"),
    "fd": ("3", 3),
    "loop": ("uvloop", "uvloop"),
    "http": ("h11", "h11"),
    "ws": ("wsproto", "wsproto"),
    "ws_max_size": ("1024", 1024),
    "ws_max_queue": ("8", 8),
    "ws_ping_interval": ("5", 5.0),
    "ws_ping_timeout": ("6.5", 6.5),
    "ws_per_message_deflate": ("false", False),
    "lifespan": ("on", "on"),
    "interface": ("asgi2", "asgi2"),
    "env_file": ("shop.env", "shop.env"),
    "log_config": ("log.ini", "log.ini"),
    "log_level": ("TRACE", 5),
    "access_log": ("false", False),
    "use_colors": ("true", True),
    "proxy_headers": ("false", False),
    "forwarded_allow_ips": ("10.0.0.0/8", ("10.0.0.0/8",)),
    "server_header": ("false", False),
    "date_header": ("false", False),
    "headers": ("X-A:1", (("X-A", "1"),)),
    "root_path": ("/shop", "/shop"),
    "limit_concurrency": ("5", 5),
    "backlog": ("10", 10),
    "timeout_keep_alive": ("7", 7.0),
    "timeout_graceful_shutdown": ("3", 3.0),
    "app_dir": ("src", "src"),
    "h11_max_incomplete_event_size": ("4096", 4096),
    "reset_contextvars": ("true", True),
    "factory": ("true", True),
    "workers": ("3", 3),
    "limit_max_requests": ("1000", 1000),
    "limit_max_requests_jitter": ("50", 50),
    "reload": ("true", True),
    "reload_dirs": (".", (".",)),
    "reload_includes": ("*.html", ("*.html",)),
    "reload_excludes": ("build", ("build",)),
    "reload_delay": ("0.5", 0.5),
    "ssl_keyfile": ("shop.key", "shop.key"),
    "ssl_certfile": ("shop.pem", "shop.pem"),
    "ssl_keyfile_password": ("secret", "secret"),
    "ssl_version": ("5", 5),
    "ssl_cert_reqs": ("2", 2),
    "ssl_ca_certs": ("authorities.pem", "authorities.pem"),
    "ssl_ciphers": ("ECDHE+AESGCM", "ECDHE+AESGCM"),
    "timeout_worker_healthcheck": ("7", 7.0),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    (tmp_path / "shop.env").write_text("")
    return tmp_path


def flags_given(*arguments):
    """What the command line makes of these arguments."""
    command = click.Command("obsserve", params=options.parameters())
    with command.make_context("obsserve", list(arguments)) as context:
        return context.params


def test_the_page_is_walked_whole():
    assert DEFAULTS.keys() | {"app"} == GIVEN.keys()
    assert OPTIONS.keys() >= GIVEN.keys() | FROM_PYTHON_ONLY.keys()


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_missing(name):
    assert name not in OPTIONS, "it exists: move it from MISSING to DEFAULTS and GIVEN"


@pytest.mark.parametrize("name", [*DEFAULTS, *FROM_PYTHON_ONLY])
def test_the_default(name):
    wanted = {**DEFAULTS, **FROM_PYTHON_ONLY}[name]
    assert getattr(Config("main:app"), name) == wanted
    if name in OWN:
        assert OWN[name][0] == wanted != OWN[name][1]


@pytest.mark.parametrize("name", GIVEN)
def test_a_flag(name):
    text, held = GIVEN[name]
    option = OPTIONS[name]
    if name == "app":
        arguments = [text]
    elif option.is_switch:
        arguments = [option.flag if held else f"--no-{option.flag[2:]}"]
    else:
        arguments = [option.flag, text]
    flags = flags_given(*(["main:app"] if name != "app" else []), *arguments)
    config = options.resolve(flags, environ={}).config()
    assert getattr(config.settings, name) == held
    assert config.origins[name] == option.flag


@pytest.mark.parametrize("name", GIVEN)
def test_a_variable(name):
    text, held = GIVEN[name]
    environ = {"OBSSERVE_APP": "main:app", f"OBSSERVE_{name.upper()}": text}
    assert getattr(options.resolve({}, environ=environ).config().settings, name) == held


@pytest.mark.parametrize("name", GIVEN)
def test_a_keyword(name):
    text, held = GIVEN[name]
    given = {"app": "main:app", name: text}
    assert getattr(Config(**given).settings, name) == held


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("project", [True, False], ids=["pyproject", "file"])
def test_a_key(name, project, elsewhere):
    text, held = GIVEN[name]
    value = f'["{text}"]' if OPTIONS[name].multiple else f'"{text}"'
    table = f"{name} = {value}\n" + ("" if name == "app" else 'app = "main:app"\n')
    path = elsewhere / ("pyproject.toml" if project else "obsserve.toml")
    path.write_text(f"[tool.obsserve]\n{table}" if project else table)
    file = None if project else str(path)
    assert getattr(options.resolve({}, file=file, environ={}).config().settings, name) == held


@pytest.mark.parametrize("name", FROM_PYTHON_ONLY)
def test_what_only_python_can_give(name):
    assert name not in {parameter.name for parameter in options.parameters()}
    assert name not in options.SHARED


@pytest.mark.parametrize("name", CHOICES)
def test_the_choices(name):
    missing = MISSING_CHOICES.get(name, {})
    assert set(OPTIONS[name].choices) == CHOICES[name] - missing.keys()
    assert all(missing.values())


def test_the_flags_are_spelt_as_uvicorns():
    flags = {name: option.flag for name, option in OPTIONS.items()}
    assert flags["headers"] == "--header"
    assert flags["forwarded_allow_ips"] == "--forwarded-allow-ips"
    assert [flags[f"reload_{kind}s"] for kind in ("dir", "include", "exclude")] == [
        "--reload-dir", "--reload-include", "--reload-exclude",
    ]  # fmt: skip
    ordinary = DEFAULTS.keys() - LISTS
    assert all(flags[name] == "--" + name.replace("_", "-") for name in ordinary)


def test_the_prefix_is_the_only_change_of_a_variable():
    assert all(option.variable == f"OBSSERVE_{name.upper()}" for name, option in options.SHARED.items())


def test_uvicorn_has_nothing_else():
    """The page may be older than the uvicorn that people come from."""
    uvicorn = package("uvicorn")
    import inspect

    if not uvicorn.__version__.startswith("0.54."):
        missing(f"the page is of uvicorn 0.54, this is {uvicorn.__version__}")
    known = DEFAULTS.keys() | FROM_PYTHON_ONLY.keys() | MISSING.keys() | {"app"}
    theirs = {**inspect.signature(uvicorn.Config).parameters, **inspect.signature(uvicorn.run).parameters}
    assert set(theirs) == known
    for name in (
        DEFAULTS.keys() - {"log_config", "forwarded_allow_ips", "app_dir", "workers"} - LISTS - OWN.keys()
    ):
        assert theirs[name].default == DEFAULTS[name], name


# Driven by their place among arguments.
IN_THEIR_PLACE = {
    "reload_includes": "def test_more_can_be_included",
    "reload_excludes": "def test_files_and_directories_can_be_excluded",
}


@pytest.mark.parametrize("name", sorted(GIVEN.keys() | FROM_PYTHON_ONLY.keys()))
def test_something_drives_it(name):
    """A test gives it to a server or to one of its parts; that what it does is right is shown there."""
    flag = OPTIONS[name].flag
    in_place = IN_THEIR_PLACE.get(name, f"{name}=")
    driven = re.compile(rf"\b{in_place}|[\"']{name}[\"']|{flag}(?![a-z-])|--no-{flag[2:]}(?![a-z-])")
    folders = ("integration", "http", "websocket", "realparts", "server", "asgi")
    files = [path for folder in folders for path in (TESTS / folder).glob("*.py")]
    assert any(driven.search(path.read_text(encoding="utf-8")) for path in [*files, TESTS / "test_main.py"])
