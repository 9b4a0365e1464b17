"""`--log-config`: the standard library's logging, configured the way the user says.

`LOGGING_CONFIG` is a dictionary that users of uvicorn know and change in place. As long as nobody changes it,
or gives a configuration of their own, the server logs through parts of its own, which never block
(`obsserve.telemetry.logging`); from then on it logs through the handlers that were configured.
"""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from obsserve.checks import BadValue, filled_text
from obsserve.errors import ConfigError, Problem

if TYPE_CHECKING:
    from configparser import RawConfigParser
    from typing import IO

    LogConfig = dict[str, Any] | str | RawConfigParser | IO[Any] | None

# What `Settings.log_config` holds when the server logs through its own parts.
BUILT_IN: Final = "built-in"

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "obsserve.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "obsserve.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "default": {"formatter": "default", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"formatter": "access", "class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "obsserve": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "obsserve.error": {"level": "INFO"},
        "obsserve.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
_UNCHANGED: Final = deepcopy(LOGGING_CONFIG)


def log_config(value: Any) -> LogConfig:
    """Accept a file's name, a dictionary, a ConfigParser or an open file.

    Raises:
        BadValue: it is none of these.
    """
    if isinstance(value, dict):
        return BUILT_IN if value == _UNCHANGED else value
    if isinstance(value, (str, os.PathLike)):
        return filled_text(value)
    if hasattr(value, "read") or hasattr(value, "readline"):
        return value  # type: ignore[no-any-return]  # an open file or a ConfigParser: fileConfig reads both
    raise BadValue(f"{value!r} is no logging configuration", "give a file or a dictionary")


def apply_log_config(
    config: LogConfig, *, log_level: int | None, access_log: bool, use_colors: bool | None
) -> None:
    """Configure the standard library's logging.

    Args:
        config: what `log_config` accepted; None leaves logging as it is.
        log_level: set on the server's loggers, None leaves them what the configuration says.
        access_log: False silences `obsserve.access`.
        use_colors: given to those of the formatters `default` and `access` that are ours.

    Raises:
        ConfigError: the file cannot be read, or says nothing that logging understands.
    """
    import logging  # noqa: PLC0415  (a Config that nobody starts has no need of it)

    from obsserve.logging import TRACE_LOG_LEVEL  # noqa: PLC0415

    logging.addLevelName(TRACE_LOG_LEVEL, "TRACE")
    try:
        _configure(config, use_colors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        named = config if isinstance(config, str) else "the configuration"
        # logging wraps what its factories raise: the cause is what the user can mend.
        said = f"{_said(error)}: {_said(error.__cause__)}" if error.__cause__ else _said(error)
        remedy = "the standard library's logging.config says what it understands"
        raise ConfigError([Problem("log_config", f"{named} cannot be used: {said}", remedy)]) from error
    if log_level is not None:
        for name in ("obsserve.error", "obsserve.access", "obsserve.asgi"):
            logging.getLogger(name).setLevel(log_level)
    if not access_log:
        access = logging.getLogger("obsserve.access")
        access.handlers.clear()
        access.propagate = False


def _configure(config: LogConfig, use_colors: bool | None) -> None:
    from logging.config import dictConfig, fileConfig  # noqa: PLC0415  (see above)

    if config is None:
        return
    if isinstance(config, dict):
        dictConfig(_colored(config, use_colors))
    elif isinstance(config, str) and config.endswith((".json", ".yaml", ".yml")):
        dictConfig(_colored(_read(Path(config)), use_colors))
    else:
        if isinstance(config, str):
            Path(config).open("rb").close()  # fileConfig takes a file that is not there for an empty one
        fileConfig(config, disable_existing_loggers=False)


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    loaded: Any
    if path.suffix == ".json":
        import json  # noqa: PLC0415

        loaded = json.loads(text)
    else:
        try:
            import yaml  # type: ignore[import-untyped]  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise ImportError("PyYAML is not installed; pip install 'obsserve[config]' brings it") from error
        try:
            loaded = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(_said(error)) from None
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__} instead of a dictionary")  # noqa: TRY004  (of the file, not of an argument)
    return loaded


def _colored(config: dict[str, Any], use_colors: bool | None) -> dict[str, Any]:
    """Return the configuration with the wish for colours put into our own formatters."""
    if use_colors is None:
        return config
    formatters = dict(config.get("formatters", {}))
    for name in ("default", "access"):
        formatter = formatters.get(name, {})
        if str(formatter.get("()", "")).startswith("obsserve.logging."):
            formatters[name] = {**formatter, "use_colors": use_colors}
    return {**config, "formatters": formatters}


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return " ".join(str(error).split()) or type(error).__name__
