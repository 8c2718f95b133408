"""One watch from its first moment to its report: a window of program order in the session's record."""

from __future__ import annotations

import functools
import linecache
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch

from jupyter_inplace import _faults
from jupyter_inplace._interrupts import uninterrupted
from jupyter_inplace._version import __version__
from jupyter_inplace.explain.backward.analyst import Analyst
from jupyter_inplace.explain.backward.damage import quiet
from jupyter_inplace.explain.channels.grad_aliases import mentions_grad
from jupyter_inplace.explain.errors.tracebacks import hide_own_frames
from jupyter_inplace.explain.errors.wording import ErrorWording
from jupyter_inplace.explain.names.names import Names, namespaces, user_frame
from jupyter_inplace.explain.report.assemble import Assembly
from jupyter_inplace.frameworks.companions import Companions
from jupyter_inplace.record.active import active
from jupyter_inplace.record.channels.alias_values import writes_through_aliases
from jupyter_inplace.record.saved import message
from jupyter_inplace.record.session import Session
from jupyter_inplace.record.source import sites
from jupyter_inplace.report.data import Cell, Error, Report


class Window:
    """An open watch."""

    def __init__(self, session: Session, analyst: Analyst, options: dict[str, Any]) -> None:
        self.session, self.analyst, self.options = session, analyst, options
        self.start = 0
        self.started = 0.0
        self._before: tuple[Any, ...] = ()
        self._end: int | None = None  # its last moment in program order, once it is out of force
        self._settled = False
        #: Other frameworks that take part.
        self.companions = Companions({})

    @classmethod
    def open(
        cls,
        *,
        tasks: tuple[str, ...],
        fingerprint: str,
        gradients: bool | None,
        cell: Cell | None,
        labels: Mapping[str, str],
        cell_file: str | None,
        namespace: Any,
        frame: types.FrameType | None,
        run_eagerly: bool = False,
    ) -> Window:
        """Begin a watch on this thread: in the session that is open, else in a new one."""
        session: Session | None = getattr(active, "session", None)
        if session is None:
            session = active.session = Session()
            session.analyst = Analyst()
        analyst: Analyst = session.analyst
        window = cls(
            session, analyst, {"tasks": tasks, "cell": cell, "gradients": gradients, "fingerprint": fingerprint}
        )
        look_up: Callable[[], Mapping[str, Any]]
        if callable(namespace):
            look_up = namespace
        else:
            look_up = _Fixed(namespace if namespace is not None else frame.f_globals if frame is not None else {})
        window._before = (
            analyst.wanted,
            analyst.namespace,
            analyst.always,
            analyst.never,
            analyst.wording,
            session.cell_files,
        )
        files = {} if cell is None or cell_file is None else {cell_file: cell.source}
        analyst.known_files.update(files)
        analyst.labels.update(labels)
        analyst.wanted = tasks
        analyst.found_wanted = set()
        analyst.namespace = look_up
        session.exported_memory.policy = fingerprint
        analyst.always, analyst.never = gradients is True, gradients is False
        if cell_file is not None:
            session.cell_files = frozenset((cell_file,))
        analyst.wording = ErrorWording(session, analyst, cell_file, cell.source if cell is not None else None)
        analyst.new_window()
        session.before_backward, session.after_failure = analyst.before_backward, analyst.after_failure
        session.after_backward = analyst.after_backward
        session.grad_aliases.overwritten = functools.partial(analyst.gradient_overwritten, session)
        source = cell.source if cell is not None else _file_source(frame)
        session.grad_aliases.wanted = mentions_grad(source)
        session.alias_values.wanted = writes_through_aliases(source)
        message.explain = analyst.word
        window.start = session.open_window()
        window.started = session.seconds()
        window.options["cell_file"] = cell_file
        window.options["frame"] = _place(frame)
        try:
            session.install()
        except BaseException:
            session.close_window()
            raise
        given = {"tasks": tasks, "gradients": gradients, "cell": cell, "labels": labels, "cell_file": cell_file}
        window.companions = Companions({**given, "namespace": look_up, "frame": frame, "run_eagerly": run_eagerly})
        window.companions.begin()
        return window

    def go_on_in(self, cell_file: str, label: str) -> None:
        """From here on the watched cell's code is that of another file."""
        cell, analyst = self.options["cell"], self.analyst
        analyst.labels[cell_file] = label
        if cell is not None:
            analyst.known_files[cell_file] = cell.source
        self.options["cell_file"] = cell_file
        self.session.cell_files = frozenset((cell_file,))
        self.companions.go_on_in(cell_file, label)
        analyst.wording = ErrorWording(self.session, analyst, cell_file, cell.source if cell is not None else None)

    def close(self, error: BaseException | None) -> Report:
        """End the watch. Everything is out of force before anything is worked out; never raises for our own faults."""
        try:
            self.companions.stop()
            self._compare_exports()
            uninterrupted(self._leave)
            if error is not None:
                hide_own_frames(error)
            return self.companions.add_to(self._report(error), error)
        finally:
            uninterrupted(self.abandon)

    def abandon(self) -> None:
        """End the watch without a report. Does nothing where it has ended."""
        self._leave()
        if not self._settled:
            self._settled = True
            a, session = self.analyst, self.session
            a.wanted, a.namespace, a.always, a.never, a.wording, session.cell_files = self._before
            a.current = None
            if session.windows == 0:
                session.tidy()

    def _leave(self) -> None:
        """Take everything out of force, unless another watch is still open."""
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
        try:
            frame = user_frame()
            spaces = namespaces(frame, self.analyst.namespace() if self.analyst.namespace is not None else None)
            spaces += _raising_spaces(error)
            return Assembly(self, self._end, error, Names(spaces)).report()
        except Exception as fault:
            _faults.show(fault)
            note = f"the report could not be worked out: {type(fault).__name__}: {fault}"
            return Report(
                tool=__version__,
                framework_version=str(torch.__version__),
                cell=self.options["cell"],
                summary=note,
                blind_spots=(note,),
                error=None if error is None else Error(type=type(error).__name__, message=str(error)),
            )


class _Fixed:
    """A namespace that is the same whenever it is asked for."""

    def __init__(self, space: Mapping[str, Any]) -> None:
        self._space = space

    def __call__(self) -> Mapping[str, Any]:
        return self._space


def _place(frame: types.FrameType | None) -> tuple[str, int] | None:
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def _file_source(frame: types.FrameType | None) -> str | None:
    return None if frame is None else "".join(linecache.getlines(frame.f_code.co_filename))


def _raising_spaces(error: BaseException | None) -> list[Mapping[str, Any]]:
    """The locals of the functions through which the error came, outermost first: names that are gone otherwise."""
    found: list[Mapping[str, Any]] = []
    tb = error.__traceback__ if error is not None else None
    while tb is not None:
        if sites.is_user_frame(tb.tb_frame) and tb.tb_frame.f_code.co_name != "<module>":
            found.append(sites.locals_of(tb.tb_frame))
        tb = tb.tb_next
    return found
