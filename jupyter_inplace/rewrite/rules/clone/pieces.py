"""Pieces of one tensor that autograd does not follow when they are written: ``unsafe_chunk``, ``chunk``, ``split``.

Either the pieces become ordinary slices, whose writes autograd records, or they are written out of place and the tensor is
concatenated again.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import place_value, short
from jupyter_inplace.rewrite.syntax.rebind import Rebinding
from jupyter_inplace.rewrite.syntax.tensors import dotted, is_namespace, keyword, last_name, positional
from jupyter_inplace.rewrite.syntax.values import out_of_place
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]

_SPLITTERS = {"chunk": 1, "split": 1, "tensor_split": 1, "unsafe_chunk": 1, "unsafe_split": 1, "unbind": 0}


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Make safe pieces for a written name that was unpacked from a splitting call."""
    found = _unpacking(write)
    if found is None:
        return
    assign, call, names = found
    code = write.code
    assert isinstance(call.func, cst.Attribute)
    splitter = call.func.attr.value
    tensor = call.func.value
    size, dim = _arguments(code, call, splitter)
    torch = code.torch
    if splitter != "unbind" and size is not None:
        # Splitting a range of indices the same way tells where each piece begins; `narrow` makes a view that may be written.
        plain = splitter.removeprefix("unsafe_")
        piece = code.fresh("i")
        whole = code.receiver(tensor)
        text = (
            f"({whole}.narrow({dim}, int({piece}[0]), len({piece})) "
            f"for {piece} in {torch}.arange({whole}.shape[{dim}]).{plain}({size}))"
        )
        edits = (code.replace(call, text),)
        yield Proposal("out_of_place", f"slices of {short(whole, 20)} instead of {splitter}", edits, 9, write.reading)
    yield from _joined(write, assign, call, names, dim, torch)


def _joined(
    write: WriteSyntax, assign: cst.Assign, call: cst.Call, names: list[str], dim: str, torch: str
) -> Iterator[Proposal]:
    """``gate = gate.mul(3)`` and ``h = torch.cat([gate, rest], dim=1)``."""
    code = write.code
    assert isinstance(call.func, cst.Attribute)
    splitter = call.func.attr.value
    path = dotted(call.func.value)
    if path is None or write.small is None or write.name is None or write.base is not write.target:
        return
    value = out_of_place(write, write.name, torch)
    edits = None if value is None else place_value(write, Rebinding(write.name, write.name), value)
    if edits is None or code.item(assign) is code.item(write.small):
        return
    join = "stack" if splitter == "unbind" else "cat"
    together = f"{path} = {torch}.{join}([{', '.join(names)}], dim={dim})"
    whole = [*edits, code.insert_after(code.item(write.small), together)]
    if splitter.startswith("unsafe_"):
        start, end = code.span(call.func.attr)
        whole.append(Edit(start, end, splitter.removeprefix("unsafe_")))
    yield Proposal("out_of_place", short(together), tuple(whole), 13, write.reading)


def _unpacking(write: WriteSyntax) -> tuple[cst.Assign, cst.Call, list[str]] | None:
    """``a, b = h.chunk(2)`` above the write of ``a``."""
    code = write.code
    if write.name is None:
        return None
    for node in code.nodes:
        if not isinstance(node, cst.Assign) or len(node.targets) != 1 or code.span(node)[1] > write.start:
            continue
        target, call = node.targets[0].target, node.value
        if not isinstance(target, cst.Tuple | cst.List) or not isinstance(call, cst.Call):
            continue
        names = [code.get(element.value) for element in target.elements]
        if write.name in names and last_name(call.func) in _SPLITTERS and not is_namespace(call.func):
            return (node, call, names) if isinstance(call.func, cst.Attribute) else None
    return None


def _arguments(code: Code, call: cst.Call, splitter: str) -> tuple[str | None, str]:
    """The number or sizes of the pieces, and the dimension."""
    at = _SPLITTERS[splitter]
    named = keyword(call, "dim")
    dim = named or positional(call, at)
    first = positional(call, 0)
    size = (
        first if first is not None else next((a for a in call.args if a.keyword is not None and a is not named), None)
    )
    return (None if size is None or at == 0 else code.get(size.value)), ("0" if dim is None else code.get(dim.value))
