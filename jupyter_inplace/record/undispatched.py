"""Writes that torch makes without dispatching anything: `x.data = t` and `x.detach_()`.

Both are replaced on `torch.Tensor` for the time of the session. Other tensors' classes go their own ways untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record import torch_private as private
from jupyter_inplace.record.geometry import WHOLE, byte_range, view_of
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
        base: Any = torch._C.TensorBase
        data, detach_ = base.__dict__["data"], base.__dict__["detach_"]
        watching = self

        def get(tensor: Any) -> Any:
            return data.__get__(tensor)

        def put(tensor: Any, value: Any) -> None:
            __tracebackhide__ = True
            before = watching._before_data(tensor, value)
            data.__set__(tensor, value)
            watching._after_data(tensor, before)

        def detach_in_place(tensor: Any) -> Any:
            __tracebackhide__ = True
            before = watching._before_detach(tensor)
            out = detach_(tensor)
            watching._after_detach(tensor, before)
            return out

        detach_in_place.__name__ = "detach_"
        detach_in_place.__doc__ = detach_.__doc__
        torch.Tensor.data = property(get, put, doc=data.__doc__)  # type: ignore[assignment]
        torch.Tensor.detach_ = detach_in_place  # type: ignore[assignment]

    def remove(self) -> None:
        if self._on:
            self._on = False
            del torch.Tensor.data
            del torch.Tensor.detach_

    def _quiet(self) -> bool:
        return self._session.muted or not self._session.installed

    # --- x.data = t -----------------------------------------------------------------------------------------------------------

    def _before_data(self, tensor: Any, value: Any) -> Any:
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

    def _after_data(self, tensor: Any, before: Any) -> None:
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

    def _before_detach(self, tensor: Any) -> Any:
        if self._quiet() or not tensor.requires_grad:
            return None
        try:
            return tuple(tensor.shape), private.version(tensor), identity_of(tensor)
        except Exception as fault:
            self._session.fault(fault)
            return None

    def _after_detach(self, tensor: Any, before: Any) -> None:
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
        except Exception as fault:
            session.fault(fault)


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
