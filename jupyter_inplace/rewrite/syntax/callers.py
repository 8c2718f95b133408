"""Where the functions of a cell are called, and with which arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.tensors import dotted

__all__ = ["CallSite", "call_sites", "parameters"]


@dataclass(frozen=True, eq=False)
class CallSite:
    """A call of a function that the cell defines.

    :param arguments: the expression passed for each parameter, if known; for a method, ``self`` is the receiver.
    """

    call: cst.Call
    arguments: dict[str, cst.BaseExpression]


def parameters(function: cst.FunctionDef) -> list[str]:
    """The names of a function's positional parameters."""
    params = function.params
    return [param.name.value for param in (*params.posonly_params, *params.params)]


def call_sites(code: Code, function: cst.FunctionDef) -> Iterator[CallSite]:
    """The calls of a function or method in the cell, by name; of ``forward``, the calls of the module too."""
    owner = code.parent(code.parent(function) or function)
    name = function.name.value
    names = parameters(function)
    if not isinstance(owner, cst.ClassDef):
        for call in code.within(code.module, cst.Call):
            if isinstance(call.func, cst.Name) and call.func.value == name:
                yield CallSite(call, _bound(call, names, None))
        return
    modules = set(_instances(code, owner.name.value)) if name == "forward" else set()
    static = any(dotted(decorator.decorator) == "staticmethod" for decorator in function.decorators)
    for call in code.within(code.module, cst.Call):
        callee = call.func
        module = callee.value if isinstance(callee, cst.Subscript) else callee  # blocks[0](x)
        if name == "forward" and dotted(callee) == f"{owner.name.value}.apply":
            yield CallSite(call, _bound(call, names[1:], None))  # an autograd.Function: the first parameter is ctx
        elif name == "__init__" and dotted(callee) == owner.name.value:
            yield CallSite(call, _bound(call, names[1:], None))
        elif isinstance(callee, cst.Attribute) and callee.attr.value == name:
            yield CallSite(call, _bound(call, names, None if static else callee.value))
        elif dotted(module) in modules:
            yield CallSite(call, _bound(call, names, callee))


def _instances(code: Code, class_name: str) -> Iterator[str]:
    """The variables and attributes that the cell binds to instances of a class."""
    for node in code.nodes:
        if isinstance(node, cst.Assign):
            for target, value in _pairs(node):
                made = [c for c in code.within(value, cst.Call) if dotted(c.func) == class_name]
                path = dotted(target)
                if made and path:
                    yield path


def _pairs(node: cst.Assign) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression]]:
    """Targets and values, unpacked if both sides are tuples."""
    for target in node.targets:
        left, right = target.target, node.value
        if isinstance(left, cst.Tuple) and isinstance(right, cst.Tuple) and len(left.elements) == len(right.elements):
            yield from ((a.value, b.value) for a, b in zip(left.elements, right.elements, strict=True))
        else:
            yield left, right


def _bound(call: cst.Call, names: list[str], receiver: cst.BaseExpression | None) -> dict[str, cst.BaseExpression]:
    """What a call passes for each parameter; after a star nothing is known."""
    bound: dict[str, cst.BaseExpression] = {}
    rest = list(names)
    if receiver is not None and rest:
        bound[rest.pop(0)] = receiver
    for argument in call.args:
        if argument.star:
            break
        if argument.keyword is not None:
            bound[argument.keyword.value] = argument.value
        elif rest:
            bound[rest.pop(0)] = argument.value
    return bound
