"""A write of an activation under ``torch.no_grad()``, which the gradient then ignores: moved out of the block."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code, enclosed
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.rebind import rebindings
from jupyter_inplace.rewrite.syntax.values import out_of_place
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Make the write alone out of place and recorded by autograd, or remove ``no_grad`` from the whole block."""
    code = write.code
    if write.verdict != "cuts" or not write.inside:
        return
    yield from _decorated(write)
    block = next((a for a in code.ancestors(write.node) if isinstance(a, cst.With) and _is_no_grad(code, a)), None)
    if block is None or not isinstance(block.body, cst.IndentedBlock):
        return
    only = len(block.body.body) == 1 and code.item(write.node) is block.body.body[0]
    if only and write.is_statement and write.base is write.target and write.path is not None:
        torch = code.torch
        for way in rebindings(write):
            value = out_of_place(write, way.old, torch)
            if value is None:
                continue
            statement = f"{way.path} = {enclosed(value)}"
            edits = (Edit(*_lines_of(code, block), f"{code.indent(block)}{statement}\n"), *way.later)
            yield Proposal("out_of_place", short(statement) + " outside of no_grad", edits, 21 + way.penalty)
    inner = block.body.body[0]
    start = code.first_line(block)
    first = code.first_line(inner) if isinstance(inner, cst.SimpleStatementLine | cst.BaseCompoundStatement) else start
    end = code.last_line(block)
    text = code.reindent(first, end, code.indent(inner), code.indent(block))
    yield Proposal("out_of_place", "the block without no_grad", (Edit(start, end, text),), 22 if only else 50)


def _decorated(write: WriteSyntax) -> Iterator[Proposal]:
    """Remove ``@torch.no_grad()`` from the function."""
    function = write.code.function(write.node)
    for decorator in function.decorators if function is not None else ():
        if "no_grad" in write.code.get(decorator.decorator):
            at = write.code.offset(write.code.line(decorator), 0)
            end = write.code.last_line(decorator)
            title = f"{function.name.value if function else ''} without @no_grad"
            yield Proposal("out_of_place", title, (Edit(at, end, ""),), 51)


def _lines_of(code: Code, item: cst.With) -> tuple[int, int]:
    return code.first_line(item), code.last_line(item)


def _is_no_grad(code: Code, block: cst.With) -> bool:
    return len(block.items) == 1 and "no_grad" in code.get(block.items[0].item)
