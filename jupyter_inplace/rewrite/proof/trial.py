"""The work of one worker: runs a cell under an instrument, and sends what it does."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import random
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import torch

from jupyter_inplace.explain.window import Window
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.report.data import Cell
from jupyter_inplace.rewrite.preserve import preserve_saved
from jupyter_inplace.rewrite.proof.derivative import DerivativeMode
from jupyter_inplace.rewrite.proof.events import Ending, Kept
from jupyter_inplace.rewrite.proof.execute import RunnableCell
from jupyter_inplace.rewrite.proof.instrument import Instrument
from jupyter_inplace.rewrite.proof.naming import LeafNames
from jupyter_inplace.rewrite.proof.permit import Permit
from jupyter_inplace.rewrite.proof.private_gradients import private_gradients
from jupyter_inplace.rewrite.proof.values import Packer, Value, number
from jupyter_inplace.rewrite.sandbox.reach import grad_of, namespace_of, walk
from jupyter_inplace.rewrite.sandbox.worker import Sender

#: ``watched``: the program as it is, under a full watch. ``preserved``: with every saved tensor preserved and a private
#: gradient for every hook. ``differentiated``: preserved, and with derivatives by finite differences. ``updating`` and
#: ``copying``: differentiated, with the marked writes permitted and read as a new value of the leaf or as a new tensor
#: made from it. ``valued``: without grad mode, so that no write is refused; it gives the losses up to the first use of a
#: gradient.
Manner = Literal["watched", "preserved", "differentiated", "updating", "copying", "valued"]
_DIFFERENTIATED = ("differentiated", "updating", "copying")

_LIBRARIES = ("torch.", "jupyter_inplace.")  # slow to import, and without state of the program

_KEPT = 20_000  # the most objects that outlive a cell and are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to run, and how.

    :param tasks: the names of tasks given to the watch.
    :param gradients: make the watch compute every gradient, not only in case of damage.
    :param marks: lines of `source`: a long run may end three rounds after one of them was reached; and a
        ``differentiated`` run treats nothing as constant there.
    :param stop_after: end after this many events.
    :param stop_seconds: end at the first event after this time.
    :param mark_at: behave as if a mark had been reached after this many events.
    :param ignored: variables that a rewrite introduced and that may not name anything.
    :param directions: by leaf, the number of the direction that a ``differentiated`` run gave it.
    :param budget: bytes of values sent in full.
    """

    source: str
    manner: Manner
    tasks: tuple[str, ...] = ()
    gradients: bool = False
    marks: tuple[int, ...] = ()
    stop_after: int | None = None
    stop_seconds: float = 20.0
    mark_at: int | None = None
    ignored: frozenset[str] = frozenset()
    directions: Mapping[str, int] = field(default_factory=dict)
    budget: int = 32 << 20


def run(state: Any, send: Sender, *, trial: Trial) -> None:
    """Run a trial on `state`; send an `Event` for each engine call and step, and an `Ending`."""
    TrialRun(state, send, trial).run()


class TrialRun:
    """A running trial."""

    def __init__(self, state: Any, send: Sender, trial: Trial) -> None:
        self._send = send
        self._trial = trial
        self._namespace = namespace_of(state)
        self._modules = set(sys.modules)
        self._packer = Packer(trial.budget)
        self._window: Window | None = None
        self._derivatives: DerivativeMode | None = None
        self._permit = Permit() if trial.manner in ("updating", "copying") else None
        if trial.manner in _DIFFERENTIATED:
            names = LeafNames(self._namespace, trial.ignored)
            self._derivatives = DerivativeMode(names, leaves_follow=trial.manner == "copying")
        self._instrument = Instrument(
            LeafNames(self._namespace, trial.ignored),
            send,
            self._stop,
            stop_after=trial.stop_after,
            stop_seconds=trial.stop_seconds,
            mark_at=trial.mark_at,
            only_values=trial.manner == "valued",
            budget=trial.budget,
        )
        self._instrument.derivatives = self._derivatives
        self._instrument.directions = trial.directions
        self._cell = RunnableCell(state, trial.source, trial.marks, self._enter_mark, self._leave_mark)

    def run(self) -> None:
        """Run to the end of the cell, or to where the instrument stops it."""
        with self._around():
            self._instrument.memory.put_below()
            self._instrument.install()
            began = time.perf_counter()
            error = self._cell.run()
            seconds = time.perf_counter() - began
            self._instrument.remove()
            self._finish(error, seconds, stopped=None)

    @contextlib.contextmanager
    def _around(self) -> Iterator[None]:
        if self._trial.manner == "watched":
            self._window = Window.open(
                tasks=self._trial.tasks,
                gradients=True if self._trial.gradients else None,
                cell=Cell(source=self._cell.source),
                cell_file=self._cell.file or None,
                namespace=lambda: self._namespace,
            )
            yield
            return
        if self._trial.manner == "valued":
            with torch.no_grad():
                yield
            return
        with preserve_saved(), private_gradients(self._namespace):
            if self._derivatives is None:
                yield
            else:
                with self._derivatives, self._derivatives.custom_functions_live():
                    yield

    def _enter_mark(self) -> None:
        self._instrument.mark()
        if self._derivatives is not None:
            self._derivatives.enter_live()
        if self._permit is not None:
            self._permit.__enter__()

    def _leave_mark(self) -> None:
        if self._permit is not None:
            self._permit.__exit__(None, None, None)
        if self._derivatives is not None:
            self._derivatives.leave_live()

    def _stop(self) -> NoReturn:
        self._finish(None, self._instrument.seconds, stopped=self._instrument.rounds)
        self._send.finish()

    def _finish(self, error: BaseException | None, seconds: float, stopped: int | None) -> None:
        instrument = self._instrument
        report, gradients = self._end_watch(error)
        self._send(
            Ending(
                error=None if error is None else (type(error).__name__, str(error)[:2000]),
                line=_line_of(error, self._cell.file),
                stopped=stopped,
                marked=instrument.marked,
                raised=instrument.raised,
                kept=self._kept() if error is None and stopped is None else {},
                leaves=frozenset(
                    path
                    for path, value in walk(self._in_view())
                    if isinstance(value, torch.Tensor) and _is_trained_leaf(value)
                ),
                report=report,
                gradients=gradients,
                random=_random_digest(),
                problem=self._derivatives.problem if self._derivatives is not None else None,
                modules=tuple(name for name in sys.modules.keys() - self._modules if name.startswith(_LIBRARIES)),
                denied=_denied(error),
                seconds=seconds,
                peaks=tuple(instrument.peaks),
            )
        )

    def _end_watch(self, error: BaseException | None) -> tuple[Any, dict[Any, tuple[Value | None, Value | None]]]:
        window = self._window
        if window is None:
            return None, {}
        calls = [
            call for call in window.session.backwards if call.order >= window.start
        ]  # dropped when the window closes
        report = window.close(error)
        return report, self._vectors([call.facts for call in calls if call.facts is not None])

    def _vectors(self, facts: list[Any]) -> dict[tuple[str, str, int], tuple[Value | None, Value | None]]:
        found: dict[tuple[str, str, int], tuple[Value | None, Value | None]] = {}
        for place, fact in enumerate(facts):
            for task, leaf in fact.reference.keys() | fact.as_run.keys():
                as_run, reference = fact.as_run.get((task, leaf)), fact.reference.get((task, leaf))
                found[task, leaf, place] = (self._packer.pack(as_run), self._packer.pack(reference))
        return found

    def _in_view(self) -> dict[str, Any]:
        return {name: value for name, value in self._namespace.items() if name not in self._trial.ignored}

    def _kept(self) -> dict[str, Kept]:
        kept: dict[str, Kept] = {}
        for path, value in walk(self._in_view()):
            if len(kept) >= _KEPT:
                break
            if isinstance(value, torch.Tensor):
                packed = self._packer.pack(value)
                gradient = self._packer.pack(grad_of(value))
                kept[path] = Kept(value=packed, leaf=_is_trained_leaf(value), gradient=gradient)
            elif (packed := number(value)) is not None:
                kept[path] = Kept(value=packed)
        return kept


def _is_trained_leaf(tensor: torch.Tensor) -> bool:
    try:
        return tensor.is_leaf and tensor.requires_grad
    except RuntimeError:  # a view of a base that was written: torch refuses to say
        return False


def _random_digest() -> str:
    with private.DisableTorchDispatch():
        digest = hashlib.sha1(torch.get_rng_state().numpy().tobytes(), usedforsecurity=False)
    digest.update(repr(random.getstate()).encode())
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        digest.update(repr(numpy_random.get_state()).encode())
    return digest.hexdigest()


def _line_of(error: BaseException | None, file: str) -> int | None:
    """The innermost line of the cell that an exception passed through."""
    step = error.__traceback__ if error is not None else None
    line = None
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _denied(error: BaseException | None) -> bool:
    """Whether the operating system denied the program something, which is all that Landlock shows."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            return True
        if isinstance(error, RuntimeError) and ("Permission denied" in str(error) or "not permitted" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
