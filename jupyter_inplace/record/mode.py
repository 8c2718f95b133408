"""The dispatch-mode tracker: sees every operation below autograd, and acts on the few that write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.schema import ALIAS, Plan, make_plan

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_UNKNOWN: Any = object()


class WatchMode(TorchDispatchMode):
    """Looks each operator up in a table of plans: no plan, no work beyond the call itself."""

    # Higher-order operators (cond, flex_attention ...) are called through, not refused.
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else torch wraps the handler such that the first operation imports torch._dynamo (over a second) and every
        # operation costs half as much again.
        return False

    @classmethod
    def is_infra_mode(cls) -> bool:
        # Else torch.compile gives up on frames that run under the watch.
        return True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._plans: dict[Any, Plan | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plan = self._plans.get(func, _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._plans[func] = make_plan(func)
        session = self._session
        if session.fresh:
            session.label_fresh(func)
        session.last_op = func
        if (session.kept_gradients.any or session.severed.any) and not session.muted and not session.engine.depth:
            session.read_kept(args)
        if session.exports.any and not session.muted:
            session.compare_exports()
        if plan is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        if plan is ALIAS:
            session.note_alias(args)
            return func(*args, **kwargs) if kwargs else func(*args)
        return self._write(plan, func, args, kwargs or {})

    def _write(self, plan: Plan, func: Any, args: Any, kwargs: Any) -> Any:
        session = self._session
        targets: list[torch.Tensor] = []
        pending = None
        if not session.muted:
            try:
                targets = plan.tensors(args, kwargs)
                pending = session.before_write(plan, targets, func, args, kwargs)
            except Exception as fault:  # nothing of ours may surface inside of the user's operation
                session.fault(fault)
        # A write that the kernel refuses (expanded memory) raises here and is never recorded.
        out = self._call_custom(func, args, kwargs, targets) if plan.custom else func(*args, **kwargs)
        if plan.foreach:
            private.increment_version(targets or plan.tensors(args, kwargs))
        if pending is not None:
            try:
                session.after_write(plan, targets, pending, func, args, kwargs)
            except Exception as fault:
                session.fault(fault)
        return out

    @staticmethod
    def _call_custom(func: Any, args: Any, kwargs: Any, targets: list[torch.Tensor]) -> Any:
        """Run a custom operator's body in the dispatch state it has unwatched, so that its own writes bump versions."""
        restore, below = private.RestorePythonTLSSnapshot, private.AutoDispatchBelowAutograd
        if restore is None or below is None or private.dispatch_keys is None or not targets:
            return func(*args, **kwargs)
        keys = private.dispatch_keys(targets[0]) & private.after_ADInplaceOrView_keyset
        with restore(), below():
            return func.redispatch(keys, *args, **kwargs)
