"""The dispatch-mode tracker: sees every operation below autograd, and acts on the few that write."""

from __future__ import annotations

import sys
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.own_mode import OwnMode
from jupyter_inplace.record.base.schema import ALIAS, Plan, make_plan
from jupyter_inplace.record.channels.channel import Operation
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites
from jupyter_inplace.record.dispatch.calling import caller_of
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.writes.fast_path import enter, repeated
from jupyter_inplace.record.writes.write_entry import WriteEntry

_UNKNOWN: Any = object()


class WatchMode(OwnMode):
    """Looks each operator up in a table of plans: no plan, no work beyond the call itself."""

    @classmethod
    def is_infra_mode(cls) -> bool:
        # Else torch.compile gives up on frames that run under the watch.
        return True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __init__(self, trace: Trace, entry: WriteEntry, untracked: UntrackedWrites) -> None:
        super().__init__()
        self._trace, self._entry, self._untracked = trace, entry, untracked
        self._plans: dict[Any, Plan | None] = {}
        # The same by identity (their own hash is Python code; `_plans` holds them), what to call in their place, and that alone for those
        # that write to nothing.
        self._by_identity: dict[int, Plan | None] = {}
        self._callers: dict[int, Any] = {}
        self._plain: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        trace = self._trace
        if trace.fresh:  # inputs are packed right before their operation is dispatched: now it is known which
            trace.cell[0] = func
            trace.cell = [None]
            trace.fresh = False
        trace.last_op = func
        if private.function_modes():  # torch calls this one from C++: function modes would not be told of it
            with private.Unfollowed():
                return self._by_plan(func, args, kwargs or {})
        call = self._plain.get(id(func))
        if call is None or trace.attentive:
            return self._by_plan(func, args, kwargs or {})
        return call(*args, **kwargs) if kwargs else call(*args)

    def _by_plan(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operator that may write, or any while something is to be looked out for."""
        trace = self._trace
        if trace.midway is not None and trace.is_midway(sys._getframe(2)):
            return func(*args, **kwargs)
        plan = self._by_identity.get(id(func), _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._look_up(func)
        if trace.attentive and not trace.muted:
            with private.Unfollowed():
                noted = trace.look(Operation(func, plan, args, kwargs))
            if noted:
                out = self._call(plan, func, args, kwargs)
                trace.gave(out, noted)
                return out
        return self._call(plan, func, args, kwargs)

    def _look_up(self, func: Any) -> Any:
        """The plan of an operator that comes for the first time."""
        plan = self._by_identity[id(func)] = self._plans[func] = make_plan(func)
        caller = self._callers[id(func)] = caller_of(func)
        if plan is None:
            self._plain[id(func)] = caller
        return plan

    def _call(self, plan: Any, func: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(plan, Plan):
            return self._write(plan, func, args, kwargs)
        if plan is ALIAS:
            self._untracked.note_alias(args[0])
        return self._callers[id(func)](*args, **kwargs)

    def _write(self, plan: Plan, func: Any, args: Any, kwargs: Any) -> Any:
        trace = self._trace
        if plan.ordinary:
            known = repeated(trace, plan, args, kwargs)
            if known is not None:
                order = trace.order
                out = self._callers[id(func)](*args, **kwargs)
                enter(trace, plan, known, order)
                return out
        targets: list[torch.Tensor] = []
        pending = None
        if not trace.muted:
            try:
                targets = plan.tensors(args, kwargs)
                pending = self._entry.before(plan, targets, func, args, kwargs)
            except Exception as fault:  # nothing of ours may surface inside of the user's operation
                trace.fault(fault)
        lists: list[torch.Tensor] = []
        if plan.foreach:
            lists = targets or plan.tensors(args, kwargs)
            shapes, versions = [t.shape for t in lists], [private.version(t) for t in lists]
        # A write that the kernel refuses (expanded memory) raises here and is never recorded.
        out = self._callers[id(func)](*args, **kwargs)
        if pending is not None:
            try:
                self._entry.after(pending)
            except Exception as fault:
                trace.fault(fault)
        # Last of all: a view that is asked for its node between this and the end of the operation keeps a node from before it.
        if lists:
            bumped = {id(t) for t in private.bump_unbumped(lists, versions)}
            resized = [t for t, shape in zip(lists, shapes, strict=True) if t.shape != shape and id(t) in bumped]
            if resized:  # an `out=` made to fit: that counts as well
                private.increment_version(resized)
        return out
