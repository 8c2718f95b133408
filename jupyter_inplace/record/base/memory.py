"""The memory under a tensor: its storages, whether torch made it, whether it is still there, and copies of what it holds.

Whatever reads the memory of a tensor of the program's does it through here: not every tensor has memory to read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import WHOLE, byte_range
from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.base.wrappers import inner_tensors, with_inner_tensors

# The method under `Tensor.untyped_storage`, which is replaced during a watch by one that takes note of who asks.
underlying_storage = torch._C.TensorBase.untyped_storage
# Nor the method of `torch.Tensor`, for the same reason.
_detach: Callable[[torch.Tensor], torch.Tensor] = torch._C.TensorBase.detach


def storages_of(t: torch.Tensor) -> tuple[int, ...]:
    """The storages that hold the values of `t`: one for a strided tensor, those of the components of a sparse one or a wrapper, or none."""
    if private.is_wrapper(t):
        return tuple(dict.fromkeys(k for part in private.holders(t) for k in storages_of(part))) or _one(storage_id(t))
    key = storage_id(t)
    if key:
        return (key,)
    parts: list[torch.Tensor] = []
    try:
        if t.layout is torch.sparse_coo:
            parts = [t._indices(), t._values()]
        elif t.layout in (torch.sparse_csr, torch.sparse_bsr):
            parts = [t.crow_indices(), t.col_indices(), t.values()]
        elif t.layout in (torch.sparse_csc, torch.sparse_bsc):
            parts = [t.ccol_indices(), t.row_indices(), t.values()]
    except (RuntimeError, NotImplementedError):
        return ()
    return tuple(k for p in parts if (k := storage_id(p)))


def _one(key: int) -> tuple[int, ...]:
    return (key,) if key else ()


def weak_storage(t: torch.Tensor) -> StorageWeakRef:
    """A weak reference to the storage of which `storage_id` gives the number: it keeps that number from being given to another one.

    :raises RuntimeError: it has none.
    """
    return StorageWeakRef(underlying_storage(next(iter(private.holders(t)), t)))


def is_own_memory(t: torch.Tensor) -> bool:
    """Whether torch made the memory of a tensor, as far as can be told: what came in from outside cannot be resized."""
    try:
        return not t.is_cpu or bool(underlying_storage(t).resizable())
    except RuntimeError:  # it has no storage
        return True


def is_gone(t: torch.Tensor) -> bool:
    """Whether the memory of a tensor is not there: its storage is too small for it."""
    if private.is_wrapper(t):
        return any(is_gone(part) for part in private.holders(t))
    if t.layout is not torch.strided:
        return False
    try:
        end = byte_range(t)[1]
        return end != WHOLE[1] and underlying_storage(t).nbytes() < end
    except (RuntimeError, NotImplementedError):
        return False


def is_readable(t: torch.Tensor) -> bool:
    """Whether `copy_of` may copy `t`."""
    return not t.is_meta and bool(private.holders(t)) and not is_gone(t)


def aliases_of(t: torch.Tensor) -> list[torch.Tensor]:
    """The memory that holds the values of `t`, under tensors of our own: one, or those inside of a wrapper. Nobody sees them being made."""
    holders = private.holders(t)
    with private.DisableTorchDispatch():
        return [_detach(part) for part in holders]


def copy_of(t: torch.Tensor) -> torch.Tensor | None:
    """The values of `t` in memory of their own, without a node; None if there is no memory that could be read.

    Nobody sees the copy being made. Of a wrapper the tensors inside are copied, and put into a wrapper of the same class.
    """
    if not private.is_wrapper(t):
        if is_gone(t):
            return None
        with private.DisableTorchDispatch():
            return _detach(t).clone()
    parts = inner_tensors(t)
    # A jagged tensor's size is known by the very tensor of its offsets: another one makes a tensor of another size.
    structure = {name: part for name, part in parts.items() if t.is_nested and part.dtype != t.dtype}
    copies = {name: part if name in structure else copy_of(part) for name, part in parts.items()}
    whole = {name: copy for name, copy in copies.items() if copy is not None}
    if not copies or len(whole) < len(copies):
        return None
    with _disable_current_modes(), private.Unfollowed(), private.without_grad():
        return with_inner_tensors(t, whole)


def flat_storage(t: torch.Tensor) -> torch.Tensor | None:
    """A copy of everything on the storage of `t`, flat; None for what is not plain memory."""
    if t.layout is not torch.strided or private.is_wrapper(t) or not storages_of(t):
        return None
    with private.DisableTorchDispatch(), private.without_grad():
        size = underlying_storage(t).nbytes() // t.element_size()
        return _detach(t).as_strided((size,), (1,), 0).clone()
