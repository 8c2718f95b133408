"""Puts a new value in the place of a write: as a statement, in an assignment, or in an expression."""

from __future__ import annotations

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import enclosed
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.rebind import Rebinding
from jupyter_inplace.rewrite.syntax.write import WriteSyntax

__all__ = ["place_value", "short"]


def place_value(write: WriteSyntax, way: Rebinding, value: str) -> tuple[Edit, ...] | None:
    """Edits that compute `value` in place of the write and bind it by `way`; None if that is impossible there."""
    code, node, small = write.code, write.node, write.small
    if write.is_statement or small is node:
        if small is None:
            return None
        return (code.replace_small(small, f"{way.path} = {enclosed(value)}"), *way.later)
    if isinstance(small, cst.Assign) and small.value is node:
        names = [code.get(target.target) for target in small.targets]
        if way.path in names:
            return (code.replace(node, value), *way.later)
        return (code.replace(node, f"{way.path} = {value}"), *way.later)
    if isinstance(small, cst.Return) and small.value is node and not way.later:
        return (code.replace(node, value),)  # a local name is not read after a return
    if not way.path.isidentifier() or write.scope.kind in {"lambda", "class"}:
        return None  # := can only bind names, and in these scopes nothing else would read them
    return (code.replace(node, f"({way.path} := {value})"), *way.later)


def short(text: str, width: int = 60) -> str:
    """A text cut to one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
