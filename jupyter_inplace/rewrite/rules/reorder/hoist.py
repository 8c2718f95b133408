"""A write in a checkpointed function runs again when backward recomputes it: hoist it into the caller."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.callers import parameters
from jupyter_inplace.rewrite.syntax.move import remove, said_outside
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.tensors import dotted, last_name
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Put the writing statement after, or before, the statement that checkpoints the function."""
    code, small = write.code, write.small
    function = code.function(write.node)
    if function is None or small is None or not (write.is_statement or isinstance(write.node, cst.Assign)):
        return
    for call in code.within(code.module, cst.Call):
        if not last_name(call.func).startswith("checkpoint") or not call.args:
            continue
        callee = call.args[0].value
        names = parameters(function)
        given: dict[str, cst.BaseExpression] = {}
        if isinstance(callee, cst.Attribute) and callee.attr.value == function.name.value and names:
            given[names.pop(0)] = callee.value  # a bound method passes its object
        elif dotted(callee) is None or last_name(callee) != function.name.value:
            continue
        plain = [a.value for a in call.args[1:] if a.keyword is None and not a.star]
        given.update(zip(names, plain, strict=False))
        text = said_outside(code, small, function, given)
        if text is None or code.small(call) is None:
            continue
        item = code.item(call)
        title = f"{short(text, 30)} out of the checkpointed {function.name.value}"
        taken = remove(code, small)
        yield Proposal("reorder", title + ", after it", (taken, code.insert_after(item, text)), 9)
        yield Proposal("reorder", title + ", before it", (taken, code.insert_before(item, text)), 10)
