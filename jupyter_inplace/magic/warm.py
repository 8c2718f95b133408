"""Imports our modules right after the cell that imports torch, so that the first watched cell starts without delay.

They are many small modules that need torch, which `%load_ext` does not import. The tripwires are made at the same time, so that
they can be used from the start of a watch. Each of the two takes about 30 ms.
"""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from typing import Any

_EVENT = "post_run_cell"
# The modules that a watch loads when it begins; they import the others.
_MODULES = (
    "jupyter_inplace.record.session",
    "jupyter_inplace.explain.backward.analyst",
    "jupyter_inplace.explain.report.assemble",
    "jupyter_inplace.explain.errors.refused",
    "jupyter_inplace.explain.window",
    "jupyter_inplace.rewrite.proofs",
    "jupyter_inplace.report.summary",
)


def warm_up() -> None:
    """Import what a watch loads when it begins, and make the tripwires. Needs torch."""
    for name in _MODULES:
        import_module(name)
    import_module("jupyter_inplace.record.base.dynamo").keep_out()
    import_module("jupyter_inplace.record.dispatch.tripwires").ready()


class WarmUp:
    """Warms up after the first cell at whose end torch is imported."""

    def __init__(self, shell: Any) -> None:
        self._events = shell.events

    def install(self) -> None:
        """Start to wait."""
        self._events.register(_EVENT, self._after_cell)

    def remove(self) -> None:
        """Stop waiting."""
        if self._after_cell in self._events.callbacks[_EVENT]:
            self._events.unregister(_EVENT, self._after_cell)

    def _after_cell(self, *_: Any) -> None:
        if "torch" not in sys.modules:
            return
        self.remove()
        with contextlib.suppress(Exception):  # a watch will run into the same error, and report it
            warm_up()
