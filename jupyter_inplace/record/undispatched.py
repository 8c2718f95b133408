"""Writes that torch makes without dispatching anything: `x.data = t` and `x.detach_()`.

Both are replaced on `torch.Tensor` for the time of the session. Other tensors' classes go their own ways untouched.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.geometry import WHOLE, byte_range, view_of
from jupyter_inplace.record.patching import session_here
from jupyter_inplace.record.unrecorded import identity_of

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session


class Undispatched:
    """Replaces `Tensor.data` and `Tensor.detach_` by versions that tell the session."""

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
        if self._quiet():
            return None
        session = self._session
        try:
            shape, version = tuple(tensor.shape), private.version(tensor)
            storage = private.storage_id(tensor)
            bucket = session.index.bucket(storage) if storage else None
            held = [saved for saved in bucket.live() if saved.tensor is tensor] if bucket is not None else []
            for saved in held:
                if saved.clone is None:
                    session.copy_one(saved)
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
                session.attentive = True
        except Exception as fault:
            session.fault(fault)


# The replacements belong to the process, a session to its thread: each asks for the session in force where it is called, and
# they stand from the first session's beginning to the last one's end.
_lock = threading.Lock()
_users = 0
_BASE: Any = torch._C.TensorBase
_data, _detach_ = _BASE.__dict__["data"], _BASE.__dict__["detach_"]


def _acquire() -> None:
    global _users
    with _lock:
        if _users == 0:
            torch.Tensor.data = property(_get_data, _put_data, doc=_data.__doc__)  # type: ignore[assignment]
            torch.Tensor.detach_ = _detach_in_place  # type: ignore[assignment]
        _users += 1


def _release() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            del torch.Tensor.data
            del torch.Tensor.detach_


def _get_data(tensor: Any) -> Any:
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


_detach_in_place.__name__ = "detach_"
_detach_in_place.__doc__ = _detach_.__doc__


class Severed:
    """Tensors that were detached in place, and the operations that read them afterwards."""

    _KEPT = 64

    def __init__(self) -> None:
        self._by_storage: dict[int, Severance] = {}

    @property
    def any(self) -> bool:
        return bool(self._by_storage)

    def cut(self, tensor: torch.Tensor, identity: Any, write: Any) -> None:
        storage = private.storage_id(tensor)
        self._by_storage[storage] = Severance(identity, write, private.peek_sequence_nr())
        if len(self._by_storage) > self._KEPT:
            del self._by_storage[next(iter(self._by_storage))]

    def read(self, args: Any) -> None:
        """An operation is about to run: note the number of its node where it reads a severed tensor."""
        for value in args:
            if isinstance(value, torch.Tensor):
                found = self._by_storage.get(private.storage_id(value))
                if found is not None and not value.requires_grad:
                    found.readers.add(private.peek_sequence_nr() - 1)
            elif isinstance(value, (list, tuple)):
                self.read(value)

    def all(self) -> list[Severance]:
        return list(self._by_storage.values())

    def clear(self) -> None:
        self._by_storage.clear()


class Severance:
    """One in-place detach: what the tensor was, and who read it since."""

    __slots__ = ("identity", "readers", "sequence", "write")

    def __init__(self, identity: Any, write: Any, sequence: int) -> None:
        self.identity, self.write, self.sequence = identity, write, sequence
        self.readers: set[int] = set()
