"""Writes behind autograd's back: to the memory of a non-leaf whose node does not know of them.

A write is recorded for the tensor (and its views) through which it was made with grad mode on. Every other autograd identity
over the same memory goes on with its old node: the same tensor written under `no_grad`, the tensor behind a `.data` or
`detach()` alias, the base of `unsafe_chunk` pieces. Whether such a write matters is seen at backward: it does where a node
made after it still leads to the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.arguments import needs_gradient
from jupyter_inplace.record.base.geometry import View, view_of
from jupyter_inplace.record.base.memory import copy_of, weak_storage
from jupyter_inplace.record.channels.alias_values import AliasValues
from jupyter_inplace.record.channels.channel import Channel
from jupyter_inplace.record.trace import Trace
from jupyter_inplace.record.write_table import WriteRow
from jupyter_inplace.record.writes.pending import PendingWrite

_PER_STORAGE = 8
_STORAGES = 4096
_KEPT = 256
_MAX_BYTES = 64 << 20  # of copies made for one write; past it the gradient that a recorded write had given is unknown


class Identity:
    """A non-leaf as autograd knows it: the node that made it, which output, and where it lies."""

    __slots__ = ("kind", "output_nr", "sequence", "view")

    def __init__(self, kind: str, sequence: int, output_nr: int, view: View) -> None:
        self.kind, self.sequence, self.output_nr, self.view = kind, sequence, output_nr, view

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.kind, self.sequence, self.output_nr)


class Cut:
    """One write that an identity did not take notice of: enough to work out what recording it had given.

    `sequence` is the first node number after it: a node with that number or a later one read the new value. `before` is
    the written tensor's value before, `args` and `kwargs` the call with copies in place of tensors and `edges` the graph
    edges of those that need a gradient. `replayable` is False where the copies were too large or the operator is no plain one.
    """

    __slots__ = (
        "args",
        "before",
        "edges",
        "func",
        "identity",
        "kwargs",
        "order",
        "replayable",
        "sequence",
        "storage",
        "target",
        "view",
        "write",
    )

    def __init__(self, identity: Identity, order: int, sequence: int) -> None:
        self.storage = 0
        self.identity, self.order, self.sequence = identity, order, sequence
        self.write: Any = None
        self.func: Any = None
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.edges: dict[Any, Any] = {}
        self.before: torch.Tensor | None = None
        self.view: View | None = None
        self.target: Any = None
        self.replayable = False


class _Place:
    """Stands in a kept call for a tensor over the written storage: read from the replayed memory, at this geometry."""

    __slots__ = ("view",)

    def __init__(self, view: View) -> None:
        self.view = view


class UntrackedWrites(Channel):
    """The identities in view and the cuts that wait for a backward."""

    standing = True

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        # By storage, with a weak reference to it: addresses are given out again.
        self.by_storage: dict[int, tuple[StorageWeakRef, list[Identity]]] = {}
        self.cuts: list[Cut] = []
        self._values = trace.part(AliasValues)

    def note_alias(self, t: Any) -> None:
        """`t` is about to get an alias that autograd does not connect with it."""
        trace = self._trace
        if trace.muted:
            return
        try:
            identity = identity_of(t) if isinstance(t, torch.Tensor) and t.requires_grad else None
            if identity is not None:
                self._add(t, identity)
                self._values.watch(t)
        except Exception as fault:
            trace.fault(fault)

    def _add(self, t: torch.Tensor, identity: Identity) -> None:
        storage = private.storage_id(t)
        known = self._known(storage)
        if known is None:
            if len(self.by_storage) >= _STORAGES:
                del self.by_storage[next(iter(self.by_storage))]
            known = []
            self.by_storage[storage] = (weak_storage(t), known)
            self._trace.follow(self)
        if all(other.key != identity.key for other in known):
            known.append(identity)
            del known[:-_PER_STORAGE]

    def _known(self, storage: int) -> list[Identity] | None:
        found = self.by_storage.get(storage)
        if found is None:
            return None
        if found[0].expired():
            del self.by_storage[storage]
            return None
        return found[1]

    def knows(self, storage: int) -> bool:
        """Whether a non-leaf lies there of which an alias was made that autograd does not connect with it."""
        return self._known(storage) is not None

    def identities(self, storage: int) -> Sequence[Identity]:
        """Those non-leaves."""
        return self._known(storage) or ()

    def before_write(self, write: PendingWrite) -> list[Cut] | None:
        """The cuts that a write makes; None for nearly every write."""
        plan, t = write.plan, write.tensor
        if plan.metadata_only or plan.hidden:
            return None
        if not (self.by_storage or t.requires_grad or ((base := t._base) is not None and base.requires_grad)):
            return None
        cuts = self.cuts_of(write.func, t, write.args, write.kwargs, write.order)
        if not plan.repeatable:
            for cut in cuts:
                cut.replayable = False
        return cuts or None

    def after_write(self, kept: list[Cut], write: PendingWrite, row: WriteRow) -> None:  # noqa: ARG002
        self.enter(kept, row)

    def concerns(self, storage: int) -> bool:
        return storage in self.by_storage and self.knows(storage)

    def cuts_of(self, func: Any, t: torch.Tensor, args: Any, kwargs: Any, order: int) -> list[Cut]:
        """The cuts that a write to `t` makes, with copies of what it reads. Empty for nearly every write."""
        storage = private.storage_id(t)
        self._values.written(storage)
        known = self._known(storage)
        own = identity_of(_base(t)) if t.requires_grad or (t._base is not None and t._base.requires_grad) else None
        if known is None and own is None:
            return []
        recorded = torch.is_grad_enabled() and (t.requires_grad or needs_gradient(args, kwargs))
        missed = [identity for identity in known or () if own is None or identity.key != own.key]
        if own is not None and not recorded:
            missed.append(own)
        if not missed or self._values.straight_through(func, storage, args):
            return []
        sequence = private.peek_sequence_nr()
        cuts = [Cut(identity, order, sequence) for identity in missed]
        view = view_of(t)
        if view is None or t.nbytes > _MAX_BYTES:
            return cuts
        before = copy_of(t)
        if before is None:
            return cuts
        kept_args, kept_kwargs, edges, ok = _keep_call(t, storage, args, kwargs, self._values)
        for cut in cuts:
            cut.storage = storage
            cut.func, cut.args, cut.kwargs, cut.edges = func, kept_args, kept_kwargs, edges
            cut.before, cut.view, cut.replayable = before, view, ok
        return cuts

    @property
    def follows(self) -> bool:
        """Whether any tensor has an alias that autograd does not connect with it."""
        return bool(self.by_storage)

    def enter(self, cuts: Sequence[Cut], write: Any) -> None:
        for cut in cuts:
            cut.write = write
        self.cuts.extend(cuts)
        del self.cuts[:-_KEPT]

    def graph_freed(self, sequence: int) -> None:
        """Writes older than the graph cannot matter to graphs that are still to come."""
        self.cuts = [cut for cut in self.cuts if cut.sequence > sequence]

    def clear(self) -> None:
        self.cuts.clear()
        self.by_storage.clear()


def identity_of(t: torch.Tensor) -> Identity | None:
    """The autograd identity of a non-leaf; None for leaves and where torch refuses to say."""
    try:
        t = _base(t)
        node = t.grad_fn
        if node is None:
            return None
        view = view_of(t)
        return None if view is None else Identity(type(node).__name__, node._sequence_nr(), t.output_nr, view)
    except RuntimeError:
        return None


def _base(t: torch.Tensor) -> torch.Tensor:
    base = t._base
    return t if base is None else base


def _keep_call(
    t: torch.Tensor, storage: int, args: Any, kwargs: Any, values: AliasValues
) -> tuple[tuple[Any, ...], dict[str, Any], dict[Any, Any], bool]:
    edges: dict[Any, Any] = {}
    room = _MAX_BYTES

    def keep(value: Any, place: Any) -> Any:
        nonlocal room
        if value is t:
            return _TARGET
        if isinstance(value, torch.Tensor):
            view = view_of(value) if private.storage_id(value) == storage else None
            if view is not None:
                return _Place(view)
            part = values.part(value) if values.follows and not value.requires_grad else None
            if part is not None and part.step is not None:
                return part
            room -= value.nbytes if value.layout is torch.strided else 0
            if room < 0:
                raise MemoryError
            if value.requires_grad:
                edge = private.gradient_edge(value)
                if edge is None:
                    raise RuntimeError("the operand has no node")
                edges[place] = edge
            copy = copy_of(value)
            if copy is None:
                raise RuntimeError("the operand has no memory to copy")
            return copy
        if isinstance(value, (list, tuple)):
            return (
                type(value)(keep(item, (place, i)) for i, item in enumerate(value))
                if not hasattr(value, "_fields")
                else value
            )
        return value

    try:
        kept = tuple(keep(a, i) for i, a in enumerate(args))
        kept_kwargs = {name: keep(a, name) for name, a in kwargs.items()}
    except (MemoryError, RuntimeError, torch.OutOfMemoryError):
        return (), {}, {}, False
    whole = any(a is _TARGET for a in kept) or any(a is _TARGET for a in kept_kwargs.values())
    return kept, kept_kwargs, edges, whole


_TARGET: Any = object()
