"""Memory of non-leaves that was handed out, as `h.detach().numpy()` does: whoever has it may change what `h` is, and no node knows.

What was there is kept and compared again, as long as the memory lives and no backward has used its graph up. No tensor of
the program is kept alive for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import View, view_of
from jupyter_inplace.record.base.memory import copy_of, is_gone, weak_storage
from jupyter_inplace.record.channels.channel import Channel
from jupyter_inplace.record.channels.untracked_writes import Cut, UntrackedWrites

if TYPE_CHECKING:
    from jupyter_inplace.record.trace import Trace
    from jupyter_inplace.record.write_table import WriteRow

_KEPT = 32  # the newest; a list of losses as arrays must not cost more and more
_MAX_BYTES = 16 << 20


class ExportedPart:
    """What one handed-out tensor held. `order` is the moment from which on nothing else is known to have changed it."""

    __slots__ = ("order", "ref", "storage", "value", "view")

    def __init__(self, storage: int, ref: StorageWeakRef, view: View, value: torch.Tensor, order: int) -> None:
        self.storage, self.ref, self.view, self.value, self.order = storage, ref, view, value, order

    def memory(self) -> torch.Tensor | None:
        """The memory as it is now; None where nobody has it any more."""
        storage = private.storage_behind(self.ref)
        if storage is None:
            return None
        view = self.view
        whole = torch.empty(0, dtype=self.value.dtype, device=self.value.device)
        return whole.set_(storage, view.offset, view.shape, view.stride)


class ExportedNonleaves(Channel):
    """The parts in view of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._untracked = trace.part(UntrackedWrites)
        self._parts: dict[int, ExportedPart] = {}
        self.bytes = 0
        # The node number that was next when the last operation began: what changed since was read by nodes from there on.
        self.since: int | None = None

    def __bool__(self) -> bool:
        return bool(self._parts)

    def left(self, t: torch.Tensor, storage: int) -> None:
        """The memory of `t` is about to be handed out: keep what it holds, where it is that of a non-leaf."""
        if not t.is_cpu or not private.has_data(t) or is_gone(t) or not 0 < t.nbytes <= _MAX_BYTES:
            return
        view, untracked = view_of(t), self._untracked
        if view is None:
            return
        untracked.note_alias(t)
        if not untracked.knows(storage):
            return
        value = copy_of(t)
        if value is None:
            return
        self._parts.pop(storage, None)
        self._trace.table.own(storage)  # from here on each write to it counts
        self.since = private.peek_sequence_nr()
        self._parts[storage] = ExportedPart(storage, weak_storage(t), view, value, self._trace.order)
        if len(self._parts) > _KEPT:
            del self._parts[next(iter(self._parts))]
        self.bytes = sum(part.value.nbytes for part in self._parts.values())

    def changed(self) -> Iterator[tuple[ExportedPart, torch.Tensor]]:
        """The parts that hold something else although nobody was seen to write there, and what they held; kept anew."""
        trace = self._trace
        for storage, part in list(self._parts.items()):
            with private.DisableTorchDispatch(), private.without_grad():
                memory = part.memory()
                if memory is None:
                    del self._parts[storage]
                    continue
                if same_bits(memory, part.value):
                    continue
                before, part.value = part.value, memory.clone()
            written = max((row.last for row in trace.table.own(storage)), default=0)
            if written <= part.order:
                yield part, before
            part.order = trace.order

    def enter(self, part: ExportedPart, before: torch.Tensor, write: WriteRow) -> None:
        """What `part` holds was written from outside: every autograd identity over it goes on without knowing."""
        cuts = []
        sequence = self.since if self.since is not None else private.peek_sequence_nr()
        for identity in self._untracked.identities(part.storage):
            cut = Cut(identity, self._trace.order, sequence)
            cut.storage, cut.before, cut.view = part.storage, before, part.view
            cuts.append(cut)
        self._untracked.enter(cuts, write)

    def graph_freed(self, sequence: int) -> None:  # noqa: ARG002
        self.clear()

    def clear(self) -> None:
        """A graph was used up, or the watch is over."""
        self._parts.clear()
        self.bytes = 0
        self.since = None


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one shape hold the same, NaN counted as equal to NaN."""
    with private.DisableTorchDispatch(), private.without_grad():
        if torch.equal(a, b):
            return True
        if not (a.dtype.is_floating_point or a.dtype.is_complex):
            return False
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
