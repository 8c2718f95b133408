"""Short watches over some steps of a long loop, merged into one report with memory that does not grow."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from jupyter_inplace import _faults
from jupyter_inplace.progress import Progress
from jupyter_inplace.report.merge import Merger
from jupyter_inplace.show.report import Report

if TYPE_CHECKING:
    from jupyter_inplace.explain.window import Window

Open = Callable[[types.FrameType | None], "Window"]
Close = Callable[["Window", BaseException | None], Report]
Unwatched = Callable[[Exception], Report]


class Steps:
    """Opens a window over one in `every` steps, and merges their reports.

    :param every: the first of so many steps is watched: 0, `every`, twice `every` and so on.
    :param open_window: begins a watch; `close_window` ends it and gives its report.
    :param unwatched: gives the report of a step that could not be watched.
    :param progress: False: never tell how far the loop is; None: where somebody may be looking.
    """

    def __init__(
        self, every: int, open_window: Open, close_window: Close, progress: bool | None, unwatched: Unwatched
    ) -> None:
        self._every = every
        self._open, self._close, self._unwatched = open_window, close_window, unwatched
        self._merger = Merger[Report]()
        self._window: Window | None = None
        self._told: Report | None = None
        self._verdict = "harmless"
        self.progress = Progress(progress)
        self.begun = 0
        self.watched = 0

    @property
    def window(self) -> Window | None:
        """The window over the current step; None if that step is not watched."""
        return self._window

    def begin(self, frame: types.FrameType | None) -> None:
        """The next step begins, which ends the current one."""
        self.end(None)
        if self.begun % self._every == 0:
            try:
                self._window = self._open(frame)
            except Exception as fault:  # noqa: BLE001 (the loop goes on; its report says so)
                _faults.show(fault)
                self._merger.add(self._unwatched(fault), step=self.begun)
        self.begun += 1
        self.progress.update(self.begun, self.watched, self._verdict)

    def end(self, error: BaseException | None) -> None:
        """The current step is over; what follows belongs to no step."""
        window, self._window = self._window, None
        if window is None:
            return
        self.watched += 1
        self._told = None
        self._merger.add(self._close(window, error), step=self.begun - 1)
        self._verdict = self._merger.verdict

    def report(self) -> Report | None:
        """The merged report of the steps so far; None until the first watched one is over."""
        if self._told is None and self.watched:
            self._told = self._merger.report(self.begun)
        return self._told

    def finish(self, error: BaseException | None) -> Report:
        """End the last step. `error` is the exception that ended the loop."""
        self.progress.close()
        unwatched = None
        if self._window is None and error is not None and self.begun:
            unwatched = f"the {type(error).__name__} came in step {self.begun - 1:,}, which was not watched"
        if self._window is None and (error is not None or not self.watched):
            # Nobody saw how it came to this; where it was raised, and whether torch refused a write there, can be said.
            try:
                self._merger.add(self._close(self._open(None), error))
            except Exception as fault:  # noqa: BLE001 (the same)
                _faults.show(fault)
                self._merger.add(self._unwatched(fault))
        self.end(error)
        report = self._merger.report(self.begun, error_unseen=unwatched)
        if not self.begun:
            note = "no step was begun: call `step()` at the head of the loop, or loop over `steps(...)`"
            report = replace(report, summary=f"{note}.", blind_spots=(*report.blind_spots, note))
        return report
