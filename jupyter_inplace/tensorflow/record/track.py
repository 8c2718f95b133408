"""What is kept while a tape is alive: reads, writes, and from which versions of variables each tensor was computed.

The mask of a tensor is a set of bits, one for each version of a variable (or shared memory) that its value was computed
from. It tells where asking the tape again can be useful; the tape then decides. Everything is dropped with the last tape for
which it may matter.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Hashable, Iterable
from typing import Any

from jupyter_inplace.tensorflow.record.events import AssignEvent, ReadEvent

#: The bit of gradients.
GRADIENT = 1
_BITS = 4096  # versions distinguished at a time
_PRUNE = 20_000  # tensors known before the first pruning
#: Values of variables larger than this are not kept when read, since keeping one makes the next assign copy it.
HELD_BYTES = 64 * 2**20
#: The most that is kept at a time.
HELD_IN_ALL = 512 * 2**20


@dataclasses.dataclass(eq=False, slots=True)
class Live:
    """A tape that has begun to record and may still be asked."""

    start: int
    first_id: int
    ref: Any


class Track:
    """The record for the tapes that are alive."""

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}
        self.bits: dict[Hashable, int] = {}
        #: By tensor id, the ids of the addends of a sum, to split losses.
        self.sums: dict[int, tuple[int, int]] = {}
        self.reads: list[ReadEvent] = []
        self.writes: list[AssignEvent] = []
        self.tapes: dict[int, Live] = {}
        self.held = 0
        self.full = False
        self._prune_at = _PRUNE
        self._next_bit = 1

    def began(self, tape: Any, order: int, next_id: int) -> None:
        """A tape begins to record; `next_id` is smaller than the id of every tensor to come."""
        if id(tape) in self.tapes:
            return
        key = id(tape)
        self.tapes[key] = Live(order, next_id, weakref.ref(tape, lambda _: self.ended(key)))

    def ended(self, key: int) -> None:
        """The tape with this `id` is gone or used up."""
        self.tapes.pop(key, None)
        if not self.tapes:
            self.clear()

    def recording(self) -> list[Any]:
        """The tapes that are recording, outermost first."""
        tapes = [live.ref() for live in self.tapes.values()]
        return [tape for tape in tapes if tape is not None and getattr(tape, "_recording", False)]

    def start_of(self, tape: Any) -> int:
        live = self.tapes.get(id(tape))
        return 0 if live is None else live.start

    def clear(self) -> None:
        self.masks.clear()
        self.bits.clear()
        self.sums.clear()
        self.reads.clear()
        self.writes.clear()
        self.held = 0
        self._next_bit = 1
        self._prune_at = _PRUNE

    def bit(self, key: Hashable) -> int:
        """The bit of a version `(handle, number)`, or of shared memory."""
        found = self.bits.get(key)
        if found is None:
            if self._next_bit >= _BITS:
                self.full = True
                return 0
            found = self.bits[key] = 1 << self._next_bit
            self._next_bit += 1
        return found

    def mask_of(self, tensors: Iterable[Any]) -> int:
        """The versions that some tensors were computed from."""
        masks, found = self.masks, 0
        for t in tensors:
            found |= masks.get(getattr(t, "_id", -1), 0)
        return found

    def prune(self) -> None:
        """Forget tensors from before the oldest living tape, once there are many."""
        if len(self.masks) < self._prune_at:
            return
        first = min((live.first_id for live in self.tapes.values()), default=0)
        start = min((live.start for live in self.tapes.values()), default=0)
        self.masks = {key: mask for key, mask in self.masks.items() if key >= first}
        self.sums = {key: pair for key, pair in self.sums.items() if key >= first}
        self.reads = [read for read in self.reads if read.order >= start]
        self.writes = [write for write in self.writes if write.order >= start]
        used = {(read.handle, read.version) for read in self.reads}
        used |= {(write.handle, write.after) for write in self.writes}
        if len(self.reads) == 0:
            self.bits = {key: bit for key, bit in self.bits.items() if key in used}
        self._prune_at = max(_PRUNE, 2 * len(self.masks))

    def hold(self, size: int) -> bool:
        """Whether the value of a read of this many bytes may be kept."""
        if size > HELD_BYTES or self.held + size > HELD_IN_ALL:
            return False
        self.held += size
        return True
