"""Writes by Python that the engine runs: hooks and custom backwards may change a gradient that others still wait for.

Explain looks at the graph right before the engine runs, and says here which writes it wants to be told of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from jupyter_inplace.record.backward.call import Backward
from jupyter_inplace.record.backward.python_frames import made_by_engine
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.memory import flat_storage
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.pending import PendingWrite

#: Called with (row, tensor, flat storage before, func, args, kwargs) for a write by Python that the engine runs.
Told = Callable[..., None]


class BackwardWrites(Channel):
    """The writes during one outermost backward call, as long as explain wants them."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._told: Told | None = None
        self.wrote = False  # whether such Python ever wrote to a tensor while the engine ran it
        # Storages made by the hook or custom backward that runs at present: writes to those hurt nobody.
        self._made: set[int] = set()
        self._maker: Any = None

    def tell(self, told: Told | None) -> None:
        """A backward call is about to run: whom to tell of such writes, None if nobody."""
        self._told = told
        if told is not None:
            self._trace.follow(self)
            self._trace.attend(self)  # what Python makes inside of the engine is noted

    @property
    def follows(self) -> bool:
        return self._told is not None

    @property
    def reads(self) -> bool:
        return self._told is not None

    def before_write(self, write: PendingWrite) -> torch.Tensor | None:
        """The memory of a gradient on its way through the engine."""
        if self._told is None or not self._trace.depth or not write.plan.repeatable:
            return None
        return flat_storage(write.tensor)

    def after_write(self, kept: torch.Tensor, write: PendingWrite, row: WriteRow) -> None:
        if self._told is not None:
            self._told(row, write.tensor, kept, write.func, write.args, write.kwargs)

    def read(self, operation: Operation) -> Any:
        return operation.args if operation.plan is None and self._trace.depth else None

    def gave(self, out: Any, noted: Any) -> None:
        """Note what was made, if Python that the engine runs made it."""
        if made_by_engine():
            return
        node = private.current_autograd_node()
        if node is not self._maker:
            self._maker = node
            self._made.clear()
        given = {private.storage_id(a) for a in noted if isinstance(a, torch.Tensor)}
        for t in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(t, torch.Tensor) and private.storage_id(t) not in given:
                self._made.add(private.storage_id(t))

    def made_here(self, t: torch.Tensor) -> bool:
        """Whether the Python that runs right now made the memory of `t` itself."""
        return private.current_autograd_node() is self._maker and private.storage_id(t) in self._made

    def backward_ended(self, call: Backward) -> None:  # noqa: ARG002
        self._told = None
        self._maker = None
        self._made.clear()
