"""`watch()`, the entry point. The magic, scripts, the command line and pytest all call it."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from jupyter_inplace import _faults
from jupyter_inplace._interrupts import uninterrupted
from jupyter_inplace._rank import stamped
from jupyter_inplace.report.data import Cell
from jupyter_inplace.report.data import Report as Data
from jupyter_inplace.report.unknown import left_open, not_watched
from jupyter_inplace.show.report import Report, public

if TYPE_CHECKING:
    from jupyter_inplace.explain.window import Window
    from jupyter_inplace.rewrite.before import Before
    from jupyter_inplace.rewrite.proofs import Proofs
    from jupyter_inplace.rewrite.rewind.rewind import Rewound
    from jupyter_inplace.show.panel import Panel
    from jupyter_inplace.steps import Steps

Item = TypeVar("Item")

# Attributes of the report that wait until all proofs have arrived.
_WHOLE = frozenset(("fixes", "to_dict", "to_json", "to_html", "portable", "apply"))

Namespace = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None


class watch:
    """Watch a block of PyTorch (or TensorFlow) code for in-place writes and what they do to its gradients.

    ```python
    with watch("loss1", "loss2") as report:
        ...
    print(report)
    ```

    The object is a handle: once the block is over, its attributes are those of the newest `Report`.
    The watch raises nothing while the block runs, and an exception raised in the block passes through unchanged.

    :param tasks: the names of the losses to distinguish. Without names, the tasks are the roots of each backward call; a root
        that is a sum is split into its terms.
    :param fingerprint: ``"exported"``, ``"all"`` or ``"off"``: which saved tensors are compared with their values at the time
        they were saved, to find writes that torch does not see.
    :param gradients: True computes every gradient, False none, None only those that a write harmed.
    :param cell: the notebook cell that is watched, if it is one.
    :param labels: by file name, what people call the file.
    :param cell_file: the file name of the cell's code.
    :param namespace: the variables of the cell, or a function that returns them.
    :param every: watch one in `every` steps of a long loop, with memory that does not grow; `steps` or `step` says where a step
        begins:

        ```python
        with watch(every=100) as report:
            for batch in report.steps(loader):
                ...
        ```

    :param progress: False to show no progress of such a loop. Otherwise a line in a terminal, or a tqdm bar in a notebook.
    :param verify: True to make rewrites of a `cell` with harmful writes and to run each on a copy of the state from before the
        cell; or the `jupyter_inplace.rewrite.before.Before` that holds such a copy.
    :param verify_seconds: the seconds that all proofs of the cell share; 30 if not given.
    :param run_eagerly: run the Python code of each `tf.function` while the watch is open, so that everything inside is seen;
        many times slower.
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
        verify: bool | Before = False,
        verify_seconds: float | None = None,
        run_eagerly: bool = False,
    ) -> None:
        if fingerprint not in ("exported", "all", "off"):
            raise ValueError(f"`fingerprint` is one of exported, all, off, not {fingerprint!r}")
        given: tuple[Any, ...] = tasks
        for name in given:
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
        self._verify, self._verify_seconds = verify, verify_seconds
        self._run_eagerly = run_eagerly
        self._before: Before | None = None
        self._proofs: Proofs | None = None
        self._began = 0.0
        self._report: Report | None = None
        #: Why the watch could not be put in force; None where it could.
        self.fault: Exception | None = None
        self._window: Any = None  # the `Window` of a watch over one block
        self._steps: Steps | None = None
        self._frame: types.FrameType | None = None

    @property
    def report(self) -> Report | None:
        """The newest report; None while the block runs. With `every`, the report of the steps watched so far."""
        if self._proofs is not None:
            return public(self._proofs.report)
        return self._report if self._steps is None else self._steps.report()

    @property
    def proofs(self) -> Proofs | None:
        """The rewrites of the cell, while they are made and proved; None if there is nothing to rewrite."""
        return self._proofs

    def start(self) -> watch:
        """Put the watch in force on this thread. Use `stop` to end it, whatever happened in between.

        Where that cannot be done (a torch that we cannot watch), the program goes on, `fault` says why, and so does the report,
        whose verdict is then ``"unknown"``.
        """
        if self._running:
            raise RuntimeError("this watch is running already; make a new one with watch()")
        self.fault = None
        frame, self._frame = self._frame or sys._getframe(1), None
        if self._every is None:
            self._keep_before()
            try:
                uninterrupted(self._begin, frame)
            except BaseException as fault:
                window, self._window = self._window, None
                if window is not None:  # Ctrl+C arrived while the window was being opened
                    uninterrupted(window.abandon)
                self._drop_before()
                if not isinstance(fault, Exception):
                    raise
                _faults.show(fault)
                self.fault = fault
            return self
        from jupyter_inplace.steps import Steps

        self._steps = Steps(self._every, self._open, _close, self._progress, _unwatched)
        if self._namespace is None:
            space = frame.f_globals
            self._namespace = lambda: space
        return self

    def _begin(self, frame: types.FrameType) -> None:
        self._window = self._open(frame)
        self._began = time.perf_counter()

    def _open(self, frame: types.FrameType | None) -> Any:
        from jupyter_inplace.explain.window import Window

        return Window.open(
            tasks=self._tasks,
            fingerprint=self._fingerprint,
            gradients=self._gradients,
            cell=self._cell,
            labels=self._labels,
            cell_file=self._cell_file,
            namespace=self._namespace,
            frame=frame,
            run_eagerly=self._run_eagerly,
        )

    def go_on_in(self, cell_file: str, label: str) -> None:
        """From now on the code of the watched cell comes from another file; `label` is what people call it."""
        self._cell_file = cell_file
        self._labels[cell_file] = label
        if self._window is not None:
            self._window.go_on_in(cell_file, label)

    @property
    def _running(self) -> bool:
        return self._window is not None or self._steps is not None or self.fault is not None

    def stop(self, error: BaseException | None = None) -> Report:
        """Stop watching and return the report. `error` is the exception that ended the block, if one did."""
        steps, self._steps = self._steps, None
        if steps is not None:
            self._report = stamped(steps.finish(error))
            return self._report
        window = self._window
        if self.fault is not None:
            self._report = stamped(_unwatched(self.fault, self._cell))
            self.fault = None
            return self._report
        if window is None:
            if self._report is None:
                raise RuntimeError("this watch was never started; use `with watch() as report:`")
            return self._report
        seconds = time.perf_counter() - self._began
        try:
            self._report = stamped(_close(window, error))
            self._prove(self._report, seconds)
        except BaseException:
            uninterrupted(window.abandon)
            self._drop_before()
            raise
        finally:
            self._window = None
        return self._report

    # --- rewrites of a cell -------------------------------------------------------------------------------------------

    def _keep_before(self) -> None:
        """Keep the state from before the cell: as late as possible, but before the watch starts."""
        self._proofs = None
        if self._cell is None or self._verify is False:
            return
        from jupyter_inplace.rewrite.before import Before

        self._before = Before.keep(self._names(), self._cell.source) if self._verify is True else self._verify

    def _drop_before(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            before.drop()

    def _names(self) -> dict[str, Any]:
        names = self._namespace() if callable(self._namespace) else self._namespace
        return names if isinstance(names, dict) else dict(names or {})

    def _prove(self, report: Report, seconds: float) -> None:
        before = self._before
        if before is None:
            return
        from jupyter_inplace.rewrite.proofs import Proofs
        from jupyter_inplace.rewrite.verify import SECONDS

        if not Proofs.wanted(report):
            self._drop_before()
            return
        self._proofs = Proofs(
            report,
            before,
            seconds=SECONDS if self._verify_seconds is None else self._verify_seconds,
            cell_seconds=seconds,
            taken=self._names().keys(),
        )
        self._proofs.start()

    def rewind(self) -> Rewound:
        """Restore, in place, the tensors, optimizer states and random generators that the watched cell changed.

        :return: what was restored, and what could not be.
        :raises RewindError: nothing was restored; the message says why.
        """
        if self._proofs is None:
            from jupyter_inplace.rewrite.rewind.rewind import RewindError

            raise RewindError(
                "no copy of the state from before was kept: the cell is still running"
                if self._running
                else "no copy of the state from before is kept where no harmful write was found"
            )
        return self._proofs.rewind(self._names())

    def panel(self) -> Panel:
        """The report as a widget, which is updated as proofs arrive.

        :raises RuntimeError: the block is still running, or never ran.
        """
        report = self.report
        if report is None:
            raise RuntimeError("the watch has no panel yet: its block is still running, or never ran")
        panel = report.panel()
        if self._proofs is not None:

            def show(newer: Data) -> None:
                panel.report = newer

            self._proofs.follow(show)
        return panel

    # --- a long loop --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """A step of the loop begins here. With `every`, one in so many is watched; without it, this has no effect.

        :raises RuntimeError: the watch is not running.
        """
        if self._steps is not None:
            self._steps.begin(sys._getframe(1))
        elif self._window is None:
            raise RuntimeError("`step()` belongs inside of `with watch(every=...) as report:`")

    def steps(self, iterable: Iterable[Item]) -> Iterator[Item]:
        """Iterate over `iterable`; each item is a step, which ends when the next item is requested.

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
                self._steps.end(None)  # the work of the data loader is not part of the step

    def __enter__(self) -> watch:
        self._frame = sys._getframe(1)
        self.start()
        if self.fault is not None:
            print(f"jupyter_inplace: {not_watched(self.fault)}", file=sys.stderr)  # noqa: T201 (the one line of a script)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.stop(error)
        if error is not None:
            from jupyter_inplace.explain.errors.tracebacks import hide_own_frames

            hide_own_frames(error)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        report = self.report if "_steps" in self.__dict__ else None
        if report is None:
            raise AttributeError(f"the watch has no {name!r} yet: its block is still running, or never ran")
        if self._proofs is not None and name in _WHOLE:
            report = public(self._proofs.wait())
        return getattr(report, name)

    def __str__(self) -> str:
        report = self.report
        return str(report) if report is not None else "watching: the report comes when the block is over"

    def __repr__(self) -> str:
        return (
            f"<watch: {self._report.verdict}>"
            if self._report is not None
            else "<watch: running>"
            if self._running
            else "<watch>"
        )

    def _repr_mimebundle_(self, **_wanted: Any) -> Any:
        report = self.report
        if report is None:
            return {"text/plain": str(self)}
        return report._repr_mimebundle_()


def _unwatched(fault: Exception, cell: Cell | None = None) -> Report:
    return left_open(Report(cell=cell), not_watched(fault))


def _close(window: Window, error: BaseException | None) -> Report:
    """Close a window. Its report is plain data; here, and only here, it becomes the public `Report`.

    All later reports are made from it by `dataclasses.replace`, which keeps the class.
    """
    return public(window.close(error))
