"""How a write comes into the record: what is kept right before it, and its row right after."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import WHOLE, byte_range, view_of
from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.saved.saved import Bucket, storages_of
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.prepared import Prepared, flat_storage

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_CALL_IMPL = torch.nn.Module._call_impl.__code__


class WriteEntry:
    """Enters the writes of one session, whatever they concern. The ordinary ones of a loop have a shorter way, `repeated`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def row_for(
        self, op: str, t: torch.Tensor, shape: tuple[int, ...], version: int | None, *, bumps: bool
    ) -> WriteRow:
        """Enter one write that torch did not dispatch."""
        session = self._session
        site, module = sites.find_site_and_module(_CALL_IMPL, 3, session.cell_files)
        session.order += 1
        row = session.table.row(
            op, site, _weak(module), id(module), private.storage_id(t), session.seconds(), session.order
        )
        if not row.count:
            row.shape, row.dtype, row.device = shape, str(t.dtype).removeprefix("torch."), str(t.device)
            row.version_before = version
        row.count += 1
        row.last = session.order
        row.version_after = None if version is None else version + bumps
        return row

    def before(
        self, plan: Plan, targets: list[torch.Tensor], func: Any, args: Any, kwargs: Any
    ) -> list[Prepared] | None:
        """Copy what is about to be overwritten, and note what the tensors were; None where they have no numbers for it."""
        for t in targets:
            if private.is_symbolic(t):
                return None
        return [self._prepare(t, plan, func, args, kwargs) for t in targets]

    def _prepare(self, t: torch.Tensor, plan: Plan, func: Any, args: Any, kwargs: Any) -> Prepared:
        session = self._session
        key = private.storage_id(t)
        keys = (key,) if key else storages_of(t)
        before = Prepared(keys, private.version(t), t.shape)
        buckets: list[Bucket] = []
        for key in keys:
            bucket = session.index.bucket(key)
            if bucket is not None:
                buckets.append(bucket)
        if buckets:
            before.buckets, before.view = buckets, view_of(t)
            before.span = WHOLE if plan.metadata_only else byte_range(t)
            for bucket in buckets:
                session.copies.overlapping(bucket, before.span, plan.hidden)
        if not plan.metadata_only:
            if not plan.hidden and (
                session.untracked_writes.any
                or t.requires_grad
                or ((base := t._base) is not None and base.requires_grad)
            ):
                before.cuts = session.untracked_writes.before_write(func, t, args, kwargs, session.order + 1)
                if not plan.repeatable:
                    for cut in before.cuts:
                        cut.replayable = False
            if not t.is_floating_point():
                before.integers = session.integers.before_write(t, session.order + 1)
        if (
            session.grad_aliases.known
            and keys
            and session.grad_aliases.held(keys[0]) is not None
            and session.gradient_overwritten is not None
        ):
            before.gradient = private.copy_of(t)
        if session.grad_results.known:
            before.shared = session.grad_results.before_write(t)
        if session.discarded_grads.any:
            before.unread = session.discarded_grads.size_of(t)
        if session.gradient_written is not None and session.engine.depth and plan.repeatable:
            before.flat = flat_storage(t)
        return before

    def after(
        self, plan: Plan, targets: list[torch.Tensor], prepared: list[Prepared], func: Any, args: Any, kwargs: Any
    ) -> None:
        """Enter the writes into their rows, now that they have happened."""
        session = self._session
        if session.engine.depth and session.engine.made_by_engine():
            return
        site, module = sites.find_site_and_module(_CALL_IMPL, 2, session.cell_files)
        session.order += 1
        for t, before in zip(targets, prepared):  # noqa: B905 (one for each)
            row = self._enter(plan, t, before, site, module)
            if before.flat is not None and session.gradient_written is not None:
                session.gradient_written(row, t, before.flat, func, args, kwargs)

    def _enter(self, plan: Plan, t: torch.Tensor, before: Prepared, site: Any, module: Any) -> WriteRow:
        session = self._session
        keys, version = before.keys, before.version
        storage = keys[0] if keys else 0
        row = session.table.find(plan.name, site, id(module), storage)
        if row is None:
            row = session.table.row(
                plan.name, site, _weak(module), id(module), storage, session.seconds(), session.order
            )
        if not row.count:
            row.shape, row.device = tuple(before.shape), str(t.device)
            row.dtype = str(t.dtype).removeprefix("torch.")
            row.itemsize = t.element_size() if t.layout is torch.strided else 0
            row.version_before = version
            row.grad_mode = torch.is_grad_enabled()
            row.requires_grad = t.requires_grad
            session.rewritten = session.rewritten or t.requires_grad
            row.hidden = plan.hidden
        row.count += 1
        row.last = session.order
        row.version_after = None if version is None else version + (1 if plan.bumps else 0)
        for bucket in before.buckets:
            bucket.log(row, session.order, *before.span, before.view)
        if before.cuts:
            session.untracked_writes.enter(before.cuts, row)
        if before.gradient is not None and session.gradient_overwritten is not None:
            session.gradient_overwritten(t, row, before.gradient)
        if before.shared is not None:
            session.grad_results.written(t, before.shared, row, session.order)
        if before.unread is not None:
            session.discarded_grads.zeroed(storage, before.unread, row)
        if before.integers is not None:
            session.integers.enter(before.integers, storage, row)
        if storage in session.leaf_storages or (t.requires_grad and _is_leaf(t)):
            self.note_leaf(row, storage)
            if session.discarded_grads.cleared:
                session.discarded_grads.updated(storage)
        elif row.count == 1 and before.concerns_nothing:
            session.table.share(row, plan.name, site, id(module))
        return row

    def note_leaf(self, row: WriteRow, storage: int) -> None:
        session = self._session
        session.leaf_storages.add(storage)
        session.last_leaf_write = private.peek_sequence_nr()
        row.leaf = True
        row.changed_leaf(session.last_leaf_write)


def _weak(module: Any) -> Any:
    return None if module is None else weakref.ref(module)


def _is_leaf(t: torch.Tensor) -> bool:
    try:
        return t.is_leaf and (t._base is None or t._base.is_leaf)
    except RuntimeError:  # a view of a base that was written: torch refuses to say
        return False
