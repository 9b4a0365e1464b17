"""Config: the options as uvicorn's users know them, and the work that starts from them.

Making a Config has one side effect, and only if it is asked for: `env_file` is read into the environment.
Reading its `settings` has none. Each method does its work when it is called.
The table of options itself is `obsserve.settings`.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from obsserve.checks import LogLevel
from obsserve.errors import ConfigError, Problem, StartupError, did_you_mean
from obsserve.logconfig import BUILT_IN, LOGGING_CONFIG
from obsserve.settings import OPTIONS, Settings

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from collections.abc import Callable, Coroutine

    from obsserve.asgi.lifespan import ConfiguredLifespan

    ASGIApplication = Callable[..., Coroutine[Any, Any, None]]

__all__ = ["LOGGING_CONFIG", "OPTIONS", "STARTUP_FAILURE", "Config", "LogLevel", "Settings"]

STARTUP_FAILURE = StartupError.exit_code

# Attributes that start with something else than the table's default, because uvicorn's users know it:
# the dictionary, which they change, and no level, which leaves those of a logging configuration alone.
_STARTS_WITH: Final = {"log_config": LOGGING_CONFIG, "log_level": None}


class Config:
    """The options of one server, as attributes that may be changed until it starts.

    Arguments:
        app: the application: `module:attribute`, or the object itself.
        options: the options by name; docs/configuration.md lists them.

    Raises:
        TypeError: there is no option of that name.
        ConfigError: `env_file` cannot be read.

    """

    ssl: ssl.SSLContext | None = None

    if TYPE_CHECKING:
        # One attribute for each option, in whichever form it was given.
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: object) -> None: ...

    def __init__(self, app: str | Callable[..., Any], **options: Any) -> None:
        for unknown in options.keys() - OPTIONS.keys():
            raise TypeError(f"there is no option {unknown!r}; {did_you_mean(unknown, OPTIONS)}")
        if options.get("env_file") is not None:
            _load_env_file(options["env_file"])
        self.origins: dict[str, str] = {}  # where a value came from, if not from a keyword
        given = {"app": app, **options}
        for name, option in OPTIONS.items():
            absent: Any = _STARTS_WITH[name] if name in _STARTS_WITH else option.absent()
            default = list(absent) if option.multiple else absent
            setattr(self, name, given.get(name, default))
            variable = option.fallback_variable
            if variable and os.environ.get(variable) and name not in given:
                self.origins[name] = variable
        self._logs_by: Settings | None = None
        self.loaded = False
        self.loaded_app: ASGIApplication | None = None

    @property
    def settings(self) -> Settings:
        """The attributes, checked and frozen.

        Raises:
            ConfigError: with everything that is wrong.

        """
        try:
            return Settings(**{name: getattr(self, name) for name in OPTIONS})
        except ConfigError as error:
            raise self._located(error) from None

    def _located(self, error: ConfigError) -> ConfigError:
        """Return the same with the flag, variable or file that each value came from."""
        return ConfigError(it._replace(where=self.origins.get(it.option, it.where)) for it in error.problems)

    @property
    def asgi_version(self) -> Literal["2.0", "3.0"]:
        """The version of ASGI that the application speaks; known once it is loaded."""
        return "2.0" if self.interface == "asgi2" else "3.0"

    @property
    def is_ssl(self) -> bool:
        """Whether the server speaks TLS."""
        return bool(self.ssl_keyfile or self.ssl_certfile or self.ssl_context_factory)

    @property
    def should_reload(self) -> bool:
        """Whether a changed file replaces the worker; an application that is no import string cannot be."""
        settings = self.settings
        return settings.reload and isinstance(settings.app, str)

    @property
    def use_subprocess(self) -> bool:
        """Whether the application runs in another process than the one that listens."""
        settings = self.settings
        return (
            settings.workers > 1
            or settings.reload
            or settings.supervise
            or settings.limit_max_requests is not None
            or settings.limit_max_rss is not None
            or settings.limit_max_lifetime is not None
            or settings.timeout_worker_unresponsive is not None
        )

    @property
    def encoded_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response, except the date, as they go over the wire."""
        settings = self.settings
        encoded = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in settings.headers
        ]
        if settings.server_header and all(name != b"server" for name, _ in encoded):
            encoded.insert(0, (b"server", b"obsserve"))
        return encoded

    @property
    def http_protocol_class(self) -> type[asyncio.Protocol]:
        """The class that makes a connection: the server's own, or the one that `http` says.

        Raises:
            StartupError: there is none under that name.
        """
        if (custom := self.custom_protocol_class()) is not None:
            return custom
        from obsserve.http.connection import Connection  # noqa: PLC0415  (which serves the same options)

        return Connection

    @property
    def ws_protocol_class(self) -> type[asyncio.Protocol] | None:
        """The class that takes a connection over when a WebSocket is asked for; None when none is served."""
        if self.settings.ws == "none":
            return None
        if (custom := self.custom_websocket_class()) is not None:
            return custom
        from obsserve.websocket.connection import WebSocketConnection  # noqa: PLC0415  (see above)

        return WebSocketConnection

    @property
    def lifespan_class(self) -> type[ConfiguredLifespan]:
        """The class that makes an application's lifespan from this."""
        from obsserve.asgi.lifespan import ConfiguredLifespan  # noqa: PLC0415  (see above)

        return ConfiguredLifespan

    def configure_logging(self) -> None:
        """Set the server's logging up, by its own parts or by `log_config`.

        Once, as long as no option changes: what the application does to the loggers afterwards stays.

        Raises:
            ConfigError: `log_config` cannot be used.
        """
        settings = self.settings
        if settings == self._logs_by:
            return
        self._logs_by = settings
        if settings.log_config == BUILT_IN:
            from obsserve.telemetry.logging import configure_logging  # noqa: PLC0415  (structlog is slow to import)

            configure_logging(settings)
            return
        from obsserve.logconfig import apply_log_config  # noqa: PLC0415  (so that it can be replaced in a test)

        try:
            apply_log_config(
                settings.log_config,
                log_level=None
                if self.log_level is None
                else settings.log_level,  # a default changes no level
                access_log=settings.access_log,
                use_colors=settings.use_colors,
            )
        except ConfigError as error:
            raise self._located(error) from error.__cause__

    def load(self) -> None:
        """Make the TLS context, `ssl`, import the application and keep it as `loaded_app`.

        Raises:
            StartupError: a certificate cannot be used; and see `load_app`.

        """
        assert not self.loaded
        self.load_ssl()
        self.loaded_app = self.load_app()
        self.loaded = True

    def load_ssl(self) -> None:
        """Make the TLS context, `ssl`, if the options ask for one.

        Raises:
            StartupError: a file cannot be used.

        """
        if self.is_ssl:
            from obsserve.server.tls import server_context  # noqa: PLC0415  (only for those who serve TLS)

            self.ssl = server_context(self)
        elif self.settings.ssl_cert_reqs or self.settings.ssl_ca_certs:
            # Whoever asks for client certificates must not be served in the clear, to everybody, without a word.
            asked = "ssl_cert_reqs" if self.settings.ssl_cert_reqs else "ssl_ca_certs"
            raise StartupError(
                f"Cannot serve TLS, which {asked} asks for: give --ssl-certfile, or leave it out."
            )

    def load_app(self) -> ASGIApplication:
        """Import the application, call it if it is a factory, and return what serves a request.

        Raises:
            StartupError: the application is not there, or it raised; then with its traceback.

        """
        found = self.import_app()
        app = self._call_factory(found) if self._is_factory(found) else found
        if not callable(app):
            raise StartupError(
                f"The application {self.app!r} cannot be called: it is of type {type(app).__name__}."
            )
        return self._served(app)

    def _served(self, app: Any) -> ASGIApplication:
        """Return what serves a request: the application as ASGI 3, and around it what the options ask for."""
        from obsserve.asgi.interfaces import kind_of, served_as_asgi3  # noqa: PLC0415  (see import_app)

        settings = self.settings
        # Afterwards `interface` says what it is, as with uvicorn.
        self.interface = kind = kind_of(app) if settings.interface == "auto" else settings.interface
        served: Any = served_as_asgi3(app, kind)
        if settings.log_level <= LogLevel.TRACE:
            from obsserve.middleware.message_logger import MessageLoggerMiddleware  # noqa: PLC0415

            served = MessageLoggerMiddleware(served)
        if settings.proxy_headers and self.custom_protocol_class() is not None:
            # The server's own connections read forwarding headers themselves; somebody else's do not.
            from obsserve.middleware.proxy_headers import ProxyHeadersMiddleware  # noqa: PLC0415

            served = ProxyHeadersMiddleware(served, settings.forwarded_allow_ips)
        return served  # type: ignore[no-any-return]  # what it does when called shows when it is called

    def import_app(self) -> Any:
        """Import what `app` names and return it as it is; `load_app` makes an application of it.

        Raises:
            StartupError: see `load_app`.

        """
        from obsserve.importer import ImportFromStringError, application_traceback, import_from_string  # noqa: PLC0415

        app_dir = self.settings.app_dir
        if app_dir and app_dir not in sys.path:
            sys.path.insert(0, app_dir)
        try:
            return import_from_string(self.app)
        except ImportFromStringError as error:
            absent = ""
            if app_dir and not Path(app_dir).exists():
                absent = f" There is no directory {app_dir!r} (app_dir)."
            raise StartupError(f"Error loading ASGI app. {error}{absent}") from None
        except Exception as error:
            reason = (
                f"Error loading ASGI app. {self.app!r} raised {type(error).__name__} when it was imported."
            )
            raise StartupError(reason, application_traceback(error)) from error

    def _is_factory(self, found: Any) -> bool:
        """Whether to call it: because the option says so, or because it cannot be an application."""
        from obsserve.asgi.interfaces import accepts  # noqa: PLC0415  (see import_app)

        return self.settings.factory or (accepts(found) and not accepts(found, "scope", "receive", "send"))

    def _call_factory(self, factory: Callable[[], Any]) -> Any:
        import logging  # noqa: PLC0415

        from obsserve.asgi.interfaces import accepts  # noqa: PLC0415
        from obsserve.importer import application_traceback  # noqa: PLC0415

        if not accepts(factory):
            raise StartupError(
                f"Error loading ASGI app factory. {self.app!r} cannot be called without arguments."
            )
        if not self.settings.factory:
            logging.getLogger("obsserve.error").warning(
                "%r takes no arguments, so it is called as an application factory; say so with --factory",
                self.app,
            )
        try:
            app = factory()
        except Exception as error:
            reason = f"Error loading ASGI app factory. {self.app!r} raised {type(error).__name__} when it was called."
            raise StartupError(reason, application_traceback(error)) from error
        if inspect.iscoroutine(app):
            app.close()
            raise StartupError(f"Error loading ASGI app factory. {self.app!r} is a coroutine function.")
        return app

    def bind_socket(self) -> socket.socket:
        """Bind a socket to what fd, uds, or host and port say; it does not listen yet.

        Of a host name's several addresses it takes one, IPv4 if there is one, as uvicorn does.

        Raises:
            StartupError: the address is in use, or not ours to use.

        """
        import socket  # noqa: PLC0415  (only a server needs it)

        from obsserve.server.listeners import bind_sockets  # noqa: PLC0415  (which serves the same options)

        sockets = bind_sockets(self.settings)
        kept = next((sock for sock in sockets if sock.family == socket.AF_INET), sockets[0])
        for sock in sockets:
            if sock is not kept:
                sock.close()
        kept.set_inheritable(True)
        return kept

    def custom_protocol_class(self) -> type[asyncio.Protocol] | None:
        """Return the protocol class that `http` names or is; None when it names a parser of the server.

        Raises:
            StartupError: there is none under that name.
        """
        return _protocol_class(self.settings.http, "the HTTP protocol class")

    def custom_websocket_class(self) -> type[asyncio.Protocol] | None:
        """Return the protocol class that `ws` names or is; None when it names a codec of the server.

        Raises:
            StartupError: there is none under that name.
        """
        return _protocol_class(self.settings.ws, "the WebSocket protocol class")

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Return what makes the event loop; None leaves it to asyncio's policy.

        Raises:
            StartupError: uvloop is asked for and not installed, or there is no such factory.

        """
        import asyncio  # noqa: PLC0415

        loop = self.settings.loop
        if loop == "none":
            return None
        if loop == "asyncio":
            return asyncio.new_event_loop
        if ":" in loop:
            return _loop_factory(loop)
        try:
            import uvloop  # noqa: PLC0415
        except ImportError as error:
            if loop == "auto":
                return asyncio.new_event_loop
            raise StartupError(
                "The event loop uvloop is not installed; give --loop asyncio or install it."
            ) from error
        return uvloop.new_event_loop

    def setup_event_loop(self) -> NoReturn:
        """Point to what took its place.

        Raises:
            AttributeError: always, as in uvicorn since 0.36.
        """
        raise AttributeError("there is no setup_event_loop; get_loop_factory() returns what makes the loop")


def _protocol_class(value: str | type[Any], what: str) -> type[asyncio.Protocol] | None:
    if not isinstance(value, str):
        return value
    return _imported(value, what) if ":" in value else None


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return somebody's loop factory, which says what is wrong when it makes no loop."""
    import asyncio  # noqa: PLC0415

    factory = _imported(name, "the loop factory")

    @functools.wraps(factory, updated=())
    def make() -> asyncio.AbstractEventLoop:
        from obsserve.importer import application_traceback  # noqa: PLC0415

        try:
            loop = factory()
        except Exception as error:
            reason = (
                f"Error loading the loop factory. {name!r} raised {type(error).__name__} when it was called."
            )
            raise StartupError(reason, application_traceback(error)) from error
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise StartupError(
                f"Error loading the loop factory. {name!r} returned a {type(loop).__name__}, not an event loop."
            )
        return loop

    return make


def _imported(name: str, what: str) -> Any:
    from obsserve.importer import ImportFromStringError, application_traceback, import_from_string  # noqa: PLC0415

    try:
        found = import_from_string(name)
    except ImportFromStringError as error:
        raise StartupError(f"Error loading {what}. {error}") from None
    except Exception as error:
        reason = f"Error loading {what}. {name!r} raised {type(error).__name__} when it was imported."
        raise StartupError(reason, application_traceback(error)) from error
    if not callable(found):
        raise StartupError(
            f"Error loading {what}. {name!r} cannot be called: it is of type {type(found).__name__}."
        )
    return found


def _load_env_file(path: Any) -> None:
    """Read variables into the environment; those that are there keep their values, as with uvicorn."""
    try:
        from dotenv import load_dotenv  # noqa: PLC0415  (an extra)
    except ImportError:
        what, remedy = "python-dotenv is not installed", "pip install 'obsserve[config]' brings it"
        raise ConfigError([Problem("env_file", what, remedy)]) from None
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  (a path as it was given)
            load_dotenv(stream=file)
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problem = Problem("env_file", f"{path} cannot be read: {reason}", "give a file of NAME=value lines")
        raise ConfigError([problem]) from None
