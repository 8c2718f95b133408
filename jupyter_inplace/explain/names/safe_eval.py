"""Looks up the tensors of an expression in the variables of a frame without running any user code."""

from __future__ import annotations

import ast
import types
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

from jupyter_inplace._syntax import is_deep
from jupyter_inplace.record.source.expressions import VIEW_ATTRIBUTES, VIEW_METHODS, receiver

__all__ = ["MISSING", "look_up", "tensors_in"]

#: Returned by `look_up` if the value cannot be found without running code.
MISSING: Final = object()
_REGISTRIES = ("_parameters", "_buffers", "_modules")


def look_up(node: ast.expr, variables: tuple[Mapping[str, Any], ...]) -> tuple[Any, bool]:
    """The object that an expression stands for, and whether the expression is a view of it.

    Follows names, attributes stored in instances and modules, and items of plain containers. For a view or the result of an
    in-place method it returns the tensor behind it: ``w`` for ``w.view(-1)[0:2]``.
    """
    return (MISSING, False) if is_deep(node) else _look_up(node, variables)


def _look_up(node: ast.expr, variables: tuple[Mapping[str, Any], ...]) -> tuple[Any, bool]:
    if isinstance(node, ast.NamedExpr):
        node = node.target
    if isinstance(node, ast.Name):
        return next((space[node.id] for space in variables if node.id in space), MISSING), False
    if isinstance(node, ast.Attribute):
        owner, viewed = _look_up(node.value, variables)
        if isinstance(owner, torch.Tensor):
            if node.attr in VIEW_ATTRIBUTES:
                return owner, True
            if node.attr == "grad":
                return _gradient(owner), viewed
        return _attribute(owner, node.attr), viewed
    if isinstance(node, ast.Subscript):
        owner, viewed = _look_up(node.value, variables)
        if isinstance(owner, torch.Tensor):
            return owner, True
        return _item(owner, _index(node.slice, variables)), viewed
    if isinstance(node, ast.Call):
        return _behind_call(node, variables)
    return MISSING, False


def tensors_in(value: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    """The tensors of a value: itself, or those of plain containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and type(value) in (list, tuple, set):
        for item in value:
            yield from tensors_in(item, depth - 1)
    elif depth and type(value) in (dict, OrderedDict):
        for item in value.values():
            yield from tensors_in(item, depth - 1)


def _behind_call(node: ast.Call, variables: tuple[Mapping[str, Any], ...]) -> tuple[Any, bool]:
    func = node.func
    if not isinstance(func, ast.Attribute):
        return MISSING, False
    inplace = func.attr.endswith("_") and not func.attr.startswith("__")
    if func.attr not in VIEW_METHODS and not inplace:
        return MISSING, False
    behind = receiver(node) or (node.args[0] if node.args else None)
    if behind is None:
        return MISSING, False
    value, viewed = _look_up(behind, variables)
    if not isinstance(value, torch.Tensor):
        return MISSING, False
    return value, viewed or not inplace


def _gradient(tensor: torch.Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns if the `.grad` of a non-leaf is read
        grad = vars(torch._C.TensorBase)["grad"].__get__(tensor)  # not a property that a subclass defines
    return MISSING if grad is None else grad


def _attribute(owner: Any, name: str) -> Any:
    """A stored attribute, without calling a descriptor or ``__getattr__``."""
    if owner is MISSING:
        return MISSING
    if isinstance(owner, types.ModuleType):
        return vars(owner).get(name, MISSING)
    try:
        kept: Any = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        kept = {}
    if type(kept) is dict:
        if name in kept:
            return kept[name]
        if isinstance(owner, torch.nn.Module):
            for registry in _REGISTRIES:
                entries = kept.get(registry)
                if entries is not None and name in entries:
                    return entries[name]
    found: Any = MISSING
    for base in type(owner).__mro__ if not isinstance(owner, type) else owner.__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            break
    if isinstance(found, types.MemberDescriptorType):  # a slot
        try:
            return found.__get__(owner)
        except AttributeError:
            return MISSING
    return MISSING if hasattr(type(found), "__get__") else found


def _index(node: ast.expr, variables: tuple[Mapping[str, Any], ...]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _index(node.operand, variables)
        return -value if type(value) is int else MISSING
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        left, right = _index(node.left, variables), _index(node.right, variables)
        if type(left) is int and type(right) is int:
            return left + right if isinstance(node.op, ast.Add) else left - right
        return MISSING
    value, _ = _look_up(node, variables)
    return value if type(value) in (int, str) else MISSING


def _item(owner: Any, index: Any) -> Any:
    if index is MISSING:
        return MISSING
    try:
        if type(owner) in (list, tuple, dict, OrderedDict):
            return owner[index]
        if isinstance(owner, torch.nn.ModuleDict | torch.nn.ParameterDict) and type(index) is str:
            return _attribute(owner, index)
        if isinstance(owner, torch.nn.Sequential | torch.nn.ModuleList | torch.nn.ParameterList) and type(index) is int:
            registry = "_parameters" if isinstance(owner, torch.nn.ParameterList) else "_modules"
            return list(object.__getattribute__(owner, "__dict__")[registry].values())[index]
    except (KeyError, IndexError, TypeError):
        return MISSING
    return MISSING
