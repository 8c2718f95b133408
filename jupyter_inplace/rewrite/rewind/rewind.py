"""`rewind`: restores the state from before the cell, in place, from the snapshot taken then."""

from __future__ import annotations

import ctypes
import random
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from jupyter_inplace.rewrite.rewind.rewind_records import (
    ContainerRecord,
    Recorded,
    StateRecord,
    TensorRecord,
    container_record,
    reachable,
    record,
)
from jupyter_inplace.rewrite.sandbox.outcome import Limits
from jupyter_inplace.rewrite.sandbox.reach import grad_of
from jupyter_inplace.rewrite.sandbox.sandbox import Sandbox

__all__ = ["NotRestored", "RewindError", "Rewound", "rewind"]

_LIMITS = Limits(seconds=30.0, result_bytes=4 << 30)
_TARGET = "jupyter_inplace.rewrite.rewind.rewind_records:describe"


class RewindError(Exception):
    """Nothing was restored. The message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class NotRestored:
    """Something that could not be restored.

    :param name: its path.
    :param reason: why not, in words; empty if its memory could not be read.
    """

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


@dataclass(frozen=True, slots=True)
class Rewound:
    """What `rewind` did.

    :param restored: paths of what was restored, such as ``model.encoder.0.weight``.
    :param not_restored: what could not be restored.
    """

    restored: tuple[str, ...]
    not_restored: tuple[NotRestored, ...]

    @property
    def left(self) -> tuple[str, ...]:
        """What could not be restored, each with its reason, in words."""
        return tuple(map(str, self.not_restored))

    def __str__(self) -> str:
        text = f"{len(self.restored)} put back" if self.restored else "nothing had changed"
        return text + (f"; as they are: {'; '.join(self.left)}" if self.left else "")


def rewind(sandbox: Sandbox, namespace: dict[str, Any]) -> Rewound:
    """Restore the tensors, gradients, optimizer states, plain variables and random generators that the cell changed.

    Objects that still exist keep their identity and memory; one that the cell dropped is made again under its old name.
    Variables that the cell added stay.

    :param sandbox: the snapshot from before the cell.
    :param namespace: the names of the cell.
    :raises RewindError: the snapshot is gone, or too large to be sent back.
    """
    now = record(namespace)
    known = {pointer: digest for pointer, (digest, _) in now.storages.items()}
    outcome = sandbox.run(_TARGET, {"known": known}, _LIMITS)
    if not outcome.finished or not outcome.messages:
        raise RewindError(f"the snapshot from before the cell {outcome.in_words()}")
    before: StateRecord = outcome.messages[0]
    return _Rewind(namespace, before, now).run()


class _Rewind:
    def __init__(self, namespace: dict[str, Any], before: StateRecord, now: StateRecord) -> None:
        self._namespace = namespace
        self._before = before
        self._now = {entry.address: entry for entry in now.tensors}
        self._alive: dict[int, Any] = {}
        for _, value in reachable(namespace):
            self._alive.setdefault(id(value), value)
            if isinstance(value, torch.Tensor) and (gradient := grad_of(value)) is not None:
                self._alive.setdefault(id(gradient), gradient)
        self._restored: dict[str, None] = {}
        self._left: dict[NotRestored, None] = dict.fromkeys(map(NotRestored, before.opaque))
        self._storages: dict[int, torch.UntypedStorage] = {}

    def run(self) -> Rewound:
        by_address = {entry.address: entry for entry in self._before.tensors}
        for address, entry in by_address.items():
            if self._same(entry) is None:  # another object has this address now, and stays as it is
                self._alive.pop(address, None)
        with torch.no_grad():
            for entry in by_address.values():
                self._find_storage(entry)
            for entry in by_address.values():
                self._restore_tensor(entry)
            for entry in by_address.values():
                self._restore_gradient(entry)
        for container in self._before.containers:
            self._recreate_container(container)
        for container in self._before.containers:
            self._restore_container(container)
        self._restore_names()
        self._restore_arrays()
        self._restore_random()
        return Rewound(tuple(self._restored), tuple(self._left))

    # --- tensors --------------------------------------------------------------------------------------------------

    def _same(self, entry: TensorRecord) -> torch.Tensor | None:
        """The tensor of a record, if it still exists.

        The address alone does not tell: that of a dropped tensor (an old `.grad`) is reused for the next one that the cell makes.
        So the tensor must also have the same path, except for a parameter with the same memory.
        """
        now = self._now.get(entry.address)
        if now is None or not (now.path == entry.path or (entry.kind == "Parameter" and now.storage == entry.storage)):
            return None
        tensor = self._alive.get(entry.address)
        if isinstance(tensor, torch.Tensor) and type(tensor).__name__ == entry.kind and tensor.dtype == entry.dtype:
            return tensor
        return None

    def _find_storage(self, entry: TensorRecord) -> None:
        tensor = self._same(entry)
        if tensor is None or entry.storage in self._storages or not entry.storage:
            return
        storage = tensor.untyped_storage()
        if storage.data_ptr() == entry.storage:
            self._storages[entry.storage] = storage
            content = self._before.storages[entry.storage][1]
            if content is not None:
                if len(content) != storage.nbytes():
                    storage.resize_(len(content))
                ctypes.memmove(storage.data_ptr(), content, len(content))
                self._bump(tensor)

    @staticmethod
    def _bump(tensor: torch.Tensor) -> None:
        if not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)  # graphs that saved it must know

    def _storage_of(self, entry: TensorRecord) -> torch.UntypedStorage | None:
        storage = self._storages.get(entry.storage)
        if storage is None:
            content = self._before.storages.get(entry.storage, (b"", None))[1]
            if content is None:
                return None
            storage = self._storages[entry.storage] = torch.UntypedStorage(len(content))
            ctypes.memmove(storage.data_ptr(), content, len(content))
        return storage

    def _view(self, entry: TensorRecord) -> torch.Tensor | None:
        """A tensor with the geometry and the memory of a record."""
        if not entry.storage:
            return torch.empty(entry.shape, dtype=entry.dtype)
        storage = self._storage_of(entry)
        if storage is None:
            return None
        return torch.empty(0, dtype=entry.dtype).set_(storage, entry.offset, entry.shape, entry.stride)

    def _restore_tensor(self, entry: TensorRecord) -> None:
        tensor = self._same(entry)
        if tensor is None:
            self._recreate(entry)
            return
        if self._before.storages.get(entry.storage, (b"", None))[1] is not None:
            self._restored[entry.path] = None
        here = tensor.untyped_storage().data_ptr() == entry.storage
        alike = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset()) == (
            entry.shape,
            entry.stride,
            entry.offset,
        )
        if not (here and alike):
            view = self._view(entry)
            if view is None:
                self._left[NotRestored(entry.path, "its memory is gone")] = None
                return
            tensor.data = view
            self._restored[entry.path] = None
        self._restore_history(entry, tensor)

    def _restore_history(self, entry: TensorRecord, tensor: torch.Tensor) -> None:
        now = self._now.get(entry.address)
        if now is None or now.node == entry.node:
            if entry.node is None and tensor.requires_grad != entry.requires_grad:
                tensor.requires_grad_(entry.requires_grad)
                self._restored[entry.path] = None
        elif entry.node is None and now.node is not None:
            tensor.detach_().requires_grad_(entry.requires_grad)
            self._restored[entry.path] = None
        else:
            self._left[NotRestored(entry.path, "its autograd graph, from an earlier cell")] = None

    def _recreate(self, entry: TensorRecord) -> None:
        if entry.node is not None:
            self._left[NotRestored(entry.path, "its autograd graph, from an earlier cell")] = None
            return
        tensor = self._view(entry)
        if tensor is None:
            self._left[NotRestored(entry.path, "its memory is gone")] = None
            return
        if entry.kind == "Parameter":
            tensor = torch.nn.Parameter(tensor, requires_grad=entry.requires_grad)
        else:
            tensor.requires_grad_(entry.requires_grad)
        self._alive[entry.address] = tensor
        self._restored[entry.path] = None

    def _restore_gradient(self, entry: TensorRecord) -> None:
        tensor = self._alive.get(entry.address)
        if not isinstance(tensor, torch.Tensor) or entry.node is not None:
            return
        gradient = self._alive.get(entry.grad) if entry.grad is not None else None
        if tensor.grad is not gradient:
            tensor.grad = gradient
            self._restored[f"{entry.path}.grad"] = None

    # --- everything else ------------------------------------------------------------------------------------------

    def _recreate_container(self, before: ContainerRecord) -> None:
        kinds: dict[str, type] = {"list": list, "dict": dict, "set": set, "deque": deque}
        alive = self._alive.get(before.address)
        if before.kind in kinds and (alive is None or type(alive).__name__ != before.kind):
            self._alive[before.address] = kinds[before.kind]()

    def _restore_container(self, before: ContainerRecord) -> None:
        value: Any = self._alive.get(before.address)
        now = container_record(before.path, value)
        if now is None or now.kind != before.kind or now.items == before.items:
            return
        try:
            if before.of_attributes or isinstance(value, dict):
                self._restore_mapping(vars(value) if before.of_attributes else value, before, now)
            else:
                items = [self._value(inner) for inner in before.items]
                value.clear()
                value.update(items) if isinstance(value, set) else value.extend(items)
        except LookupError:
            self._left[NotRestored(before.path, "it held something that is gone")] = None
            return
        self._restored[before.path] = None

    def _restore_mapping(self, mapping: dict[Any, Any], before: ContainerRecord, now: ContainerRecord) -> None:
        """Restore a mapping. Unchanged items stay, even those that could not be made again."""
        kept = {key: (old, inner) for (key, old), inner in zip(now.items, mapping.values(), strict=True)}
        content = {}
        for key, wanted in before.items:
            old, inner = kept.get(key, (None, None))
            content[self._value(key)] = inner if old == wanted else self._value(wanted)
        mapping.clear()
        mapping.update(content)

    def _value(self, entry: Recorded) -> Any:
        if entry[0] == "is":
            return entry[1]
        value = self._alive.get(entry[1])
        if value is None or type(value).__name__ != entry[2]:
            raise LookupError
        return value

    def _restore_names(self) -> None:
        """Restore names that the cell rebound or deleted."""
        for path, entry in self._before.names.items():
            try:
                value = self._value(entry)
            except LookupError:
                self._left.setdefault(NotRestored(path, "what it named is gone"), None)
                continue
            missing = object()
            old = self._namespace.get(path, missing)
            if old is missing or (old is not value and not (entry[0] == "is" and _plainly_equal(old, value))):
                self._namespace[path] = value
                self._restored[path] = None

    def _restore_arrays(self) -> None:
        for address, (path, dtype, shape, content) in self._before.arrays.items():
            array = self._alive.get(address)
            if array is None or type(array).__name__ != "ndarray" or str(array.dtype) != dtype or array.shape != shape:
                continue
            same = array.tobytes() == content.tobytes()
            if not same and array.flags.writeable:
                array[...] = content
                self._restored[path] = None
            elif not same:
                self._left[NotRestored(path, "read only")] = None

    def _restore_random(self) -> None:
        state = self._before.random
        random.setstate(state["random"])
        torch.set_rng_state(state["torch"])
        numpy_random: Any = sys.modules.get("numpy.random")
        if numpy_random is not None and "numpy" in state:
            numpy_random.set_state(state["numpy"])
        for address, (path, content) in self._before.generators.items():
            generator = self._alive.get(address)
            if isinstance(generator, torch.Generator):
                generator.set_state(content)
            elif generator is not None and hasattr(generator, "bit_generator"):
                generator.bit_generator.state = content
            else:
                self._left[NotRestored(path, "it is gone")] = None


def _plainly_equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)
