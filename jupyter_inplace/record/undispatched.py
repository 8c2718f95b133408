"""Writes that torch makes without dispatching anything: `x.data = t`, `x.detach_()` and `x.requires_grad_(False)`.

`x.requires_grad = False` is seen by `attributes`.

They are replaced on `torch.Tensor` for the time of the session. Other tensors' classes go their own ways untouched.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from jupyter_inplace.record import sites
from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.aliases import note_alias
from jupyter_inplace.record.geometry import WHOLE, byte_range, view_of
from jupyter_inplace.record.patching import session_here
from jupyter_inplace.record.unrecorded import identity_of
from jupyter_inplace.record.writes import Write

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class Undispatched:
    """Replaces `Tensor.data`, `Tensor.detach_` and `Tensor.requires_grad_` by versions that tell the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._on = False

    def install(self) -> None:
        self._on = True
        _acquire()

    def remove(self) -> None:
        if self._on:
            self._on = False
            _release()

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
                with torch.no_grad():
                    cuts = session.unrecorded.before_write(
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
            row = session.row_for(".data =", tensor, shape, version, bumps=False)
            session.unrecorded.enter(cuts, row)
            storage = private.storage_id(tensor)
            if tensor.requires_grad and tensor.is_leaf:
                session.note_leaf(row, storage)
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
            row = session.row_for("detach_", tensor, shape, version, bumps=False)
            bucket = session.index.bucket(private.storage_id(tensor))
            if bucket is not None:
                bucket.log(row, session.order, *WHOLE, None)
                for saved in bucket.live():
                    if saved.tensor is tensor:
                        session.index.touch(saved)
            if identity is not None:
                session.severed.cut(tensor, identity, row)
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
            row = Write(op, site, None, storage, session.seconds(), session.order)
            row.count, row.shape = 1, tuple(tensor.shape)
            row.dtype, row.device = str(tensor.dtype).removeprefix("torch."), str(tensor.device)
            row.version_before = row.version_after = private.version(tensor)
            session.severed.cut(tensor, None, row)
            session.attend()
        except Exception as fault:
            session.fault(fault)


# The replacements belong to the process, a session to its thread: each asks for the session in force where it is called, and
# they stand from the first session's beginning to the last one's end.
_lock = threading.Lock()
_users = 0
_BASE: Any = torch._C.TensorBase
_data, _detach_, _requires_grad_ = (_BASE.__dict__[name] for name in ("data", "detach_", "requires_grad_"))


def _acquire() -> None:
    global _users
    with _lock:
        if _users == 0:
            torch.Tensor.data = property(_get_data, _put_data, doc=_data.__doc__)  # type: ignore[assignment]
            torch.Tensor.detach_ = _detach_in_place  # type: ignore[assignment]
            torch.Tensor.requires_grad_ = _require_grad  # type: ignore[assignment]
        _users += 1


def _release() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            del torch.Tensor.data
            del torch.Tensor.detach_
            del torch.Tensor.requires_grad_


def _get_data(tensor: Any) -> Any:
    __tracebackhide__ = True
    note_alias(tensor)
    return _data.__get__(tensor)


def _put_data(tensor: Any, value: Any) -> None:
    __tracebackhide__ = True
    session = session_here()
    if session is None:
        _data.__set__(tensor, value)
        return
    before = session.undispatched.before_data(tensor, value)
    _data.__set__(tensor, value)
    session.undispatched.after_data(tensor, before)


def _detach_in_place(tensor: Any) -> Any:
    __tracebackhide__ = True
    session = session_here()
    if session is None:
        return _detach_(tensor)
    before = session.undispatched.before_detach(tensor)
    out = _detach_(tensor)
    session.undispatched.after_detach(tensor, before)
    return out


def _require_grad(tensor: Any, *args: Any, **kwargs: Any) -> Any:
    __tracebackhide__ = True
    session = session_here()
    if session is not None and False in (*args, *kwargs.values()):
        session.undispatched.freezing(tensor)
    return _requires_grad_(tensor, *args, **kwargs)


_require_grad.__name__ = "requires_grad_"
_require_grad.__doc__ = _requires_grad_.__doc__
_detach_in_place.__name__ = "detach_"
_detach_in_place.__doc__ = _detach_.__doc__
