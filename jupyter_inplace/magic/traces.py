"""Keeps frames of this package out of the user's tracebacks."""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from jupyter_inplace.explain.errors.tracebacks import hide_own_frames


class TraceFilter:
    """While a watch is open, the shell shows tracebacks without frames of this package."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._before: Any = None

    def install(self) -> None:
        """Hook the shell's `showtraceback`, once."""
        if self._before is not None:
            return
        show = self._before = self._shell.showtraceback

        def showtraceback(exc_tuple: Any = None, *args: Any, **keywords: Any) -> Any:
            hide_own_frames(exc_tuple[1] if exc_tuple else sys.exc_info()[1])
            return show(exc_tuple, *args, **keywords)

        self._ours = self._shell.showtraceback = showtraceback

    def remove(self) -> None:
        """Restore the previous method, unless someone else has replaced ours in the meantime."""
        before, self._before = self._before, None
        if before is None or vars(self._shell).get("showtraceback") is not self._ours:
            return
        del self._shell.showtraceback
        if self._shell.showtraceback != before:
            self._shell.showtraceback = before
