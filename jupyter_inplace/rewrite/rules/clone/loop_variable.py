"""Writes to a loop variable: rebinding it would drop the write, so the new tensor is stored through an index.

``for row in x: row.mul_(2)`` becomes a list of rows that is stacked again, or ``xs[i] = row`` if `xs` is a list;
``for k, v in d.items(): v.mul_(2)`` becomes ``d[k] = v``.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.report.data import FixKind
from jupyter_inplace.rewrite.syntax.code import Code, enclosed
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.rebind import loops_of
from jupyter_inplace.rewrite.syntax.tensors import dotted, last_name
from jupyter_inplace.rewrite.syntax.values import cloned, out_of_place
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Store the new tensor through the index."""
    name = write.name
    if name is None or not write.inside or write.base is not write.target:
        return
    if write.is_statement and write.small is not None:
        for loop in loops_of(write):
            if isinstance(loop, cst.For) and name in {n.value for n in write.code.within(loop.target, cst.Name)}:
                yield from _in_loop(write, loop, name)
                break
    yield from _in_comprehension(write, name)


def _in_loop(write: WriteSyntax, loop: cst.For, name: str) -> Iterator[Proposal]:
    code, small = write.code, write.small
    assert small is not None
    torch = code.torch
    container = _container(loop, name)
    if container is None:
        return
    path, key = container
    forms: tuple[tuple[FixKind, str | None], ...] = (
        ("out_of_place", out_of_place(write, name, torch)),
        ("clone", cloned(write, name)),
    )
    for shift, (kind, value) in enumerate(forms):
        if value is None:
            continue
        if key is not None:
            statement = code.replace_small(small, f"{name} = {enclosed(value)}", f"{path}[{key}] = {name}")
            yield Proposal(kind, short(f"{path}[{key}] = {value}"), (statement,), 12 + 5 * shift, write.reading)
            continue
        index, head = _index(code, loop)
        rows = code.fresh(f"{path.replace('.', '_')}_rows")
        bound = code.replace_small(small, f"{name} = {enclosed(value)}", f"{rows}[{index}] = {name}")
        around = (
            code.insert_before(loop, f"{rows} = list({path})"),
            code.insert_after(loop, f"{path} = {torch}.stack({rows})"),
        )
        title = f"collect {short(value, 40)} in a list and stack it"
        yield Proposal(kind, title, (*head, bound, *around), 11 + 5 * shift, write.reading)
        back = code.replace_small(small, f"{name} = {enclosed(value)}", f"{path}[{index}] = {name}")
        yield Proposal(kind, short(f"{path}[{index}] = {value}"), (*head, back), 13 + 5 * shift, write.reading)


def _container(loop: cst.For, name: str) -> tuple[str, str | None] | None:
    """The variable that a loop takes `name` from, and the key of the item (None: the index of the iteration)."""
    target: cst.BaseExpression = loop.target
    source = loop.iter
    if isinstance(source, cst.Call) and last_name(source.func) == "enumerate" and source.args:
        if not isinstance(target, cst.Tuple) or len(target.elements) != 2:
            return None
        target, source = target.elements[1].value, source.args[0].value
    if isinstance(source, cst.Call) and last_name(source.func) == "items" and isinstance(source.func, cst.Attribute):
        path = dotted(source.func.value)
        if path and isinstance(target, cst.Tuple) and len(target.elements) == 2 and _is(target.elements[1], name):
            key = dotted(target.elements[0].value)
            return (path, key) if key else None
        return None
    if isinstance(source, cst.Call) and last_name(source.func) == "zip" and isinstance(target, cst.Tuple):
        at = next((i for i, element in enumerate(target.elements) if _is(element, name)), None)
        if at is None or at >= len(source.args) or any(a.star for a in source.args):
            return None
        target, source = target.elements[at].value, source.args[at].value
    path = dotted(source)
    return (path, None) if path and isinstance(target, cst.Name) and target.value == name else None


def _is(element: cst.BaseElement, name: str) -> bool:
    return isinstance(element.value, cst.Name) and element.value.value == name


def _index(code: Code, loop: cst.For) -> tuple[str, tuple[Edit, ...]]:
    """The counter of the loop, and the edits that add one if it has none."""
    if isinstance(loop.iter, cst.Call) and last_name(loop.iter.func) == "enumerate":
        assert isinstance(loop.target, cst.Tuple)
        counter = loop.target.elements[0].value
        if isinstance(counter, cst.Name):
            return counter.value, ()
    index = code.fresh("i")
    target = code.get(loop.target)
    if isinstance(loop.target, cst.Tuple) and not loop.target.lpar:
        target = f"({target})"
    start, end = code.whole(loop.target)
    first, last = code.whole(loop.iter)
    return index, (Edit(start, end, f"{index}, {target}"), Edit(first, last, f"enumerate({code.get(loop.iter)})"))


def _in_comprehension(write: WriteSyntax, name: str) -> Iterator[Proposal]:
    """``[t.mul_(2) for t in ts]`` as a statement becomes ``ts = [t.mul(2) for t in ts]``."""
    code = write.code
    comprehension = code.above(write.node, cst.ListComp)
    small = write.small
    if comprehension is None or not isinstance(small, cst.Expr) or small.value is not comprehension:
        return
    loop = comprehension.for_in
    path = dotted(loop.iter)
    if path is None or not (isinstance(loop.target, cst.Name) and loop.target.value == name) or loop.ifs:
        return
    torch = code.torch
    value = out_of_place(write, name, torch)
    if value is not None:
        start = code.span(small)[0]
        edits = (Edit(start, start, f"{path} = "), code.replace(write.node, value))
        yield Proposal("out_of_place", short(f"{path} = [{value} ...]"), edits, 12, write.reading)
