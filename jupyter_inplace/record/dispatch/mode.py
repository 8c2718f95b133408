"""The dispatch-mode tracker: sees every operation below autograd, and acts on the few that write."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.arguments import tensors_in
from jupyter_inplace.record.base.own_mode import OwnMode
from jupyter_inplace.record.base.schema import ALIAS, Plan, is_custom, make_plan
from jupyter_inplace.record.channels.channel import Operation
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.writes.fast_path import enter, repeated
from jupyter_inplace.record.writes.write_entry import WriteEntry

_UNKNOWN: Any = object()
CUSTOM: Any = object()  # the plan of an operator that is not torch's own and writes to nothing it is given
_NOBODY: Any = TorchDispatchMode()


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
        # What to call for operators that write to nothing, by identity (their own hash is Python code): `_plans` holds them.
        self._by_identity: dict[int, Plan | None] = {}
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
            plan = self._by_identity[id(func)] = self._plans[func] = plan_of(func)
            if plan is None:
                # What the call of an operator comes down to, without the frame in between.
                self._plain[id(func)] = func._op if type(func) is torch._ops.OpOverload else func
        if trace.attentive and not trace.muted:
            with private.Unfollowed():
                noted = trace.look(Operation(func, plan, args, kwargs))
            if noted:
                out = self._call(plan, func, args, kwargs)
                trace.gave(out, noted)
                return out
        return self._call(plan, func, args, kwargs)

    def _call(self, plan: Any, func: Any, args: Any, kwargs: Any) -> Any:
        if plan is None:
            return func(*args, **kwargs)
        if plan is CUSTOM:
            return self._call_custom(func, args, kwargs)
        if plan is ALIAS:
            self._untracked.note_alias(args[0])
            return func(*args, **kwargs)
        return self._write(plan, func, args, kwargs)

    def _write(self, plan: Plan, func: Any, args: Any, kwargs: Any) -> Any:
        trace = self._trace
        if plan.ordinary:
            known = repeated(trace, plan, args, kwargs)
            if known is not None:
                order = trace.order
                out = func._op(*args, **kwargs)
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
        out = self._call_custom(func, args, kwargs) if plan.custom else func._op(*args, **kwargs)
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

    @staticmethod
    def _call_custom(func: Any, args: Any, kwargs: Any) -> Any:
        """Run a custom operator's body in the dispatch state it has unwatched, so that its own writes bump versions."""
        restore, below = private.RestorePythonTLSSnapshot, private.AutoDispatchBelowAutograd
        tensors = tensors_in(args) + tensors_in(kwargs.values())
        # Where other modes are in force they come next, and see the operator as they do unwatched.
        if (
            restore is None
            or below is None
            or private.dispatch_keys is None
            or not tensors
            or private.len_dispatch_stack()
        ):
            return func(*args, **kwargs)
        keys = private.dispatch_keys(tensors[0])
        for t in tensors[1:]:
            keys = keys | private.dispatch_keys(t)
        with restore(), below():
            # The snapshot is of a thread that has a mode. One on and off again tells torch that there is none any more: else it would
            # look for it at the body's first operation that takes no tensor.
            private.push_dispatch_mode(_NOBODY)
            private.pop_dispatch_mode(None)
            return func.redispatch(keys & private.after_ADInplaceOrView_keyset, *args, **kwargs)


def plan_of(func: Any) -> Any:
    """The plan of an operator, `CUSTOM` for one that is not torch's own and writes to nothing it is given."""
    plan = make_plan(func)
    return CUSTOM if plan is None and _is_custom(func) else plan


def _is_custom(func: Any) -> bool:
    """Whether an operator is not torch's own: its body may be Python, and write to what it makes."""
    return isinstance(func, torch._ops.OpOverload) and is_custom(func.namespace)
