"""``h.mul_(2)`` becomes ``h = h.mul(2)``, ``h += r``: ``h = h + r``, ``F.relu_(h)``: ``h = F.relu(h)``."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import enclosed
from jupyter_inplace.rewrite.syntax.place import place_value, short
from jupyter_inplace.rewrite.syntax.rebind import rebindings
from jupyter_inplace.rewrite.syntax.tensors import peel
from jupyter_inplace.rewrite.syntax.values import out_of_place
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Make a new tensor instead of writing the old one."""
    if write.target is None or not write.inside:
        return
    if isinstance(write.node, cst.Assign) and write.form == "attribute" and _only_detached(write):
        for way in rebindings(write):  # b.data = t
            edits = place_value(write, way, write.code.get(write.node.value))
            if edits is not None:
                title = short(f"{way.path} = {write.code.get(write.node.value)}") + way.note
                yield Proposal("out_of_place", title, edits, 24 + way.penalty, write.reading)
        return
    torch = write.code.torch
    target = write.code.receiver(write.target)
    value = out_of_place(write, target, torch)
    if value is None:
        return
    yield from _as_value(write, value)
    if write.base is write.target:
        yield from _rebound(write)
    elif _only_detached(write):
        yield from _through_detached(write)
    elif write.in_container is None and write.is_statement and write.small is not None:
        # Right if the container is a list or a dict of tensors.
        if not isinstance(write.target, cst.Subscript):
            return
        new = f"{write.code.get(write.target)} = {enclosed(value)}"
        yield Proposal("out_of_place", short(new), (write.code.replace_small(write.small, new),), 45, write.reading)


def _rebound(write: WriteSyntax) -> Iterator[Proposal]:
    torch = write.code.torch
    for way in rebindings(write):
        value = out_of_place(write, way.old, torch)
        edits = None if value is None else place_value(write, way, value)
        if value is None or edits is None:
            continue
        title = short(f"{way.path} = {value}") + way.note
        yield Proposal("out_of_place", title, edits, 20 + way.penalty, write.reading)


def _through_detached(write: WriteSyntax) -> Iterator[Proposal]:
    """``fast.data -= g``: a new tensor, with gradient and without one."""
    torch = write.code.torch
    for way in rebindings(write):
        for rank, old in ((20, way.old), (24, f"{way.old}.detach()")):
            value = out_of_place(write, old, torch)
            edits = None if value is None else place_value(write, way, value)
            if value is not None and edits is not None:
                title = short(f"{way.path} = {value}") + way.note
                yield Proposal("out_of_place", title, edits, rank + way.penalty, write.reading)


def _as_value(write: WriteSyntax, value: str) -> Iterator[Proposal]:
    """Replace only the value if the write is part of an expression: ``return g.mul_(0.1)``."""
    if write.is_statement:
        return
    kept = write.name is not None and write.local(write.name) and not write.read_later(write.name)
    returned = isinstance(write.small, cst.Return)
    unnamed = write.path is None or write.scope.kind in {"lambda", "comprehension"}
    rank = 18 if kept or returned or unnamed else 35
    edits = (write.code.replace(write.node, value),)
    yield Proposal("out_of_place", short(value), edits, rank, write.reading)


def _only_detached(write: WriteSyntax) -> bool:
    """Whether there are only ``.data`` and ``.detach()`` steps between the base and the target."""
    step = write.target
    while step is not None and step is not write.base:
        data = isinstance(step, cst.Attribute) and step.attr.value == "data"
        detached = (
            isinstance(step, cst.Call) and isinstance(step.func, cst.Attribute) and step.func.attr.value == "detach"
        )
        if not (data or detached):
            return False
        step = peel(step)
    return True
