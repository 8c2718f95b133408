"""What a tensor was right before a write to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import View
from jupyter_inplace.record.channels.integers import IntegerWrite
from jupyter_inplace.record.channels.untracked_writes import Cut
from jupyter_inplace.record.saved.freed import underlying_storage
from jupyter_inplace.record.saved.saved import Bucket, storages_of


class Prepared:
    """One target of a write. `span` and `view` are worked out where a saved tensor lies there."""

    # In the class, since nearly every write leaves them so.
    span: tuple[int, int] = (0, 0)
    view: View | None = None
    buckets: Sequence[Bucket] = ()
    cuts: Sequence[Cut] = ()
    integers: IntegerWrite | None = None
    gradient: torch.Tensor | None = None  # the value of a known `.grad`
    unread: float | None = None  # the norm of a gradient that nobody has read
    shared: torch.Tensor | None = None  # the memory of results that share it
    flat: torch.Tensor | None = None  # the memory of a gradient on its way through the engine

    def __init__(self, keys: tuple[int, ...], version: int | None, shape: torch.Size) -> None:
        self.keys, self.version, self.shape = keys, version, shape

    @property
    def concerns_nothing(self) -> bool:
        """Whether nothing that is followed lay there: the write can hurt nobody."""
        kept = (self.gradient, self.shared, self.integers, self.unread)
        return not (self.buckets or self.cuts) and all(part is None for part in kept)


def flat_storage(t: torch.Tensor) -> torch.Tensor | None:
    """A copy of everything on the storage of `t`, flat; None for what is not plain memory."""
    if t.layout is not torch.strided or not storages_of(t):
        return None
    with private.DisableTorchDispatch(), private.without_grad():
        size = underlying_storage(t).nbytes() // t.element_size()
        return t.detach().as_strided((size,), (1,), 0).clone()
