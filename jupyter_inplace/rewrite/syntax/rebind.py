"""Ways to bind a variable to a new tensor instead of writing the old one in place.

An assignment at the write is right if the variable is local there. A variable of an outer scope needs a ``global`` or
``nonlocal`` line or a new local name; a leaf must keep its name, or its ``.grad`` is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.scope import Use
from jupyter_inplace.rewrite.syntax.tensors import FILLS, last_name
from jupyter_inplace.rewrite.syntax.write import WriteSyntax

__all__ = ["Rebinding", "loops_of", "rebindings", "rename"]


@dataclass(frozen=True)
class Rebinding:
    """One way: assign to `path`; `old` holds the earlier tensor. `later` are the other edits that it needs."""

    path: str
    old: str
    later: tuple[Edit, ...] = ()
    note: str = ""
    penalty: int = 0


def rebindings(write: WriteSyntax) -> Iterator[Rebinding]:
    """The ways to rebind the written variable, the most likely first."""
    path, name = write.path, write.name
    if path is None:
        return
    if name is None:  # self.h, model.weight
        if write.is_leaf:
            yield from _new_path(write, path)
        yield Rebinding(path, path, penalty=8 if write.is_leaf else 0)
        return
    if name in {"self", "cls"}:
        return
    if write.code.scopes.binder(name, write.scope).kind in {"lambda", "comprehension"}:
        return  # no statement can bind their variables
    if not write.local(name):
        # A filled tensor does not depend on the old one; anything else continues from where the last call left it.
        filled = isinstance(write.node, cst.Call) and last_name(write.node.func) in FILLS
        yield replace(_new_name(write, name), penalty=0 if filled else 6)
        yield from _declared(write, name)
        return
    looped = any(isinstance(loop, cst.For) and name in _targets(write.code, loop) for loop in loops_of(write))
    if write.is_leaf and name not in write.function.parameters and not looped:
        yield _new_name(write, name)
        yield Rebinding(name, name, penalty=8)
        return
    yield Rebinding(name, name, penalty=25 if looped else 0)  # rebinding a loop variable drops the write


def loops_of(write: WriteSyntax) -> list[cst.For | cst.While]:
    """The loops around the write within its function, innermost first."""
    found: list[cst.For | cst.While] = []
    for step in write.code.ancestors(write.node):
        if isinstance(step, cst.FunctionDef | cst.ClassDef | cst.Lambda):
            break
        if isinstance(step, cst.For | cst.While):
            found.append(step)
    return found


def rename(code: Code, uses: list[Use], new: str) -> tuple[Edit, ...]:
    """Rename uses of a variable; the ``.grad`` of a leaf keeps the old name."""
    kept = (".grad", ".retain_grad", ".requires_grad")
    return tuple(Edit(u.start, u.end, new) for u in uses if not code.text.startswith(kept, u.end))


def _new_name(write: WriteSyntax, name: str) -> Rebinding:
    """A new variable from the write on; the first value is set before a loop that reads it again."""
    code = write.code
    new = code.fresh(f"{name}_new")
    start, end = code.span(write.small or write.node)
    binder = code.scopes.binder(name, write.scope)
    region = write.function
    uses = [u for u in code.scopes.of(name, binder) if region.start <= u.start < region.end]
    loops = loops_of(write)
    if not loops:
        return Rebinding(new, name, rename(code, _until_store(uses, end), new), f", under the new name {new}")
    outer = loops[-1]
    first = code.span(outer)[0]
    later = [u for u in uses if u.start >= first and not start <= u.start < end]
    begin = code.insert_before(outer, f"{new} = {name}")
    return Rebinding(new, new, (begin, *rename(code, later, new)), f", under the new name {new}")


def _until_store(uses: list[Use], after: int) -> list[Use]:
    """The reads (and augmented assignments) after a place, up to where the variable is rebound."""
    found: list[Use] = []
    for use in uses:
        if use.start < after:
            continue
        if use.stores and not use.augmented:
            break
        found.append(use)
    return found


def _new_path(write: WriteSyntax, path: str) -> Iterator[Rebinding]:
    """A new variable for an attribute (``lin.weight``) that is read by its path further down."""
    code = write.code
    if loops_of(write):
        return
    new = code.fresh(re.sub(r"\W+", "_", path).strip("_") + "_new")
    end = code.span(write.small or write.node)[1]
    block_end = write.function.end
    edits = []
    for node in code.nodes:
        start, stop = code.span(node)
        if (
            isinstance(node, cst.Attribute | cst.Subscript)
            and end <= start < block_end
            and code.text[start:stop] == path
        ):
            if code.text.startswith((".grad", ".requires_grad"), stop) or _is_target(code, node):
                continue
            edits.append(Edit(start, stop, new))
    if edits:
        yield Rebinding(new, path, tuple(edits), f", under the new name {new}")


def _is_target(code: Code, node: cst.CSTNode) -> bool:
    return isinstance(code.parent(node), cst.AssignTarget)


def _declared(write: WriteSyntax, name: str) -> Iterator[Rebinding]:
    """A ``global`` or ``nonlocal`` line, so that the assignment binds the outer variable."""
    code, scope = write.code, write.function
    if scope.kind != "function" or name in scope.declared:
        return
    binder = code.scopes.binder(name, scope)
    word = "nonlocal" if binder.kind == "function" else "global"
    function = code.function(write.node)
    if function is None or not isinstance(function.body, cst.IndentedBlock):
        return
    first = _first_after_docstring(function)
    if first is None:
        return
    yield Rebinding(name, name, (code.insert_before(first, f"{word} {name}"),), f", {word} {name}", penalty=4)


def _first_after_docstring(function: cst.FunctionDef) -> Item | None:
    for item in function.body.body:
        if isinstance(item, cst.SimpleStatementLine):
            only = item.body[0]
            if isinstance(only, cst.Expr) and isinstance(only.value, cst.SimpleString | cst.ConcatenatedString):
                continue
        if isinstance(item, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            return item
    return None


def _targets(code: Code, loop: cst.For) -> set[str]:
    """The names that a loop binds."""
    return {name.value for name in code.within(loop.target, cst.Name)}
