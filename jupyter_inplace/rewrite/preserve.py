"""`preserve_saved`: backward reads the values that forward saved, whatever has been written to them since.

A saved tensor is kept as an alias of its memory. Before an operation writes to bytes that an alias covers, the alias
is cloned, and then the write happens. Matching is by storage and byte range, and the alias keeps its storage alive, so
views at an offset, a base and its view, `out=` tuples, `.data` and optimizer steps are all treated the same.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from jupyter_inplace.record.base import torch_private as private
from jupyter_inplace.record.base.geometry import byte_range
from jupyter_inplace.record.base.own_mode import OwnMode
from jupyter_inplace.record.base.schema import Plan, make_plan
from jupyter_inplace.record.dispatch.stack import ModeStack

__all__ = ["preserve_saved"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_UNKNOWN: Any = object()
_here = threading.local()


@contextlib.contextmanager
def preserve_saved() -> Iterator[None]:
    """Protect the tensors saved for backward from in-place writes: they are copied before they are overwritten.

    Gradients through operations of this block are those of the values that forward used. This costs one copy of each saved
    tensor that is overwritten, and nothing for the others. Blocks may be nested, and backward may run inside the block or
    after it; a saved tensor that is overwritten *after* the block raises torch's usual error.

    Values that reach backward other than as torch's saved tensors are not copied: attributes of `ctx` in a custom
    `autograd.Function`, and what a checkpointed region reads again. Writes are seen if torch dispatches them on this
    thread, or if they go through arrays made by `.numpy()` and DLPack; not through a raw `data_ptr()` or on another thread.

    ```python
    with preserve_saved():
        h = x.sigmoid()
        y = h.sum()
        h.mul_(2)
        y.backward()  # without `preserve_saved` this raises
    ```
    """
    preserver: _Preserver | None = getattr(_here, "preserver", None)
    outermost = preserver is None
    if preserver is None:
        preserver = _here.preserver = _Preserver()
        preserver.stack.put_on()
        preserver.exports.install()
    private.push_saved_tensors_hooks(preserver.pack, _unpack)
    try:
        yield
    finally:
        private.pop_saved_tensors_hooks()
        if outermost:
            _here.preserver = None
            preserver.exports.remove()
            preserver.stack.take_off()
            preserver.close()


class _Kept:
    """One saved tensor. Only autograd holds it, so it lives as long as backward may still need it."""

    __slots__ = ("__weakref__", "sequence", "tensor", "version")

    def __init__(self, tensor: torch.Tensor, sequence: int) -> None:
        self.tensor = tensor
        self.sequence = sequence
        self.version: int | None = None  # set when the block ends: from then on writes are no longer seen


def _unpack(kept: _Kept) -> torch.Tensor:
    if kept.version is not None and private.version(kept.tensor) != kept.version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"[{kept.tensor.type()} {list(kept.tensor.shape)}] is at version {kept.tensor._version}; "
            f"expected version {kept.version} instead. "
            "It was saved under preserve_saved() and written after that block."
        )
    return kept.tensor


class _Preserver:
    """What one outermost `preserve_saved` block keeps."""

    def __init__(self) -> None:
        self.mode = _PreserveMode(self)
        self.stack = ModeStack(self.mode)  # not by `with`: a watch would mistake the mode for one of the program's
        self.exports = _ExportPatch(self)
        self._by_storage: dict[int, list[weakref.ref[_Kept]]] = {}
        self._imported: list[weakref.ref[_Kept]] = []  # those on memory that another storage may share
        self._prune_at = 1024

    def pack(self, tensor: torch.Tensor) -> _Kept:
        """The pack hook. It keeps an alias, since an output kept by its own node would never be freed."""
        if type(tensor) in _PLAIN:
            with private.DisableTorchDispatch():
                alias = tensor.detach()
                if _shared_outside(alias):  # a numpy array or DLPack consumer may write without torch seeing it
                    alias = alias.clone()
        else:
            alias = tensor.detach()
        kept = _Kept(alias, private.peek_sequence_nr())
        self._enter(kept)
        return kept

    def _enter(self, kept: _Kept) -> None:
        ref = weakref.ref(kept)
        for piece in _pieces(kept.tensor):
            self._by_storage.setdefault(private.storage_id(piece), []).append(ref)
            if _shared_outside(piece):
                self._imported.append(ref)
        if len(self._by_storage) > self._prune_at:
            self._by_storage = {key: live for key, refs in self._by_storage.items() if (live := _live_refs(refs))}
            self._imported = _live_refs(self._imported)
            self._prune_at = max(1024, 2 * len(self._by_storage))

    def before_write(self, target: torch.Tensor, sequence: int | None = None) -> None:
        """Clone the saved tensors that share bytes with `target`.

        :param sequence: the sequence number of the writing operation's own node, whose saved inputs are not cloned.
        """
        copies: dict[Any, torch.Tensor] = {}
        for piece in _pieces(target):
            for kept in self._sharing(piece):
                if kept.sequence != sequence:
                    self._copy(kept, copies)

    def _sharing(self, target: torch.Tensor) -> list[_Kept]:
        key, (low, high) = private.storage_id(target), byte_range(target)
        found: list[_Kept] = []
        refs = self._by_storage.get(key)
        if refs:
            live = [(ref, kept) for ref in refs if (kept := ref()) is not None]
            if len(live) < len(refs):
                self._by_storage[key] = [ref for ref, _ in live]
            found = [kept for _, kept in live if _overlaps(kept.tensor, key, low, high)]
        elsewhere = self._all_refs() if _shared_outside(target) else self._imported
        if elsewhere:
            address = target.untyped_storage().data_ptr()
            found += [
                kept
                for ref in elsewhere
                if (kept := ref()) is not None and _overlaps_address(kept.tensor, key, address + low, address + high)
            ]
        return found

    def _copy(self, kept: _Kept, copies: dict[Any, torch.Tensor]) -> None:
        old = kept.tensor
        same = _geometry(old)
        if same is None or same not in copies:
            with private.without_grad():
                copy = old.clone()
            copies[same if same is not None else id(kept)] = copy
        else:
            copy = copies[same].detach()
        for piece in _pieces(old):
            key = private.storage_id(piece)
            refs = self._by_storage.get(key)
            if refs is not None:
                self._by_storage[key] = [ref for ref in refs if ref() is not kept]
        kept.tensor = copy
        self._enter(kept)  # from now on backward itself may write to it

    def _all_refs(self) -> list[weakref.ref[_Kept]]:
        return [ref for refs in self._by_storage.values() for ref in refs]

    def close(self) -> None:
        """Note the versions: later writes are not seen, and must raise in backward as they do without us."""
        for ref in self._all_refs():
            kept = ref()
            if kept is not None:
                kept.version = private.version(kept.tensor)


def write_plan(func: Any) -> Plan | None:
    """Which arguments an operator writes to; None if it writes to nothing."""
    plan = make_plan(func)
    return plan if isinstance(plan, Plan) else None


class _PreserveMode(OwnMode):
    """Sees every operation below autograd, and looks for saved tensors under the arguments that it writes to."""

    def __init__(self, preserver: _Preserver) -> None:
        super().__init__()
        self._preserver = weakref.ref(preserver)
        self._plans: dict[Any, Plan | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        plan = self._plans.get(func, _UNKNOWN)
        if plan is _UNKNOWN:
            plan = self._plans[func] = write_plan(func)
        if plan is None:
            return func(*args, **kwargs)
        targets = plan.tensors(args, kwargs)
        preserver = self._preserver()
        if preserver is not None and not plan.metadata_only:  # an alias has its own shape
            # Train-mode batch norm saves running statistics, updates them, and never reads them in backward.
            own = private.peek_sequence_nr() if plan.hidden else None
            for target in targets:
                preserver.before_write(target, own)
        if not plan.foreach:
            return func(*args, **kwargs)
        before = [private.version(t) for t in targets]
        out = func(*args, **kwargs)
        private.bump_unbumped(targets, before)
        return out


class _ExportPatch:
    """Clones what shares memory with a tensor when that memory is exported from torch."""

    _NAMES = ("numpy", "__dlpack__")

    def __init__(self, preserver: _Preserver) -> None:
        self._preserver = weakref.ref(preserver)
        self._thread = threading.get_ident()
        self._before: dict[str, Any] = {}

    def install(self) -> None:
        """Patch the exporting methods of `torch.Tensor`."""
        for name in self._NAMES:
            self._before[name] = torch.Tensor.__dict__.get(name)
            setattr(torch.Tensor, name, self._wrap(getattr(torch.Tensor, name)))

    def remove(self) -> None:
        """Restore the original methods."""
        for name, before in self._before.items():
            if before is None:
                delattr(torch.Tensor, name)
            else:
                setattr(torch.Tensor, name, before)

    def _wrap(self, exit_: Any) -> Any:
        @functools.wraps(exit_)
        def exporting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            preserver = self._preserver()
            if preserver is not None and threading.get_ident() == self._thread:
                preserver.before_write(tensor)
            return exit_(tensor, *args, **kwargs)

        return exporting


def _pieces(t: torch.Tensor) -> list[torch.Tensor]:
    """The strided tensors that hold the memory of `t`; none if it has none (meta, opaque)."""
    try:
        if private.is_wrapper(t):
            return [piece for part in private.holders(t) for piece in _pieces(part)]
        if t.layout is torch.strided:
            return [t] if private.storage_id(t) and t.device.type != "meta" else []
        if t.layout is torch.sparse_coo:
            return [t._indices(), t._values()]
        if t.layout in (torch.sparse_csr, torch.sparse_bsr):
            return [t.crow_indices(), t.col_indices(), t.values()]
        if t.layout in (torch.sparse_csc, torch.sparse_bsc):
            return [t.ccol_indices(), t.row_indices(), t.values()]
    except (RuntimeError, NotImplementedError):
        pass  # a tensor whose memory torch does not expose cannot be matched
    return []


def _overlaps(t: torch.Tensor, storage: int, low: int, high: int) -> bool:
    return any(
        private.storage_id(piece) == storage and span[0] < high and low < span[1]
        for piece in _pieces(t)
        for span in (byte_range(piece),)
    )


def _overlaps_address(t: torch.Tensor, storage: int, low: int, high: int) -> bool:
    for piece in _pieces(t):
        if private.storage_id(piece) != storage:
            start = piece.untyped_storage().data_ptr()
            span = byte_range(piece)
            if start and start + span[0] < high and low < start + span[1]:
                return True
    return False


def _shared_outside(t: torch.Tensor) -> bool:
    """Whether the memory of `t` came from or went to numpy, DLPack or a file, so that another storage may share it."""
    try:
        return not t.untyped_storage().resizable()
    except (RuntimeError, NotImplementedError):
        return False


def _geometry(t: torch.Tensor) -> Any:
    if type(t) is not torch.Tensor or t.layout is not torch.strided:
        return None
    return (private.storage_id(t), t.storage_offset(), t.shape, t.stride(), t.dtype, t.is_conj(), t.is_neg())


def _live_refs(refs: list[weakref.ref[_Kept]]) -> list[weakref.ref[_Kept]]:
    return [ref for ref in refs if ref() is not None]
