"""Other frameworks that take part in a watch: each has a companion, which adds its own rows to the report.

A companion starts with the watch if its framework is imported already, else when the program imports it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from jupyter_inplace.frameworks.import_hook import OnArrival
from jupyter_inplace.report.data import Report
from jupyter_inplace.report.unknown import left_open

#: By the module whose import shows that a framework is used: the module with the `begin` of its companion.
COMPANIONS: Mapping[str, str] = {"tensorflow": "jupyter_inplace.tensorflow.window"}
#: The modules whose import shows that there is something to watch: torch, and those with a companion.
FRAMEWORKS = ("torch", *COMPANIONS)

#: By framework, as the mutations of a report name it: the module with its rewrites.
REWRITES: Mapping[str, str] = {"tensorflow": "jupyter_inplace.tensorflow.rewrite.fixes"}


def rewriting(report: Report) -> list[Any]:
    """The modules with rewrites for a report; each has the functions `wanted` and `fixes`."""
    found = [importlib.import_module(module) for name, module in REWRITES.items() if name in report.framework]
    return [module for module in found if module.wanted(report)]


class Companion(Protocol):
    """The watch of one framework."""

    def stop(self) -> None:
        """Stop watching."""

    def add_to(self, report: Report, error: BaseException | None) -> Report:
        """The report, with what this companion saw. Raises nothing."""

    def go_on_in(self, cell_file: str, label: str) -> None:
        """From now on the code of the watched cell comes from another file."""


class Companions:
    """The companions of one watch. `options` are the options of the watch, passed on unchanged."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._begun: list[Companion] = []
        self._waiting: list[Any] = []

    def begin(self) -> None:
        """Start those whose framework is imported; wait for the others."""
        for name, module in COMPANIONS.items():
            if name in sys.modules:
                self._start(module)
            else:
                waiting = OnArrival(name, lambda module=module: self._start(module))  # type: ignore[misc]
                waiting.install()
                self._waiting.append(waiting)

    def go_on_in(self, cell_file: str, label: str) -> None:
        self._options["cell_file"] = cell_file
        for companion in self._begun:
            companion.go_on_in(cell_file, label)

    def stop(self) -> None:
        """Stop all of them, and stop waiting."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.remove()
        for i, companion in enumerate(self._begun):
            try:
                companion.stop()
            except Exception as fault:  # noqa: BLE001 (the others are to be stopped too, and the report made)
                self._begun[i] = _Failed(type(companion).__module__, fault)

    @property
    def seen(self) -> tuple[Companion, ...]:
        """The companions that took part."""
        return tuple(self._begun)

    def add_to(self, report: Report, error: BaseException | None) -> Report:
        """The report, with what each of them saw."""
        for companion in self._begun:
            try:
                report = companion.add_to(report, error)
            except Exception as fault:  # noqa: BLE001 (what the others saw is not to be lost)
                report = _Failed(type(companion).__module__, fault).add_to(report, error)
        return report

    def _start(self, module: str) -> None:
        try:
            self._begun.append(importlib.import_module(module).begin(**self._options))
        except Exception as fault:  # noqa: BLE001 (the program goes on; its report says what is missing)
            self._begun.append(_Failed(module, fault))


class _Failed:
    """Stands for a companion that failed, to say so."""

    def __init__(self, module: str, fault: Exception) -> None:
        self._module, self._fault = module, fault

    def stop(self) -> None:
        pass

    def add_to(self, report: Report, _error: BaseException | None) -> Report:
        note = f"{self._module} could not watch: {type(self._fault).__name__}: {self._fault}"
        return left_open(report, note)

    def go_on_in(self, cell_file: str, label: str) -> None:
        pass
