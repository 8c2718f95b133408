"""Tensors that were taken off their graph in place (`detach_`, `requires_grad_(False)`), and who reads them afterwards.

Both are everyday tools, and harm nobody where every reader comes before or every reader after. What matters is a root that reads the
tensor on both sides. An operation that gets a gradient from elsewhere is found again by its node's number; what has no node hands the
tensor's value on, and counts as the tensor itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.memory import weak_storage
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.trace import Trace

_KEPT = 256  # storages


class Detachment:
    """One tensor taken off its graph: the non-leaf that it was, or None for a leaf; `sequence` is the first node number after."""

    __slots__ = ("identity", "readers", "sequence", "storage", "write")

    def __init__(self, identity: Any, write: Any, sequence: int, storage: int) -> None:
        self.identity, self.write, self.sequence, self.storage = identity, write, sequence, storage
        self.readers: set[int] = set()  # numbers of the nodes that read its value


class DetachedTensors(Channel):
    """The tensors taken off their graphs, by the storages that hold their values."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._by_storage: dict[int, tuple[StorageWeakRef, tuple[Detachment, ...]]] = {}
        self._all: list[Detachment] = []

    @property
    def reads(self) -> bool:
        return bool(self._by_storage)

    def cut(self, tensor: torch.Tensor, identity: Any, write: Any) -> None:
        storage = private.storage_id(tensor)
        if storage:
            severance = Detachment(identity, write, private.peek_sequence_nr(), storage)
            self._all.append(severance)
            del self._all[:-_KEPT]
            self._hold(tensor, storage, (severance,))
        self._trace.attend(self)

    def _hold(self, tensor: torch.Tensor, storage: int, severances: tuple[Detachment, ...]) -> None:
        self._by_storage.pop(storage, None)
        self._by_storage[storage] = (weak_storage(tensor), severances)
        if len(self._by_storage) > _KEPT:
            del self._by_storage[next(iter(self._by_storage))]

    def read(self, operation: Operation) -> tuple[Detachment, ...] | None:
        """Returns whose values the operation's outputs will carry on without a node."""
        if self._trace.muted or self._trace.depth:
            return None
        found: dict[Detachment, None] = {}
        if not self._look(operation.args, found) or not found:
            return tuple(found) or None
        number = private.peek_sequence_nr() - 1
        for severance in found:
            severance.readers.add(number)
        return None

    def _look(self, args: Any, found: dict[Detachment, None]) -> bool:
        """Collect the severed tensors among `args`; whether the operation makes a node."""
        node = False
        for value in args:
            if isinstance(value, torch.Tensor):
                if value.requires_grad:
                    node = node or torch.is_grad_enabled()
                    continue
                known = self._by_storage.get(private.storage_id(value))
                if known is not None:
                    if known[0].expired():
                        del self._by_storage[private.storage_id(value)]
                    else:
                        found.update(dict.fromkeys(known[1]))
            elif isinstance(value, (list, tuple)):
                node = self._look(value, found) or node
        return node

    def gave(self, out: Any, severances: tuple[Detachment, ...]) -> None:
        """An operation without a node read severed tensors and gave `out`."""
        for value in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(value, torch.Tensor) and not value.requires_grad:
                storage = private.storage_id(value)
                if storage:
                    known = self._by_storage.get(storage)
                    old = known[1] if known is not None and not known[0].expired() else ()
                    self._hold(value, storage, tuple(dict.fromkeys((*old, *severances))))

    def all(self) -> list[Detachment]:
        """Those that somebody read since."""
        return [severance for severance in self._all if severance.readers]

    def clear(self) -> None:
        self._by_storage.clear()
        self._all.clear()
