"""The table of options.

`Settings` has one field for each option. `option()` declares it and keeps, beside the default, what the command
line, the environment, the configuration files and the documentation need to know: they all derive from this
table. An option is added by adding its field here, and nowhere else.
"""

from __future__ import annotations

# ruff: noqa: RUF009  (option() returns a field)
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from obsserve.checks import (
    BadValue,
    Check,
    LogLevel,
    application,
    awaited,
    called,
    checked_by,
    directory,
    filled_text,
    header,
    header_name,
    log_level,
    one_of,
    one_of_or_import,
    peers,
    permissions,
    protocol_class,
    ratio,
    seconds,
    seconds_or_zero,
    size,
    some_of,
    switch,
    text,
    tls_version,
    whole,
)
from obsserve.contradictions import contradictions
from obsserve.errors import ConfigError, Problem, did_you_mean
from obsserve.logconfig import BUILT_IN, log_config
from obsserve.resource import SERVICE_NAME, resource_attributes

if TYPE_CHECKING:
    from obsserve.logoptions import FieldRule, PathRatio

Lifespan = Literal["auto", "on", "off"]
Interface = Literal["auto", "asgi3", "asgi2", "wsgi"]
HTTPParser = Literal["auto", "httptools", "h11"]
Loop = Literal["auto", "asyncio", "uvloop", "none"]
WebSocketCodec = Literal["auto", "none", "websockets", "websockets-sansio", "wsproto"]
LogFormat = Literal["auto", "json", "console"]
OTLPProtocol = Literal["grpc", "http/protobuf"]
TraceTrust = Literal["peers", "all", "none"]
ForwardingHeader = Literal[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
]
MetricsProfile = Literal["minimal", "standard", "full"]
LogKeys = Literal["prometheus", "otel"]
TraceResponse = Literal["traceresponse", "server-timing"]
ClientIP = Literal["keep", "mask", "hash", "drop"]
LogQuery = Literal["auto", "redact-all", "redact-listed", "drop", "keep"]

APPLICATION = "Application"
LISTENING = "Listening"
PROTOCOL = "Protocol"
HEADERS = "Headers and proxies"
TLS = "TLS"
LIMITS = "Limits"
TIMEOUTS = "Time-outs"
WEBSOCKETS = "WebSockets"
LOGGING = "Logging"
METRICS = "Metrics port"
TRACING = "Tracing"
WORKERS = "Workers"

OFF = ("off", "none")


class Option(NamedTuple):
    """One row of the table: what is known of an option besides the name and type of its field."""

    default: Any
    group: str
    help: str
    check: Check
    metavar: str
    name: str = ""
    choices: tuple[str, ...] = ()
    words_for_none: tuple[str, ...] = ()
    multiple: bool = False
    given_flag: str | None = None
    fallback_variable: str | None = None
    default_text: str | None = None
    from_python_only: bool = False
    secret: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether the command line spells it as a pair, `--access-log` and `--no-access-log`."""
        return self.check is switch

    @property
    def flag(self) -> str:
        return self.given_flag or "--" + self.name.replace("_", "-")

    @property
    def negated_flag(self) -> str:
        """The other one of a switch's pair."""
        return f"--no-{self.flag[2:]}"

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return f"OBSSERVE_{self.name.upper()}"

    def absent(self) -> Any:
        """Return the value when nothing is given."""
        if self.fallback_variable:
            return os.environ.get(self.fallback_variable) or self.default
        return self.default

    def settle(self, value: Any) -> Any:
        """Return the value as Settings holds it, from what a keyword, a flag, a variable or a file says.

        Raises:
            BadValue: the value cannot be used.

        """
        if isinstance(value, str) and value.lower() in self.words_for_none:
            return None
        if value is None:
            if self.words_for_none:
                return None
            value = self.absent()
            if value is None:
                return None
        if self.multiple:
            items = (value,) if isinstance(value, str) else value
            if not isinstance(items, Iterable):
                raise BadValue(f"{value!r} is not a list", "give a list")
            return tuple(self.check(item) for item in items)
        return self.check(value)


def option(
    default: Any,
    *,
    group: str,
    help: str,  # noqa: A002  (the word that click and argparse use)
    check: Check | None = None,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    words_for_none: tuple[str, ...] = (),
    multiple: bool = False,
    flag: str | None = None,
    fallback_variable: str | None = None,
    default_text: str | None = None,
    from_python_only: bool = False,
    secret: bool = False,
) -> Any:
    """Declare a field of Settings.

    Arguments:
        default: the value when nothing is given.
        group: the heading in `--help` and in the documentation.
        help: what it does, with the unit.
        check: makes the value that Settings holds, or raises BadValue; follows from `choices` if left out.
        choices: the words that it accepts.
        metavar: what stands for the value in `--help`.
        words_for_none: the words that say None, where None is something that one can ask for.
        multiple: it may be given several times; a variable separates the values by spaces.
        flag: the name on the command line, if it is not the field's.
        fallback_variable: a variable of another system that is read when nothing is given.
        default_text: how to write the default for people, if it is not the value.
        from_python_only: it takes an object, so that neither flag nor variable nor file can give it.
        secret: it is never printed.

    """
    row = Option(
        default=default,
        group=group,
        help=help,
        check=check or one_of(choices),
        metavar=f"{metavar or '|'.join(choices)}{'|off' if words_for_none == OFF else ''}",
        choices=choices,
        words_for_none=words_for_none,
        multiple=multiple,
        given_flag=flag,
        fallback_variable=fallback_variable,
        default_text=default_text,
        from_python_only=from_python_only,
        secret=secret,
    )
    return field(metadata={"option": row})


@dataclass(
    frozen=True, slots=True, init=False, eq=False, repr=False
)  # which takes a while for so many fields
class Settings:
    """Every option, checked and in its final form.

    Takes each option as a keyword, in any form that its check accepts. None means that nothing was given, or
    off where an option can be off.

    Raises:
        ConfigError: with everything that is wrong, not only the first.

    """

    # A row of the table is two lines: what it takes, and what it does.
    # fmt: off
    app: str | Callable[..., Any] = option(MISSING, group=APPLICATION, check=application, metavar="APP", flag="APP", default_text="required",
        help="The application: module:attribute. From Python, the object itself too.")
    factory: bool = option(False, group=APPLICATION, check=switch,
        help="APP is a function without arguments that returns the application.")
    app_dir: str = option("", group=APPLICATION, check=text, metavar="DIRECTORY", default_text="the current directory; none from Python",
        help="Look for APP in this directory first (it is put in front of sys.path).")
    root_path: str = option("", group=APPLICATION, check=text, metavar="PATH",
        help="The path under which a proxy publishes the application; root_path in the ASGI scope.")
    lifespan: Lifespan = option("auto", group=APPLICATION, choices=get_args(Lifespan),
        help="Start and stop the application with lifespan events; auto: if it understands them.")
    interface: Interface = option("auto", group=APPLICATION, choices=get_args(Interface),
        help="How the application is called; auto: a coroutine function is ASGI 3, anything else ASGI 2.")
    env_file: str | None = option(None, group=APPLICATION, check=filled_text, metavar="FILE",
        help="Read variables from this file into the environment before the application is imported.")

    host: str = option("127.0.0.1", group=LISTENING, check=text, metavar="HOST",
        help="Listen on this address or name; 0.0.0.0 and :: are all addresses.")
    port: int = option(8000, group=LISTENING, check=whole(0, 65535), metavar="PORT",
        help="Listen on this TCP port; 0 picks a free one.")
    uds: str | None = option(None, group=LISTENING, check=filled_text, metavar="PATH",
        help="Listen on a UNIX domain socket instead of TCP. One that nobody listens on any more is replaced.")
    uds_permissions: str = option("0666", group=LISTENING, check=permissions, metavar="MODE",
        help="Who may connect to the UNIX domain socket: its permissions in octal, such as 0660 for owner and group.")
    fd: int | None = option(None, group=LISTENING, check=whole(0), metavar="NUMBER",
        help="Listen on a socket of any family that is already open, by its file descriptor. Sockets of systemd's LISTEN_FDS are taken without it.")
    backlog: int = option(2048, group=LISTENING, check=whole(1), metavar="CONNECTIONS",
        help="How many connections may wait to be accepted.")
    reuse_port: bool = option(False, group=LISTENING, check=switch,
        help="Give each worker a listening socket of its own (SO_REUSEPORT), among which the kernel spreads connections evenly; other servers may listen on the same port too.")

    workers: int = option(1, group=WORKERS, check=whole(1), metavar="NUMBER", fallback_variable="WEB_CONCURRENCY",
        help="Serve with this many processes, which a main process starts and replaces.")
    supervise: bool = option(False, group=WORKERS, check=switch,
        help="Have a main process look after a single worker too, so that SIGHUP replaces it.")
    reload: bool = option(False, group=WORKERS, check=switch,
        help="Replace the worker when a file changes; for development. Takes precedence over workers.")
    reload_dirs: tuple[str, ...] = option((), group=WORKERS, check=directory, metavar="DIRECTORY", multiple=True, flag="--reload-dir", default_text="the current directory",
        help="Watch this directory. May be given several times.")
    reload_includes: tuple[str, ...] = option((), group=WORKERS, check=filled_text, metavar="PATTERN", multiple=True, flag="--reload-include",
        help="Files that match this pattern count too, besides *.py; a directory stands for what is in it. May be given several times.")
    reload_excludes: tuple[str, ...] = option((), group=WORKERS, check=filled_text, metavar="PATTERN", multiple=True, flag="--reload-exclude",
        help="Files or directories that match this pattern do not count, besides hidden and temporary ones. May be given several times.")
    reload_delay: float = option(0.25, group=WORKERS, check=seconds_or_zero, metavar="SECONDS",
        help="Reload when nothing has changed for this many seconds.")
    limit_max_requests: int | None = option(None, group=WORKERS, check=whole(1), metavar="REQUESTS", words_for_none=OFF,
        help="Replace a worker that has served so many requests and WebSockets; its successor is ready first.")
    limit_max_requests_jitter: int = option(0, group=WORKERS, check=whole(0), metavar="REQUESTS",
        help="Add a random number of up to so many requests to limit_max_requests, for each worker.")
    limit_max_rss: int | None = option(None, group=WORKERS, check=size, metavar="BYTES", words_for_none=OFF,
        help="Replace a worker whose resident memory has grown to this many bytes, such as 512M; its successor is ready first.")
    limit_max_lifetime: float | None = option(None, group=WORKERS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Replace a worker that has served for this many seconds; its successor is ready first.")
    limit_max_lifetime_jitter: float = option(0.0, group=WORKERS, check=seconds_or_zero, metavar="SECONDS",
        help="Add a random time of up to so many seconds to limit_max_lifetime, for each worker.")
    timeout_worker_healthcheck: float | None = option(5.0, group=WORKERS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Kill a worker whose process does not answer for this many seconds, and tell of one that takes longer to start. A blocked event loop still answers.")
    timeout_worker_unresponsive: float | None = option(None, group=WORKERS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Kill a worker whose event loop has been blocked for this many seconds; its stack is logged.")
    ready_min_workers: int = option(1, group=WORKERS, check=whole(1), metavar="NUMBER",
        help="/readyz fails when fewer workers than this are ready and responsive.")

    http: str | type[Any] = option("auto", group=PROTOCOL, check=protocol_class(get_args(HTTPParser)), choices=get_args(HTTPParser), metavar="auto|httptools|h11|MODULE:CLASS",
        help="The HTTP/1.1 parser; auto: httptools if installed, else h11. A protocol class written for uvicorn is served without telemetry.")
    loop: str = option("auto", group=PROTOCOL, check=one_of_or_import(get_args(Loop), "a loop factory"), choices=get_args(Loop), metavar="auto|asyncio|uvloop|none|MODULE:FACTORY",
        help="The event loop; auto: uvloop if installed, else asyncio; none: what asyncio's policy makes.")
    h11_max_incomplete_event_size: int | None = option(None, group=PROTOCOL, check=whole(1), metavar="BYTES",
        help="With the parser h11, the most bytes of request headers, in place of limit_request_headers.")
    reset_contextvars: bool = option(False, group=PROTOCOL, check=switch,
        help="Accepted for uvicorn's sake: every request starts from a copy of the lifespan's context anyway.")

    ssl_keyfile: str | None = option(None, group=TLS, check=filled_text, metavar="FILE",
        help="The private key, PEM; without it the certificate's file holds the key too.")
    ssl_certfile: str | None = option(None, group=TLS, check=filled_text, metavar="FILE",
        help="Serve TLS with this certificate and its chain, PEM. A file that changes is loaded again.")
    ssl_keyfile_password: str | None = option(None, group=TLS, check=text, metavar="PASSWORD", secret=True,
        help="What decrypts the private key; better given in the environment, where other users do not see it.")
    ssl_version: int = option(17, group=TLS, check=tls_version, metavar="NUMBER",
        help="A number of Python's ssl module: 17 and 2 serve TLS 1.2 and later, 5 serves only TLS 1.2.")
    ssl_cert_reqs: int = option(0, group=TLS, check=whole(0, 2), metavar="NUMBER",
        help="Client certificates: 0 are not asked for, 1 may be given, 2 must be.")
    ssl_ca_certs: str | None = option(None, group=TLS, check=filled_text, metavar="FILE",
        help="The authorities that client certificates must be from, PEM.")
    ssl_ciphers: str | None = option(None, group=TLS, check=filled_text, metavar="CIPHERS",
        help="The ciphers of TLS 1.2, as OpenSSL names them; without it OpenSSL's own choice.")
    ssl_context_factory: Callable[..., Any] | None = option(None, group=TLS, check=called, metavar="FUNCTION", from_python_only=True,
        help="Called with Config and a function that makes the default ssl.SSLContext; returns the one to serve with.")

    headers: tuple[tuple[str, str], ...] = option((), group=HEADERS, check=header, metavar="NAME:VALUE", multiple=True, flag="--header",
        help="Add this header to every response. May be given several times.")
    server_header: bool = option(True, group=HEADERS, check=switch,
        help="Send a Server header.")
    date_header: bool = option(True, group=HEADERS, check=switch,
        help="Send a Date header.")
    proxy_headers: bool = option(True, group=HEADERS, check=switch,
        help="Believe the forwarding headers of trusted peers.")
    forwarded_headers: tuple[str, ...] = option("x-forwarded-for,x-forwarded-proto", group=HEADERS, check=some_of(get_args(ForwardingHeader)), choices=get_args(ForwardingHeader), metavar="HEADERS",
        help="Which forwarding headers: " + ", ".join(get_args(ForwardingHeader)) + ". Where two say the same, the first that a request carries wins.")
    forwarded_allow_ips: tuple[str, ...] = option("127.0.0.1,::1", group=HEADERS, check=peers, metavar="ADDRESSES", fallback_variable="FORWARDED_ALLOW_IPS",
        help="The trusted peers: addresses and networks, separated by commas; unix: peers on a unix socket; * trusts everyone.")
    proxy_protocol: bool = option(False, group=HEADERS, check=switch,
        help="Trusted peers begin each connection with a PROXY protocol header, version 1 or 2, that names the client.")

    limit_concurrency: int | None = option(None, group=LIMITS, check=whole(1), metavar="REQUESTS", words_for_none=OFF,
        help="Answer 503 when this many requests are in progress.")
    limit_queue: int | None = option(None, group=LIMITS, check=whole(1), metavar="REQUESTS", words_for_none=OFF,
        help="Let this many further requests wait for their turn, for timeout_queue at most, before 503 is answered; needs limit_concurrency.")
    limit_loop_lag: float | None = option(None, group=LIMITS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Answer 503 while the event loop lags by more than so many seconds, and for a second after it.")
    limit_memory: int | None = option(None, group=LIMITS, check=size, metavar="BYTES", words_for_none=OFF,
        help="Answer 503 while a worker holds more than this many bytes of memory, such as 900M; limit_max_rss replaces it instead.")
    limit_connections: int | None = option(None, group=LIMITS, check=whole(1), metavar="CONNECTIONS", words_for_none=OFF,
        help="Keep at most this many connections open.")
    limit_request_line: int = option(8192, group=LIMITS, check=whole(1), metavar="BYTES",
        help="The longest request line, in bytes; a longer one is answered 414.")
    limit_request_headers: int = option(65536, group=LIMITS, check=whole(1), metavar="BYTES",
        help="The most bytes of request headers; more are answered 431.")
    limit_request_header_count: int = option(100, group=LIMITS, check=whole(1), metavar="HEADERS",
        help="The most request headers; more are answered 431.")
    limit_request_body: int | None = option(None, group=LIMITS, check=whole(1), metavar="BYTES", words_for_none=OFF,
        help="The largest request body, in bytes; a larger one is answered 413.")

    timeout_keep_alive: float = option(5.0, group=TIMEOUTS, check=seconds_or_zero, metavar="SECONDS",
        help="Close a connection that has been idle for this many seconds after a response; 0 closes at once.")
    timeout_request_header: float | None = option(10.0, group=TIMEOUTS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Within how many seconds the request line and headers must have arrived; else 408.")
    timeout_request_body: float | None = option(30.0, group=TIMEOUTS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="How many seconds the request body may stand still while the server reads; else 408.")
    timeout_write: float | None = option(60.0, group=TIMEOUTS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="How many seconds the client may take nothing of the response; then the connection is closed.")
    timeout_tls_handshake: float | None = option(10.0, group=TIMEOUTS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Within how many seconds a TLS handshake must be over; then the connection is closed.")
    timeout_queue: float = option(1.0, group=TIMEOUTS, check=seconds, metavar="SECONDS",
        help="How many seconds a request may wait in limit_queue; then 503 is answered.")
    timeout_request: float | None = option(None, group=TIMEOUTS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="How many seconds the application may take; then it is cancelled and 504 is answered.")
    timeout_graceful_shutdown: float | None = option(20.0, group=TIMEOUTS, check=seconds_or_zero, metavar="SECONDS", words_for_none=OFF,
        help="How many seconds the whole of a graceful shutdown may take; off waits for ever.")
    shutdown_delay: float = option(0.0, group=TIMEOUTS, check=seconds_or_zero, metavar="SECONDS",
        help="After SIGTERM, go on serving for this many seconds with /readyz failing, so that balancers look elsewhere first; part of timeout_graceful_shutdown.")
    timeout_notify: float = option(30.0, group=TIMEOUTS, check=seconds, metavar="SECONDS", from_python_only=True,
        help="Await callback_notify every so many seconds.")
    callback_notify: Callable[[], Awaitable[None]] | None = option(None, group=TIMEOUTS, check=awaited, metavar="FUNCTION", from_python_only=True,
        help="A coroutine function that tells somebody that the server is alive.")

    ws: str | type[Any] = option("auto", group=WEBSOCKETS, check=protocol_class(get_args(WebSocketCodec)), choices=get_args(WebSocketCodec), metavar="auto|none|websockets|wsproto|MODULE:CLASS",
        help="The WebSocket codec; auto: websockets if installed, else wsproto, else none. Of a protocol class written for uvicorn only the handshakes are observed.")
    ws_max_size: int = option(16 * 1024 * 1024, group=WEBSOCKETS, check=whole(1), metavar="BYTES",
        help="The largest message, in bytes; a larger one closes the WebSocket with 1009.")
    ws_max_queue: int = option(32, group=WEBSOCKETS, check=whole(1), metavar="MESSAGES",
        help="How many messages may wait for the application before the server stops reading.")
    ws_ping_interval: float | None = option(20.0, group=WEBSOCKETS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Send a ping every so many seconds.")
    ws_ping_timeout: float | None = option(20.0, group=WEBSOCKETS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="Close a WebSocket whose pong does not arrive within so many seconds, with 1011.")
    ws_per_message_deflate: bool = option(True, group=WEBSOCKETS, check=switch,
        help="Compress messages of 1 KiB and more for clients that offer permessage-deflate.")

    log_level: int = option(LogLevel.INFO, group=LOGGING, check=log_level, metavar="|".join(level.name.lower() for level in LogLevel),
        help="The lowest level that the server logs.")
    log_config: Any = option(BUILT_IN, group=LOGGING, check=log_config, metavar="FILE", words_for_none=("none",),
        help="Configure logging from this file (.json, .yaml, else .ini) instead; access lines become log records. none: configure nothing.")
    access_log: bool = option(True, group=LOGGING, check=switch,
        help="Write a line to stdout when a request ends.")
    access_log_file: str | None = option(None, group=LOGGING, check=filled_text, metavar="PATH", words_for_none=("-",), default_text="stdout",
        help="Append access lines to this file instead; SIGUSR1 opens it anew after a rotation.")
    log_format: LogFormat = option("auto", group=LOGGING, choices=get_args(LogFormat),
        help="How log lines look; auto: console on a terminal, else JSON.")
    access_log_format: str | None = option(None, group=LOGGING, check=checked_by("obsserve.accessformat:access_log_format"), metavar="FORMAT",
        help="Write access lines in this format of Apache (%h %t ...) or gunicorn (%(h)s %(t)s ...); common and combined name Apache's own.")
    log_query: LogQuery = option("auto", group=LOGGING, choices=get_args(LogQuery),
        help="What is logged of a query; auto: keep on a terminal's console lines, redact-all in JSON.")
    log_query_allow: tuple[str, ...] = option((), group=LOGGING, check=filled_text, metavar="KEY", multiple=True,
        help="A query key whose value stays readable in the log. May be given several times.")
    log_client_ip: ClientIP = option("keep", group=LOGGING, choices=get_args(ClientIP),
        help="What is logged of clients' addresses: mask keeps /24 and /48, hash a keyed hash.")
    log_hash_key: str | None = option(None, group=LOGGING, check=filled_text, metavar="SECRET", secret=True,
        help="The key of hashed log fields; better given in the environment than as a flag.")
    log_request_header: tuple[str, ...] = option((), group=LOGGING, check=header_name, metavar="NAME", multiple=True,
        help="Log this request header; the values of those that carry secrets are hidden. May be given several times.")
    log_response_header: tuple[str, ...] = option((), group=LOGGING, check=header_name, metavar="NAME", multiple=True,
        help="Log this response header, likewise.")
    log_field: tuple[FieldRule, ...] = option((), group=LOGGING, check=checked_by("obsserve.logoptions:field_rule"), metavar="NAME=MODE", multiple=True,
        help="Change a field of JSON access lines: NAME=drop, NAME=redact, NAME=hash, NAME=rename:OTHER. May be given several times.")
    log_keys: LogKeys = option("prometheus", group=LOGGING, choices=get_args(LogKeys),
        help="How the keys of JSON access lines are spelled: http_route, or http.route.")
    log_status_499: bool = option(False, group=LOGGING, check=switch,
        help="Log the status 499 for a client that left before it was answered, as nginx does, in place of none.")
    access_log_exclude: tuple[str, ...] = option((), group=LOGGING, check=checked_by("obsserve.logoptions:path_pattern"), metavar="PATTERN", multiple=True,
        help="No access line for a success at this path (* is any text), unless it was slow. May be given several times.")
    log_sample_ratio: float = option(1.0, group=LOGGING, check=ratio, metavar="RATIO",
        help="Which share of ordinary access lines is written; errors, slow requests and sampled traces always are.")
    log_sample_path: tuple[PathRatio, ...] = option((), group=LOGGING, check=checked_by("obsserve.logoptions:path_ratio"), metavar="PATTERN=RATIO", multiple=True,
        help="Another share for the paths that fit a pattern; the first that fits counts. May be given several times.")
    log_slow: float | None = option(1.0, group=LOGGING, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="A request that takes this many seconds is logged whatever is left out otherwise.")
    log_buffer_bytes: int = option(4 * 1024 * 1024, group=LOGGING, check=whole(16384), metavar="BYTES",
        help="How many bytes of log lines may wait for a slow reader; further lines are dropped and counted.")
    use_colors: bool | None = option(None, group=LOGGING, check=switch, words_for_none=("auto",), default_text="on a terminal",
        help="Colour console lines.")
    service_name: str = option(None, group=LOGGING, check=filled_text, metavar="NAME", fallback_variable="OTEL_SERVICE_NAME", default_text="APP",
        help="The name of the service in logs, metrics and spans; else what OTEL_RESOURCE_ATTRIBUTES says.")

    otlp_endpoint: str | None = option(None, group=TRACING, check=filled_text, metavar="URL", words_for_none=OFF,
        help="Export one span for each request to this OTLP endpoint; else where OTEL_EXPORTER_OTLP_ENDPOINT says.")
    otlp_protocol: OTLPProtocol | None = option(None, group=TRACING, choices=get_args(OTLPProtocol), default_text="grpc",
        help="How spans, log records and metrics are sent; with http/protobuf the endpoint is the base, and /v1/traces and its like is appended.")
    otlp_logs: bool = option(False, group=TRACING, check=switch, default_text="off, or on when OTEL_LOGS_EXPORTER is otlp",
        help="Export access lines, the server's lines and what the application logs over OTLP too, to the same endpoint (/v1/logs with http/protobuf).")
    otlp_metrics: bool = option(False, group=TRACING, check=switch, default_text="off, or on when OTEL_METRICS_EXPORTER is otlp",
        help="Push what the metrics port shows over OTLP too, every OTEL_METRIC_EXPORT_INTERVAL, to the same endpoint (/v1/metrics with http/protobuf); a metrics port is not needed for it.")
    trace_sample_ratio: float | None = option(None, group=TRACING, check=ratio, metavar="RATIO", default_text="1, or what OTEL_TRACES_SAMPLER says",
        help="Which share of new traces is kept, from 0 to 1; the caller's decision is followed.")
    trace_trust: TraceTrust = option("peers", group=TRACING, choices=get_args(TraceTrust),
        help="Whose trace context is believed in full; from others only the trace id is taken, with none nothing.")
    trace_sample_path: tuple[PathRatio, ...] = option((), group=TRACING, check=checked_by("obsserve.logoptions:path_ratio"), metavar="PATTERN=RATIO", multiple=True,
        help="Another share for the paths that fit a pattern (* is any text); with 0 and 1 whatever the caller decided. The first that fits counts. May be given several times.")
    trace_keep_errors: bool = option(False, group=TRACING, check=switch,
        help="Export the span of a request that fails, or takes as long as log_slow, even if it was not to be kept; what the application did in it is not known then.")
    trace_websocket_messages: bool = option(False, group=TRACING, check=switch,
        help="Make a span of each WebSocket message too, in a trace of its own that is linked to the handshake's; only of WebSockets whose handshake is kept.")
    trace_response: tuple[str, ...] = option((), group=TRACING, check=some_of(get_args(TraceResponse)), choices=get_args(TraceResponse), metavar="HEADERS", words_for_none=OFF,
        help="Tell clients the ids of their request's span in these response headers: traceresponse, server-timing (which browsers' own instrumentation reads).")
    request_id_header: str | None = option("x-request-id", group=TRACING, check=header_name, metavar="NAME", words_for_none=OFF,
        help="Take the request's id from this header of trusted peers, and send it back in every response.")

    metrics_port: int | None = option(None, group=METRICS, check=whole(0, 65535), metavar="PORT", words_for_none=OFF,
        help="Serve /metrics and the probes on this TCP port; 0 picks a free one.")
    metrics_host: str = option("127.0.0.1", group=METRICS, check=text, metavar="HOST",
        help="The address of the metrics port.")
    metrics_max_series: int = option(2000, group=METRICS, check=whole(1), metavar="SERIES",
        help="How many label sets the server's own metrics may have; further ones share a series.")
    metrics_profile: MetricsProfile = option("standard", group=METRICS, choices=get_args(MetricsProfile),
        help="How many series there are: minimal has no routes, full has the sizes of bodies as well.")
    metrics_body_size: bool = option(False, group=METRICS, check=switch,
        help="Have histograms of the sizes of request and response bodies, whatever the profile.")
    admin_stacks: bool = option(False, group=METRICS, check=switch,
        help="Serve /-/stacks on the metrics port: where each task of a worker stands, as places in the code.")
    admin_log_level: bool = option(False, group=METRICS, check=switch,
        help="Let PUT /-/loglevel?level=debug on the metrics port change from which level on the server logs.")
    livez_max_stall: float | None = option(None, group=METRICS, check=seconds, metavar="SECONDS", words_for_none=OFF,
        help="/livez fails when the event loop has been blocked for this many seconds.")
    terminating_status: int = option(503, group=METRICS, check=whole(200, 599), metavar="STATUS",
        help="What /readyz answers while the server drains, for load balancers that take 503 for a crash.")
    ready_max_stall: float = option(5.0, group=METRICS, check=seconds, metavar="SECONDS",
        help="/readyz fails when the event loop has been blocked for this many seconds.")
    # fmt: on

    def __init__(self, **given: Any) -> None:
        for unknown in given.keys() - OPTIONS.keys():
            raise TypeError(f"there is no option {unknown!r}; {did_you_mean(unknown, OPTIONS)}")
        problems = []
        for name, row in OPTIONS.items():
            # A default from another system's variable is looked up when the value is settled.
            value = given.get(name, None if row.fallback_variable else row.default)
            if value is MISSING:
                raise TypeError(f"the option {name!r} is missing")
            try:
                value = row.settle(value)
            except BadValue as bad:
                problems.append(Problem(name, bad.what, bad.remedy))
            object.__setattr__(self, name, value)
        if not problems:  # what is no value at all cannot be compared with another
            problems.extend(contradictions(self))
        if problems:
            raise ConfigError(problems)
        if not self.service_name:
            named = resource_attributes().get(SERVICE_NAME)
            object.__setattr__(self, "service_name", named or _name_of(self.app))
        if self.reload:
            object.__setattr__(self, "workers", 1)  # one process to look at, as with uvicorn
        if self.interface == "wsgi":
            object.__setattr__(self, "ws", "none")
        if self.h11_max_incomplete_event_size is not None and _parses_with_h11(self.http):
            object.__setattr__(self, "limit_request_headers", self.h11_max_incomplete_event_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and all(
            getattr(self, name) == getattr(other, name) for name in OPTIONS
        )

    __hash__ = None  # type: ignore[assignment]  # a value from Python need not have one

    @property
    def has_body_sizes(self) -> bool:
        """Whether there are histograms of body sizes."""
        return self.metrics_body_size or self.metrics_profile == "full"


OPTIONS: dict[str, Option] = {
    column.name: column.metadata["option"]._replace(name=column.name) for column in fields(Settings)
}


def _parses_with_h11(http: str | type[Any]) -> bool:
    if http != "auto":
        return http == "h11"
    from importlib.util import find_spec  # noqa: PLC0415  (only for those who give h11_max_incomplete_event_size)

    return find_spec("httptools") is None


def _name_of(app: str | Callable[..., Any]) -> str:
    """Name a service after its application, `module:attribute`; an unnamed one as OpenTelemetry does."""
    if isinstance(app, str):
        return app
    module, name = getattr(app, "__module__", None), getattr(app, "__qualname__", None)
    return f"{module}:{name}" if module and name else "unknown_service:obsserve"
