"""Copy on write: a saved tensor is cloned right before the first write that overlaps it, and never else."""

from __future__ import annotations

import weakref

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import byte_range, view_of
from jupyter_inplace.record.base.memory import copy_of
from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.saved.freed import FreedMemory
from jupyter_inplace.record.saved.saved import Bucket, Saved
from jupyter_inplace.record.trace import Trace

_BUDGET = 2 << 30  # bytes of copies held at once; past it a number is lost, never the program


class Copies:
    """Makes the copies of one trace, within a budget."""

    def __init__(self, trace: Trace, freed: FreedMemory) -> None:
        self._trace, self._freed = trace, freed
        self.made = 0  # so far
        self._bytes = 0  # of copies, those of dead saved tensors among them until they are counted anew
        self._kept: list[tuple[weakref.ref[Saved], int]] = []
        self._count_at = 1024

    def on_write(self, storage: int, span: tuple[int, int], plan: Plan | None) -> None:
        """Clone the saved tensors that overlap the bytes `span` of `storage` and are not cloned yet."""
        bucket = self._trace.index.bucket(storage)
        if bucket is not None:
            self.overlapping(bucket, span, plan is not None and plan.hidden)

    def overlapping(self, bucket: Bucket, span: tuple[int, int], hidden: bool) -> None:
        index, freed = self._trace.index, self._freed
        lo, hi = span
        if bucket.untouched or (bucket.unread and not hidden):
            for saved in bucket.never_touched(unread=not hidden):
                if hidden:
                    # Train-mode batch norm packs its running statistics right before it updates them, and never reads them back.
                    saved.never_read = saved.never_read or saved.sequence == private.peek_sequence_nr() - 1
                    if saved.never_read:
                        bucket.unread.append(weakref.ref(saved))
                        continue
                if saved in freed:
                    bucket.untouched.append(weakref.ref(saved))
                    continue
                index.touch(saved)
                if saved.clone is None:
                    bucket.intact.add(saved, *byte_range(saved.tensor))
        if hi > lo:
            for saved in bucket.intact.take(lo, hi):
                if saved.clone is None and saved not in freed:
                    self.copy(saved)

    def copy(self, saved: Saved) -> None:
        """Copy what a saved tensor holds, within the budget."""
        t = saved.tensor
        if t.is_meta or (private.is_python_tensor(t) and not private.is_wrapper(t)):
            return
        size = 0 if t.layout is not torch.strided else t.nbytes
        if self._bytes + size > _BUDGET:
            self._count()
        if self._bytes + size > _BUDGET:
            saved.uncopied = True
            self._trace.blind_spots.setdefault(
                "copies of overwritten saved tensors reached their budget of 2 GiB: some numbers are missing"
            )
            return
        saved.view = view_of(t)
        try:
            saved.clone = copy_of(t)
        except (torch.OutOfMemoryError, MemoryError):
            saved.uncopied = True
            self._trace.blind_spots.setdefault(
                "a copy of an overwritten saved tensor did not fit into memory: its numbers are missing"
            )
            return
        except RuntimeError as error:
            saved.uncopied = True
            self._trace.blind_spots.setdefault(
                f"an overwritten saved tensor could not be copied ({error}): its numbers are missing"
            )
            return
        if saved.clone is None:
            if not private.is_fake(t):
                saved.uncopied = True
                self._trace.blind_spots.setdefault(
                    f"an overwritten saved tensor of the class {type(t).__name__} could not be copied: its numbers are missing"
                )
            return
        self.made += 1
        self._bytes += size
        self._kept.append((weakref.ref(saved), size))
        if len(self._kept) > self._count_at:
            self._count()

    def _count(self) -> None:
        """Forget the copies that went with their graphs."""
        self._kept = [(ref, size) for ref, size in self._kept if ref() is not None]
        self._count_at = max(1024, 2 * len(self._kept))
        self._bytes = sum(size for _, size in self._kept)
