"""From arguments to a running server, and from what goes wrong to an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from obsserve.config import STARTUP_FAILURE, Config
from obsserve.errors import ConfigError, StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from obsserve.server.lastresort import LastResort
    from obsserve.server.server import Server

__all__ = ["Server", "main", "run"]

EPILOG = (
    "Every option can also be given in the environment (OBSSERVE_PORT for --port) and as a key of the file that "
    "--config names or of [tool.obsserve] in ./pyproject.toml (port). Flags go before the environment, the "
    "environment before the file. `obsserve healthcheck` asks a running server how it is, `obsserve top` shows what it does, `obsserve export` writes out dashboards, rules and deployments."
)
# Other things to do than serving. APP always has a colon, so their names cannot be an application's.
SUBCOMMANDS = {
    "healthcheck": "obsserve.healthcheck:healthcheck",
    "top": "obsserve.top:top",
    "export": "obsserve.export:export",
}

# Where the context keeps the command line while it is parsed.
_ARGUMENTS = "obsserve.main.arguments"

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import the server when it is asked for: --help and mistakes need none of its parts."""
        if name == "Server":
            from obsserve.server.server import Server  # noqa: PLC0415

            return Server
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run(app: str | Callable[..., Any], **options: Any) -> None:
    """Serve an application until it is told to stop.

    Arguments:
        app: the application: `module:attribute`, or the object itself.
        options: the options by name; docs/configuration.md lists them.

    Raises:
        SystemExit: with 3 if the server cannot start, with 2 if an option's value cannot be used; the reason
            has been written to stderr.

    """
    with _mistakes_end_the_process():
        _serve(Config(app, **options))


def _serve(config: Config, *, process_ends: bool = False) -> None:
    """Serve until told to stop.

    Args:
        config: the options.
        process_ends: nothing comes afterwards, so signals that come late find the server's handler to the end.
    """
    _ = config.settings  # everything that is wrong is told before anything happens
    _occupy_standard_descriptors()
    config.configure_logging()
    # From before the application is imported until after the server has given signals back: the first process of a
    # container has no default action for SIGTERM, and one that comes twice, as from an init system that signals the
    # whole group, must not kill a process that is about to end cleanly.
    in_main_thread = threading.current_thread() is threading.main_thread()
    original = signal.signal(signal.SIGTERM, _leave) if in_main_thread else None
    if in_main_thread and process_ends:
        from obsserve.server import latesignals  # noqa: PLC0415 - --help needs no signals

        latesignals.ignore_at_exit()
    try:
        if config.use_subprocess:
            from obsserve.server.supervisor import Supervisor  # noqa: PLC0415  (see __getattr__)

            Supervisor(config).run(process_ends=process_ends)
            return
        taken = (signal.SIGTERM, signal.SIGINT) if process_ends else (signal.SIGTERM,)
        server = _serve_here(config, taken if in_main_thread else (), process_ends=process_ends)
    except KeyboardInterrupt:
        return
    finally:
        if original is not None and not process_ends:
            signal.signal(signal.SIGTERM, original)
    code = 0 if server.started else STARTUP_FAILURE
    if in_main_thread and process_ends:  # whoever asks again does not wait for threads of the application
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    if code:
        sys.exit(code)


def _serve_here(config: Config, taken: tuple[signal.Signals, ...], *, process_ends: bool) -> Server:
    """Serve in this process until told to stop.

    Args:
        config: the options.
        taken: signals that the server goes on handling after it has given signals back.
        process_ends: whether the process is the server's own, and may be ended where it does not end.
    """
    config.import_app()  # as uvicorn, before there is a loop; a module that is not there is the likeliest mistake

    from obsserve.server.server import Server  # noqa: PLC0415  (see __getattr__)
    from obsserve.server.servicemanager import ServiceManager  # noqa: PLC0415

    server = Server(config)
    server.service_manager = ServiceManager(os.environ)
    if process_ends:
        server.last_resort = _last_resort(server)
    for sig in taken:
        signal.signal(sig, server.handle_exit)
    server.run()
    if server.last_resort is not None:
        server.last_resort.served()
    return server


def _last_resort(server: Server) -> LastResort:
    from obsserve.server.lastresort import LastResort  # noqa: PLC0415  (see __getattr__)
    from obsserve.telemetry.logging import server_logger, server_sink  # noqa: PLC0415  (see __getattr__)

    def tell(message: str, stack: str, threads: Sequence[str]) -> None:
        named = {"threads": list(threads)} if threads else {}
        server_logger().error("server.kill", message=message, stack=stack, **named)
        sink = server_sink()
        if sink is not None:
            sink.close(1.0)

    return LastResort(
        server.config.settings.timeout_graceful_shutdown,
        started=lambda: server.started,
        hurried=lambda: server.force_exit,
        tell=tell,
        finish=server.abandon,
    )


def _occupy_standard_descriptors() -> None:
    """Give 0, 1 and 2 to nobody where they are closed: a socket would get them, and what C code prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest that is free


def _leave(_signal: int, _frame: object) -> NoReturn:
    """End at once: there is no server yet that would have to drain."""
    sys.exit(0)


@contextmanager
def _mistakes_end_the_process() -> Iterator[None]:
    """Tell what went wrong on stderr, in one line if that says it all, and exit with its code."""
    try:
        yield
    except ConfigError as error:
        click.echo(f"obsserve: error: {error}", err=True)
        sys.exit(error.exit_code)
    except StartupError as error:
        click.echo(f"{error.traceback}obsserve: error: {error}", err=True)
        sys.exit(error.exit_code)


class _Command(click.Command):
    """The command, which takes its flags from the table of options when it runs, not when it is imported."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]  # click's overloads
        given = sys.argv[1:] if args is None else list(args)
        if not given or given[0] not in SUBCOMMANDS:
            return super().main(args, prog_name, **extra)
        from obsserve.importer import import_from_string  # noqa: PLC0415

        name = f"{prog_name or 'obsserve'} {given[0]}"
        with _mistakes_end_the_process():
            return import_from_string(SUBCOMMANDS[given[0]]).main(given[1:], name, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Most of the time that parsing takes is the making of all the flags, of which few are given.
        ctx.meta[_ARGUMENTS] = tuple(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError:
            args = list(ctx.meta.pop(_ARGUMENTS))
            return super().parse_args(ctx, args)  # says what else there is

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from obsserve import options  # noqa: PLC0415

        return [*options.parameters(ctx.meta.get(_ARGUMENTS)), *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from obsserve import options  # noqa: PLC0415

        options.write_help([*options.parameters(), *super().get_params(ctx)], ctx, formatter)


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    import platform  # noqa: PLC0415

    from obsserve import __version__  # noqa: PLC0415  (the package imports this module)
    from obsserve.speedups import native  # noqa: PLC0415 - for this option only

    without = "" if native is not None else " (without the part in C)"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    click.echo(f"obsserve {__version__} with {python} on {platform.system()}{without}")
    context.exit()


@click.command(cls=_Command, context_settings={"max_content_width": 120}, epilog=EPILOG)
@click.option("--config", "config_file", metavar="FILE", help="Read options from this TOML file.")
@click.option("--check-config", is_flag=True, help="Say whether the configuration is valid, and exit.")
@click.option("--print-config", is_flag=True, help="Print every option with its value and origin, and exit.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version, and exit.",
)
@click.pass_context
def main(
    context: click.Context, /, config_file: str | None, check_config: bool, print_config: bool, **flags: Any
) -> None:
    """Serve the ASGI application APP, written as module:attribute."""
    from obsserve import options  # noqa: PLC0415  (so that `python -m obsserve.options` finds it not yet imported)

    resolution = options.resolve(flags, file=config_file, environ=os.environ)
    for warning in resolution.warnings:
        click.echo(f"obsserve: warning: {warning}", err=True)
    if "app" not in resolution.values:
        raise click.MissingParameter(ctx=context, param_hint="'APP'", param_type="argument")
    with _mistakes_end_the_process():
        config = resolution.config()
        if print_config:
            click.echo(options.printed(config))
        elif check_config:
            click.echo("The configuration is valid.")
        else:
            if not config.app_dir:
                sys.path.insert(0, "")  # a console script finds its own directory there, not the current one
            _serve(config, process_ends=True)
