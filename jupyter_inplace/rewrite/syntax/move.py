"""Moves a statement from one place to another, with the names of that place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import libcst as cst

from jupyter_inplace.rewrite.syntax.callers import call_sites
from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.edit import Edit, apply_edits
from jupyter_inplace.rewrite.syntax.tensors import dotted, last_name

__all__ = ["backwards_in", "is_backward", "moved_below", "remove", "said_outside", "top_items"]


def is_backward(code: Code, call: cst.Call) -> bool:
    """Whether a call runs a backward pass: ``loss.backward()``, ``torch.autograd.grad(...)``."""
    name = last_name(call.func)
    return name == "backward" or (name == "grad" and "autograd" in code.get(call.func)) or dotted(call.func) == "grad"


def backwards_in(code: Code, item: cst.CSTNode, depth: int = 3) -> bool:
    """Whether a statement runs a backward pass itself or through functions that the cell defines."""
    if isinstance(item, cst.FunctionDef | cst.ClassDef):
        return False
    for call in code.within(item, cst.Call):
        if is_backward(code, call):
            return True
        name = last_name(call.func)
        if depth and name:
            for function in code.within(code.module, cst.FunctionDef):
                if function.name.value == name and backwards_in(code, function.body, depth - 1):
                    return True
    return False


def remove(code: Code, small: cst.BaseSmallStatement) -> Edit:
    """Remove a small statement, with its line if it is alone there; ``pass`` replaces the only statement of a block."""
    owner = code.parent(small)
    assert isinstance(owner, cst.SimpleStatementLine | cst.SimpleStatementSuite)
    if len(owner.body) > 1:
        rest = "; ".join(code.get(other) for other in owner.body if other is not small)
        return Edit(code.span(owner.body[0])[0], code.span(owner.body[-1])[1], rest)
    if isinstance(owner, cst.SimpleStatementSuite) or len(code.block(owner)) == 1:
        return code.replace(small, "pass")
    return Edit(code.first_line(owner), code.last_line(owner), "")


def moved_below(code: Code, item: Item, small: cst.BaseSmallStatement | None, below: Item) -> tuple[Edit, ...]:
    """Move an item (or one small statement of it) below a later item of the same block."""
    if small is not None and isinstance(item, cst.SimpleStatementLine) and len(item.body) > 1:
        return (remove(code, small), code.insert_after(below, code.get(small)))
    start, end = code.lines(item, item)
    text = code.text[start:end]
    at = code.last_line(below)
    if not text.endswith("\n"):
        text += "\n"
    if code.text[at - 1 : at] != "\n":
        text = "\n" + text.removesuffix("\n")
    return (Edit(start, end, ""), Edit(at, at, text))


def said_outside(
    code: Code, node: cst.CSTNode, function: cst.FunctionDef, given: Mapping[str, cst.BaseExpression]
) -> str | None:
    """The text of a statement of `function` as a caller would write it: parameters become the arguments of the call.

    None if it uses names that only the function has.
    """
    start, end = code.span(node)
    inner = code.scopes.at(code.span(function.body)[0])
    edits = []
    for use in code.scopes.uses:
        if not start <= use.start < end:
            continue
        binder = code.scopes.binder(use.name, use.scope)
        if binder is code.scopes.module or binder.start > inner.start:
            continue
        if use.name not in given or use.stores:
            return None
        value = given[use.name]
        text = code.receiver(value) if code.text[use.end : use.end + 1] == "." else code.operand(value)
        edits.append(Edit(use.start - start, use.end - start, text))
    return apply_edits(code.text[start:end], edits)


def top_items(code: Code, node: cst.CSTNode, depth: int = 4) -> Iterator[Item]:
    """The top-level statements that contain a node, or that call the functions that contain it."""
    chain = [n for n in (node, *code.ancestors(node)) if isinstance(n, cst.FunctionDef)]
    if chain and depth:
        for function in chain:
            for site in call_sites(code, function):
                if not _is_within(code, site.call, function):
                    yield from top_items(code, site.call, depth - 1)
        return
    top = [n for n in (node, *code.ancestors(node)) if isinstance(code.parent(n), cst.Module)]
    for item in top:
        if isinstance(item, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            yield item


def _is_within(code: Code, inner: cst.CSTNode, outer: cst.CSTNode) -> bool:
    start, end = code.span(outer)
    return start <= code.span(inner)[0] < end


def word(text: str, name: str) -> bool:
    """Whether a name occurs in a text as a whole word."""
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text) is not None
