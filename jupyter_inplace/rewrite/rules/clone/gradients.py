"""``g = w.grad`` kept over a second ``backward()``, which adds to the same memory: ``g = w.grad.clone()``."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.tensors import keyword, last_name
from jupyter_inplace.rewrite.syntax.values import without_argument
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Copy the gradients that are kept, or drop them instead of zeroing them."""
    code = write.code
    written = {m.tensor.rpartition(".")[2] for m in write.mutations}
    called = {last_name(call.func) for call in code.within(write.node, cst.Call)}
    if "grad" not in written and not called & {"backward", "zero_grad"}:
        return
    attributes = [node for node in code.within(code.module, cst.Attribute) if _is_kept(write, node)]
    kept = [edit for node in attributes for edit in code.append(node, ".clone()")]
    if kept:
        yield Proposal("clone", "keep copies of the gradients: .grad.clone()", tuple(kept), 11, write.reading)
    zeroing: list[Edit] = []
    for call in code.within(write.node, cst.Call):
        flag = keyword(call, "set_to_none")
        if last_name(call.func) == "zero_grad" and flag is not None:
            zeroing += without_argument(code, call, flag)
    if zeroing:
        title = "zero_grad() drops the old gradients instead of writing zeros into them"
        yield Proposal("out_of_place", title, tuple(zeroing), 12, write.reading)


def _is_kept(write: WriteSyntax, node: cst.Attribute) -> bool:
    """Whether ``w.grad`` is bound to a name or put into a container here."""
    if node.attr.value != "grad":
        return False
    parent = write.code.parent(node)
    containers = cst.Assign | cst.Element | cst.DictElement | cst.ListComp | cst.GeneratorExp | cst.DictComp
    if isinstance(parent, cst.Arg):
        call = write.code.parent(parent)
        return isinstance(call, cst.Call) and last_name(call.func) == "append"
    return isinstance(parent, containers)
