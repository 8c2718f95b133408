"""Run the backward that needs the old values before the write: ``(a + b).backward()`` becomes two backward calls."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.move import top_items
from jupyter_inplace.rewrite.syntax.tensors import dotted, last_name
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Split a summed loss, so that the addends that exist before the write are differentiated there."""
    code = write.code
    if write.verdict == "rejected":
        return
    for item in dict.fromkeys((code.item(write.node), *top_items(code, write.node))):
        if isinstance(item, cst.FunctionDef | cst.ClassDef):
            continue
        above = [name for other in code.before(item) for name in _bound(code, other)]
        for later in code.after(item):
            for call, addends in _summed_backwards(code, later):
                early = [a for a in addends if a in above]
                rest = [a for a in addends if a not in early]
                if early and rest:
                    yield from _split(write, item, call, early, rest)


def _split(write: WriteSyntax, item: Item, call: cst.Call, early: list[str], rest: list[str]) -> Iterator[Proposal]:
    code = write.code
    assert isinstance(call.func, cst.Attribute)
    first = early[0] if len(early) == 1 else f"({' + '.join(early)})"
    last = rest[0] if len(rest) == 1 else f"({' + '.join(rest)})"
    start, end = code.whole(call.func.value)
    title = f"{first}.backward() before the write, {last}.backward() after it"
    for rank, given in ((28, ""), (29, "retain_graph=True")):
        before = code.insert_before(item, f"{first}.backward({given})")
        edits = (before, type(before)(start, end, last))
        yield Proposal("reorder", title + (f" ({given})" if given else ""), edits, rank)


def _summed_backwards(code: Code, item: Item) -> Iterator[tuple[cst.Call, list[str]]]:
    """Backward calls, without arguments, of a sum of names that is written out or bound to a name in the same block."""
    if isinstance(item, cst.FunctionDef | cst.ClassDef):
        return
    for call in code.within(item, cst.Call):
        if last_name(call.func) != "backward" or not isinstance(call.func, cst.Attribute) or call.args:
            continue
        root = call.func.value
        if isinstance(root, cst.Name):
            for other in code.before(item):
                value = _value_of(other, root.value)
                if value is not None:
                    root = value
                    break
        if isinstance(root, cst.BinaryOperation) and (names := _addends(root)):
            yield call, names


def _value_of(item: Item, name: str) -> cst.BaseExpression | None:
    if isinstance(item, cst.SimpleStatementLine):
        for small in item.body:
            if isinstance(small, cst.Assign) and any(dotted(t.target) == name for t in small.targets):
                return small.value
    return None


def _addends(node: cst.BaseExpression) -> list[str]:
    """The names that a sum adds; empty if it contains anything else."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
        left, right = _addends(node.left), _addends(node.right)
        return [*left, *right] if left and right else []
    path = dotted(node)
    return [path] if path else []


def _bound(code: Code, item: Item) -> Iterator[str]:
    """The paths that a statement assigns."""
    if isinstance(item, cst.SimpleStatementLine):
        for target in code.within(item, cst.AssignTarget):
            elements = target.target.elements if isinstance(target.target, cst.Tuple | cst.List) else None
            for part in [e.value for e in elements] if elements is not None else [target.target]:
                if path := dotted(part):
                    yield path
