"""Copy where autograd saves: ``y = f(h)`` becomes ``y = f(h.clone())``, ``h = x.exp()`` gets a ``.clone()``.

The write and all its aliases stay as they are; only the node that needs the old values gets a copy that is never written.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.report.data import Conflict
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.saves import saves_state, saving_nodes
from jupyter_inplace.rewrite.syntax.tensors import base_of, dotted, is_namespace, peel, same_tensor
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Copy the inputs that are saved, or the output."""
    code = write.code
    every: list[Edit] = []
    for node, conflict in saving_nodes(write):
        operands = _inputs(write, node, conflict)
        inputs = [edit for operand in operands for edit in code.append(operand, ".clone()")]
        output = code.append(node, ".clone()")
        saves_output = conflict.saved_as in {"result", "output", "result0", "result1"}
        every += output if saves_output else inputs
        if inputs and not saves_output:
            title = "save a copy: " + short(f"{code.receiver(operands[0])}.clone()", 44)
            yield Proposal("clone", title, tuple(inputs), 44, write.reading)
        if saves_output or conflict.saved_as is None:
            title = "go on with a copy: " + short(f"{code.receiver(node)}.clone()", 44)
            yield Proposal("clone", title, tuple(output), 36 if saves_output else 56, write.reading)
    if len({edit.start for edit in every}) > 1:
        yield Proposal("clone", "save copies wherever the old values are needed", tuple(every), 43, write.reading)


def _inputs(write: WriteSyntax, node: cst.BaseExpression, conflict: Conflict) -> list[cst.BaseExpression]:
    """The operands of an expression that are the saved tensor or views of it; if there are none, all operands that are variables."""
    tensors = {conflict.tensor, *(m.tensor for m in write.mutations)}
    operands = list(_operands(node))

    def is_saved(operand: cst.BaseExpression) -> bool:
        paths = {dotted(operand), dotted(base_of(operand))} - {None}
        return write.path in paths or any(same_tensor(path, tensor) for path in paths for tensor in tensors)

    chosen = [operand for operand in operands if is_saved(operand)]
    chosen = chosen or [path for path in _paths(write, node) if is_saved(path)]
    if chosen or any(saves_state(write.code, call, conflict) for call in write.code.within(node, cst.Call)):
        return chosen
    return [
        o
        for o in operands
        if dotted(o) != "self" and (isinstance(o, cst.Name | cst.Attribute | cst.Subscript) or peel(o) is not None)
    ]


def _operands(node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """The operands of an operator or a call, including the receiver of a method."""
    if isinstance(node, cst.BinaryOperation):
        yield from _nested(node)
    elif isinstance(node, cst.UnaryOperation):
        yield node.expression
    elif isinstance(node, cst.Subscript):
        yield node.value
    elif isinstance(node, cst.Call):
        function = node.func
        if isinstance(function, cst.Attribute) and not is_namespace(function):
            yield function.value
        yield from (argument.value for argument in node.args if not argument.star)


def _nested(node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """The operands of a chain of operators: ``3 * x * x`` has three."""
    if isinstance(node, cst.BinaryOperation):
        yield from _nested(node.left)
        yield from _nested(node.right)
    else:
        yield node


def _paths(write: WriteSyntax, node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """Every outermost name or attribute path in an expression."""
    for inner in write.code.within(node, cst.BaseExpression):  # type: ignore[type-abstract]
        parent = write.code.parent(inner)
        longer = isinstance(parent, cst.Attribute) and dotted(parent) is not None
        keyword = isinstance(parent, cst.Arg) and parent.keyword is inner
        if dotted(inner) is not None and not longer and not keyword:
            yield inner
