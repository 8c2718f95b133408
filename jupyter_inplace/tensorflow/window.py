"""One watch of TensorFlow, from its start to what it adds to the report of the cell."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from jupyter_inplace import _faults
from jupyter_inplace.explain.names.names import namespaces, user_frame
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.report.data import Cell, Report
from jupyter_inplace.report.unknown import left_open
from jupyter_inplace.tensorflow.explain.analyse import TapeAnalyst
from jupyter_inplace.tensorflow.explain.assemble import TapeAssembly, TapeSpan
from jupyter_inplace.tensorflow.explain.combine import combined
from jupyter_inplace.tensorflow.explain.names import TapeNames
from jupyter_inplace.tensorflow.record.patches import Patches
from jupyter_inplace.tensorflow.record.session import TapeSession, session_here


def begin(
    *,
    tasks: tuple[str, ...] = (),
    gradients: bool | None = None,
    cell: Cell | None = None,
    labels: Mapping[str, str] | None = None,
    cell_file: str | None = None,
    namespace: Any = None,
    frame: types.FrameType | None = None,
    run_eagerly: bool = False,
    **_others: Any,
) -> TapeWindow:
    """Open a watch of TensorFlow on this thread; the parameters are those of `jupyter_inplace.watch`."""
    space = namespace if namespace is not None else frame.f_globals if frame is not None else {}
    window = TapeWindow(session_here() or TapeSession(), tasks, cell, space if callable(space) else lambda: space)
    window.labels, window.cell_file = dict(labels or {}), cell_file
    window.gradients, window.run_eagerly = gradients, run_eagerly
    window.open()
    return window


class TapeWindow:
    """An open watch: a range of program order in the record of the session."""

    def __init__(
        self,
        session: TapeSession,
        tasks: tuple[str, ...],
        cell: Cell | None,
        namespace: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.session, self.tasks, self.cell, self.namespace = session, tasks, cell, namespace
        self.labels: dict[str, str] = {}
        self.cell_file: str | None = None
        self.gradients: bool | None = None
        self.run_eagerly = False
        self.start = 0
        self.started = 0.0
        self._before: tuple[Any, ...] = ()
        self._counts: dict[Any, int] = {}
        self._ran_eagerly: bool | None = None
        self._used = False

    def resolver(self) -> SiteResolver:
        return SiteResolver(self.labels, self.cell_file, None if self.cell is None else self.cell.source)

    def open(self) -> None:
        """Install the watch."""
        session = self.session
        self._before = (session.cell_files, session.on_gradient, session.gradients, session.used)
        if self.cell_file is not None:
            session.cell_files = frozenset((self.cell_file,))
        session.on_gradient = TapeAnalyst(self.resolver, self.namespace)
        session.gradients = self.gradients
        session.used = False
        self.start, self.started = session.order, session.seconds()
        self._counts = {key: row.count for key, row in session.rows.items()}
        session.install(Patches)
        if self.run_eagerly:
            self._ran_eagerly = tf.config.functions_run_eagerly()
            tf.config.run_functions_eagerly(True)

    def go_on_in(self, cell_file: str, label: str) -> None:
        """From here on, the watched cell's code is in another file."""
        self.cell_file = cell_file
        self.labels[cell_file] = label
        self.session.cell_files = frozenset((cell_file,))

    def stop(self) -> None:
        """Remove everything."""
        session = self.session
        self._used = session.used
        if self._ran_eagerly is not None:
            tf.config.run_functions_eagerly(self._ran_eagerly)
        session.remove()
        session.cell_files, session.on_gradient, session.gradients, session.used = self._before
        session.used |= self._used

    def add_to(self, report: Report, _error: BaseException | None) -> Report:
        """The report of the cell with our findings added. Our own faults are not raised."""
        session, used = self.session, self._used
        try:
            names = TapeNames(namespaces(user_frame(), self.namespace()))
            rows = {
                key: (row, row.count - self._counts.get(key, 0))
                for key, row in session.rows.items()
                if row.count > self._counts.get(key, 0)
            }
            span = TapeSpan(self.start, self.started, self.cell, self.cell_file, self.tasks, self.labels)
            own = TapeAssembly(session, span, list(rows.values()), names, self.resolver()).report(used)
            return combined(report, own, used)
        except Exception as fault:  # the report of the other framework must survive
            _faults.show(fault)
            note = f"TensorFlow's part of the report could not be worked out: {type(fault).__name__}: {fault}"
            return left_open(report, note)
