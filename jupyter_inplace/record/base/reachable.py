"""The tensors that a custom Function's backward can read without torch's knowing: on `ctx`, captured, or global."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any

import torch

_DEPTH = 3
_MAX_ITEMS = 64  # of one container
_MAX_TENSORS = 64  # of one node


def reachable_tensors(node: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the backward of a custom Function's node may read: on its `ctx`, and by the names that its code uses."""
    own: dict[int, torch.Tensor] = {}
    for value in list(vars(node).values()):
        _collect(value, own, _DEPTH)
    named: dict[int, torch.Tensor] = {}
    function = getattr(getattr(type(node), "_forward_cls", None), "backward", None)
    if isinstance(function, types.FunctionType):
        for value in _captured(function):
            _collect(value, named, _DEPTH)
    return list(own.values()), [t for key, t in named.items() if key not in own]


def _captured(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield function.__globals__[name]


@functools.lru_cache(maxsize=256)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """The names that a code, or one inside of it, looks up in its globals; `co_names` has attributes too."""
    names = dict.fromkeys(str(at.argval) for at in dis.get_instructions(code) if at.opname == "LOAD_GLOBAL")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(_global_names(constant)))
    return tuple(names)


def _collect(value: Any, found: dict[int, torch.Tensor], depth: int) -> None:
    if len(found) >= _MAX_TENSORS:
        return
    if isinstance(value, torch.Tensor):
        found[id(value)] = value
    elif depth and isinstance(value, torch.nn.Module):
        for t in (*value.parameters(), *value.buffers()):
            _collect(t, found, 0)
    elif depth and isinstance(value, dict):
        for item in list(value.values())[:_MAX_ITEMS]:
            _collect(item, found, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for item in value[:_MAX_ITEMS]:
            _collect(item, found, depth - 1)
    elif (
        depth
        and type(getattr(value, "__dict__", None)) is dict
        and not isinstance(value, type | types.ModuleType | types.FunctionType)
    ):
        for item in list(vars(value).values())[:_MAX_ITEMS]:
            _collect(item, found, depth - 1)
