"""How a write enters the record: what is kept right before it, and its row right after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from jupyter_inplace.record.backward.python_frames import made_by_engine
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import WHOLE, byte_range, shape_of, view_of
from jupyter_inplace.record.base.memory import storages_of
from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.saved.copies import Copies
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import CALL_IMPL, Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.pending import PendingWrite


class WriteEntry:
    """Enters the writes of one trace, whatever they concern. The ordinary ones of a loop have a shorter way, `fast_path`."""

    def __init__(self, trace: Trace, copies: Copies) -> None:
        self._trace, self._copies = trace, copies

    def row_for(
        self, op: str, t: torch.Tensor, shape: tuple[int, ...], version: int | None, *, bumps: bool
    ) -> WriteRow:
        """Enter one write that torch did not dispatch."""
        trace = self._trace
        site, module = sites.find_site_and_module(CALL_IMPL, 3, trace.cell_files)
        trace.order += 1
        row = trace.row(op, site, module, private.storage_id(t))
        if not row.count:
            row.describe(t, shape, version)
        row.happened(trace.order, version, bumps=bumps)
        return row

    @contextlib.contextmanager
    def around(self, op: str, t: torch.Tensor) -> Iterator[None]:
        """Enter a write to the values of `t` that torch does not dispatch and does not count.

        What was saved there is copied first; the row is entered when the block is over. No fault of ours comes out.
        """
        trace = self._trace
        if trace.muted or not trace.installed:
            yield
            return
        before = None
        try:
            before = self._before_outside(t)
        except Exception as fault:
            trace.fault(fault)
        yield
        if before is not None:
            try:
                self._after_outside(op, t, *before)
            except Exception as fault:
                trace.fault(fault)

    def _before_outside(self, t: torch.Tensor) -> tuple[tuple[int, ...], int | None]:
        for key in storages_of(t):
            self._copies.on_write(key, byte_range(t), None)
        return shape_of(t), private.version(t)

    def _after_outside(self, op: str, t: torch.Tensor, shape: tuple[int, ...], version: int | None) -> None:
        trace = self._trace
        row = self.row_for(op, t, shape, version, bumps=False)
        for key in storages_of(t):
            bucket = trace.index.bucket(key)
            if bucket is not None:
                bucket.log(row, trace.order, *byte_range(t), view_of(t))
        if t.requires_grad and _is_leaf(t):
            self.note_leaf(row, row.storage)

    def before(
        self, plan: Plan, targets: list[torch.Tensor], func: Any, args: Any, kwargs: Any
    ) -> list[PendingWrite] | None:
        """Copy what is about to be overwritten, and note what the tensors were; None if they have no numbers for it."""
        for t in targets:
            if private.is_symbolic(t) and not t.is_nested:  # a jagged tensor has such sizes where nothing is traced
                return None
        order = self._trace.order + 1
        return [self._prepare(PendingWrite(plan, t, func, args, kwargs, order)) for t in targets]

    def _prepare(self, write: PendingWrite) -> PendingWrite:
        trace, plan, t = self._trace, write.plan, write.tensor
        if private.is_wrapper(t) and not private.is_fake(t):
            trace.blind_spots.setdefault(
                f"{type(t).__name__} keeps its values in other tensors: writes to it are compared with saved tensors, "
                "and followed no further (aliases, gradients that a name holds)"
                if private.holders(t)
                else f"{type(t).__name__} keeps its values out of reach: writes to it are not compared with saved tensors"
            )
        buckets = [bucket for key in write.keys if (bucket := trace.index.bucket(key)) is not None]
        if buckets:
            write.buckets, write.view = buckets, view_of(t)
            write.span = WHOLE if plan.metadata_only else byte_range(t)
            for bucket in buckets:
                self._copies.overlapping(bucket, write.span, plan.hidden)
        kept = [(channel, noted) for channel in trace.asked if (noted := channel.before_write(write)) is not None]
        if kept:
            write.kept = kept
        return write

    def after(self, pending: list[PendingWrite]) -> None:
        """Enter the writes into their rows, now that they have happened."""
        trace = self._trace
        if trace.depth and made_by_engine():
            return
        site, module = sites.find_site_and_module(CALL_IMPL, 2, trace.cell_files)
        trace.order += 1
        for write in pending:
            self._enter(write, site, module)

    def _enter(self, write: PendingWrite, site: Any, module: Any) -> None:
        trace, plan, t, storage = self._trace, write.plan, write.tensor, write.storage
        row = trace.table.find(plan.name, site, id(module), storage)
        if row is None:
            row = trace.row(plan.name, site, module, storage)
        if not row.count:
            row.describe(t, write.shape, write.version)
            row.itemsize = t.element_size() if t.layout is torch.strided else 0
            row.grad_mode = torch.is_grad_enabled()
            row.requires_grad = t.requires_grad
            trace.rewritten = trace.rewritten or t.requires_grad
            row.hidden = plan.hidden
        row.happened(trace.order, write.version, bumps=plan.bumps)
        for bucket in write.buckets:
            bucket.log(row, trace.order, *write.span, write.view)
        for channel, noted in write.kept:
            channel.after_write(noted, write, row)
        if storage in trace.leaf_storages or (t.requires_grad and _is_leaf(t)):
            self.note_leaf(row, storage)
            for channel in trace.following:
                channel.leaf_written(storage)
        elif row.count == 1 and write.concerns_nothing:
            trace.table.share(row, plan.name, site, id(module))

    def note_leaf(self, row: WriteRow, storage: int) -> None:
        """The write changed a leaf: its readers from here on read another value."""
        trace = self._trace
        trace.leaf_storages.add(storage)
        trace.last_leaf_write = private.peek_sequence_nr()
        row.leaf = True
        row.changed_leaf(trace.last_leaf_write)


def _is_leaf(t: torch.Tensor) -> bool:
    try:
        return t.is_leaf and (t._base is None or t._base.is_leaf)
    except RuntimeError:  # a view of a base that was written: torch refuses to say
        return False
