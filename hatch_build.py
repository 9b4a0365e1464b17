"""Builds the part in C (obsserve/speedups), where there is a compiler; without one the package is built without it."""

from __future__ import annotations

import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "obsserve/speedups"


class SpeedupsHook(BuildHookInterface):
    """Compiles in place, which serves an editable install as well as a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface's
        # It counts on CPython's objects, and on the interpreter's lock.
        if platform.python_implementation() != "CPython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
            return
        if os.environ.get("OBSSERVE_PURE_PYTHON"):
            return
        try:
            built = self._build()
        except Exception as fault:  # noqa: BLE001 - whatever is missing: the package works without
            self.app.display_warning(f"obsserve is built without its part in C, and will be slower: {fault}")
            return
        build_data["artifacts"].append(built)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def _build(self) -> str:
        """Compile; return the path of what was made."""
        from setuptools import Distribution, Extension  # noqa: PLC0415 - only a build has it
        from setuptools.command.build_ext import build_ext  # noqa: PLC0415

        os.chdir(self.root)
        sources = sorted(str(path) for path in Path(PACKAGE).glob("*.c"))
        headers = sorted(str(path) for path in Path(PACKAGE).glob("*.h"))
        flags = [] if os.name == "nt" else ["-fvisibility=hidden"]
        extension = Extension(
            f"{PACKAGE.replace('/', '.')}._native", sources, depends=headers, extra_compile_args=flags
        )
        command = build_ext(Distribution({"name": "obsserve", "ext_modules": [extension]}))
        command.inplace = True
        command.ensure_finalized()
        command.run()
        return str(
            Path(command.get_ext_fullpath(extension.name)).resolve().relative_to(Path(self.root).resolve())
        )
