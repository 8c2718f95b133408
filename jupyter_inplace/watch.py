"""`watch()`: the one way in. The magic, scripts, the command line and pytest are its callers."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_inplace._rank import stamped
from jupyter_inplace.report import Cell, Report

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

    The object is a handle from the first line on: once the block is over its attributes are those of the newest `Report`.
    Raises nothing of its own while the block runs; an exception of the block's passes through unchanged.
    """

    def __init__(
        self, *tasks: str, fingerprint: str = "exported", gradients: bool | None = None, cell: Cell | None = None,
        labels: Mapping[str, str] | None = None, cell_file: str | None = None, namespace: Namespace = None,
    ) -> None:  # fmt: skip
        if fingerprint not in ("exported", "all", "off"):
            raise ValueError(f"`fingerprint` is one of exported, all, off, not {fingerprint!r}")
        for name in tasks:
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"a task is given by its name, a string such as 'loss', not {name!r}")
        self._tasks = tasks
        self._fingerprint = fingerprint
        self._gradients = gradients
        self._cell = cell
        self._labels = dict(labels or {})
        self._cell_file = cell_file
        self._namespace = namespace
        self._report: Report | None = None
        self._window: Any = None
        self._frame: types.FrameType | None = None

    @property
    def report(self) -> Report | None:
        """The newest report, None while the block runs."""
        return self._report

    def start(self) -> watch:
        """Put the watch in force on this thread. Use `stop` to end it, whatever happened in between."""
        if self._window is not None:
            raise RuntimeError("this watch is running already; make a new one with watch()")
        if self._frame is None:
            self._frame = sys._getframe(1)
        from jupyter_inplace.explain.window import Window

        self._window = Window.open(
            _active, tasks=self._tasks, fingerprint=self._fingerprint, gradients=self._gradients, cell=self._cell, labels=self._labels,
            cell_file=self._cell_file, namespace=self._namespace, frame=self._frame,
        )  # fmt: skip
        self._frame = None
        return self

    def stop(self, error: BaseException | None = None) -> Report:
        """Take the watch out of force and say what it saw. `error` is the exception that ended the block, if one did."""
        window, self._window = self._window, None
        if window is None:
            if self._report is None:
                raise RuntimeError("this watch was never started; use `with watch() as report:`")
            return self._report
        self._report = stamped(window.close(_active, error))
        return self._report

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
        report = self.__dict__.get("_report")
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
            if self._window
            else "<watch>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if self._report is None:
            return {"text/plain": str(self)}
        return self._report._repr_mimebundle_(include, exclude)
