"""The memory under a tensor: its storages, whether torch made it, whether it is still there."""

from __future__ import annotations

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import byte_range
from jupyter_inplace.record.base.torch_private import storage_id

# The method under `Tensor.untyped_storage`, which is replaced during a watch by one that takes note of who asks.
underlying_storage = torch._C.TensorBase.untyped_storage


def storages_of(t: torch.Tensor) -> tuple[int, ...]:
    """The storages under `t`: one for a strided tensor, those of the components of a sparse or nested one, or none."""
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


def is_own_memory(t: torch.Tensor) -> bool:
    """Whether torch made the memory of a tensor, as far as can be told: what came in from outside cannot be resized."""
    try:
        return not t.is_cpu or bool(underlying_storage(t).resizable())
    except RuntimeError:  # it has no storage
        return True


def is_gone(t: torch.Tensor) -> bool:
    """Whether the memory of a tensor is not there: its storage is too small for it."""
    if t.layout is not torch.strided:
        return False
    try:
        return underlying_storage(t).nbytes() < byte_range(t)[1]
    except (RuntimeError, NotImplementedError):
        return False


def flat_storage(t: torch.Tensor) -> torch.Tensor | None:
    """A copy of everything on the storage of `t`, flat; None for what is not plain memory."""
    if t.layout is not torch.strided or not storages_of(t):
        return None
    with private.DisableTorchDispatch(), private.without_grad():
        size = underlying_storage(t).nbytes() // t.element_size()
        return t.detach().as_strided((size,), (1,), 0).clone()
