"""A function that writes its parameter for its caller: it returns the new tensor instead, and the caller binds it.

``def scale_(h): h.mul_(2)``, called as ``scale_(z)``, becomes ``h = h.mul(2)``, ``return h`` and ``z = scale_(z)``.
A hook or a ``backward`` that writes its gradient returns the new gradient in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.report.data import FixKind
from jupyter_inplace.rewrite.syntax.callers import call_sites
from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import place_value
from jupyter_inplace.rewrite.syntax.rebind import Rebinding
from jupyter_inplace.rewrite.syntax.tensors import dotted
from jupyter_inplace.rewrite.syntax.values import cloned, out_of_place
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Return the new tensor if nothing is returned, and bind it where the result was discarded."""
    yield from _tuple_returned(write)
    code, name = write.code, write.name
    function = code.function(write.node)
    if function is None or name is None or name not in write.function.parameters or not write.inside:
        return
    if write.base is not write.target or not write.is_statement:
        return
    returns = [r for r in code.within(function, cst.Return) if r.value is not None]
    ends = [code.get(r.value) for r in returns if r.value is not None]
    if any(end != name for end in ends) or name in {"self", "cls", "ctx"}:
        return
    returned: tuple[Edit, ...] = () if returns else _return_at_end(code, function, name)
    if not returns and not returned:
        return
    calls = _taken(write, function, name)
    if not calls and returns:
        return  # the plain out-of-place rule suffices
    torch = code.torch
    forms: tuple[tuple[FixKind, str | None], ...] = (
        ("out_of_place", out_of_place(write, name, torch)),
        ("clone", cloned(write, name)),
    )
    for kind, value in forms:
        edits = None if value is None else place_value(write, Rebinding(name, name), value)
        if edits is None:
            continue
        title = f"{function.name.value} returns the new {name}" + (" and its callers take it" if calls else "")
        rank = (18 if kind == "out_of_place" else 28) + (0 if calls else 4)
        yield Proposal(kind, title, (*edits, *returned, *calls), rank, write.reading)


def _tuple_returned(write: WriteSyntax) -> Iterator[Proposal]:
    """``def pre(module, args): args[0].mul_(2)`` returns the tuple with the new tensor."""
    code, target = write.code, write.target
    function = code.function(write.node)
    if function is None or write.small is None or not write.is_statement or not isinstance(target, cst.Subscript):
        return
    index = target.slice[0].slice
    container = dotted(target.value)
    if container not in write.function.parameters or not isinstance(index, cst.Index) or len(target.slice) != 1:
        return
    last = isinstance(function.body, cst.IndentedBlock) and function.body.body[-1] is code.item(write.node)
    value = out_of_place(write, code.get(target), code.torch)
    if not last or value is None or not isinstance(index.value, cst.Integer):
        return
    at = int(index.value.value)
    before = f"*{container}[:{at}], " if at else ""
    new = f"return ({before}{value}, *{container}[{at + 1}:])"
    title = f"{function.name.value} returns a new tuple"
    yield Proposal("out_of_place", title, (code.replace_small(write.small, new),), 17, write.reading)


def _return_at_end(code: Code, function: cst.FunctionDef, name: str) -> tuple[Edit, ...]:
    if not isinstance(function.body, cst.IndentedBlock):
        return ()
    last = function.body.body[-1]
    if not isinstance(last, cst.SimpleStatementLine | cst.BaseCompoundStatement):
        return ()
    item: Item = last
    return (code.insert_after(item, f"return {name}"),)


def _taken(write: WriteSyntax, function: cst.FunctionDef, name: str) -> list[Edit]:
    """Assignments in place of the calls whose result is discarded."""
    edits = []
    for site in call_sites(write.code, function):
        small = write.code.small(site.call)
        given = site.arguments.get(name)
        path = None if given is None else dotted(given)
        if path is not None and isinstance(small, cst.Expr) and small.value is site.call:
            start = write.code.span(site.call)[0]
            edits.append(Edit(start, start, f"{path} = "))
    return edits
