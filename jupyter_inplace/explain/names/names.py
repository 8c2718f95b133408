"""What a person would type for a tensor: a search of the visible namespaces, made only when a name is needed.

Names of the outermost namespace (the cell's or the script's) are preferred, since they are still valid after the run; among
these first a parameter path through a module, then a variable, then an attribute or item path. No property is read and no user
code runs: modules are searched by their registries, plain objects by `__dict__`, containers by their items.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from jupyter_inplace.record.base.torch_private import storage_id
from jupyter_inplace.record.source import sites

_MAX_ITEMS = 2000  # items looked at in one container
_MAX_TENSORS = 50_000  # tensors named in one search
_HIDDEN = {"In", "Out", "get_ipython", "exit", "quit", "open"}


def user_frame() -> types.FrameType | None:
    """The innermost user frame on the stack."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and not sites.is_user_frame(frame):
        frame = frame.f_back
    return frame


def namespaces(frame: types.FrameType | None, extra: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
    """The namespaces visible at `frame`, outermost first: those of the session, of the module, the locals of the functions."""
    found: list[Mapping[str, Any]] = []
    locals_: list[Mapping[str, Any]] = []
    while frame is not None:
        if sites.is_user_frame(frame):
            if frame.f_code.co_name == "<module>":
                if not any(known is frame.f_globals for known in found):
                    found.append(frame.f_globals)
            else:
                locals_.append(sites.locals_of(frame))
                if not any(known is frame.f_globals for known in found):
                    found.append(frame.f_globals)
        frame = frame.f_back
    if extra is not None and not any(known is extra for known in found):
        found.insert(0, extra)
    elif extra is not None:
        found.sort(key=lambda known: known is not extra)
    return found + locals_[::-1]


class Names:
    """The names of the tensors and modules reachable from some namespaces.

    It keeps the tensors alive, so do not store it.
    """

    def __init__(self, spaces: Iterable[Mapping[str, Any]]) -> None:
        self._rank: dict[int, tuple[Any, ...]] = {}
        self._by_id: dict[int, str] = {}
        self.tensors: list[tuple[str, torch.Tensor]] = []
        self._modules: dict[int, str] = {}
        self._module_rank: dict[int, int] = {}
        self._by_storage: dict[int, list[tuple[str, torch.Tensor]]] | None = None
        self._known: set[str] | None = None
        self._seen: set[int] = set()
        self.spaces = list(spaces)
        for depth, space in enumerate(self.spaces):
            self._scan_namespace(space, depth)

    @property
    def known(self) -> set[str]:
        """Every name of a visible tensor."""
        if self._known is None:
            self._known = {name for name, _ in self.tensors}
        return self._known

    def of(self, t: torch.Tensor) -> str | None:
        """The name of exactly this tensor."""
        return self._by_id.get(id(t))

    def module(self, module: Any) -> str | None:
        """The path of a module, `model.encoder.0`."""
        return self._modules.get(id(module))

    def on_storage(self, t: torch.Tensor) -> str | None:
        """The best name of a tensor over the same memory: one with the same place and shape if there is one, else any."""
        storage = storage_id(t)
        if not storage:
            return self.of(t)
        best: tuple[Any, ...] | None = None
        for name, other in self._storage_map().get(storage, ()):
            same = other.shape == t.shape and other.storage_offset() == t.storage_offset()
            rank = (not same, -other.numel(), self._rank.get(id(other), (9,)), len(name))
            if best is None or rank < best[0]:
                best = (rank, name)
        return None if best is None else best[1]

    def of_memory(self, t: torch.Tensor) -> str | None:
        """The name of exactly this tensor, else the best one of a tensor over the same memory."""
        return self.of(t) or self.on_storage(t)

    def bound_to(self, t: torch.Tensor) -> list[str]:
        """Every name that holds this tensor or another one over its memory."""
        return [name for name, _ in self._storage_map().get(storage_id(t), ())]

    def storage_names(self) -> dict[int, str]:
        """For every visible storage the name of its largest tensor."""
        return {storage: name for storage in self._storage_map() if (name := self.by_storage_id(storage)) is not None}

    def fitting(self, storage: int, shape: tuple[int, ...]) -> str | None:
        """The best name of a tensor on a storage that `shape` fits into (addresses are reused, so another size is another tensor)."""
        size = 1
        for n in shape:
            size *= n
        found = [
            (name, t) for name, t in self._storage_map().get(storage, ()) if tuple(t.shape) == shape or t.numel() > size
        ]
        if not found:
            return None
        return min(
            found, key=lambda item: (tuple(item[1].shape) != shape, self._rank.get(id(item[1]), (9,)), len(item[0]))
        )[0]

    def by_storage_id(self, storage: int) -> str | None:
        """The best name of a tensor over a storage: that of the largest one."""
        found = self._storage_map().get(storage)
        if not found:
            return None
        return min(found, key=lambda item: (-item[1].numel(), self._rank.get(id(item[1]), (9,)), len(item[0])))[0]

    def by_node(self) -> dict[tuple[Any, int], tuple[str, bool]]:
        """`(node, output number) -> (name, whether it is an item of a container)` for the tensors with a grad_fn."""
        table: dict[tuple[Any, int], tuple[str, bool]] = {}
        for name, t in self.tensors:
            if self._by_id.get(id(t)) != name:
                continue
            try:
                node = t.grad_fn
            except RuntimeError:  # a view whose base was written
                continue
            if node is not None:
                table.setdefault((node, t.output_nr), (name, name.endswith("]")))
        return table

    def roots(self) -> list[tuple[str, torch.Tensor]]:
        """Named scalars that a backward could start from."""
        found = []
        for name, t in self.tensors:
            try:
                if self._by_id.get(id(t)) == name and t.numel() == 1 and t.requires_grad and t.grad_fn is not None:
                    found.append((name, t))
            except RuntimeError:
                continue
        return found

    def _storage_map(self) -> dict[int, list[tuple[str, torch.Tensor]]]:
        if self._by_storage is None:
            self._by_storage = {}
            for name, t in self.tensors:
                # A nested tensor has no shape to be found by.
                storage = storage_id(t) if t.layout is torch.strided and not t.is_nested else 0
                if storage:
                    self._by_storage.setdefault(storage, []).append((name, t))
        return self._by_storage

    def _scan_namespace(self, space: Mapping[str, Any], depth: int) -> None:
        self._seen.clear()
        keys: list[Any] = list(space)  # a namespace made by hand may have keys of any type
        for name in keys:
            value = space.get(name)
            if isinstance(name, str) and name.isidentifier() and name not in _HIDDEN and not name.startswith("_"):
                self._scan(value, name, depth, 0)

    def _add(self, t: torch.Tensor, name: str, depth: int, kind: int) -> None:
        if len(self.tensors) >= _MAX_TENSORS:
            return
        rank = (depth, kind, name.count(".") + name.count("["), len(name))
        old = self._rank.get(id(t))
        self.tensors.append((name, t))
        if old is None or rank < old:
            self._rank[id(t)] = rank
            self._by_id[id(t)] = name

    def _scan(self, value: Any, name: str, depth: int, level: int) -> None:
        if isinstance(value, torch.Tensor):
            self._add(value, name, depth, 1 if level == 0 else 2)
            return
        if isinstance(value, (str, bytes, int, float, complex, type(None), types.ModuleType, type, types.FunctionType)):
            return
        if level > 4 or id(value) in self._seen:
            return
        if isinstance(value, torch.nn.Module):
            self._scan_module(value, name, depth, level)
            return
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            self._seen.add(id(value))
            self._scan_container(value, name, depth, level)
            return
        if isinstance(value, (torch.optim.Optimizer, torch.utils.data.DataLoader)) or _is_library(type(value)):
            return
        attributes = getattr(type(value), "__dict__", None) is not None and getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._seen.add(id(value))
            for key, item in list(attributes.items())[:_MAX_ITEMS]:
                self._scan(item, f"{name}.{key}", depth, level + 1)

    def _scan_container(self, value: Any, name: str, depth: int, level: int) -> None:
        if isinstance(value, dict):
            for key, item in list(value.items())[:_MAX_ITEMS]:
                if isinstance(key, (str, int)):
                    # heads["seg"], with the quotes that most people type
                    label = f'"{key}"' if isinstance(key, str) else repr(key)
                    self._scan(item, f"{name}[{label}]", depth, level + 1)
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value[:_MAX_ITEMS]):
                self._scan(item, f"{name}[{i}]", depth, level + 1)

    def _scan_module(self, module: torch.nn.Module, name: str, depth: int, level: int) -> None:
        for path, child in _submodules(module):
            full = f"{name}.{path}" if path else name
            rank = depth * 1000 + full.count(".") * 10 + level
            if id(child) not in self._modules or rank < self._module_rank[id(child)]:
                self._modules[id(child)] = full
                self._module_rank[id(child)] = rank
            for key, parameter in child._parameters.items():
                if parameter is not None:
                    self._add(parameter, f"{full}.{key}", depth, 0)
            for key, buffer in child._buffers.items():
                if buffer is not None:
                    self._add(buffer, f"{full}.{key}", depth, 0)
            self._seen.add(id(child))
            for key, item in list(vars(child).items()):
                if not key.startswith("_") and key != "training":
                    self._scan(item, f"{full}.{key}", depth, level + 1)


def _submodules(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    seen: set[int] = set()
    found: list[tuple[str, torch.nn.Module]] = []
    stack = [("", module)]
    while stack:
        path, current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        found.append((path, current))
        for key, child in current._modules.items():
            if child is not None:
                stack.append((f"{path}.{key}" if path else key, child))
    return found


_LIBRARY_ROOTS = {
    "torch",
    "numpy",
    "pandas",
    "matplotlib",
    "IPython",
    "ipykernel",
    "sklearn",
    "tensorflow",
    "jupyter_inplace",
    "builtins",
    "threading",
    "logging",
}


def _is_library(kind: type) -> bool:
    return (kind.__module__ or "").partition(".")[0] in _LIBRARY_ROOTS
