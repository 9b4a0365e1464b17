"""`obsserve healthcheck`: ask a running server how it is, for whoever understands exit codes and no HTTP.

That is a container's HEALTHCHECK, an `exec` probe, or a script. It finds the metrics port where the server found it:
in the same environment and configuration file. Exit codes: 0 yes, 1 no or no answer, 2 a mistake in the question.
"""

from __future__ import annotations

import http.client
import os
import sys
from typing import Final
from urllib.parse import urlsplit

import click

from obsserve.errors import ConfigError, Problem

UNHEALTHY: Final = 1
# What one asks when a server listens on all of its addresses.
LOOPBACKS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
LONGEST_ANSWER: Final = 4 * 1024 * 1024
LONGEST_LINE: Final = 200


_AS_THE_SERVER: Final = "As the server has it. [default: the server's own, from its environment or file]"
# What `metrics_address` takes, for every command that asks a running server.
config_option: Final = click.option(
    "--config", "config_file", metavar="FILE", help="The TOML file that the server reads."
)
metrics_host_option: Final = click.option("--metrics-host", metavar="HOST", help=_AS_THE_SERVER)
metrics_port_option: Final = click.option("--metrics-port", metavar="PORT", help=_AS_THE_SERVER)


@click.command(context_settings={"max_content_width": 120})
@config_option
@click.option(
    "--url", metavar="URL", help="Ask this address, also of any other server; a status below 400 is yes."
)
@click.option(
    "--probe",
    type=click.Choice(["readyz", "livez", "startupz"]),
    default="readyz",
    show_default=True,
    help="What to ask.",
)
@metrics_host_option
@metrics_port_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How many seconds an answer may take.",
)
def healthcheck(  # noqa: PLR0917 - click gives them by name
    config_file: str | None,
    url: str | None,
    probe: str,
    metrics_host: str | None,
    metrics_port: str | None,
    timeout: float,
) -> None:
    """Ask a running server on its metrics port how it is; exit with 0 if it is well, else with 1."""
    if url is None:
        url = f"{metrics_address(config_file, metrics_host, metrics_port)}/{probe}"
    status, body = asked(url, timeout)
    said = _line_of(body) or http.client.responses.get(status, "")
    well = 200 <= status < 400
    shown = f"{status} {said}" if status else said
    click.echo(f"{url}: {shown.strip()}", err=not well)
    sys.exit(0 if well else UNHEALTHY)


def metrics_address(config_file: str | None, host: str | None, port: str | None) -> str:
    """Return the URL of the metrics port that these options, the environment and the file give a server.

    Raises:
        ConfigError: there is no metrics port, or a value cannot be used.
    """
    from obsserve import options  # noqa: PLC0415 - a given URL needs none of it

    flags = {"metrics_host": host, "metrics_port": port}
    resolution = options.resolve(flags, file=config_file, environ=os.environ)
    resolution.values.setdefault("app", "any:app")
    settings = resolution.config().settings
    if not settings.metrics_port:
        raise ConfigError(
            [
                Problem(
                    "metrics_port", "the server has none that is known here", "give --metrics-port or --url"
                )
            ]
        )
    address = LOOPBACKS.get(settings.metrics_host, settings.metrics_host)
    return (
        f"http://[{address}]:{settings.metrics_port}"
        if ":" in address
        else f"http://{address}:{settings.metrics_port}"
    )


def asked(url: str, timeout: float) -> tuple[int, bytes]:
    """Return status and body of an answer; without one, 0 and why."""
    try:
        return _ask(url, timeout)
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return 0, said.encode()


def _ask(url: str, timeout: float) -> tuple[int, bytes]:
    """Return the status and the body; redirections are not followed, proxies not asked."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            [Problem("url", f"{url!r} is no http or https address", "give http://HOST:PORT/PATH")]
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=timeout)
    except ValueError as error:
        raise ConfigError([Problem("url", str(error), "give http://HOST:PORT/PATH")]) from None
    try:
        path = parts.path or "/"
        connection.request("GET", f"{path}?{parts.query}" if parts.query else path)
        answer = connection.getresponse()
        body = answer.read(LONGEST_ANSWER)
    finally:
        connection.close()
    return answer.status, body


def _line_of(body: bytes) -> str:
    """Return how an answer begins, on one line."""
    lines = body.decode("utf-8", "replace").strip().splitlines()
    return lines[0][:LONGEST_LINE] if lines else ""
