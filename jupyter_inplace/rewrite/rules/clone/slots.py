"""Slot writes in a loop, ``out[t] = f(out[t - 1])``: the slots become a list while the loop runs, stacked after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.edit import Edit, apply_edits
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.rebind import loops_of
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]

#: Attributes of the tensor that may be read while its slots are in the list, since the writes do not change them.
_SHAPE = frozenset({"device", "dim", "dtype", "ndim", "shape", "size"})


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """A list of slots around each loop, the innermost first."""
    code, name = write.code, write.name
    target = write.target
    if name is None or not isinstance(target, cst.Subscript) or not write.local(name) or not write.inside:
        return
    slot = _slot(code, target)
    if slot is None or not isinstance(target.value, cst.Name):
        return
    for rank, loop in enumerate(loops_of(write)):
        edits = _inside(write, loop, name, slot[0])
        if edits is None:
            break
        torch = code.torch
        rows = _rows(code, name)
        dim = slot[0]
        taken = f"list({name})" if dim == 0 else f"list({name}.unbind({dim}))"
        joined = f"{name} = {torch}.stack({rows})" if dim == 0 else f"{name} = {torch}.stack({rows}, dim={dim})"
        around = (code.insert_before(loop, f"{rows} = {taken}"), code.insert_after(loop, joined))
        title = f"{rows} is a list in the loop on line {code.line(loop)}; " + short(joined, 40)
        yield Proposal("out_of_place", title, (*edits, *around), 17 + rank, write.reading)


def _rows(code: Code, name: str) -> str:
    return code.fresh(f"{name}_rows")


def _slot(code: Code, node: cst.Subscript) -> tuple[int, str] | None:
    """The dimension and the index of a subscript that selects one slot: ``x[:, :, i]`` gives (2, "i")."""
    found: tuple[int, str] | None = None
    for dim, element in enumerate(node.slice):
        part = element.slice
        if isinstance(part, cst.Slice):
            if part.lower is not None or part.upper is not None or part.step is not None:
                return None
        elif isinstance(part, cst.Index) and found is None and not isinstance(part.value, cst.Ellipsis | cst.List):
            found = (dim, code.get(part.value))
        else:
            return None
    return found


def _inside(write: WriteSyntax, loop: cst.For | cst.While, name: str, dim: int) -> list[Edit] | None:
    """Edits that turn the loop's uses of the tensor into uses of the list; None if one of them is not a slot."""
    code = write.code
    rows = _rows(code, name)
    start, end = code.span(loop.body)
    edits: list[Edit] = []
    binder = code.scopes.binder(name, write.scope)
    uses = [u for u in code.scopes.of(name, binder) if start <= u.start < end]
    nodes = {code.span(n)[0]: n for n in code.within(loop.body, cst.Name) if n.value == name}
    done: set[int] = set()
    for use in uses:
        node = nodes.get(use.start)
        parent = code.parent(node) if node is not None else None
        if isinstance(parent, cst.Attribute) and parent.value is node and parent.attr.value in _SHAPE:
            continue
        if not isinstance(parent, cst.Subscript) or parent.value is not node:
            return None
        slot = _slot(code, parent)
        if slot is None or slot[0] != dim:
            return None
        if use.start in done:
            continue
        owner = code.parent(parent)
        if isinstance(owner, cst.AugAssign) and owner.target is parent:
            inner = _renamed(code, owner.value, name, rows, done)
            if inner is None:
                return None
            operator = code.text[slice(*code.span(owner.operator))].strip().removesuffix("=")
            value = inner if owner.value.lpar or isinstance(owner.value, cst.Call | cst.Name) else f"({inner})"
            edits.append(code.replace(owner, f"{rows}[{slot[1]}] = {rows}[{slot[1]}] {operator} {value}"))
        else:
            edits.append(code.replace(parent, f"{rows}[{slot[1]}]"))
    return edits


def _renamed(code: Code, value: cst.BaseExpression, name: str, rows: str, done: set[int]) -> str | None:
    """The text of a value, with slots of the tensor read from the list."""
    start, end = code.whole(value)
    edits = []
    for node in _slots_of(code, value, name):
        slot = _slot(code, node)
        if slot is None:
            return None
        s, e = code.span(node)
        edits.append(Edit(s - start, e - start, f"{rows}[{slot[1]}]"))
        done.add(s)
    return apply_edits(code.text[start:end], edits)


def _slots_of(code: Code, value: cst.BaseExpression, name: str) -> Sequence[cst.Subscript]:
    return [s for s in code.within(value, cst.Subscript) if isinstance(s.value, cst.Name) and s.value.value == name]
