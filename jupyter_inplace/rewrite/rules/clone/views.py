"""A write through an alias that other names read: make the alias again, or write the tensor behind it directly.

``x = x.clone()`` above ``x[0] = 1`` leaves an older ``flat = x.view(-1)`` behind, so that line is repeated. A numpy array
and the tensor made from it are such a pair too. If `h` is read after ``a = h.detach(); a.mul_(2)``, the intention may be
``h = h.mul(2)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.rules.clone.alias import binding_of, copy_of
from jupyter_inplace.rewrite.rules.clone.clone_write import copy_method
from jupyter_inplace.rewrite.syntax.code import Item
from jupyter_inplace.rewrite.syntax.edit import Edit, apply_edits
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.rebind import rebindings
from jupyter_inplace.rewrite.syntax.tensors import base_of, dotted, peel
from jupyter_inplace.rewrite.syntax.values import out_of_place
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Make the views again after a copy, or write the tensor behind a detached alias."""
    if write.name is None or not write.inside or not write.is_statement:
        return
    yield from _made_again(write)
    yield from _base_first(write)
    if write.verdict == "cuts":
        yield from _behind(write)


def _made_again(write: WriteSyntax) -> Iterator[Proposal]:
    """Copy, write, and repeat the lines that made aliases of the variable."""
    code, name, small = write.code, write.name, write.small
    assert name is not None
    assert small is not None
    item = code.item(small)
    again = [line for line in (_alias_line(write, other, name) for other in reversed(code.before(item))) if line]
    if not again or not write.local(name):
        return
    for way in rebindings(write):
        if way.path != name:
            continue
        copy = f"{name} = {name}.{copy_method(write)}()"
        edits = (code.insert_before(item, copy), code.insert_after(item, *again))
        title = f"{copy} before the write, then {short('; '.join(again), 40)}"
        yield Proposal("clone", title, edits, 29 + way.penalty, write.reading)


def _base_first(write: WriteSyntax) -> Iterator[Proposal]:
    """``h = h.clone()`` above ``flat = h.view(-1)``: the alias and its write then belong to the copy."""
    code, name = write.code, write.name
    assert name is not None
    bound = binding_of(write, name)
    if bound is None or peel(bound) is None or code.small(bound) is None:
        return
    path = dotted(base_of(bound))
    if path is None or path in {name, "self"}:
        return
    copy = f"{path} = {path}.{'copy' if copy_of(base_of(bound)) == 'copy' else 'clone'}()"
    item = code.item(bound)
    rank = 14 if write.read_later(path.split(".")[0]) else 33
    title = f"{copy} before {short(code.get(bound), 30)}"
    yield Proposal("clone", title, (code.insert_before(item, copy),), rank, write.reading)


def _alias_line(write: WriteSyntax, item: Item, name: str) -> str | None:
    """The line ``flat = x.view(-1)`` if it is such an assignment and its variable is read after the write."""
    if not isinstance(item, cst.SimpleStatementLine) or len(item.body) != 1:
        return None
    assign = item.body[0]
    if not isinstance(assign, cst.Assign) or len(assign.targets) != 1 or peel(assign.value) is None:
        return None
    path, base = dotted(assign.targets[0].target), base_of(assign.value)
    if path is None or not isinstance(base, cst.Name) or base.value != name or path == name:
        return None
    return write.code.get(assign) if write.read_later(path.split(".")[0]) else None


def _behind(write: WriteSyntax) -> Iterator[Proposal]:
    """The same write to the tensor that the alias was detached from."""
    code, name, small = write.code, write.name, write.small
    assert name is not None
    assert small is not None
    bound = binding_of(write, name)
    if bound is None or peel(bound) is None:
        return
    path = dotted(base_of(bound))
    if path is None or path == name:
        return
    again = f"{name} = {code.get(bound)}"
    if write.base is write.target and copy_of(bound) == "clone" and _is_detached(code.get(bound)):
        torch = code.torch
        value = out_of_place(write, path, torch)
        if value is not None:
            edits = (code.replace_small(small, f"{path} = {value}", again),)
            yield Proposal("out_of_place", short(f"{path} = {value}"), edits, 23, write.reading)
    elif write.base is not None:
        start, end = code.span(small)
        s, e = code.span(write.base)
        said = apply_edits(code.text[start:end], [Edit(s - start, e - start, path)])
        edits = (code.replace_small(small, f"{path} = {path}.clone()", said, again),)
        yield Proposal("clone", short(f"{path} = {path}.clone(); {said}"), edits, 25, write.reading)


def _is_detached(text: str) -> bool:
    return re.search(r"\.(detach\(\)|data)$", text) is not None
