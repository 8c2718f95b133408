"""Values worked out from a non-leaf's memory without autograd: `h.data = h.data * 0.5` writes what `h` itself gave.

An unrecorded write of such a value has a derivative that the write alone does not show. So where a non-leaf has an alias that autograd
does not connect with it, the operations that read the memory without making a node are kept, such that they can be replayed.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import View, view_of
from jupyter_inplace.record.base.memory import copy_of, weak_storage
from jupyter_inplace.record.base.schema import Plan
from jupyter_inplace.record.channels.channel import Channel, Operation
from jupyter_inplace.record.trace import Trace

_STORAGES = 64
_MAX_BYTES = 16 << 20  # of one tensor that is kept; a larger one ends the chain
_DEPTH = 8

# Operators whose derivative is zero wherever there is one. A value that passes through one is rounded, and written over the exact one
# by those who want its gradient to pass straight through.
FLAT = frozenset(("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "floor_divide"))


_THROUGH_ALIAS = re.compile(r"\.data\b|\bcopy_\(|\bset_\(")


def writes_through_aliases(source: str | None) -> bool:
    """Whether a source may write a value over the memory from which it was worked out."""
    return source is not None and _THROUGH_ALIAS.search(source) is not None


class AliasPart:
    """A tensor over memory that is known: `step` worked it out, or it is a non-leaf's own (None). `value` is what it held."""

    __slots__ = ("step", "storage", "value", "view")

    def __init__(self, storage: int, view: View, value: torch.Tensor, step: AliasStep | None) -> None:
        self.storage, self.view, self.value, self.step = storage, view, value, step


class AliasStep:
    """One operation; `flat` where nothing but rounded values came of the memory `roots`."""

    __slots__ = ("args", "depth", "flat", "func", "kwargs", "roots", "view")

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], parts: list[AliasPart]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.depth: int = 1 + max((part.step.depth for part in parts if part.step is not None), default=0)
        self.roots: frozenset[int] = frozenset(
            root for part in parts for root in ({part.storage} if part.step is None else part.step.roots)
        )
        self.flat: bool = is_flat(func) or all(part.step is not None and part.step.flat for part in parts)
        self.view: View | None = None


# By identity: the hash of an operator is Python code, as its name is.
_flat: dict[int, bool] = {}
_views: dict[int, bool] = {}


def is_flat(func: Any) -> bool:
    """Whether an operator, in place or not, only gives rounded values."""
    known = _flat.get(id(func))
    if known is None:
        namespace, _, name = str(func).partition(".")
        known = _flat[id(func)] = namespace == "aten" and name.partition(".")[0].rstrip("_") in FLAT
    return known


def _is_view(func: Any) -> bool:
    """Whether an operator only gives another tensor over the same memory."""
    known = _views.get(id(func))
    if known is None:
        returns = getattr(getattr(func, "_schema", None), "returns", ())
        known = _views[id(func)] = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
    return known


class AliasValues(Channel):
    """The aliased non-leaves' storages, and what was worked out of them."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.wanted = False  # whether the source under watch writes through aliases at all
        self.roots: dict[int, StorageWeakRef] = {}  # by storage
        self._made: dict[int, tuple[StorageWeakRef, AliasStep]] = {}

    @property
    def follows(self) -> bool:
        return bool(self.roots)

    @property
    def reads(self) -> bool:
        return bool(self.roots)

    def concerns(self, storage: int) -> bool:  # noqa: ARG002 - any write may be to what was worked out
        return bool(self.roots)

    def watch(self, t: torch.Tensor) -> None:
        """`t` is a non-leaf that gets an unconnected alias."""
        if not self.wanted or t.numel() < 2 or view_of(t) is None:
            return
        self.roots[private.storage_id(t)] = weak_storage(t)
        if len(self.roots) > _STORAGES:
            del self.roots[next(iter(self.roots))]
        self._trace.follow(self)
        self._trace.attend(self)

    def read(self, operation: Operation) -> AliasStep | None:
        """What an operation is to be remembered by, if it reads such memory and makes no node."""
        func, args, kwargs = operation.func, operation.args, operation.kwargs
        if self._trace.muted or isinstance(operation.plan, Plan):
            return None
        parts: list[AliasPart] = []
        if not any(self._knows(value) for value in (*args, *kwargs.values())):
            return None
        if _is_view(func) and private.storage_id(args[0]) not in self._made:
            return None  # what it gives is known by where it lies
        kept = tuple(self._keep(value, parts) for value in args)
        kept_kwargs = {name: self._keep(value, parts) for name, value in kwargs.items()}
        step = AliasStep(func, kept, kept_kwargs, parts)
        recorded = any(value is _RECORDED for value in (*kept, *kept_kwargs.values()))
        return step if parts and step.depth <= _DEPTH and not recorded else None

    def _knows(self, value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            storage = private.storage_id(value)
            return not value.requires_grad and (storage in self.roots or storage in self._made)
        return isinstance(value, (list, tuple)) and any(self._knows(item) for item in value)

    def _keep(self, value: Any, parts: list[AliasPart]) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._keep(item, parts) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        part = self.part(value)
        if part is None:
            if value.requires_grad and torch.is_grad_enabled():
                return _RECORDED  # it makes a node: autograd has it
            copy = copy_of(value)
            return _RECORDED if copy is None else copy  # what cannot be copied cannot be replayed either
        parts.append(part)
        return part

    def part(self, t: torch.Tensor) -> AliasPart | None:
        """What is known of a tensor's memory."""
        storage = private.storage_id(t)
        root, made = self.roots.get(storage), self._made.get(storage)
        if (root is None and made is None) or t.nbytes > _MAX_BYTES:
            return None
        view = view_of(t)
        if view is None:
            return None
        if made is not None and not made[0].expired() and made[1].view == view:
            step: AliasStep | None = made[1]
        elif root is not None and not root.expired():
            step = None
        else:
            return None
        value = copy_of(t)
        return None if value is None else AliasPart(storage, view, value, step)

    def gave(self, out: Any, step: AliasStep) -> None:
        """The operation gave `out`."""
        if isinstance(out, torch.Tensor) and not out.requires_grad and view_of(out) is not None:
            storage = private.storage_id(out)
            if storage in self.roots:
                return  # a view of the memory, or a write to it
            step.view = view_of(out)
            step.flat = step.flat or not (out.is_floating_point() or out.is_complex())
            self._made[storage] = (weak_storage(out), step)
            if len(self._made) > _STORAGES:
                del self._made[next(iter(self._made))]

    def straight_through(self, func: Any, storage: int, args: Any) -> bool:
        """Whether a write to `storage` puts a rounded form of what is there in its place."""
        if is_flat(func):
            return True
        if func is not _COPY or len(args) < 2 or not isinstance(args[1], torch.Tensor):
            return False
        part = self.part(args[1])
        return part is not None and part.step is not None and part.step.flat and storage in part.step.roots

    def written(self, storage: int) -> None:
        """Memory that was worked out is written: it holds something else now."""
        self._made.pop(storage, None)

    def graph_freed(self, sequence: int) -> None:  # noqa: ARG002
        self.clear()

    def clear(self) -> None:
        self.roots.clear()
        self._made.clear()


_RECORDED: Any = object()
_COPY = torch.ops.aten.copy_.default
