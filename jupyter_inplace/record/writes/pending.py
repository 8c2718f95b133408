"""A write that is about to happen, with what is known of its target right before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import View, shape_of
from jupyter_inplace.record.base.memory import storages_of
from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.saved.saved import Bucket


class PendingWrite:
    """One target of a write. `order` is its moment in program order; `span` and `view` are set if a saved tensor lies there."""

    # In the class, since nearly every write leaves them so.
    span: tuple[int, int] = (0, 0)
    view: View | None = None
    buckets: Sequence[Bucket] = ()
    kept: Sequence[tuple[Any, Any]] = ()  # the channels that noted something, each with it

    def __init__(self, plan: Plan, tensor: torch.Tensor, func: Any, args: Any, kwargs: Any, order: int) -> None:
        self.plan, self.tensor, self.func, self.args, self.kwargs, self.order = plan, tensor, func, args, kwargs, order
        self.keys: tuple[int, ...] = storages_of(tensor)
        self.storage = self.keys[0] if self.keys else 0
        self.version, self.shape = private.version(tensor), shape_of(tensor)

    @property
    def concerns_nothing(self) -> bool:
        """Whether nothing that is followed lay there: the write can hurt nobody."""
        return not (self.buckets or self.kept)
