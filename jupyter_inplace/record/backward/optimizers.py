"""Optimizer steps: one write per step, whatever the optimizer does inside.

torch's global step hooks bracket every optimizer, those made before the watch too. Between them the dispatch mode is
lifted, for a step teaches nothing op by op; a step with a closure keeps it, since the closure is the user's program.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch.optim import optimizer as _optimizer

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import byte_range, view_of
from jupyter_inplace.record.base.patching import session_here
from jupyter_inplace.record.source import sites

if TYPE_CHECKING:
    import torch

    from jupyter_inplace.record.dispatch.stack import Place
    from jupyter_inplace.record.session import Session
    from jupyter_inplace.record.write_table import WriteRow


class OptimizerHooks:
    """Brackets steps with the public global hooks and enters one row of writes per step."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handles: list[Any] = []
        self.place: Place | None = None  # where the mode belongs, while it is lifted

    def install(self) -> None:
        self._handles = [
            _optimizer.register_optimizer_step_pre_hook(_before_step),
            _optimizer.register_optimizer_step_post_hook(_after_step),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.place = None

    def end_step(self) -> None:
        """Put the mode back. A step that raised never reaches its post hook: the next event of the session calls this."""
        if self.place is not None:
            place, self.place = self.place, None
            if self._session.installed:
                self._session.stack.put_back(place)

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        session = self._session
        if session.muted or not session.installed:
            return
        self.end_step()
        try:
            closure = kwargs.get("closure") or next((a for a in args[1:] if callable(a)), None)
            if closure is not None:
                return
            with private.Unfollowed():
                self._enter(optimizer)
            self.place = session.stack.lift()
        except Exception as fault:
            session.fault(fault)

    def _enter(self, optimizer: Any) -> None:
        session = self._session
        site = sites.find_site(2, session.cell_files)
        session.order = order = session.order + 1
        op = f"{type(optimizer).__name__}.step"
        row = session.table.row(op, site, None, id(optimizer), 0, session.seconds(), order)
        if not row.count:
            self._describe(row, optimizer)
        row.count += 1
        row.last = order
        session.last_leaf_write = sequence = private.peek_sequence_nr()
        row.changed_leaf(sequence)
        if row.version_after is not None and not any(group.get("fused") for group in optimizer.param_groups):
            row.version_after += 1
        session.discarded_grads.stepping(optimizer)
        # The parameters are gone through only where somebody could still read what they held.
        if session.index.any_alive():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._overwrite(row, p)

    def _describe(self, row: WriteRow, optimizer: Any) -> None:
        """The first step of a row: its leaves, and what the first of them that has a gradient looks like."""
        row.optimizer, row.leaf = weakref.ref(optimizer), True
        for group in optimizer.param_groups:
            for p in group["params"]:
                self._session.leaf_storages.add(private.storage_id(p))
                if p.grad is None or row.dtype:
                    continue
                row.shape, row.dtype, row.device = tuple(p.shape), str(p.dtype).removeprefix("torch."), str(p.device)
                row.version_before = row.version_after = private.version(p)

    def _overwrite(self, row: WriteRow, p: torch.Tensor) -> None:
        session = self._session
        storage = private.storage_id(p)
        bucket = session.index.bucket(storage)
        if bucket is not None:
            span = byte_range(p)
            session.copies.on_write(storage, span, None)
            bucket.log(row, session.order, *span, view_of(p))


def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    session = session_here()
    if session is not None:
        session.optimizers.before(optimizer, args, kwargs)


def _after_step(*_: Any) -> None:
    session = session_here()
    if session is not None:
        session.optimizers.end_step()
