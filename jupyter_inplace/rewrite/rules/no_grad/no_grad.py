"""``w.mul_(2)`` becomes ``with torch.no_grad(): w.mul_(2)``: an update, which gives the leaf itself a new value."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.report.data import Reading
from jupyter_inplace.rewrite.syntax.code import Code, enclosed
from jupyter_inplace.rewrite.syntax.edit import Edit, apply_edits
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.tensors import base_of, dotted
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax, form_of, target_of

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Hide a write of a leaf from autograd; ``.data``, which also hides it from the version check, is removed."""
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
    following = _following(write) if not hidden else []
    if following:
        yield _all_under(write, following, header, rank - 1, reading)
    text = _without(code, small, hidden)
    if isinstance(write.node, cst.Assign) and isinstance(write.target, cst.Attribute) and hidden:
        text = f"{code.get(write.target.value)}.copy_({code.get(write.node.value)})"
    if write.is_statement or isinstance(write.node, cst.Assign | cst.AnnAssign):
        nested = code.nest(small, header, text if hidden else None)
        yield Proposal("no_grad", "under torch.no_grad(): " + short(text, 40), (nested,), rank, reading)
    elif write.path is not None and isinstance(small, cst.Assign | cst.AnnAssign | cst.Return | cst.Expr):
        # The write first, as its own statement; the expression then uses the written tensor.
        written = _without(code, write.node, hidden)
        line = code.insert_before(code.item(small), header, code.module.default_indent + enclosed(written))
        edits = (line, code.replace(write.node, write.path))
        yield Proposal("no_grad", "under torch.no_grad(): " + short(written, 40), edits, rank, reading)


def _following(write: WriteSyntax) -> list[cst.SimpleStatementLine]:
    """The lines right below that write to the same variable: torch would refuse them too, once the first one is permitted."""
    code, root = write.code, write.path
    whole = write.is_statement or isinstance(write.node, cst.Assign)
    if root is None or not whole or not isinstance(write.item, cst.SimpleStatementLine) or len(write.item.body) > 1:
        return []
    found: list[cst.SimpleStatementLine] = []
    for item in code.after(write.item):
        if not isinstance(item, cst.SimpleStatementLine) or len(item.body) > 1:
            break
        small = item.body[0]
        node = small.value if isinstance(small, cst.Expr) else small
        target = target_of(node, form) if (form := form_of(node)) in ("augmented", "item", "method") else None
        if target is None or dotted(base_of(target)) != root:
            break
        found.append(item)
    return found


def _all_under(
    write: WriteSyntax, following: list[cst.SimpleStatementLine], header: str, rank: int, reading: Reading | None
) -> Proposal:
    code = write.code
    start, end = code.first_line(write.item), code.last_line(following[-1])
    indent = code.indent(write.item)
    body = code.reindent(start, end, indent, indent + code.module.default_indent)
    title = f"under torch.no_grad(): all {len(following) + 1} writes to {write.path}"
    return Proposal("no_grad", title, (Edit(start, end, f"{indent}{header}\n{body}"),), rank, reading)


def _data_of(code: Code, write: WriteSyntax) -> list[cst.Attribute]:
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
