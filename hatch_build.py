"""Builds the front end with npm where its outputs are missing or older than its sources.

An sdist carries the outputs and no sources, so that a wheel can be made from it without node.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OUTPUTS = ("jupyter_inplace/static/panel.js", "jupyter_inplace/labextension/package.json")
SOURCES = ("src", "schema", "package.json", "package-lock.json", "build.mjs", "tsconfig.json")


class FrontEndHook(BuildHookInterface[Any]):
    """Runs `npm ci` and `npm run build` in `labextension/` when that is needed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 (the interface's)
        """Makes the outputs, or says in one sentence what is missing."""
        root = Path(self.root)
        package = root / "labextension"
        outputs = [root / name for name in OUTPUTS]
        complete = all(output.is_file() for output in outputs)
        if not (package / "package.json").is_file():
            if complete:
                return
            raise RuntimeError("The built front end is missing, and so are its sources in labextension/.")
        if complete and min(map(_modified, outputs)) >= max(map(_modified, _sources(package))):
            return
        npm = shutil.which("npm")
        if npm is None:
            if complete:
                self.app.display_warning("npm is missing: the front end stays as it was built before its last changes")
                return
            raise RuntimeError("The notebook panel is built with npm, which is missing: install Node.js 20 or newer.")
        self.app.display_info("building the notebook panel with npm")
        if not _has_tools(package):
            subprocess.run([npm, "ci", "--omit=dev", "--no-audit", "--no-fund"], cwd=package, check=True)
        subprocess.run([npm, "run", "build"], cwd=package, check=True)


def _has_tools(package: Path) -> bool:
    """Whether the packages of the current lock file are installed."""
    installed = package / "node_modules" / ".package-lock.json"
    return installed.is_file() and _modified(installed) >= _modified(package / "package-lock.json")


def _sources(package: Path) -> Iterator[Path]:
    for name in SOURCES:
        path = package / name
        if path.is_dir():
            yield from (item for item in path.rglob("*") if item.is_file())
        elif path.is_file():
            yield path


def _modified(path: Path) -> float:
    return path.stat().st_mtime
