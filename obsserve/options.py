"""What derives from the table of options: flags, variables, files, their precedence, and the documentation.

A value comes from the first that gives it: a flag, the environment, a file, the default. Each remembers its
origin. `python -m obsserve.options` prints docs/configuration.md.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from obsserve.config import OPTIONS, Config, LogLevel
from obsserve.errors import ConfigError, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from obsserve.settings import Option

PREFIX = "OBSSERVE_"
UVICORN_PREFIX = "UVICORN_"  # of whoever has just changed the word
CONFIG_VARIABLE = "OBSSERVE_CONFIG"
PURE_PYTHON_VARIABLE = "OBSSERVE_PURE_PYTHON"  # what `speedups` reads, which is not imported for its name
PROJECT_FILE = Path("pyproject.toml")
OTHER_GROUP = "Configuration"
# What a flag, a variable and a file can give, besides Python.
SHARED = {name: option for name, option in OPTIONS.items() if not option.from_python_only}


# --- where values come from ---------------------------------------------------------------------------------


class Resolution(NamedTuple):
    """What was given, by which of the ways, and what is wrong with that.

    Arguments:
        values: each option that was given, as it was given.
        origins: for each of them, its flag, variable or file.
        problems: what cannot be attributed to an option, such as unknown keys.
        warnings: lines for the operator.

    """

    values: dict[str, Any]
    origins: dict[str, str]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    def config(self) -> Config:
        """Return the Config.

        Raises:
            ConfigError: with everything that is wrong, in the ways as in the values.

        """
        problems = list(self.problems)
        try:
            config = Config(**{"app": None, **self.values})
            config.origins.update(self.origins)
            _ = config.settings
        except ConfigError as error:
            problems.extend(error.problems)
        if problems:
            raise ConfigError(problems)
        return config


def resolve(flags: Mapping[str, Any], *, file: str | None = None, environ: Mapping[str, str]) -> Resolution:
    """Merge the ways in which options can be given.

    Arguments:
        flags: by option; None or an empty tuple if it was not given.
        file: the TOML file; else OBSSERVE_CONFIG says it, else [tool.obsserve] of ./pyproject.toml is read.
        environ: the environment.

    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    named_file = file or environ.get(CONFIG_VARIABLE)
    path = Path(named_file or PROJECT_FILE)
    for key, value in _read(path, problems, must_exist=bool(named_file)).items():
        if key in SHARED:
            values[key], origins[key] = value, str(path)
        elif key in OPTIONS:
            problems.append(Problem(key, "a file cannot give it", "give it from Python", str(path)))
        else:
            remedy = did_you_mean(key, SHARED)
            if key in ("tool", "obsserve") and isinstance(value, dict):
                remedy = f"write the options at the top of {path}: only pyproject.toml has [tool.obsserve]"
            problems.append(Problem(key, "there is no such option", remedy, str(path)))

    for name, option in SHARED.items():
        if text := environ.get(option.variable):  # an empty one counts as not given, as with click
            values[name], origins[name] = text.split() if option.multiple else text, option.variable
        if (flag := flags.get(name)) not in (None, ()):
            values[name], origins[name] = flag, option.flag
        if name not in values and option.fallback_variable and environ.get(option.fallback_variable):
            values[name], origins[name] = environ[option.fallback_variable], option.fallback_variable

    return Resolution(values, origins, tuple(problems), tuple(_warnings(environ)))


def _read(path: Path, problems: list[Problem], *, must_exist: bool) -> dict[str, Any]:
    """Return the options of a TOML file: its own keys, or those of [tool.obsserve] in a pyproject.toml."""
    in_project_file = path.name == PROJECT_FILE.name
    try:
        text = path.read_text(encoding="utf-8")
        if in_project_file and "obsserve" not in text:
            return {}  # nothing here is for us, whether it is valid or not
        import tomllib  # noqa: PLC0415  (most starts have no file)

        table = tomllib.loads(text)
        for key in ("tool", "obsserve") if in_project_file else ():
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise ValueError(f"{key} is not a table")  # noqa: TRY004, TRY301  (as tomllib says it)
    except (OSError, ValueError) as error:
        if must_exist or not isinstance(error, FileNotFoundError):
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(Problem("config", f"{path} cannot be read: {reason}", "give a TOML file"))
        return {}
    return table


def _warnings(environ: Mapping[str, str]) -> Iterable[str]:
    known = {CONFIG_VARIABLE, PURE_PYTHON_VARIABLE, *(option.variable for option in SHARED.values())}
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            yield f"{variable} sets no option; {did_you_mean(variable, known)}"
        elif variable.startswith(UVICORN_PREFIX):
            ours = PREFIX + variable.removeprefix(UVICORN_PREFIX)
            if ours in known and ours not in environ:
                yield f"{variable} is not read; the variable is called {ours} here"


# --- the command line ---------------------------------------------------------------------------------------


def parameters(arguments: Iterable[str] | None = None) -> list[click.Parameter]:
    """Return the argument and the flags; values stay text, so that all of them are checked in one place.

    Args:
        arguments: of the command line, to have no other flags than those that occur in it.
    """
    options = SHARED.values()
    if arguments is None:
        return [_parameter(option) for option in options]
    given = {argument.partition("=")[0] for argument in arguments}
    return [
        _parameter(option)
        for option in options
        if option.flag == option.metavar or option.flag in given or option.negated_flag in given
    ]


def _parameter(option: Option) -> click.Parameter:
    if option.flag == option.metavar:
        return click.Argument([option.name], required=False, metavar=option.metavar)
    text = f"{option.help} [default: {shown}]" if (shown := default_text(option)) else option.help
    if option.is_switch:
        return click.Option([f"{option.flag}/{option.negated_flag}", option.name], default=None, help=text)
    return click.Option(
        [option.flag, option.name],
        type=click.UNPROCESSED,
        multiple=option.multiple,
        metavar=option.metavar,
        help=text,
        shell_complete=lambda _context, _parameter, typed: [
            word for word in option.choices if word.startswith(typed)
        ],
    )


def write_help(
    shown: Iterable[click.Parameter], context: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write the flags under the headings of their groups."""
    flags = (parameter for parameter in shown if isinstance(parameter, click.Option))
    for heading, group in groupby(flags, key=_group):
        records = [record for flag in group if (record := flag.get_help_record(context))]
        with formatter.section(heading):
            formatter.write_dl(records)


def _group(parameter: click.Parameter) -> str:
    option = OPTIONS.get(parameter.name or "")
    return option.group if option else OTHER_GROUP


# --- for people to read -------------------------------------------------------------------------------------


def default_text(option: Option) -> str:
    """Return the default as one would give it, or nothing if there is none to speak of."""
    default = option.default
    if option.default_text:
        return option.default_text
    if default is None:
        return option.words_for_none[0] if option.words_for_none else ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, LogLevel):
        return default.name.lower()
    return f"{default:g}" if isinstance(default, float) else str(default or "")


def printed(config: Config) -> str:
    """Return each option with its value and origin, as a TOML file that gives the same configuration."""
    settings = config.settings
    lines = []
    for heading, group in groupby(SHARED.values(), key=lambda option: option.group):
        lines.append(f"\n# {heading}")
        for option in group:
            value = getattr(settings, option.name)
            if option.secret and value is not None:
                lines.append(f"# {option.name} is set and not shown")
                continue
            if value is None and option.words_for_none:
                value = option.words_for_none[0]
            assignment = f"{option.name} = {_toml(value)}" if value is not None else f"# {option.name} ="
            lines.append(f"{assignment:<42}  # {config.origins.get(option.name, 'default')}")
    return "\n".join(lines).lstrip()


def _toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, LogLevel):
        value = value.name.lower()
    return json.dumps(value, default=str)  # a rule is written as it is given


INTRODUCTION = """\
# Configuration

Generated from the table of options: `python -m obsserve.options > docs/configuration.md`.

An option can be given in four ways, of which the first that gives it counts:

1. a flag of the command, `--timeout-keep-alive 30`, or a keyword of `run()` and `Config`, `timeout_keep_alive=30`;
2. an environment variable, `OBSSERVE_TIMEOUT_KEEP_ALIVE=30`; one that can be given several times separates its
   values by spaces (the command reads the environment; `run()` and `Config` do not);
3. a key in a TOML file, `timeout_keep_alive = 30`: the file that `--config` or `OBSSERVE_CONFIG` names, or else
   the table `[tool.obsserve]` of `pyproject.toml` in the current directory;
4. its default.

`obsserve --print-config` prints every value with its origin, `obsserve --check-config` says whether the
configuration is valid. `OBSSERVE_PURE_PYTHON=1` leaves the part in C aside, which counts, logs and traces ordinary
requests at less than half the price: to tell whether a fault comes from it. Times are in seconds and may have a
fraction; sizes are in bytes. Where `off` stands in the first column, `none` turns the option off too, and so does
`None` from Python.
"""


def reference() -> str:
    """Return docs/configuration.md."""
    sections = [INTRODUCTION]
    for heading, group in groupby(OPTIONS.values(), key=lambda option: option.group):
        rows = [_row(option) for option in group]
        head = ["| Flag | Keyword and key | Variable | Default | Meaning |", "|---|---|---|---|---|"]
        sections.append("\n".join([f"## {heading}", "", *head, *rows, ""]))
    return "\n".join(sections)


def _row(option: Option) -> str:
    flag = f"`{option.flag}`"
    if option.is_switch:
        flag += f", `{option.negated_flag}`"
    elif option.flag != option.metavar:
        flag = f"`{option.flag} {option.metavar}`".replace("|", r"\|")
    meaning = option.help
    if option.fallback_variable:
        meaning += f" If nothing gives it, `{option.fallback_variable}` is read."
    variable = f"`{option.variable}`"
    if option.from_python_only:
        flag = variable = "from Python only"
    cells = [flag, f"`{option.name}`", variable, default_text(option), meaning]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
