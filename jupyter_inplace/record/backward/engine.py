"""Backward calls: the one place in torch through which `backward()` and `autograd.grad()` both go."""

from __future__ import annotations

import functools
from typing import Any

import torch

from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.backward.python_frames import enters_engine
from jupyter_inplace.record.base import deep_graphs
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.patching import Held, Replacement
from jupyter_inplace.record.base.python_code import runs_python
from jupyter_inplace.record.dispatch.wiring import Wiring
from jupyter_inplace.record.here import part_here
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import Trace


class EnginePatch:
    """Sees the backward calls of a trace through `_engine_run_backward`, replaced where torch looks it up."""

    def __init__(self, trace: Trace, wiring: Wiring) -> None:
        self._trace, self._wiring = trace, wiring
        self._replaced = Held()
        self._hooks_before = -1

    def install(self) -> None:
        if not self._replaced.acquire(_REPLACEMENTS):
            self._trace.blind_spots.setdefault("this torch has no place where backward calls can be seen")
        self._hooks_before = private.hooks_made()

    def hooks_since(self) -> bool:
        """Whether anybody has registered a hook on a tensor, node or module since the trace began."""
        return private.hooks_made() != self._hooks_before

    def remove(self) -> None:
        self._replaced.release()
        self._trace.depth = 0

    @enters_engine
    def run(self, original: Any, outputs: Any, args: Any, kwargs: Any) -> Any:
        """Run the engine by `original`, watched."""
        __tracebackhide__ = True
        with private.Unfollowed():
            call = self._begin(outputs, args, kwargs)
            place = None if call is None else self._lift(call)
        if place is None and not self._trace.muted:
            self._trace.stack.attend()
        self._trace.depth += 1
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
            self._trace.depth = max(0, self._trace.depth - 1)
            if place is not None:
                self._put_back(place)
            if call is not None:
                with private.Unfollowed():
                    self._end(call)

    def _begin(self, outputs: Any, args: Any, kwargs: Any) -> Backward | None:
        trace = self._trace
        if trace.muted or not trace.installed:
            return None
        try:
            trace.order += 1
            if trace.unfinished is not None:
                trace.unfinished()
            frame = sites.find_frame(2)
            if frame is not None and frame.f_code.co_filename in trace.cell_files:
                site: Any = sites.site_key(frame.f_code, frame.f_lasti)
            else:
                site = sites.find_site(3, trace.cell_files)
            call = Backward(trace.order, trace.seconds(), site)
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
            call.nested = trace.depth > 0
            call.transformed = (
                private.in_transform()
                or private.is_tracing()
                or any(map(_is_foreign, roots))
                or any(_is_foreign(t) for t in call.inputs if isinstance(t, torch.Tensor))
            )
            call.sequence = private.peek_sequence_nr()
            call.frame = frame
            call.python = self.hooks_since() or runs_python(
                call.roots, call.grads, trace.index.holds, call.accumulate and not call.create_graph
            )
            if trace.before_backward is not None:
                trace.before_backward(trace, call)
            trace.last_backward = call.order
            if not call.folded:
                trace.backwards.append(call)
            return call
        except Exception as fault:
            trace.fault(fault)
            return None

    def _lift(self, call: Backward) -> Any:
        """Take the mode off for the call where it could learn nothing; returns its place."""
        trace = self._trace
        try:
            if call.python or trace.other_hooks:
                return None
            place = trace.stack.lift()
            if place is not None:
                trace.last_op = None
                trace.drop_fresh()
            return place
        except Exception as fault:
            trace.fault(fault)
            return None

    def _put_back(self, place: Any) -> None:
        trace = self._trace
        trace.drop_fresh()
        if trace.installed:
            trace.stack.put_back(place, wire=not trace.depth and self._wiring.counted())

    def _failed(self, call: Backward, error: BaseException) -> None:
        call.error = type(error).__name__
        trace = self._trace
        if call.folded:
            trace.backwards.append(call)
        if trace.after_failure is not None:
            try:
                trace.after_failure(trace, call, error)
            except Exception as fault:
                trace.fault(fault)

    def _end(self, call: Backward) -> None:
        trace = self._trace
        call.finished = call.error is None
        if trace.after_backward is not None:
            try:
                trace.after_backward(trace, call)
            except Exception as fault:
                trace.fault(fault)
        if not call.nested:
            trace.backward_ended(call)
        call.release()
        if call.finished and not call.retain and not call.nested:
            trace.graph_floor = call.sequence
            deep_graphs.let_go()
            deep_from = call.sequence + deep_graphs.SHALLOW
            if deep_from - trace.deep_from > deep_graphs.SHALLOW // 2 and not trace.index.any_alive():
                trace.deep_from = deep_from
            trace.graph_freed(call.sequence)
        trace.order += 1


def _any_transformed(values: Any) -> bool:
    return any(private.is_transformed(t) for t in values if isinstance(t, torch.Tensor))


def _is_foreign(t: torch.Tensor) -> bool:
    return private.is_transformed(t) or private.is_symbolic(t)


def _seen(original: Any) -> Any:
    @functools.wraps(original)
    def _engine_run_backward(t_outputs: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        engine = part_here(EnginePatch)
        if engine is None:
            return original(t_outputs, *args, **kwargs)
        return engine.run(original, t_outputs, args, kwargs)

    return _engine_run_backward


_REPLACEMENTS = tuple(
    Replacement(module, "_engine_run_backward", _seen) for module in (torch.autograd, torch.autograd.graph)
)
