"""Walks the objects that a namespace reaches, each once, under the path that a person would type for it."""

from __future__ import annotations

import functools
import re
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

_OBJECTS = 200_000  # the walk ends here: the namespace holds something that is not a model
_DEPTH = 12

# What IPython puts into the namespace of every session.
_SESSION = re.compile(r"In|Out|exit|quit|get_ipython|open|_{1,3}|_i{1,3}|_[iod]h|_i?\d+|__\w+__")
_ATOMS = (
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    bool,
    type(None),
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
)
# Packages whose objects lead everywhere, but not to tensors of the program.
_FOREIGN = (
    "IPython",
    "ipykernel",
    "traitlets",
    "zmq",
    "asyncio",
    "matplotlib",
    "logging",
    "threading",
    "jupyter_inplace",
)


def namespace_of(state: Any) -> dict[str, Any]:
    """The names that a run works on: the dictionary itself, or the shell's ``user_ns``."""
    names: dict[str, Any] = state if isinstance(state, dict) else state.user_ns
    return names


def walk(namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield paths and objects, nearest first: ``model``, ``losses["seg"]``, ``model.encoder.0.weight``, ``batches[0]``.

    Reads attributes from where they are stored, so that no property runs. A tensor is yielded once, under its first path, and
    not followed further: callers read its `.grad` themselves.
    """
    seen: set[int] = set()
    queue: deque[tuple[str, Any, int]] = deque(
        (name, value, 0) for name, value in list(namespace.items()) if not is_of_session(name)
    )
    while queue and len(seen) < _OBJECTS:
        path, value, depth = queue.popleft()
        if isinstance(value, _ATOMS):
            yield path, value
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield path, value
        if depth < _DEPTH:
            queue.extend((child, inner, depth + 1) for child, inner in _children(path, value))


def bytes_held(state: Any) -> int:
    """The bytes of the CPU tensors and arrays that the namespace reaches; shared memory counts once."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    sizes: dict[int, int] = {}
    for _, value in walk(namespace_of(state)):
        if torch is not None and isinstance(value, torch.Tensor):
            for tensor in (value, grad_of(value)):
                if tensor is not None and tensor.device.type == "cpu":
                    try:
                        storage = tensor.untyped_storage()
                        sizes[storage.data_ptr()] = storage.nbytes()
                    except (RuntimeError, NotImplementedError):
                        sizes[id(tensor)] = tensor.numel() * tensor.element_size()
        elif numpy is not None and isinstance(value, numpy.ndarray) and value.base is None:
            sizes[value.__array_interface__["data"][0]] = value.nbytes
    return sum(sizes.values())


def is_looked_into(value: Any) -> bool:
    """Whether the attributes of an object are followed: not those of libraries that hold no tensors of the program."""
    return not type(value).__module__.startswith(_FOREIGN)


def grad_of(tensor: Any) -> Any:
    """`tensor.grad`, without the warning for non-leaf tensors."""
    try:
        return tensor.grad if tensor.is_leaf or tensor.retains_grad else None
    except RuntimeError:  # a view of a base that was written: torch refuses to say
        return None


def is_of_session(name: str) -> bool:
    """Whether IPython, not the user, put a name into the namespace."""
    return _SESSION.fullmatch(name) is not None


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return
    if torch is not None and isinstance(value, torch.nn.Module):
        yield from _of_module(path, vars(value))
    elif isinstance(value, Mapping):
        yield from _items(path, value)
    elif isinstance(value, list | tuple | deque | set | frozenset):
        for place, inner in enumerate(list(value)):
            yield f"{path}[{place}]", inner
    elif isinstance(value, functools.partial):
        yield from ((f"{path}.func", value.func), (f"{path}.args", value.args), (f"{path}.keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _captured(path, value)
    elif is_looked_into(value):
        yield from _attributes(path, getattr(value, "__dict__", None))
        for name in _slots(type(value)):
            try:
                yield f"{path}.{name}", object.__getattribute__(value, name)
            except AttributeError:
                continue


def _of_module(path: str, stored: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for room in ("_parameters", "_buffers", "_modules"):
        for name, inner in (stored.get(room) or {}).items():
            yield f"{path}.{name}", inner
    yield from _attributes(path, {name: inner for name, inner in stored.items() if not name.startswith("_")})


def _items(path: str, mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for place, (key, inner) in enumerate(list(mapping.items())):
        shown = f'"{key}"' if isinstance(key, str) else repr(key) if isinstance(key, int | float) else f"#{place}"
        yield f"{path}[{shown}]", inner
        if not isinstance(key, _ATOMS):
            yield f"{path}[{shown}].key", key


def _attributes(path: str, stored: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(stored, dict):
        for name, inner in list(stored.items()):
            yield f"{path}.{name}", inner


def _captured(path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{path}.{name}", cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for place, inner in enumerate(function.__defaults__ or ()):
        yield f"{path}.__defaults__[{place}]", inner


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if isinstance(base.__dict__.get(name), types.MemberDescriptorType):
                yield name
