"""The expressions of a cell that saved what a write overwrote."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.report.data import Conflict
from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.locate import find
from jupyter_inplace.rewrite.syntax.tensors import dotted, is_inplace_name, is_namespace, last_name
from jupyter_inplace.rewrite.syntax.write import WriteSyntax

__all__ = ["saves_state", "saving_nodes"]


def saving_nodes(write: WriteSyntax) -> Iterator[tuple[cst.BaseExpression, Conflict]]:
    """The saving expressions, one for each tensor that they saved."""
    seen: set[tuple[int, str]] = set()
    for conflict in write.conflicts:
        node, _ = find(write.code, conflict.saved_site, write.report)
        if isinstance(node, cst.Expr | cst.Return | cst.Assign | cst.AnnAssign | cst.AugAssign):
            node = node.value
        if isinstance(node, cst.BaseExpression) and (id(node), conflict.tensor) not in seen:
            seen.add((id(node), conflict.tensor))
            yield node, conflict


def saves_state(code: Code, call: cst.Call, conflict: Conflict) -> bool:
    """Whether the saved tensor can be a parameter or a buffer of the module that is called here."""
    callee = call.func
    while isinstance(callee, cst.Subscript):
        callee = callee.value
    path = code.get(call.func)
    if dotted(callee) is None or is_namespace(call.func) or is_inplace_name(last_name(call.func)):
        return False
    root = re.split(r"[.\[]", path, maxsplit=1)[0]
    functions = {scope.name for scope in code.scopes.all if scope.kind in {"function", "class"}}
    if code.scopes.is_module(root) or path in functions:
        return False
    return conflict.tensor.startswith(f"{path}.") or f".{path.removeprefix('self.')}." in f".{conflict.tensor}."
