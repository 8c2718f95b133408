"""Checkpointed regions: what they read in the forward, since backward reads it again.

Nothing of a region is saved; its function runs once more in backward, on whatever parameters, buffers and captured tensors hold by
then. So every tensor that comes into a region from outside is entered as a saved tensor of its own, without torch's version check,
and lives with the region's frame (or node, in the re-entrant variant).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.saved.saved import Saved
from jupyter_inplace.record.source import sites

if TYPE_CHECKING:
    from jupyter_inplace.record.session import Session

_CALL_IMPL = torch.nn.Module._call_impl.__code__


class CheckpointRegion:
    """One run of a checkpointed function in the forward."""

    __slots__ = ("__weakref__", "_made", "_seen", "holders", "reads", "site")

    def __init__(self, site: Any) -> None:
        self.site = site
        self.reads: list[Saved] = []
        self._seen: set[int] = set()
        self._made: set[int] = set()
        self.holders: Any = None  # the frame's list of weak references to what stands in for saved tensors

    def take(self, session: Session, args: Any, own: list[torch.Tensor]) -> None:
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
                    self.reads.append(self._saved(session, value))
            elif isinstance(value, (list, tuple)):
                self.take(session, value, own)

    def gave(self, out: Any) -> None:
        for value in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(value, torch.Tensor):
                storage = private.storage_id(value)
                if storage and not any(private.storage_id(saved.tensor) == storage for saved in self.reads[-4:]):
                    self._made.add(storage)

    def _saved(self, session: Session, t: torch.Tensor) -> Saved:
        saved = Saved()
        saved.tensor = t
        saved.sequence = private.peek_sequence_nr() - 1
        session.order += 1
        saved.order = session.order
        saved.site, module = sites.find_site_and_module(_CALL_IMPL, 3, session.cell_files)
        saved.module = weakref.ref(module) if module is not None else None
        session.index.add(saved)
        return saved

    @property
    def touched(self) -> bool:
        return any(saved.touched for saved in self.reads)


class Checkpoints:
    """Replaces the class of hooks that a checkpoint puts around its forward by one that tells the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._original: Any = None
        self.current: CheckpointRegion | None = None
        self.by_owner: weakref.WeakKeyDictionary[Any, CheckpointRegion] = weakref.WeakKeyDictionary()

    def install(self) -> None:
        checkpoint = torch.utils.checkpoint
        original = getattr(checkpoint, "_checkpoint_hook", None)
        if original is None:
            self._session.blind_spots.setdefault("this torch has no place where checkpointed regions can be seen")
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

    def begin(self) -> CheckpointRegion | None:
        """A region starts; returns the one around it. Recomputation inside of the engine is no new region."""
        outer = self.current
        session = self._session
        if not session.muted and session.installed and not session.engine.depth:
            self.current = CheckpointRegion(sites.find_site(2, session.cell_files))
            session.attend()
        return outer

    def end(self, outer: CheckpointRegion | None, owner: Any) -> None:
        region, self.current = self.current, outer
        self._session.attend()
        if region is None or owner is None:
            return
        region.holders = getattr(owner, "weak_holders", None)
        try:
            self.by_owner[owner] = region
        except TypeError as fault:
            self._session.fault(fault)

    def touched(self) -> list[tuple[Any, CheckpointRegion]]:
        """The regions that read something which was written since, each with its frame or node."""
        return [(owner, region) for owner, region in list(self.by_owner.items()) if region.touched]
