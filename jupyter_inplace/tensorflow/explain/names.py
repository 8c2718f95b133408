"""What a person would type for a variable or tensor: a search of the visible namespaces, made only when a name is needed.

No user code runs: Keras layers and models are searched by their lists of layers and weights, other objects by `__dict__`,
containers by their items.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from jupyter_inplace.tensorflow.record.handles import handle_of

_MAX_ITEMS = 2000
_HIDDEN = {"In", "Out", "get_ipython", "exit", "quit", "open"}
_PLAIN = (str, bytes, int, float, complex, type(None), types.ModuleType, type, types.FunctionType)


class TapeNames:
    """Names by the number of a variable's handle or of a tensor. It keeps what it found alive."""

    def __init__(self, spaces: Iterable[Mapping[str, Any]]) -> None:
        self._best: dict[int, tuple[tuple[int, ...], str, Any]] = {}
        self._seen: set[int] = set()
        self._keras = _keras_types()
        self.spaces = list(spaces)
        for depth, space in enumerate(self.spaces):
            self._seen.clear()
            keys: list[Any] = list(space)
            for name in keys:
                if isinstance(name, str) and name.isidentifier() and not name.startswith("_") and name not in _HIDDEN:
                    self._scan(space.get(name), name, depth, 0)

    def of(self, number: int) -> str | None:
        """The name of the variable with that handle, or of the tensor with that id."""
        found = self._best.get(number)
        return None if found is None else found[1]

    def tensor(self, number: int) -> Any:
        """The variable or tensor itself."""
        found = self._best.get(number)
        return None if found is None else found[2]

    def named(self) -> list[tuple[str, Any]]:
        """All objects found, each under its best name."""
        return [(name, value) for _, name, value in self._best.values()]

    def _add(self, number: int, name: str, value: Any, depth: int, level: int) -> None:
        rank = (depth, level, name.count(".") + name.count("["), len(name))
        old = self._best.get(number)
        if old is None or rank < old[0]:
            self._best[number] = (rank, name, value)

    def _scan(self, value: Any, name: str, depth: int, level: int) -> None:
        if isinstance(value, _PLAIN):
            return
        if isinstance(value, tf.Variable):
            self._add(getattr(handle_of(value), "_id", -1), name, value, depth, level)
            return
        if isinstance(value, tf.Tensor):
            number = getattr(value, "_id", None)
            if number is not None:
                self._add(number, name, value, depth, level)
            return
        if level > 4 or id(value) in self._seen:
            return
        self._seen.add(id(value))
        if self._keras and isinstance(value, self._keras):
            self._scan_keras(value, name, depth, level)
        elif isinstance(value, dict | list | tuple):
            self._scan_container(value, name, depth, level)
        elif not _is_library(type(value)):
            attributes = getattr(value, "__dict__", None)
            if isinstance(attributes, dict):
                for key, item in list(attributes.items())[:_MAX_ITEMS]:
                    self._scan(item, f"{name}.{key}", depth, level + 1)

    def _scan_container(self, value: Any, name: str, depth: int, level: int) -> None:
        if isinstance(value, dict):
            for key, item in list(value.items())[:_MAX_ITEMS]:
                if isinstance(key, str | int):
                    label = f'"{key}"' if isinstance(key, str) else repr(key)
                    self._scan(item, f"{name}[{label}]", depth, level + 1)
        else:
            for i, item in enumerate(value[:_MAX_ITEMS]):
                self._scan(item, f"{name}[{i}]", depth, level + 1)

    def _scan_keras(self, value: Any, name: str, depth: int, level: int) -> None:
        """Name the weights of a layer by the attributes that hold them, the layers of a model by its attributes or by index."""
        inner = getattr(value, "_value", None)
        if isinstance(inner, tf.Variable):  # a Keras variable wraps a tf.Variable
            self._add(getattr(inner.handle, "_id", -1), name, inner, depth, level)
            return
        for key in ("_trainable_variables", "_non_trainable_variables"):
            for weight in vars(value).get(key) or ():
                held = getattr(weight, "_value", None)
                if isinstance(held, tf.Variable):
                    self._add(getattr(held.handle, "_id", -1), f"{name}.{weight.name}", held, depth, level + 1)
        public = getattr(value, "layers", None)  # of a model; without the input layer, which has no weights
        layers = public if isinstance(public, list) else vars(value).get("_layers") or ()
        own = {id(item): key for key, item in vars(value).items() if not key.startswith("_")}
        for i, layer in enumerate(layers):
            path = f"{name}.{own[id(layer)]}" if id(layer) in own else f"{name}.layers[{i}]"
            self._scan(layer, path, depth, level + 1)


def _keras_types() -> tuple[type, ...]:
    """The types of Keras 3 that hold variables, if it is imported."""
    keras = sys.modules.get("keras")
    found = (getattr(keras, "Layer", None), getattr(keras, "Variable", None)) if keras is not None else ()
    return tuple(kind for kind in found if isinstance(kind, type))


_LIBRARY_ROOTS = {"torch", "numpy", "pandas", "matplotlib", "IPython", "ipykernel", "sklearn", "keras", "tensorflow",
                  "jupyter_inplace", "builtins", "threading", "logging"}  # fmt: skip


def _is_library(kind: type) -> bool:
    return (kind.__module__ or "").partition(".")[0] in _LIBRARY_ROOTS
