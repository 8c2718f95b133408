"""Results of one `torch.autograd.grad` call that lie in the same memory, and what is written to it and read from it since.

The backward of an addition hands one tensor to both of its inputs. `backward()` gives each leaf memory of its own; `grad()` does not, and
whoever scales one result in place scales the other. Which of them a statement means is not in the tensors, which may be one object: so
the places are kept here, and explain reads the source.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import torch

from jupyter_inplace._package import FOLDER
from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import View
from jupyter_inplace.record.base.memory import flat_storage, underlying_storage, weak_storage
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.channels.grad_aliases import frames_that_hold
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.pending import PendingWrite

_KEPT = 64
_PER_SITE = 4
_MAX_BYTES = 16 << 20  # of a result whose values are kept at each write
_MAX_WRITES = 16
_MAX_READS = 64


class WrittenResult:
    """One write: the row, its place in program order, the innermost frame and its place, and the memory before it."""

    __slots__ = ("before", "frame", "order", "place", "row")

    def __init__(self, row: Any, order: int, frame: int, place: Any, before: torch.Tensor) -> None:
        self.row, self.order, self.frame, self.place, self.before = row, order, frame, place, before


class GradResult:
    """Results of one call over one memory.

    :param members: the position of each among the results, the name of its leaf, and where it lies.
    """

    __slots__ = ("facts", "keys", "latest", "members", "memory", "reads", "site", "writes")

    def __init__(self, site: Any, facts: Any, members: list[tuple[int, str, View]], result: torch.Tensor) -> None:
        self.site, self.facts, self.members = site, facts, members
        self.memory = weak_storage(result)
        self.writes: list[WrittenResult] = []
        self.latest: torch.Tensor | None = None  # the memory after the newest write
        # Each read: the number of writes before it, and the user's frames, innermost first.
        self.reads: list[tuple[int, list[tuple[Any, tuple[str, ...]]]]] = []
        self.keys: set[Any] = set()


class GradResults(Channel):
    """The shared results of a trace, by their storages."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.known: dict[int, GradResult] = {}
        self.all: list[GradResult] = []
        self._overwritten = False  # whether one of them was

    @property
    def reads(self) -> bool:
        return self._overwritten

    @property
    def follows(self) -> bool:
        return bool(self.known)

    def concerns(self, storage: int) -> bool:  # noqa: ARG002 - the frame of every write counts
        return bool(self.known)

    def clear(self) -> None:
        self.known.clear()
        self.all.clear()
        self._overwritten = False

    def wants(self, site: Any) -> bool:
        """Whether results of one more call at a place are to be remembered."""
        return len(self.all) < _KEPT and sum(shared.site == site for shared in self.all) < _PER_SITE

    def add(self, shared: GradResult, result: torch.Tensor) -> None:
        if underlying_storage(result).nbytes() <= _MAX_BYTES:
            self.known[private.storage_id(result)] = shared
            self.all.append(shared)
            self._trace.follow(self)

    def held(self, storage: int) -> GradResult | None:
        shared = self.known.get(storage)
        if shared is not None and shared.memory.expired():
            del self.known[storage]
            return None
        return shared

    def before_write(self, write: PendingWrite) -> torch.Tensor | None:
        """The memory of shared results before a write to it; None for any other."""
        if not self.known:
            return None
        t = write.tensor
        shared = self.held(private.storage_id(t))
        return flat_storage(t) if shared is not None and len(shared.writes) < _MAX_WRITES else None

    def after_write(self, kept: torch.Tensor, write: PendingWrite, row: WriteRow) -> None:
        t = write.tensor
        shared = self.held(private.storage_id(t))
        frame = _innermost()
        if shared is None or frame is None:
            return
        shared.writes.append(
            WrittenResult(row, self._trace.order, id(frame), sites.site_key(frame.f_code, frame.f_lasti), kept)
        )
        shared.latest = flat_storage(t)
        self._overwritten = True
        self._trace.attend(self)

    def read(self, operation: Operation) -> None:
        """Does the operation read shared results that were overwritten?"""
        if not self._trace.muted and not self._trace.depth:
            self._read(operation.args)

    def _read(self, args: Any) -> None:
        for value in args:
            if isinstance(value, torch.Tensor):
                shared = self.known.get(private.storage_id(value))
                if shared is not None and shared.writes and not shared.memory.expired():
                    frames = frames_that_hold(private.storage_id(value))
                    key = tuple(key for key, _ in frames)
                    if key and key not in shared.keys and len(shared.reads) < _MAX_READS:
                        shared.keys.add(key)
                        shared.reads.append((len(shared.writes), frames))
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
                self._read(value)


def _innermost() -> types.FrameType | None:
    """The frame that called the operation under way, the user's or a library's."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(FOLDER):
        frame = frame.f_back
    return frame
