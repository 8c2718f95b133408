"""`watch()`: the one way in. The magic, scripts, the command line and pytest are its callers."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from jupyter_inplace._rank import stamped
from jupyter_inplace.report import Cell, Report

if TYPE_CHECKING:
    from jupyter_inplace.steps import Steps

Item = TypeVar("Item")

_active = threading.local()  # the one session of this thread, and the watches open in it

Namespace = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None


class watch:
    """Watch a block of PyTorch code for in-place writes and what they do to its gradients.

    ```python
    with watch("loss1", "loss2") as report:
        ...
    print(report)
    ```

    :param tasks: names of the losses to tell apart. Without names the roots of each backward call are the tasks, a summed root
        split into its addends.
    :param fingerprint: ``"exported"``, ``"all"`` or ``"off"``: which saved tensors are compared with what they were, to
        find writes that torch does not see.
    :param gradients: True works out every gradient, False none; None only where a saved tensor was overwritten.
    :param cell: the notebook cell that is watched, if it is one; `labels` maps file names to what people call them,
        `cell_file` is its file name, `namespace` where its names live.

    :param every: watch one step in so many of a long loop, in flat memory; `steps` or `step` says where a step begins:

        ```python
        with watch(every=100) as report:
            for batch in report.steps(loader):
                ...
        ```

    :param progress: False: do not tell how far such a loop is. Else a line in a terminal, a bar in a notebook with tqdm.

    The object is a handle from the first line on: once the block is over its attributes are those of the newest `Report`.
    Raises nothing of its own while the block runs; an exception of the block's passes through unchanged.
    """

    def __init__(
        self,
        *tasks: str,
        fingerprint: str = "exported",
        gradients: bool | None = None,
        cell: Cell | None = None,
        labels: Mapping[str, str] | None = None,
        cell_file: str | None = None,
        namespace: Namespace = None,
        every: int | None = None,
        progress: bool | None = None,
    ) -> None:
        if fingerprint not in ("exported", "all", "off"):
            raise ValueError(f"`fingerprint` is one of exported, all, off, not {fingerprint!r}")
        for name in tasks:
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"a task is given by its name, a string such as 'loss', not {name!r}")
        if every is not None and (type(every) is not int or every < 1):
            raise ValueError(f"`every` is a number of steps, 1 or more, not {every!r}")
        self._tasks = tasks
        self._fingerprint = fingerprint
        self._gradients = gradients
        self._cell = cell
        self._labels = dict(labels or {})
        self._cell_file = cell_file
        self._namespace = namespace
        self._every = every
        self._progress = progress
        self._report: Report | None = None
        self._window: Any = None
        self._steps: Steps | None = None
        self._frame: types.FrameType | None = None

    @property
    def report(self) -> Report | None:
        """The newest report, None while the block runs; with `every`, that of the steps watched until now."""
        return self._report if self._steps is None else self._steps.report()

    def start(self) -> watch:
        """Put the watch in force on this thread. Use `stop` to end it, whatever happened in between."""
        if self._running:
            raise RuntimeError("this watch is running already; make a new one with watch()")
        frame, self._frame = self._frame or sys._getframe(1), None
        if self._every is None:
            self._window = self._open(frame)
            return self
        from jupyter_inplace.steps import Steps

        self._steps = Steps(self._every, self._open, lambda window, error: window.close(error), self._progress)
        if self._namespace is None:
            space = frame.f_globals
            self._namespace = lambda: space
        return self

    def _open(self, frame: types.FrameType | None) -> Any:
        from jupyter_inplace.explain.window import Window

        return Window.open(
            _active,
            tasks=self._tasks,
            fingerprint=self._fingerprint,
            gradients=self._gradients,
            cell=self._cell,
            labels=self._labels,
            cell_file=self._cell_file,
            namespace=self._namespace,
            frame=frame,
        )

    @property
    def _running(self) -> bool:
        return self._window is not None or self._steps is not None

    def stop(self, error: BaseException | None = None) -> Report:
        """Take the watch out of force and say what it saw. `error` is the exception that ended the block, if one did."""
        steps, self._steps = self._steps, None
        if steps is not None:
            self._report = stamped(steps.finish(error))
            return self._report
        window, self._window = self._window, None
        if window is None:
            if self._report is None:
                raise RuntimeError("this watch was never started; use `with watch() as report:`")
            return self._report
        self._report = stamped(window.close(error))
        return self._report

    # --- a long loop --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """A step of the loop begins here: with `every`, one in so many is watched. Without it, all are, as one.

        :raises RuntimeError: the watch is not running.
        """
        if self._steps is not None:
            self._steps.begin(sys._getframe(1))
        elif self._window is None:
            raise RuntimeError("`step()` belongs inside of `with watch(every=...) as report:`")

    def steps(self, iterable: Iterable[Item]) -> Iterator[Item]:
        """The items of `iterable`, each one a step that lasts until the next one is asked for.

        :raises RuntimeError: the watch is not running.
        """
        if not self._running:
            raise RuntimeError("`steps(...)` belongs inside of `with watch(every=...) as report:`")
        if self._steps is not None:
            self._steps.progress.over(iterable)
        return self._each(iterable)

    def _each(self, iterable: Iterable[Item]) -> Iterator[Item]:
        for item in iterable:
            if self._steps is not None:
                self._steps.begin(sys._getframe(1))
            yield item
            if self._steps is not None:
                self._steps.end(None)  # what the loader does next is no part of the step

    def __enter__(self) -> watch:
        self._frame = sys._getframe(1)
        return self.start()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.stop(error)
        if error is not None:
            from jupyter_inplace.explain.tracebacks import without_own_frames

            error.__traceback__ = without_own_frames(error.__traceback__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        report = self.report if "_steps" in self.__dict__ else None
        if report is None:
            raise AttributeError(f"the watch has no {name!r} yet: its block is still running, or never ran")
        return getattr(report, name)

    def __str__(self) -> str:
        return str(self._report) if self._report is not None else "watching: the report comes when the block is over"

    def __repr__(self) -> str:
        return (
            f"<watch: {self._report.verdict}>"
            if self._report is not None
            else "<watch: running>"
            if self._running
            else "<watch>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if self._report is None:
            return {"text/plain": str(self)}
        return self._report._repr_mimebundle_(include, exclude)
