"""Short watches over some steps of a long loop, merged into one report with memory that does not grow."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from jupyter_inplace.progress import Progress
from jupyter_inplace.report.merge import Merger
from jupyter_inplace.show.report import Report

if TYPE_CHECKING:
    from jupyter_inplace.explain.window import Window

Open = Callable[[types.FrameType | None], "Window"]
Close = Callable[["Window", BaseException | None], Report]


class Steps:
    """Opens a window over one in `every` steps, and merges their reports.

    :param every: the steps watched are 0, `every`, 2 * `every` and so on.
    :param open_window: begins a watch; `close_window` ends it and returns its report.
    :param progress: False to show no progress; None to show it where somebody may be looking.
    """

    def __init__(self, every: int, open_window: Open, close_window: Close, progress: bool | None) -> None:
        self._every = every
        self._open, self._close = open_window, close_window
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
            self._window = self._open(frame)
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
            # The step was not watched; still, the report says where the error was raised and whether torch refused a write there.
            self._merger.add(self._close(self._open(None), error))
        self.end(error)
        report = self._merger.report(self.begun, error_unseen=unwatched)
        if not self.begun:
            note = "no step was begun: call `step()` at the head of the loop, or loop over `steps(...)`"
            report = replace(report, summary=f"{note}.", blind_spots=(*report.blind_spots, note))
        return report
