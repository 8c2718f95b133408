"""Backward calls: the one place in torch through which `backward()` and `autograd.grad()` both go."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace._package import FOLDER
from jupyter_inplace.record.base import deep_graphs
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Replacement, session_here
from jupyter_inplace.record.base.python_code import runs_python
from jupyter_inplace.record.source import sites

if TYPE_CHECKING:
    from jupyter_inplace.record.dispatch.stack import Place
    from jupyter_inplace.record.session import Session


class Backward:
    """One call of the engine.

    `roots`, `grads` and `inputs` hold the user's tensors and are dropped when the call ends; `facts` is what explain made of
    it before the engine ran. `accumulate` tells `backward()` from `autograd.grad()`, `nested` a call made from inside
    another one (re-entrant checkpoint), `batched` one whose gradients cannot be read (a dimension of vmap's, tensors without data),
    `transformed` one that belongs to a torch.func transform or to a program being traced, where nothing is saved in our sight,
    `folded` one whose `facts` are those of an earlier call, so that it is not kept, `python` one in which the engine may run the
    program's own Python.
    """

    __slots__ = (
        "accumulate",
        "batched",
        "create_graph",
        "error",
        "facts",
        "finished",
        "folded",
        "frame",
        "given",
        "grads",
        "inputs",
        "leaves",
        "nested",
        "order",
        "python",
        "results",
        "retain",
        "roots",
        "sequence",
        "site",
        "time",
        "transformed",
    )

    def __init__(self, order: int, time: float, site: Any) -> None:
        self.order, self.time, self.site = order, time, site
        self.roots: tuple[Any, ...] = ()
        self.grads: tuple[Any, ...] = ()
        self.inputs: tuple[Any, ...] = ()
        self.frame: types.FrameType | None = None
        self.accumulate = self.batched = self.retain = self.create_graph = self.nested = self.transformed = (
            self.finished
        ) = self.folded = self.python = False
        self.error: str | None = None
        self.facts: Any = None
        self.leaves: list[tuple[str, Any]] = []
        self.results: tuple[Any, ...] = ()  # of a `grad` call
        self.given: Any = None  # of unread.Given: what is followed of the gradients
        self.sequence = 0

    def release(self) -> None:
        self.roots = self.grads = self.inputs = ()
        self.frame = self.given = None
        self.results = ()
        self.leaves = []


class EnginePatch:
    """Sees the backward calls of a session through `_engine_run_backward`, replaced where torch looks it up."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: list[Replacement] = []
        self._hooks_before = -1
        self.depth = 0

    def install(self) -> None:
        self._held = [replacement for replacement in _REPLACEMENTS if replacement.acquire()]
        if len(self._held) < len(_REPLACEMENTS):
            self._session.blind_spots.setdefault("this torch has no place where backward calls can be seen")
        self._hooks_before = private.hooks_made()

    def hooks_since(self) -> bool:
        """Whether anybody has registered a hook on a tensor, node or module since the session began."""
        return private.hooks_made() != self._hooks_before

    def remove(self) -> None:
        for replacement in self._held:
            replacement.release()
        self._held.clear()
        self.depth = 0

    def run(self, original: Any, outputs: Any, args: Any, kwargs: Any) -> Any:
        """Run the engine by `original`, watched."""
        __tracebackhide__ = True
        with private.Unfollowed():
            call = self._begin(outputs, args, kwargs)
            place = None if call is None else self._lift(call)
        if place is None and not self._session.muted:
            self._session.stack.attend()
        self.depth += 1
        try:
            out = original(outputs, *args, **kwargs)
            if call is not None and isinstance(out, tuple):
                call.results = out
            return out
        except BaseException as error:
            if call is not None:
                with private.Unfollowed():
                    self._failed(call, error)
            raise
        finally:
            self.depth = max(0, self.depth - 1)
            if place is not None:
                self._put_back(place)
            if call is not None:
                with private.Unfollowed():
                    self._end(call)

    def made_by_engine(self) -> bool:
        """Whether the operation being dispatched comes from a C++ node, not from Python run by the engine."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if code is _CODE:
                return True
            if not _is_plumbing(code):
                return False
            frame = frame.f_back
        return False

    def _begin(self, outputs: Any, args: Any, kwargs: Any) -> Backward | None:
        session = self._session
        if session.muted or not session.installed:
            return None
        try:
            session.order += 1
            session.optimizers.end_step()
            frame = sites.find_frame(2)
            if frame is not None and frame.f_code.co_filename in session.cell_files:
                site: Any = sites.site_key(frame.f_code, frame.f_lasti)
            else:
                site = sites.find_site(3, session.cell_files)
            call = Backward(session.order, session.seconds(), site)
            call.roots = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
            call.grads = tuple(args[0]) if args and args[0] is not None else ()
            roots = [root for root in call.roots if isinstance(root, torch.Tensor)]
            if _any_transformed(call.grads):
                call.batched, call.grads = True, ()
            else:
                call.batched = not all(map(private.has_data, roots))
            call.retain = bool(args[1]) if len(args) > 1 else bool(kwargs.get("keep_graph"))
            call.create_graph = bool(args[2]) if len(args) > 2 else bool(kwargs.get("create_graph"))
            call.inputs = tuple(args[3]) if len(args) > 3 and args[3] else ()
            call.accumulate = bool(kwargs.get("accumulate_grad", False))
            call.nested = self.depth > 0
            call.transformed = (
                private.in_transform()
                or private.is_tracing()
                or any(map(_is_foreign, roots))
                or any(_is_foreign(t) for t in call.inputs if isinstance(t, torch.Tensor))
            )
            call.sequence = private.peek_sequence_nr()
            call.frame = frame
            call.python = self.hooks_since() or runs_python(
                call.roots, call.grads, session.index.holds, call.accumulate and not call.create_graph
            )
            if session.before_backward is not None:
                session.before_backward(session, call)
            if session.gradient_written is not None:
                session.attend()  # what Python makes inside of the engine is noted
            session.last_backward = call.order
            if not call.folded:
                session.backwards.append(call)
            return call
        except Exception as fault:
            session.fault(fault)
            return None

    def _lift(self, call: Backward) -> Place | None:
        """Take the mode off for the call where it could learn nothing; returns its place."""
        session = self._session
        try:
            if call.python or session.hooks.others:
                return None
            place = session.stack.lift()
            if place is not None:
                session.last_op = None
                session.drop_fresh()
            return place
        except Exception as fault:
            session.fault(fault)
            return None

    def _put_back(self, place: Place) -> None:
        session = self._session
        session.drop_fresh()
        if session.installed:
            session.stack.put_back(place, wire=not self.depth and session.wiring.counted())

    def _failed(self, call: Backward, error: BaseException) -> None:
        call.error = type(error).__name__
        session = self._session
        if call.folded:
            session.backwards.append(call)
        if session.after_failure is not None:
            try:
                session.after_failure(session, call, error)
            except Exception as fault:
                session.fault(fault)

    def _end(self, call: Backward) -> None:
        session = self._session
        call.finished = call.error is None
        if session.after_backward is not None:
            try:
                session.after_backward(session, call)
            except Exception as fault:
                session.fault(fault)
        if not call.nested:
            session.gradient_written = None
            session.python.backward_ended(call.roots, freed=call.finished and not call.retain)
        call.release()
        if call.finished and not call.retain and not call.nested:
            session.graph_floor = call.sequence
            deep_graphs.let_go()
            deep_from = call.sequence + deep_graphs.SHALLOW
            if deep_from - session.deep_from > deep_graphs.SHALLOW // 2 and not session.index.any_alive():
                session.deep_from = deep_from
            session.untracked_writes.forget_before(call.sequence)
            session.exported_memory.exported_nonleaves.clear()
        session.order += 1


def _any_transformed(values: Any) -> bool:
    return any(private.is_transformed(t) for t in values if isinstance(t, torch.Tensor))


def _is_foreign(t: torch.Tensor) -> bool:
    return private.is_transformed(t) or private.is_symbolic(t)


def _is_plumbing(code: types.CodeType) -> bool:
    """Frames between a dispatched operation and the engine's caller that are nobody's program: ours and torch's."""
    return code.co_filename.startswith((FOLDER, _TORCH))


def _seen(original: Any) -> Any:
    @functools.wraps(original)
    def _engine_run_backward(t_outputs: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        session = session_here()
        if session is None:
            return original(t_outputs, *args, **kwargs)
        return session.engine.run(original, t_outputs, args, kwargs)

    return _engine_run_backward


_REPLACEMENTS = tuple(
    Replacement(module, "_engine_run_backward", _seen) for module in (torch.autograd, torch.autograd.graph)
)
_CODE = EnginePatch.run.__code__
_TORCH = torch.__file__.rpartition("__init__")[0]
