"""Writes that torch makes without dispatching anything: `x.data = t`, `x.detach_()` and `x.requires_grad_(False)`.

`x.requires_grad = False` is seen by `attributes`.

They are replaced on `torch.Tensor` for the time of the session. Other tensors' classes go their own ways untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import WHOLE, byte_range, view_of
from jupyter_inplace.record.base.patching import Replacement, StandIn, StandInProperty, session_here
from jupyter_inplace.record.channels.aliases import note_alias
from jupyter_inplace.record.channels.untracked_writes import identity_of
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.write_table import WriteRow

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class DataAndDetach:
    """Replaces `Tensor.data`, `Tensor.detach_` and `Tensor.requires_grad_` by versions that tell the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held: list[Replacement] = []

    def install(self) -> None:
        self._held = [replacement for replacement in _REPLACEMENTS if replacement.acquire()]

    def remove(self) -> None:
        for replacement in self._held:
            replacement.release()
        self._held.clear()

    def _quiet(self) -> bool:
        return self._session.muted or not self._session.installed

    # --- x.data = t -----------------------------------------------------------------------------------------------------------

    def before_data(self, tensor: Any, value: Any) -> Any:
        if self._quiet() or is_lazy(tensor):  # a lazy parameter gets its memory: nobody can have read it before
            return None
        session = self._session
        try:
            if torch.nn.parameter.is_lazy(tensor):
                return tuple(value.shape), private.version(tensor), [], []  # a lazy module gets its shapes
            shape, version = tuple(tensor.shape), private.version(tensor)
            storage = private.storage_id(tensor)
            bucket = session.index.bucket(storage) if storage else None
            held = [saved for saved in bucket.live() if saved.tensor is tensor] if bucket is not None else []
            for saved in held:
                if saved.clone is None:
                    session.copies.copy(saved)
            cuts = []
            if (
                tensor.requires_grad
                and not tensor.is_leaf
                and isinstance(value, torch.Tensor)
                and value.shape == tensor.shape
            ):
                with private.without_grad():
                    cuts = session.untracked_writes.before_write(
                        torch.ops.aten.copy_.default, tensor, (tensor, value), {}, session.order + 1
                    )
            return shape, version, held, cuts
        except Exception as fault:
            session.fault(fault)
            return None

    def after_data(self, tensor: Any, before: Any) -> None:
        if before is None:
            return
        session = self._session
        try:
            shape, version, held, cuts = before
            row = session.write_entry.row_for(".data =", tensor, shape, version, bumps=False)
            session.untracked_writes.enter(cuts, row)
            storage = private.storage_id(tensor)
            if tensor.requires_grad and tensor.is_leaf:
                session.write_entry.note_leaf(row, storage)
            for saved in held:
                saved.home = None  # it moves to the storage that it stands on now
                session.index.add(saved)
            bucket = session.index.bucket(storage) if held else None
            if bucket is not None:
                bucket.log(row, session.order, *byte_range(tensor), view_of(tensor))
                for saved in held:
                    session.index.touch(saved)
        except Exception as fault:
            session.fault(fault)

    # --- x.detach_() -----------------------------------------------------------------------------------------------------------

    def before_detach(self, tensor: Any) -> Any:
        if self._quiet() or not tensor.requires_grad:
            return None
        try:
            return tuple(tensor.shape), private.version(tensor), identity_of(tensor)
        except Exception as fault:
            self._session.fault(fault)
            return None

    def after_detach(self, tensor: Any, before: Any) -> None:
        if before is None:
            return
        session = self._session
        try:
            shape, version, identity = before
            row = session.write_entry.row_for("detach_", tensor, shape, version, bumps=False)
            bucket = session.index.bucket(private.storage_id(tensor))
            if bucket is not None:
                bucket.log(row, session.order, *WHOLE, None)
                for saved in bucket.live():
                    if saved.tensor is tensor:
                        session.index.touch(saved)
            if identity is not None:
                session.detached.cut(tensor, identity, row)
                session.attend()
        except Exception as fault:
            session.fault(fault)

    # --- x.requires_grad_(False) -----------------------------------------------------------------------------------------------

    def freezing(self, tensor: Any, op: str = "requires_grad_") -> None:
        """A leaf is about to be frozen. No row: it is one only where a root reads the leaf before and after."""
        session = self._session
        try:
            if self._quiet() or not tensor.requires_grad or not tensor.is_leaf:
                return
            site = sites.find_site(3, session.cell_files)
            session.order += 1
            storage = private.storage_id(tensor)
            row = WriteRow(op, site, None, storage, session.seconds(), session.order)
            row.count, row.shape = 1, tuple(tensor.shape)
            row.dtype, row.device = str(tensor.dtype).removeprefix("torch."), str(tensor.device)
            row.version_before = row.version_after = private.version(tensor)
            session.detached.cut(tensor, None, row)
            session.attend()
        except Exception as fault:
            session.fault(fault)


def _data(original: Any) -> Any:
    def get(tensor: Any) -> Any:
        __tracebackhide__ = True
        note_alias(tensor)
        return original.__get__(tensor)

    def put(tensor: Any, value: Any) -> None:
        __tracebackhide__ = True
        session = session_here()
        if session is None:
            original.__set__(tensor, value)
            return
        with private.Unfollowed():
            before = session.data_and_detach.before_data(tensor, value)
        original.__set__(tensor, value)
        with private.Unfollowed():
            session.data_and_detach.after_data(tensor, before)

    return StandInProperty(original, get, put)


def _detaching(original: Any) -> Any:
    def detach_(session: Session, original: Any, tensor: Any) -> Any:
        __tracebackhide__ = True
        before = session.data_and_detach.before_detach(tensor)
        out = original(tensor)
        session.data_and_detach.after_detach(tensor, before)
        return out

    return StandIn(original, detach_)


def _freezing(original: Any) -> Any:
    def requires_grad_(session: Session, original: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if False in (*args, *kwargs.values()):
            session.data_and_detach.freezing(tensor)
        return original(tensor, *args, **kwargs)

    return StandIn(original, requires_grad_)


_REPLACEMENTS = (
    Replacement(torch.Tensor, "data", _data),
    Replacement(torch.Tensor, "detach_", _detaching),
    Replacement(torch.Tensor, "requires_grad_", _freezing),
)
