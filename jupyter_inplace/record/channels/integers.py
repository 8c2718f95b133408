"""What integer tensors held before they were written: labels and masks decide which gradients there are at all."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from jupyter_inplace.record.base.geometry import View, view_of
from jupyter_inplace.record.base.memory import copy_of
from jupyter_inplace.record.channels.channel import Channel
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.pending import PendingWrite

_MAX_ELEMENTS = 1 << 16
_STORAGES = 256
_PER_STORAGE = 4


class IntegerWrite:
    """One write to an integer tensor: when, where, and the values before it."""

    __slots__ = ("before", "order", "view", "write")

    def __init__(self, order: int, before: torch.Tensor, view: View) -> None:
        self.order, self.before, self.view = order, before, view
        self.write: Any = None


class IntegerWrites(Channel):
    """The last few writes to each integer storage. Counters (one element) and large tensors are left out."""

    standing = True

    def __init__(self, trace: Trace) -> None:  # noqa: ARG002
        self.by_storage: dict[int, deque[IntegerWrite]] = {}

    def before_write(self, write: PendingWrite) -> IntegerWrite | None:
        t = write.tensor
        if (
            write.plan.metadata_only
            or t.dtype.is_floating_point
            or t.dtype.is_complex
            or not 1 < t.numel() <= _MAX_ELEMENTS
            or t.layout is not torch.strided
            or t.is_quantized
        ):
            return None
        view = view_of(t)
        if view is None:
            return None
        before = copy_of(t)
        return None if before is None else IntegerWrite(write.order, before, view)

    def after_write(self, kept: IntegerWrite, write: PendingWrite, row: WriteRow) -> None:
        kept.write = row
        storage = write.storage
        known = self.by_storage.get(storage)
        if known is None:
            if len(self.by_storage) >= _STORAGES:
                del self.by_storage[next(iter(self.by_storage))]
            known = self.by_storage[storage] = deque(maxlen=_PER_STORAGE)
        known.append(kept)

    def clear(self) -> None:
        self.by_storage.clear()
