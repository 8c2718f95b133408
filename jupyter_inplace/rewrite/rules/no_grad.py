"""``w.mul_(2)`` becomes ``with torch.no_grad(): w.mul_(2)``: the leaf itself gets the new value, as an update."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.report import Reading
from jupyter_inplace.rewrite.code import Code, enclosed
from jupyter_inplace.rewrite.edit import Edit, apply_edits
from jupyter_inplace.rewrite.place import short
from jupyter_inplace.rewrite.write import Proposal, Write

__all__ = ["propose"]


def propose(write: Write) -> Iterator[Proposal]:
    """Take a write of a leaf out of autograd's sight; ``.data``, which hides it from the version check too, goes."""
    code, small = write.code, write.small
    if small is None or write.target is None or not write.inside or _is_under_no_grad(code, write.node):
        return
    hidden = _data_of(code, write)
    if write.verdict != "rejected" and not hidden:
        return
    reading: Reading | None = "update" if write.verdict == "rejected" else None
    torch = code.torch
    header = f"with {torch}.no_grad():"
    rank = (10 if write.is_leaf else 61) if write.verdict == "rejected" else 60
    text = _without(code, small, hidden)
    if isinstance(write.node, cst.Assign) and isinstance(write.target, cst.Attribute) and hidden:
        text = f"{code.get(write.target.value)}.copy_({code.get(write.node.value)})"
    if write.is_statement or isinstance(write.node, cst.Assign | cst.AnnAssign):
        nested = code.nest(small, header, text if hidden else None)
        yield Proposal("no_grad", "under torch.no_grad(): " + short(text, 40), (nested,), rank, reading)
    elif write.path is not None and isinstance(small, cst.Assign | cst.AnnAssign | cst.Return | cst.Expr):
        # The write first, on its own; the expression then uses the written tensor.
        written = _without(code, write.node, hidden)
        line = code.insert_before(code.item(small), header, code.module.default_indent + enclosed(written))
        edits = (line, code.replace(write.node, write.path))
        yield Proposal("no_grad", "under torch.no_grad(): " + short(written, 40), edits, rank, reading)


def _data_of(code: Code, write: Write) -> list[cst.Attribute]:
    """The ``.data`` steps of the target."""
    assert write.target is not None
    return [a for a in code.within(write.target, cst.Attribute) if a.attr.value == "data"]


def _without(code: Code, node: cst.CSTNode, data: list[cst.Attribute]) -> str:
    start, end = code.span(node)
    edits = [Edit(code.whole(a.value)[1] - start, code.span(a)[1] - start, "") for a in data]
    return apply_edits(code.text[start:end], edits)


def _is_under_no_grad(code: Code, node: cst.CSTNode) -> bool:
    for step in code.ancestors(node):
        if isinstance(step, cst.With) and any("no_grad" in code.get(item.item) for item in step.items):
            return True
        if isinstance(step, cst.FunctionDef):
            return any("no_grad" in code.get(decorator.decorator) for decorator in step.decorators)
    return False
