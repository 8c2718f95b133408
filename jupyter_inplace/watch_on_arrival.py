"""Watch a program that imports its framework by itself: the watch begins right after that import, not before.

A script may set environment variables for torch before it imports it, and a program without torch should not pay for the import.
"""

from __future__ import annotations

import sys

from jupyter_inplace._rank import stamped
from jupyter_inplace.frameworks.companions import FRAMEWORKS
from jupyter_inplace.frameworks.import_hook import OnArrival
from jupyter_inplace.report.unknown import left_open, not_watched
from jupyter_inplace.show.report import Report, nothing_ran
from jupyter_inplace.watch import watch


class WatchOnArrival:
    """A watch that begins at once if torch is imported already, else when the program imports it.

    :param made: the watch to start.
    """

    def __init__(self, made: watch) -> None:
        self._watch = made
        self._arrivals: list[OnArrival] = []
        self._began = False
        self.fault: Exception | None = None

    def begin(self) -> None:
        """Start to watch, or to wait for the import. If the watch cannot start, the reason is in `fault`."""
        if any(name in sys.modules for name in FRAMEWORKS):
            self._start()
        else:
            self._arrivals = [OnArrival(name, self._start) for name in FRAMEWORKS]
            for arrival in self._arrivals:
                arrival.install()

    def end(self, error: BaseException | None = None) -> Report:
        """Stop watching or waiting, and return the report.

        :param error: the exception that ended the program, if one did.
        """
        self._stop_waiting()
        if self._began or self._watch.fault is not None:
            return self._watch.stop(error)
        if self.fault is not None:
            return stamped(left_open(Report(), not_watched(self.fault)))
        came = [name for name in FRAMEWORKS if name in sys.modules]
        if came:
            return stamped(left_open(Report(), f"not watched: {came[0]} was imported on another thread"))
        return stamped(nothing_ran())

    @property
    def watched(self) -> bool:
        """Whether the program was watched, from the import of its framework on."""
        return self._began

    def _stop_waiting(self) -> None:
        for arrival in self._arrivals:
            arrival.remove()

    def _start(self) -> None:
        self._stop_waiting()
        try:
            self._watch.start()
            self.fault = self._watch.fault
            self._began = self.fault is None
        except Exception as fault:  # noqa: BLE001 (the program goes on unwatched, and its report says so)
            self.fault = fault
