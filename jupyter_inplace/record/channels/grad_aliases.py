"""Gradients that the program keeps under a name of its own while `.grad` goes on in the same memory.

`g1 = w.grad` binds the tensor itself. The next backward adds to it, `zero_grad(set_to_none=False)` clears it, clipping scales
it. Nothing is wrong as long as nobody reads `g1` afterwards. So the overwritten value is copied where a name holds it, and
operations that read the memory later are noted with the names through which each frame could have read it.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.memory import copy_of, weak_storage
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.pending import PendingWrite

_MAX_READS = 64
_MAX_KEPT = 256
_MAX_FRAMES = 32


class GradAlias:
    """One overwritten gradient that a name still held."""

    __slots__ = ("before", "current", "keys", "leaf", "names", "order", "reads", "storage", "tasks", "write")

    def __init__(
        self, storage: int, leaf: str, tasks: list[str], names: list[str], before: torch.Tensor, order: int, write: Any
    ) -> None:
        self.storage, self.leaf, self.tasks, self.names = storage, leaf, tasks, names
        self.before, self.order, self.write = before, order, write
        self.current: torch.Tensor | None = None
        # Each read: the site keys of the user's frames, innermost first, each with the local names that hold the memory.
        self.reads: list[list[tuple[Any, tuple[str, ...]]]] = []
        self.keys: set[Any] = set()


class KnownGrad:
    """What stands in the `.grad` of a leaf: the leaf's name, and the tasks that filled it.

    Holds the storage weakly, and not the leaf: torch does not swap tensors that somebody holds a weak reference to.
    """

    __slots__ = ("_storage", "leaf", "tasks")

    def __init__(self, leaf: str, tasks: list[str], gradient: torch.Tensor) -> None:
        self.leaf, self.tasks = leaf, tasks
        self._storage = weak_storage(gradient) if private.storage_id(gradient) else None

    @property
    def gone(self) -> bool:
        """Whether the memory was let go: while that is known here, no other tensor gets the same storage."""
        return self._storage is None or self._storage.expired()


class GradAliases(Channel):
    """The gradients in `.grad` that this trace knows, and those kept under a name and overwritten."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.wanted = False  # whether the source under watch mentions `.grad` at all
        self.known: dict[int, KnownGrad] = {}  # by the storage of a leaf's .grad
        self.kept: list[GradAlias] = []
        self._watched: dict[int, list[GradAlias]] = {}
        # Explain's: called with (tensor, row, value before) for a write to what is known to be some leaf's `.grad`.
        self.overwritten: Callable[[torch.Tensor, WriteRow, torch.Tensor], None] | None = None

    @property
    def follows(self) -> bool:
        return bool(self.known)

    @property
    def reads(self) -> bool:
        return bool(self._watched)

    def concerns(self, storage: int) -> bool:
        return storage in self.known

    def before_write(self, write: PendingWrite) -> torch.Tensor | None:
        """The value of a known `.grad`."""
        if not self.known or not write.keys or self.overwritten is None or self.held(write.storage) is None:
            return None
        return copy_of(write.tensor)

    def after_write(self, kept: torch.Tensor, write: PendingWrite, row: WriteRow) -> None:
        if self.overwritten is not None:
            self.overwritten(write.tensor, row, kept)

    def know(self, storage: int, gradient: KnownGrad) -> None:
        """What lies on a storage is the `.grad` of a leaf."""
        self.known[storage] = gradient
        self._trace.follow(self)

    def held(self, storage: int) -> KnownGrad | None:
        """The gradient on a storage, if it still is one: memory that was let go is given to the next tensor that is made."""
        known = self.known.get(storage)
        if known is not None and known.gone:
            del self.known[storage]
            return None
        return known

    def add(self, kept: GradAlias) -> None:
        if len(self.kept) < _MAX_KEPT:
            self.kept.append(kept)
            self._watched.setdefault(kept.storage, []).append(kept)
            self._trace.attend(self)

    def clear(self) -> None:
        self.known.clear()
        self.kept.clear()
        self._watched.clear()

    def read(self, operation: Operation) -> None:
        """Does the operation read memory that was overwritten while a name held it?"""
        if not self._trace.muted and not self._trace.depth:
            self._read(operation.args)

    def _read(self, args: Any) -> None:
        for value in args:
            if isinstance(value, torch.Tensor):
                kept = self._watched.get(private.storage_id(value))
                if kept is not None:
                    self._note(kept, value)
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
                self._read(value)

    def _note(self, found: list[GradAlias], t: torch.Tensor) -> None:
        frames = frames_that_hold(private.storage_id(t))
        if not frames:
            return
        for kept in found:
            if frames[0][0] in kept.keys or len(kept.reads) >= _MAX_READS:
                continue
            with private.DisableTorchDispatch(), private.without_grad():
                if t.numel() == kept.before.numel():
                    value = t.detach().reshape(kept.before.shape)
                    if torch.equal(value, kept.before):
                        continue
                    if kept.current is None:
                        kept.current = value.clone()
            kept.keys.add(frames[0][0])
            kept.reads.append(frames)


def frames_that_hold(storage: int) -> list[tuple[Any, tuple[str, ...]]]:
    """The user's frames on the stack, each with the names of its own that hold tensors on the storage."""
    frame: types.FrameType | None = sys._getframe(2)
    found: list[tuple[Any, tuple[str, ...]]] = []
    while frame is not None and len(found) < _MAX_FRAMES:
        if sites.is_user_frame(frame):
            found.append(
                (sites.site_key(frame.f_code, frame.f_lasti), tuple(_names_in(sites.locals_of(frame), storage)))
            )
            if frame.f_code.co_name == "<module>":
                break
        frame = frame.f_back
    return found


def _names_in(space: Any, storage: int) -> list[str]:
    return [name for name, value in list(space.items()) if not name.startswith("_") and _holds(value, storage, 0)]


def _holds(value: Any, storage: int, depth: int) -> bool:
    if isinstance(value, torch.Tensor):
        return value.layout is torch.strided and private.storage_id(value) == storage
    if depth < 3:
        if isinstance(value, dict):
            return any(_holds(v, storage, depth + 1) for v in list(value.values())[:500])
        if isinstance(value, (list, tuple)):
            return any(_holds(v, storage, depth + 1) for v in value[:500])
    return False
