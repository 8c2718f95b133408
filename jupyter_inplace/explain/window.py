"""One watch from its start to its report: a window of program order in the record of the session."""

from __future__ import annotations

import dataclasses
import functools
import linecache
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch

from jupyter_inplace import _faults
from jupyter_inplace._interrupts import uninterrupted
from jupyter_inplace.explain.backward.analyst import Analyst
from jupyter_inplace.explain.backward.options import AnalysisOptions
from jupyter_inplace.explain.channels.grad_aliases import mentions_grad
from jupyter_inplace.explain.errors.tracebacks import hide_own_frames
from jupyter_inplace.explain.errors.wording import ErrorWording
from jupyter_inplace.explain.graph.quiet import quiet
from jupyter_inplace.explain.names.names import Names, namespaces, user_frame
from jupyter_inplace.explain.report.assemble import Assembly, with_missing_tasks
from jupyter_inplace.explain.report.span import WatchSpan
from jupyter_inplace.frameworks.companions import Companions
from jupyter_inplace.record.active import active
from jupyter_inplace.record.channels.alias_values import writes_through_aliases
from jupyter_inplace.record.saved import message
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.source import sites
from jupyter_inplace.report.data import Cell, Error, Report
from jupyter_inplace.report.unknown import left_open


class Window:
    """An open watch."""

    def __init__(self, session: Session, analyst: Analyst, cell: Cell | None, cell_file: str | None) -> None:
        self.session = session
        self.start = 0  # in program order
        self.started = 0.0
        self._analyst, self._cell, self._cell_file = analyst, cell, cell_file
        self._block: tuple[str, int] | None = None
        self._before = (analyst.options, session.cell_files)  # of the enclosing watch
        self._end: int | None = None  # in program order, once the watch is removed
        self._settled = False
        #: The watches of other frameworks.
        self.companions = Companions({})

    @classmethod
    def open(
        cls,
        *,
        tasks: tuple[str, ...] = (),
        fingerprint: str = "exported",
        gradients: bool | None = None,
        cell: Cell | None = None,
        labels: Mapping[str, str] | None = None,
        cell_file: str | None = None,
        namespace: Any = None,
        frame: types.FrameType | None = None,
        run_eagerly: bool = False,
    ) -> Window:
        """Begin a watch on this thread, in the open session or else in a new one.

        The parameters are those of `jupyter_inplace.watch`; `frame` is where the watch was opened.
        """
        session: Session | None = getattr(active, "session", None)
        if session is None:
            session = active.session = Session()
            session.analyst = Analyst()
        analyst: Analyst = session.analyst
        look_up: Callable[[], Mapping[str, Any]]
        if callable(namespace):
            look_up = namespace
        else:
            look_up = _Fixed(namespace if namespace is not None else frame.f_globals if frame is not None else {})
        given = {"tasks": tasks, "gradients": gradients, "cell": cell, "labels": labels or {}, "cell_file": cell_file}
        window = cls(session, analyst, cell, cell_file)
        analyst.labels.update(labels or {})
        analyst.options = AnalysisOptions(tasks, look_up, gradients)
        window._begin(fingerprint, frame)
        window.companions = Companions({**given, "namespace": look_up, "frame": frame, "run_eagerly": run_eagerly})
        window.companions.begin()
        return window

    def _begin(self, fingerprint: str, frame: types.FrameType | None) -> None:
        session, analyst = self.session, self._analyst
        session.exported_memory.policy = fingerprint
        self._enter_file(self._cell_file)
        analyst.new_window()
        session.before_backward, session.after_failure = analyst.before_backward, analyst.after_failure
        session.after_backward = analyst.after_backward
        session.grad_aliases.overwritten = functools.partial(analyst.gradient_overwritten, session)
        source = self._cell.source if self._cell is not None else _file_source(frame)
        session.grad_aliases.wanted = mentions_grad(source)
        session.alias_values.wanted = writes_through_aliases(source)
        message.explain = analyst.word
        self.start = session.open_window()
        self.started = session.seconds()
        self._block = None if frame is None else (frame.f_code.co_filename, frame.f_lineno)
        try:
            session.install()
        except BaseException:
            session.close_window()
            raise

    def _enter_file(self, cell_file: str | None) -> None:
        """From here on, the watched cell's code is in this file."""
        self._cell_file = cell_file
        if cell_file is not None:
            self.session.cell_files = frozenset((cell_file,))
        source = self._cell.source if self._cell is not None else None
        wording = ErrorWording(self._analyst.labels, cell_file, source)
        self._analyst.options = dataclasses.replace(self._analyst.options, wording=wording)

    def go_on_in(self, cell_file: str, label: str) -> None:
        """From here on, the watched cell's code is in another file, shown as `label`."""
        self._analyst.labels[cell_file] = label
        self.companions.go_on_in(cell_file, label)
        self._enter_file(cell_file)

    def close(self, error: BaseException | None) -> Report:
        """End the watch. Everything is removed before the report is computed; our own faults are never raised."""
        try:
            self.companions.stop()
            self._compare_exports()
            uninterrupted(self._leave)
            if error is not None:
                hide_own_frames(error)
            return self._report(error)
        finally:
            uninterrupted(self.abandon)

    def abandon(self) -> None:
        """End the watch without a report. Does nothing if it has already ended."""
        self._leave()
        if not self._settled:
            self._settled = True
            self._analyst.options, self.session.cell_files = self._before
            self._analyst.forget_current()
            if self.session.windows == 0:
                self.session.tidy()

    def _leave(self) -> None:
        """Remove everything, unless another watch is still open."""
        if self._end is None:
            self._end = self.session.close_window()
            if self.session.windows == 0:
                self.session.remove()
                message.explain = None

    def _compare_exports(self) -> None:
        session = self.session
        if session.exported_memory.reads:
            try:
                with quiet(session):
                    session.exported_memory.compare(None)
            except Exception as fault:
                session.fault(fault)

    def _report(self, error: BaseException | None) -> Report:
        assert self._end is not None
        span = WatchSpan(self.start, self._end, self.started, self._cell, self._cell_file, self._block)
        try:
            spaces = namespaces(user_frame(), self._analyst.options.space)
            spaces += _raising_spaces(error)
            report = Assembly(self.session, self._analyst, span, error, Names(spaces)).report()
        except Exception as fault:
            _faults.show(fault)
            note = f"the report could not be worked out: {type(fault).__name__}: {fault}"
            failed = Report(
                framework_version=str(torch.__version__),
                error=None if error is None else Error(type=type(error).__name__, message=_text_of(error)),
            )
            return self.companions.add_to(left_open(failed, note, self._cell), error)
        return with_missing_tasks(self.companions.add_to(report, error), self._analyst.options.wanted)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the program's own class: what it says of itself is its affair
        return ""


class _Fixed:
    """A namespace that is always the same object."""

    def __init__(self, space: Mapping[str, Any]) -> None:
        self._space = space

    def __call__(self) -> Mapping[str, Any]:
        return self._space


def _file_source(frame: types.FrameType | None) -> str | None:
    return None if frame is None else "".join(linecache.getlines(frame.f_code.co_filename))


def _raising_spaces(error: BaseException | None) -> list[Mapping[str, Any]]:
    """The locals of the functions that the error passed through, outermost first: their names would be lost otherwise."""
    found: list[Mapping[str, Any]] = []
    tb = error.__traceback__ if error is not None else None
    while tb is not None:
        if sites.is_user_frame(tb.tb_frame) and tb.tb_frame.f_code.co_name != "<module>":
            found.append(sites.locals_of(tb.tb_frame))
        tb = tb.tb_next
    return found
