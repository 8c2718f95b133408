"""Checkpointed regions: what they read in the forward, since backward reads it again.

Nothing of a region is saved; its function runs once more in backward, on whatever parameters, buffers and captured tensors hold by
then. So every tensor that comes into a region from outside is entered as a saved tensor of its own, without torch's version check,
and lives with the region's frame (or node, in the re-entrant variant).
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.source import sites
from jupyter_inplace.record.trace import CALL_IMPL, Trace


class CheckpointRegion:
    """One run of a checkpointed function in the forward."""

    __slots__ = ("__weakref__", "_made", "_seen", "holders", "reads", "site")

    def __init__(self, site: Any) -> None:
        self.site = site
        self.reads: list[Saved] = []
        self._seen: set[int] = set()
        self._made: set[int] = set()
        self.holders: Any = None  # the frame's list of weak references to what stands in for saved tensors

    def take(self, trace: Trace, args: Any, own: list[torch.Tensor]) -> None:
        """Enter the tensors among `args` that come from outside, save for those of `own`, which the operator only updates."""
        for value in args:
            if isinstance(value, torch.Tensor):
                if any(value is t for t in own):
                    continue
                if value._base is not None:  # a view stands for what it looks at
                    value = value._base
                storage = private.storage_id(value)
                if storage and storage not in self._made and id(value) not in self._seen:
                    self._seen.add(id(value))
                    self.reads.append(self._saved(trace, value))
            elif isinstance(value, (list, tuple)):
                self.take(trace, value, own)

    def gave(self, out: Any) -> None:
        for value in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(value, torch.Tensor):
                storage = private.storage_id(value)
                if storage and not any(private.storage_id(saved.tensor) == storage for saved in self.reads[-4:]):
                    self._made.add(storage)

    def _saved(self, trace: Trace, t: torch.Tensor) -> Saved:
        saved = Saved()
        saved.tensor = t
        saved.sequence = private.peek_sequence_nr() - 1
        trace.order += 1
        saved.order = trace.order
        saved.site, module = sites.find_site_and_module(CALL_IMPL, 3, trace.cell_files)
        saved.module = weakref.ref(module) if module is not None else None
        trace.index.add(saved)
        return saved

    @property
    def touched(self) -> bool:
        return any(saved.touched for saved in self.reads)


class Checkpoints(Channel):
    """Replaces the class of hooks that a checkpoint puts around its forward by one that tells the trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._original: Any = None
        self.current: CheckpointRegion | None = None
        self.by_owner: weakref.WeakKeyDictionary[Any, CheckpointRegion] = weakref.WeakKeyDictionary()

    def install(self) -> None:
        checkpoint = torch.utils.checkpoint
        original = getattr(checkpoint, "_checkpoint_hook", None)
        if original is None:
            self._trace.blind_spots.setdefault("this torch has no place where checkpointed regions can be seen")
            return
        regions = self
        self._original = original

        class _checkpoint_hook(original):  # type: ignore[misc, valid-type]
            def __init__(self, frame: Any) -> None:
                super().__init__(frame)
                self._watched_frame = frame

            def __enter__(self) -> Any:
                out = super().__enter__()
                self._outer = regions.begin()
                return out

            def __exit__(self, *exc: Any) -> Any:
                regions.end(self._outer, self._watched_frame)
                return super().__exit__(*exc)

        checkpoint._checkpoint_hook = _checkpoint_hook  # type: ignore[misc]

    def remove(self) -> None:
        if self._original is not None:
            torch.utils.checkpoint._checkpoint_hook = self._original  # type: ignore[misc]
            self._original = None
        self.current = None

    @property
    def reads(self) -> bool:
        return self.current is not None

    def read(self, operation: Operation) -> CheckpointRegion | None:
        """What comes into the region from outside is read again in backward."""
        region = self.current
        if region is not None:
            own = _not_read(operation)
            region.take(self._trace, operation.args, own)
            if operation.kwargs:
                region.take(self._trace, operation.kwargs.values(), own)
        return region

    def gave(self, out: Any, noted: CheckpointRegion) -> None:
        noted.gave(out)

    def begin(self) -> CheckpointRegion | None:
        """A region starts; returns the one around it. Recomputation inside of the engine is no new region."""
        outer = self.current
        trace = self._trace
        if not trace.muted and trace.installed and not trace.depth:
            self.current = CheckpointRegion(sites.find_site(2, trace.cell_files))
            trace.attend(self)
        return outer

    def end(self, outer: CheckpointRegion | None, owner: Any) -> None:
        region, self.current = self.current, outer
        self._trace.attend(self)
        if region is None or owner is None:
            return
        region.holders = getattr(owner, "weak_holders", None)
        try:
            self.by_owner[owner] = region
        except TypeError as fault:
            self._trace.fault(fault)

    def touched(self) -> list[tuple[Any, CheckpointRegion]]:
        """The regions that read something which was written since, each with its frame or node."""
        return [(owner, region) for owner, region in list(self.by_owner.items()) if region.touched]


def _not_read(operation: Operation) -> list[torch.Tensor]:
    """What an operator updates without its result coming from it: running statistics, counters."""
    plan = operation.plan
    if not isinstance(plan, Plan):
        return []
    written = plan.tensors(operation.args, operation.kwargs)
    return [t for t in written if plan.hidden or not (t.is_floating_point() or t.is_complex())]
