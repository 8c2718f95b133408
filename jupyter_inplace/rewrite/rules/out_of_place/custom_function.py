"""Writes in the ``forward`` of an ``autograd.Function``: tell autograd by ``ctx.mark_dirty(x)``, or use the result."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.callers import call_sites
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import place_value
from jupyter_inplace.rewrite.syntax.rebind import rebindings
from jupyter_inplace.rewrite.syntax.tensors import dotted
from jupyter_inplace.rewrite.syntax.values import out_of_place
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Declare the write to autograd, or make the Function out of place and bind its result at the calls."""
    code = write.code
    yield from _kept_on_ctx(write)
    function = code.function(write.node)
    owner = code.above(write.node, cst.ClassDef)
    if function is None or owner is None or function.name.value != "forward" or write.name is None:
        return
    if not any((dotted(base.value) or "").split(".")[-1] == "Function" for base in owner.bases):
        return
    names = [p.name.value for p in (*function.params.posonly_params, *function.params.params)]
    setup = next((f for f in code.within(owner, cst.FunctionDef) if f.name.value == "setup_context"), None)
    if "mark_dirty" not in code.get(owner) and write.name in names and write.small is not None:
        if setup is None and names and names[0] != write.name:
            edit = code.insert_after(code.item(write.small), f"{names[0]}.mark_dirty({write.name})")
            yield Proposal("out_of_place", f"{names[0]}.mark_dirty({write.name})", (edit,), 8, write.reading)
        elif (
            setup is not None
            and len(setup.params.params) == 3
            and isinstance(setup.body.body[0], cst.SimpleStatementLine)
        ):
            context, inputs = (setup.params.params[i].name.value for i in (0, 1))
            mark = f"{context}.mark_dirty({inputs}[{names.index(write.name)}])"
            edit = code.insert_before(setup.body.body[0], mark)
            yield Proposal("out_of_place", mark, (edit,), 8, write.reading)
    yield from _result_used(write, function)


def _kept_on_ctx(write: WriteSyntax) -> Iterator[Proposal]:
    """``ctx.x = x``, which no version check guards, becomes ``ctx.x = x.clone()``."""
    code = write.code
    nodes = {conflict.node for conflict in write.conflicts}
    for owner in code.within(code.module, cst.ClassDef):
        if f"{owner.name.value}Backward" not in nodes:
            continue
        edits: list[Edit] = []
        for assign in code.within(owner, cst.Assign):
            target = assign.targets[0].target
            function = code.function(assign)
            context = function.params.params[0].name.value if function and function.params.params else None
            kept = isinstance(target, cst.Attribute) and dotted(target.value) == context
            if kept and function is not None and function.name.value in {"forward", "setup_context"}:
                edits += code.append(assign.value, ".clone()")
        if edits:
            title = f"{owner.name.value} keeps a copy on its context"
            yield Proposal("clone", title, tuple(edits), 16, write.reading)


def _result_used(write: WriteSyntax, function: cst.FunctionDef) -> Iterator[Proposal]:
    """``Double_.apply(h)`` as a statement becomes ``h = Double_.apply(h)``, and the Function does not write any more."""
    code = write.code
    torch = code.torch
    calls: list[Edit] = []
    for site in call_sites(code, function):
        small = code.small(site.call)
        given = site.arguments.get(write.name or "")
        path = None if given is None else dotted(given)
        if isinstance(small, cst.Expr) and small.value is site.call and path is not None:
            calls.append(code.replace(site.call, f"{path} = {code.get(site.call)}"))
    if not calls:
        return
    for way in rebindings(write):
        value = out_of_place(write, way.old, torch)
        edits = None if value is None else place_value(write, way, value)
        if edits is not None:
            title = f"{write.name} out of place, and its result used"
            yield Proposal("out_of_place", title, (*edits, *calls), 14, write.reading)
