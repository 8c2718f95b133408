"""Copy the tensor just before it is written: ``h = h.clone().mul_(2)``, ``x = x.clone()`` above ``x[i] = v``.

What the write reads is computed first: ``x[i] = f(x)`` becomes ``value = f(x)``, ``x = x.clone()``, ``x[i] = value``;
otherwise ``f`` would save the copy that is then written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.edit import Edit, apply_edits
from jupyter_inplace.rewrite.syntax.place import place_value, short
from jupyter_inplace.rewrite.syntax.rebind import Rebinding, rebindings
from jupyter_inplace.rewrite.syntax.tensors import peel
from jupyter_inplace.rewrite.syntax.values import cloned
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["copy_method", "propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Give the write its own copy."""
    if write.target is None or not write.inside:
        return
    ways = list(rebindings(write))
    if write.base is write.target:
        value = cloned(write, write.code.receiver(write.target))
        if value is not None and not write.is_statement:
            yield Proposal("clone", short(value), (write.code.replace(write.node, value),), 37, write.reading)
        for way in ways:
            value = cloned(write, way.old)
            edits = None if value is None else place_value(write, way, value)
            if value is not None and edits is not None:
                title = short(f"{way.path} = {value}") + way.note
                yield Proposal("clone", title, edits, 30 + way.penalty, write.reading)
        if not isinstance(write.node, cst.AugAssign):
            return
    for way in ways:
        yield from _copied_above(write, way)


def copy_method(write: WriteSyntax) -> str:
    """``copy`` for a numpy array, else ``clone``."""
    numpy = any(m.op == "external" for m in write.mutations) and write.form in {"item", "augmented", "call"}
    return "copy" if numpy else "clone"


def _copied_above(write: WriteSyntax, way: Rebinding) -> Iterator[Proposal]:
    """A line above the statement that makes the copy; what the statement reads is computed before that line."""
    code, small = write.code, write.small
    if small is None or write.path is None:
        return
    copy = f"{way.path} = {way.old}.{copy_method(write)}()"
    first, statement = _reads_first(write, way)
    edits = (code.replace_small(small, *first, copy, statement), *way.later)
    rank = 30 if not isinstance(write.node, cst.AugAssign) or write.base is not write.target else 34
    yield Proposal("clone", short(copy) + " before the write" + way.note, edits, rank + way.penalty, write.reading)
    if _detached_steps(write) and write.verdict in ("corrupts", "cuts"):
        # The same, recorded by autograd: `h.data[i] = 0` becomes `h = h.clone()`, `h[i] = 0`.
        first, statement = _reads_first(write, way, recorded=True)
        edits = (code.replace_small(small, *first, copy, statement), *way.later)
        title = short(f"{copy}; {statement}") + way.note
        yield Proposal("clone", title, edits, rank + 1 + way.penalty, write.reading)


def _reads_first(write: WriteSyntax, way: Rebinding, *, recorded: bool = False) -> tuple[list[str], str]:
    """Lines that compute what the write reads, and the write that uses them; if `recorded`, without `.data` and `.detach()`."""
    code, small = write.code, write.small
    assert small is not None
    assert write.target is not None
    start, end = code.span(small)
    text = code.text[start:end]
    base = code.span(write.base or small)
    target_edit = [Edit(base[0] - start, base[1] - start, way.path)] if way.path != write.path else []
    steps = _detached_steps(write) if recorded else []
    target_edit += [Edit(s - start, e - start, "") for s, e in steps]
    if isinstance(write.node, cst.AugAssign) and _reads(write, write.node.value):
        value = code.fresh("value")
        operator = code.text[slice(*code.span(write.node.operator))].strip()
        target = _renamed(write, way.path, steps)
        if isinstance(write.target, cst.Subscript):
            plain = operator.removesuffix("=")
            first = f"{value} = {_renamed(write, code.get(write.base or small), steps)} {plain} {code.operand(write.node.value)}"
            return [first], f"{target} = {value}"
        return [f"{value} = {code.alone(write.node.value)}"], f"{target} {operator} {value}"
    if isinstance(write.node, cst.Assign) and _reads(write, write.node.value):
        value = code.fresh("value")
        s, e = code.whole(write.node.value)
        statement = apply_edits(text, [*target_edit, Edit(s - start, e - start, value)])
        return [f"{value} = {code.alone(write.node.value)}"], statement
    early: list[str] = []
    edits = list(target_edit)
    if isinstance(write.node, cst.Call):
        for argument in write.node.args:
            if argument.value is not write.target and not argument.star and _reads(write, argument.value):
                value = code.fresh("value" if not early else f"value{len(early) + 1}")
                early.append(f"{value} = {code.alone(argument.value)}")
                s, e = code.whole(argument.value)
                edits.append(Edit(s - start, e - start, value))
    return early, apply_edits(text, edits)


def _renamed(write: WriteSyntax, path: str, steps: list[tuple[int, int]]) -> str:
    """The target on the variable `path`, without some of its steps."""
    assert write.target is not None
    assert write.base is not None
    start, end = write.code.whole(write.target)
    s, e = write.code.whole(write.base)
    edits = [Edit(s - start, e - start, path), *(Edit(s - start, e - start, "") for s, e in steps)]
    return apply_edits(write.code.text[start:end], edits)


def _detached_steps(write: WriteSyntax) -> list[tuple[int, int]]:
    """The `.data` and `.detach()` steps between the written variable and the written part of it."""
    code, step = write.code, write.target
    found = []
    while step is not None and step is not write.base:
        if isinstance(step, cst.Attribute) and step.attr.value == "data":
            found.append((code.whole(step.value)[1], code.span(step)[1]))
        elif isinstance(step, cst.Call) and isinstance(step.func, cst.Attribute) and step.func.attr.value == "detach":
            found.append((code.whole(step.func.value)[1], code.span(step)[1]))
        step = peel(step)
    return found


def _reads(write: WriteSyntax, value: cst.BaseExpression) -> bool:
    """Whether a value may read the written memory, because it names the variable or calls something."""
    if next(write.code.within(value, cst.Call), None) is not None:
        return True
    return bool(re.search(rf"\b{re.escape(write.path or '')}\b", write.code.get(value)))
