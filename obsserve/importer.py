"""Turn `module:attribute` into the object that it names."""

from __future__ import annotations

import importlib
import os
import traceback
from pathlib import Path
from typing import Any

from obsserve.errors import ObsserveError

_FRAMES_TO_TRIM = (
    f"{Path(__file__).parent}{os.sep}",
    f"{Path(importlib.__file__).parent}{os.sep}",
    "<frozen importlib",
)


class ImportFromStringError(ObsserveError):
    """The import string has no colon, or names a module or an attribute that is not there."""

    exit_code = 3


def import_from_string(import_str: Any) -> Any:
    """Import the module and return the attribute.

    Arguments:
        import_str: `module:attribute`, where both may be dotted; anything but a string is returned as it is.

    Raises:
        ImportFromStringError: nothing is there under that name.
        Exception: whatever the module itself raises while it is imported, such as the ModuleNotFoundError of
            a dependency that is not installed.

    """
    if not isinstance(import_str, str):
        return import_str
    module_name, _, attributes = import_str.partition(":")
    if not module_name or not attributes:
        raise ImportFromStringError(f'Import string "{import_str}" must be in format "<module>:<attribute>".')
    try:
        if module_name.startswith("."):
            # There is no package that it could be relative to.
            raise ModuleNotFoundError(name=module_name)  # noqa: TRY301
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not _is_or_contains(error.name, module_name):
            raise
        hint = _module_of_path(module_name)
        meant = f' Did you mean "{hint}:{attributes}"?' if hint else ""
        raise ImportFromStringError(f'Could not import module "{module_name}".{meant}') from None
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            message = f'Attribute "{attributes}" not found in module "{module_name}".'
            raise ImportFromStringError(message) from None
    return found


def _module_of_path(path: str) -> str:
    """Return the name of the module that a path was given for, `shop/main.py`; nothing if it is no path."""
    named = path.removesuffix(".py").removeprefix("./").replace("/", ".").strip(".")
    return named if named != path and all(map(str.isidentifier, named.split("."))) else ""


def application_traceback(error: BaseException) -> str:
    """Render the traceback without the frames above the application: ours and those of the import system."""
    rendered = traceback.TracebackException.from_exception(error)
    frames = list(rendered.stack)
    while frames and frames[0].filename.startswith(_FRAMES_TO_TRIM):
        del frames[0]
    rendered.stack = traceback.StackSummary.from_list(frames)
    return "".join(rendered.format())


def _is_or_contains(missing: str | None, module_name: str) -> bool:
    """Whether the missing module is the wanted one or a package above it, not something that it imports."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")
