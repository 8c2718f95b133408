"""Optimizer steps: one write per step, whatever the optimizer does inside.

torch's global step hooks bracket every optimizer, those made before the watch too. Between them the dispatch mode is
lifted, for a step teaches nothing op by op; a step with a closure keeps it, since the closure is the user's program.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch.optim import optimizer as _optimizer

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import byte_range, shape_of, view_of
from jupyter_inplace.record.channels.discarded_grads import DiscardedGrads
from jupyter_inplace.record.here import part_here
from jupyter_inplace.record.saved.copies import Copies
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import Trace

if TYPE_CHECKING:
    import torch

    from jupyter_inplace.record.write_table import WriteRow


class OptimizerHooks:
    """Brackets steps with the public global hooks and enters one row of writes per step."""

    def __init__(self, trace: Trace, copies: Copies, discarded_grads: DiscardedGrads) -> None:
        self._trace, self._copies, self._discarded_grads = trace, copies, discarded_grads
        self._handles: list[Any] = []
        self.place: Any = None  # where the mode belongs, while it is lifted

    def install(self) -> None:
        self._handles = [
            _optimizer.register_optimizer_step_pre_hook(_before_step),
            _optimizer.register_optimizer_step_post_hook(_after_step),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.place = self._trace.unfinished = None

    def end_step(self) -> None:
        """Put the mode back. A step that raised never reaches its post hook: the next event of the trace calls this."""
        if self.place is not None:
            place, self.place = self.place, None
            self._trace.unfinished = None
            if self._trace.installed:
                self._trace.stack.put_back(place)

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        trace = self._trace
        if trace.muted or not trace.installed:
            return
        self.end_step()
        try:
            closure = kwargs.get("closure") or next((a for a in args[1:] if callable(a)), None)
            if closure is not None:
                return
            with private.Unfollowed():
                self._enter(optimizer)
            self.place = trace.stack.lift()
            trace.unfinished = None if self.place is None else self.end_step
        except Exception as fault:
            trace.fault(fault)

    def _enter(self, optimizer: Any) -> None:
        trace = self._trace
        site = sites.find_site(2, trace.cell_files)
        trace.order = order = trace.order + 1
        op = f"{type(optimizer).__name__}.step"
        row = trace.row(op, site, None, 0, key=id(optimizer))
        if not row.count:
            self._describe(row, optimizer)
        row.count += 1
        row.last = order
        trace.last_leaf_write = sequence = private.peek_sequence_nr()
        row.changed_leaf(sequence)
        if row.version_after is not None and not any(group.get("fused") for group in optimizer.param_groups):
            row.version_after += 1
        self._discarded_grads.stepping(optimizer)
        # The parameters are gone through only where somebody could still read what they held.
        if trace.index.any_alive():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._overwrite(row, p)

    def _describe(self, row: WriteRow, optimizer: Any) -> None:
        """The first step of a row: its leaves, and what the first of them that has a gradient looks like."""
        row.optimizer, row.leaf = weakref.ref(optimizer), True
        for group in optimizer.param_groups:
            for p in group["params"]:
                self._trace.leaf_storages.add(private.storage_id(p))
                if p.grad is None or row.dtype:
                    continue
                row.describe(p, shape_of(p), private.version(p))

    def _overwrite(self, row: WriteRow, p: torch.Tensor) -> None:
        trace = self._trace
        storage = private.storage_id(p)
        bucket = trace.index.bucket(storage)
        if bucket is not None:
            span = byte_range(p)
            self._copies.on_write(storage, span, None)
            bucket.log(row, trace.order, *span, view_of(p))


def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    hooks = part_here(OptimizerHooks)
    if hooks is not None:
        hooks.before(optimizer, args, kwargs)


def _after_step(*_: Any) -> None:
    hooks = part_here(OptimizerHooks)
    if hooks is not None:
        hooks.end_step()
