"""Optimizer steps: one write per step, whatever the optimizer does inside.

torch's global step hooks bracket every optimizer, those made before the watch too. Between them the dispatch mode is
lifted, for a step teaches nothing op by op; a step with a closure keeps it, since the closure is the user's program.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch.optim import optimizer as _optimizer

from jupyter_inplace.record import sites
from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.geometry import byte_range, view_of
from jupyter_inplace.record.patching import session_here

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class OptimizerHooks:
    """Brackets steps with the public global hooks and enters one row of writes per step."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handles: list[Any] = []
        self._place: int | None = None  # where the mode belongs, while it is lifted

    def install(self) -> None:
        self._handles = [
            _optimizer.register_optimizer_step_pre_hook(_before_step),
            _optimizer.register_optimizer_step_post_hook(_after_step),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._place = None

    def end_step(self) -> None:
        """Put the mode back. A step that raised never reaches its post hook: the next event of the session calls this."""
        if self._place is not None:
            place, self._place = self._place, None
            if self._session.installed:
                self._session.stack.put_back(place)

    @property
    def lifted(self) -> bool:
        return self._place is not None

    def before(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        session = self._session
        if session.muted or not session.installed:
            return
        self.end_step()
        try:
            closure = kwargs.get("closure") or next((a for a in args[1:] if callable(a)), None)
            if closure is not None:
                return
            self._enter(optimizer)
            self._place = session.stack.lift()
        except Exception as fault:
            session.fault(fault)

    def _enter(self, optimizer: Any) -> None:
        session = self._session
        site = sites.find_site(2, session.cell_files)
        session.order += 1
        op = f"{type(optimizer).__name__}.step"
        row = session.table.row(op, site, None, id(optimizer), 0, session.seconds(), session.order)
        fused = False
        if not row.count:
            row.optimizer = weakref.ref(optimizer)
            row.leaf = True
        row.count += 1
        row.last = session.order
        row.changed_leaf(private.peek_sequence_nr())
        session.last_leaf_write = private.peek_sequence_nr()
        for group in optimizer.param_groups:
            fused = fused or bool(group.get("fused"))
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not row.shape and row.count == 1 and not row.dtype:
                    row.shape, row.dtype, row.device = (
                        tuple(p.shape),
                        str(p.dtype).removeprefix("torch."),
                        str(p.device),
                    )
                    row.version_before = private.version(p)
                if row.count == 1 or row.version_after is None:
                    row.version_after = row.version_before
                storage = private.storage_id(p)
                session.leaf_storages.add(storage)
                bucket = session.index.bucket(storage)
                if bucket is not None:
                    span = byte_range(p)
                    session.copy_on_write(storage, span, None)
                    bucket.log(row, session.order, *span, view_of(p))
        if row.version_before is not None and row.version_after is not None and not fused:
            row.version_after += 1


def _before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    session = session_here()
    if session is not None:
        session.optimizers.before(optimizer, args, kwargs)


def _after_step(*_: Any) -> None:
    session = session_here()
    if session is not None:
        session.optimizers.end_step()
