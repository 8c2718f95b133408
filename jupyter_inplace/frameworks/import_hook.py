"""Programs that bring their framework themselves: the watch begins in the moment that its import is done, not before.

A script may set environment variables for torch ahead of its import, and a program without torch should not pay for it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from jupyter_inplace._rank import stamped
from jupyter_inplace.frameworks.companions import COMPANIONS
from jupyter_inplace.report.data import Report
from jupyter_inplace.watch import watch

#: The modules whose import says that there is something to watch: torch, and those that have a companion.
FRAMEWORKS = ("torch", *COMPANIONS)


class OnArrival:
    """Calls back once, right after a module has been imported for the first time, on the thread that asked.

    A cell need not name torch to use it: its own modules may import it.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then
        self._thread = threading.get_ident()
        self._searching = False

    def install(self) -> None:
        """Begin to wait."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Stop waiting."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing of our own: the real spec, with a loader that tells us when it is done."""
        if fullname != self._name or self._searching or threading.get_ident() != self._thread:
            return None
        self._searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            self.remove()
            spec.loader = _Telling(spec.loader, self._then)  # type: ignore[assignment]  # duck-typed: importlib.abc is slow
        return spec


class _Telling:
    """The real loader, and a call afterwards. The module itself gets to see the real one only."""

    def __init__(self, real: Any, then: Callable[[], None]) -> None:
        self._real = real
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """What the real loader makes."""
        made: ModuleType | None = self._real.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """What the real loader does, then the call."""
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        self._real.exec_module(module)
        self._then()


class WatchOnArrival:
    """A watch that begins at once where torch is imported already, else when the program imports it.

    :param made: what to put in force.
    """

    def __init__(self, made: watch) -> None:
        self._watch = made
        self._arrivals: list[OnArrival] = []
        self._began = False
        self.fault: Exception | None = None

    def begin(self) -> None:
        """Start to watch, or to wait. A watch that cannot start leaves its reason in `fault`."""
        if any(name in sys.modules for name in FRAMEWORKS):
            self._start()
        else:
            self._arrivals = [OnArrival(name, self._start) for name in FRAMEWORKS]
            for arrival in self._arrivals:
                arrival.install()

    def end(self, error: BaseException | None = None) -> Report:
        """Take everything away and say what happened.

        :param error: the exception that ended the program, if one did.
        """
        self._stop_waiting()
        if self._began:
            return self._watch.stop(error)
        from jupyter_inplace import __version__
        from jupyter_inplace.report.summary import build_summary

        if self.fault is not None:
            note = f"not watched: {self.fault!r}"
            return stamped(Report(tool=__version__, summary=f"{note}.", blind_spots=(note,)))
        return stamped(Report(tool=__version__, summary=build_summary((), framework_used=False)))

    def _stop_waiting(self) -> None:
        for arrival in self._arrivals:
            arrival.remove()

    def _start(self) -> None:
        self._stop_waiting()
        try:
            self._watch.start()
            self._began = True
        except Exception as fault:  # noqa: BLE001 (the program goes on unwatched, and its report says so)
            self.fault = fault
