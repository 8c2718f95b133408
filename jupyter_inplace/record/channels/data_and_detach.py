"""Writes that torch makes without dispatching anything: `x.data = t`, `x.detach_()`, `x.requires_grad_(False)`, `x.requires_grad = False`.

They are replaced on `torch.Tensor` while a watch is open. Subclasses of tensors that define their own are left alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import is_lazy

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import WHOLE, byte_range, shape_of, view_of
from jupyter_inplace.record.base.patching import Held, Replacement, StandInProperty
from jupyter_inplace.record.channels.channel import Channel
from jupyter_inplace.record.channels.detached import DetachedTensors
from jupyter_inplace.record.channels.untracked_writes import UntrackedWrites, identity_of
from jupyter_inplace.record.dispatch.aliases import note_alias
from jupyter_inplace.record.here import StandIn, part_here
from jupyter_inplace.record.saved.copies import Copies
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.write_entry import WriteEntry


class DataAndDetach(Channel):
    """Replaces `Tensor.data`, `Tensor.detach_` and `Tensor.requires_grad_` by versions that tell the trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._copies, self._entry = trace.part(Copies), trace.part(WriteEntry)
        self._untracked, self._detached = trace.part(UntrackedWrites), trace.part(DetachedTensors)
        self._replaced = Held()

    def install(self) -> None:
        self._replaced.acquire(_REPLACEMENTS)

    def remove(self) -> None:
        self._replaced.release()

    def _quiet(self) -> bool:
        return self._trace.muted or not self._trace.installed

    # --- x.data = t -----------------------------------------------------------------------------------------------------------

    def before_data(self, tensor: Any, value: Any) -> Any:
        if self._quiet() or is_lazy(tensor):  # a lazy parameter gets its memory: nobody can have read it before
            return None
        trace = self._trace
        try:
            shape, version = shape_of(tensor), private.version(tensor)
            storage = private.storage_id(tensor)
            bucket = trace.index.bucket(storage) if storage else None
            held = [saved for saved in bucket.live() if saved.tensor is tensor] if bucket is not None else []
            for saved in held:
                if saved.clone is None:
                    self._copies.copy(saved)
            cuts = []
            if (
                tensor.requires_grad
                and not tensor.is_leaf
                and isinstance(value, torch.Tensor)
                and value.shape == tensor.shape
            ):
                with private.without_grad():
                    cuts = self._untracked.cuts_of(
                        torch.ops.aten.copy_.default, tensor, (tensor, value), {}, trace.order + 1
                    )
            return shape, version, held, cuts
        except Exception as fault:
            trace.fault(fault)
            return None

    def after_data(self, tensor: Any, before: Any) -> None:
        if before is None:
            return
        trace = self._trace
        try:
            shape, version, held, cuts = before
            row = self._entry.row_for(".data =", tensor, shape, version, bumps=False)
            self._untracked.enter(cuts, row)
            storage = private.storage_id(tensor)
            if tensor.requires_grad and tensor.is_leaf:
                self._entry.note_leaf(row, storage)
            for saved in held:
                saved.home = None  # it moves to the storage that it stands on now
                trace.index.add(saved)
            bucket = trace.index.bucket(storage) if held else None
            if bucket is not None:
                bucket.log(row, trace.order, *byte_range(tensor), view_of(tensor))
                for saved in held:
                    trace.index.touch(saved)
        except Exception as fault:
            trace.fault(fault)

    # --- x.detach_() -----------------------------------------------------------------------------------------------------------

    def before_detach(self, tensor: Any) -> Any:
        if self._quiet() or not tensor.requires_grad:
            return None
        try:
            return shape_of(tensor), private.version(tensor), identity_of(tensor)
        except Exception as fault:
            self._trace.fault(fault)
            return None

    def after_detach(self, tensor: Any, before: Any) -> None:
        if before is None:
            return
        trace = self._trace
        try:
            shape, version, identity = before
            row = self._entry.row_for("detach_", tensor, shape, version, bumps=False)
            bucket = trace.index.bucket(private.storage_id(tensor))
            if bucket is not None:
                bucket.log(row, trace.order, *WHOLE, None)
                for saved in bucket.live():
                    if saved.tensor is tensor:
                        trace.index.touch(saved)
            if identity is not None:
                self._detached.cut(tensor, identity, row)
        except Exception as fault:
            trace.fault(fault)

    # --- x.requires_grad_(False) -----------------------------------------------------------------------------------------------

    def freezing(self, tensor: Any, op: str = "requires_grad_") -> None:
        """A leaf is about to be frozen. No row: it is one only where a root reads the leaf before and after."""
        trace = self._trace
        try:
            if self._quiet() or not tensor.requires_grad or not tensor.is_leaf:
                return
            site = sites.find_site(3, trace.cell_files)
            trace.order += 1
            storage = private.storage_id(tensor)
            row = WriteRow(op, site, None, storage, trace.seconds(), trace.order)
            version = private.version(tensor)
            row.describe(tensor, shape_of(tensor), version)
            row.happened(trace.order, version, bumps=False)
            self._detached.cut(tensor, None, row)
        except Exception as fault:
            trace.fault(fault)


def _data(original: Any) -> Any:
    def get(tensor: Any) -> Any:
        __tracebackhide__ = True
        note_alias(tensor)
        return original.__get__(tensor)

    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        channel = part_here(DataAndDetach)
        if channel is None:
            original.__set__(tensor, value)
            return
        with private.Unfollowed():
            before = channel.before_data(tensor, value)
        original.__set__(tensor, value)
        with private.Unfollowed():
            channel.after_data(tensor, before)

    return StandInProperty(original, get, put)


def _detaching(original: Any) -> Any:
    def detach_(trace: Trace, original: Any, tensor: Any) -> Any:
        __tracebackhide__ = True
        channel = trace.part(DataAndDetach)
        before = channel.before_detach(tensor)
        out = original(tensor)
        channel.after_detach(tensor, before)
        return out

    return StandIn(original, detach_)


def _freezing(original: Any) -> Any:
    def requires_grad_(trace: Trace, original: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if False in (*args, *kwargs.values()):
            trace.part(DataAndDetach).freezing(tensor)
        return original(tensor, *args, **kwargs)

    return StandIn(original, requires_grad_)


def _assigning_flag(original: Any) -> Any:
    # Reading the flag stays as it was, in C.
    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        channel = part_here(DataAndDetach) if value is False else None
        if channel is not None:
            with private.Unfollowed():
                channel.freezing(tensor, "requires_grad =")
        original.__set__(tensor, value)

    return StandInProperty(original, original.__get__, put)


_REPLACEMENTS = (
    Replacement(torch.Tensor, "requires_grad", _assigning_flag),
    Replacement(torch.Tensor, "data", _data),
    Replacement(torch.Tensor, "detach_", _detaching),
    Replacement(torch.Tensor, "requires_grad_", _freezing),
)
