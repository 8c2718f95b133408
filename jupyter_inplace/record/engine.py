"""Backward calls: the one place in torch through which `backward()` and `autograd.grad()` both go."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record import sites
from jupyter_inplace.record import torch_private as private

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class Backward:
    """One call of the engine.

    `roots`, `grads` and `inputs` hold the user's tensors and are dropped when the call ends; `facts` is what explain made of
    it before the engine ran. `accumulate` tells `backward()` from `autograd.grad()`, `nested` a call made from inside
    another one (re-entrant checkpoint).
    """

    __slots__ = (
        "accumulate", "create_graph", "error", "facts", "finished", "frame", "grads", "inputs", "nested", "order", "retain",
        "roots", "sequence", "site", "time",
    )  # fmt: skip

    def __init__(self, order: int, time: float, site: Any) -> None:
        self.order, self.time, self.site = order, time, site
        self.roots: tuple[Any, ...] = ()
        self.grads: tuple[Any, ...] = ()
        self.inputs: tuple[Any, ...] = ()
        self.frame: types.FrameType | None = None
        self.accumulate = self.retain = self.create_graph = self.nested = self.finished = False
        self.error: str | None = None
        self.facts: Any = None
        self.sequence = 0

    def release(self) -> None:
        self.roots = self.grads = self.inputs = ()
        self.frame = None


class EnginePatch:
    """Wraps `_engine_run_backward` where torch looks it up, for the time of the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._originals: list[tuple[Any, Any]] = []
        self.depth = 0
        self._code: types.CodeType | None = None

    def install(self) -> None:
        for module in (torch.autograd, torch.autograd.graph):
            original = getattr(module, "_engine_run_backward", None)
            if original is None:
                self._session.blind_spots.setdefault("this torch has no place where backward calls can be seen")
                return
            wrapper = self._wrap(original)
            self._originals.append((module, original))
            module._engine_run_backward = wrapper  # type: ignore[attr-defined]

    def remove(self) -> None:
        for module, original in self._originals:
            module._engine_run_backward = original
        self._originals.clear()
        self.depth = 0

    def made_by_engine(self) -> bool:
        """Whether the operation being dispatched comes from a C++ node, not from Python run by the engine."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if code is self._code:
                return True
            if not _is_plumbing(code):
                return False
            frame = frame.f_back
        return False

    def _wrap(self, original: Any) -> Any:
        patch = self

        @functools.wraps(original)
        def _engine_run_backward(t_outputs: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            call = patch._begin(t_outputs, args, kwargs)
            patch.depth += 1
            try:
                return original(t_outputs, *args, **kwargs)
            except BaseException as error:
                if call is not None:
                    patch._failed(call, error)
                raise
            finally:
                patch.depth = max(0, patch.depth - 1)
                if call is not None:
                    patch._end(call)

        self._code = _engine_run_backward.__code__
        return _engine_run_backward

    def _begin(self, outputs: Any, args: Any, kwargs: Any) -> Backward | None:
        session = self._session
        if session.muted or not session.installed:
            return None
        try:
            session.order += 1
            site = sites.find_site(2, session.cell_files)
            call = Backward(session.order, session.seconds(), site)
            call.roots = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
            call.grads = tuple(args[0]) if args and args[0] is not None else ()
            call.retain = bool(args[1]) if len(args) > 1 else bool(kwargs.get("keep_graph"))
            call.create_graph = bool(args[2]) if len(args) > 2 else bool(kwargs.get("create_graph"))
            call.inputs = tuple(args[3]) if len(args) > 3 and args[3] else ()
            call.accumulate = bool(kwargs.get("accumulate_grad", False))
            call.nested = self.depth > 0
            call.sequence = private.peek_sequence_nr()
            call.frame = _user_frame()
            if session.before_backward is not None:
                session.before_backward(session, call)
            session.backwards.append(call)
            return call
        except Exception as fault:
            session.fault(fault)
            return None

    def _failed(self, call: Backward, error: BaseException) -> None:
        call.error = type(error).__name__
        session = self._session
        if session.after_failure is not None:
            try:
                session.after_failure(session, call, error)
            except Exception as fault:
                session.fault(fault)

    def _end(self, call: Backward) -> None:
        session = self._session
        call.finished = call.error is None
        call.release()
        if not call.nested:
            session.gradient_written = None
        if call.finished and not call.retain and not call.nested:
            session.graph_floor = call.sequence
            session.unrecorded.forget_before(call.sequence)
        session.order += 1


def _user_frame() -> types.FrameType | None:
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and not sites.is_user_frame(frame):
        frame = frame.f_back
    return frame


def _is_plumbing(code: types.CodeType) -> bool:
    """Frames between a dispatched operation and the engine's caller that are nobody's program: ours and torch's."""
    return code.co_filename.startswith((_PACKAGE, _TORCH))


_PACKAGE = __file__.rpartition("record")[0]
_TORCH = torch.__file__.rpartition("__init__")[0]
