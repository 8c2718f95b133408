"""Copy at the call: ``model(x)`` becomes ``model(x.clone())`` if the callee writes its argument."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.rules.clone.alias import binding_of
from jupyter_inplace.rewrite.syntax.callers import call_sites
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.tensors import base_of
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Pass a copy to the function that writes its parameter, or to the library that writes its argument."""
    if write.form == "call" or not write.inside:
        yield from _library_call(write)
        return
    code = write.code
    function = code.function(write.node)
    if function is None:
        return
    parameter = _parameter(write, function)
    if parameter is None or parameter in {"self", "cls", "ctx"}:
        return
    edits: list[Edit] = []
    for site in call_sites(code, function):
        given = site.arguments.get(parameter)
        if given is not None:
            here = code.append(given, ".clone()")
            edits += here
            title = f"{short(code.get(site.call.func), 24)}({short(code.receiver(given), 24)}.clone())"
            yield Proposal("clone", title, tuple(here), 40, write.reading)
    if len({edit.start for edit in edits}) > 1:
        title = f"every call of {function.name.value} gets a copy"
        yield Proposal("clone", title, tuple(edits), 41, write.reading)


def _parameter(write: WriteSyntax, function: cst.FunctionDef) -> str | None:
    """The parameter whose memory is written, directly or through names that alias it."""
    names = {param.name.value for param in (*function.params.posonly_params, *function.params.params)}
    name = write.name
    seen: set[str] = set()
    while name is not None and name not in seen:
        seen.add(name)
        bound = binding_of(write, name)
        base = None if bound is None else base_of(bound)
        if name in names and (bound is None or (isinstance(base, cst.Name) and base.value == name)):
            return name
        name = base.value if isinstance(base, cst.Name) else None
    return name if name in names else None


def _library_call(write: WriteSyntax) -> Iterator[Proposal]:
    """The arguments of the calls in the statement of the cell that led to the write."""
    code = write.code
    tensors = {m.tensor for m in write.mutations}
    known = any(code.get(a.value) in tensors for call in code.within(write.node, cst.Call) for a in call.args)
    edits: list[Edit] = []
    for call in code.within(write.node, cst.Call):
        for argument in call.args:
            value = argument.value
            if argument.star or not isinstance(value, cst.Name | cst.Attribute | cst.Subscript | cst.Call):
                continue
            if code.get(value) in ("None", "True", "False") or (known and code.get(value) not in tensors):
                continue
            here = code.append(value, ".clone()")
            edits += here
            rank = 22 if code.get(value) in tensors else 46
            title = f"{short(code.get(call.func), 24)}({short(code.receiver(value), 24)}.clone())"
            yield Proposal("clone", title, tuple(here), rank, write.reading)
    if len({edit.start for edit in edits}) > 1:
        yield Proposal("clone", "copies of all arguments", tuple(edits), 58, write.reading)
