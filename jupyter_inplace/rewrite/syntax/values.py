"""The text of a write as an expression that makes a new tensor."""

from __future__ import annotations

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.edit import Edit, apply_edits
from jupyter_inplace.rewrite.syntax.tensors import (
    FILLS,
    FLAG_FUNCTIONS,
    keyword,
    last_name,
    outofplace_name,
    positional,
)
from jupyter_inplace.rewrite.syntax.write import WriteSyntax, form_of

__all__ = ["cloned", "out_of_place", "without_argument"]

_SHORT_FILLS = {"zero_": "zeros_like", "normal_": "randn_like", "uniform_": "rand_like"}


def out_of_place(write: WriteSyntax, target: str, torch: str) -> str | None:
    """The write as an expression without an in-place operation; `target` replaces what it writes.

    ``h.mul_(2)`` gives ``h.mul(2)``, ``h += r`` gives ``h + r``; None if torch has no such form.
    """
    code, node = write.code, write.node
    if isinstance(node, cst.AugAssign):
        operator = code.text[slice(*code.span(node.operator))].strip().removesuffix("=")
        binds_tighter = (
            operator in {"+", "-"}
            and isinstance(node.value, cst.BinaryOperation)
            and isinstance(node.value.operator, cst.Multiply | cst.Divide | cst.MatrixMultiply | cst.Power)
        )
        value = code.alone(node.value) if binds_tighter else code.operand(node.value)
        return f"{target} {operator} {value}"
    if not isinstance(node, cst.Call):
        return None
    if write.form == "method":
        return _method(code, node, target, torch)
    if write.form == "function":
        return _function(code, node, target, torch)
    if write.form == "flag":
        name = last_name(node.func)
        flag = keyword(node, "inplace") or positional(node, FLAG_FUNCTIONS.get(name, 99))
        return None if flag is None else _with_first(code, node, without_argument(code, node, flag), target)
    if write.form == "out":
        out = keyword(node, "out")
        return None if out is None else _apply(code, node, without_argument(code, node, out))
    return None


def cloned(write: WriteSyntax, target: str) -> str | None:
    """The same in-place call on a copy: ``h.clone().mul_(2)``."""
    code, node = write.code, write.node
    if not isinstance(node, cst.Call) or write.target is None:
        return None
    if write.form in {"method", "function", "flag", "out"}:
        start, end = code.span(write.target)
        return _apply(code, node, [Edit(start, end, f"{target}.clone()")])
    return None


def without_argument(code: Code, call: cst.Call, argument: cst.Arg) -> list[Edit]:
    """Edits that remove one argument of a call; a positional one before others becomes False."""
    args = list(call.args)
    at = args.index(argument)
    if argument.keyword is None and any(a.keyword is None for a in args[at + 1 :]):
        return [code.replace(argument.value, "False")]
    start, end = code.span(argument)
    if at + 1 < len(args):
        return [Edit(start, code.span(args[at + 1])[0], "")]
    if at:
        return [Edit(code.whole(args[at - 1].value)[1], end, "")]
    close = code.span(call)[1] - 1
    return [Edit(start, close, "")]


def _method(code: Code, call: cst.Call, target: str, torch: str) -> str | None:
    assert isinstance(call.func, cst.Attribute)
    inner = call.func.value
    if isinstance(inner, cst.Call) and form_of(inner) == "method":
        receiver = _method(code, inner, target, torch)
        if receiver is None:
            return None
    else:
        receiver = target
    name = call.func.attr.value
    arguments = code.text[code.span(call.func)[1] : code.span(call)[1]]
    if name in FILLS:
        return _fill(name, arguments, receiver, torch)
    new = outofplace_name(name)
    if new is None:
        return None
    between = code.text[code.whole(inner)[1] : code.span(call.func.attr)[0]]  # a dot, or a line break and a dot
    return f"{receiver}{between}{new}{arguments}"


def _fill(name: str, arguments: str, receiver: str, torch: str) -> str:
    if arguments.strip("( \n)") == "" and name in _SHORT_FILLS:
        return f"{torch}.{_SHORT_FILLS[name]}({receiver})"
    if name == "fill_" and "=" not in arguments:
        return f"{torch}.full_like({receiver}, {arguments[arguments.index('(') + 1 :]}"
    return f"{torch}.empty_like({receiver}).{name}{arguments}"


def _function(code: Code, call: cst.Call, target: str, torch: str) -> str | None:
    name = last_name(call.func)
    if name in FILLS or "init" in code.get(call.func).split("."):
        return _with_first(code, call, [], f"{torch}.empty_like({target})")
    new = outofplace_name(name)
    if new is None:
        return None
    end = code.span(call.func)[1]
    return _with_first(code, call, [Edit(end - len(name), end, new)], target)


def _with_first(code: Code, call: cst.Call, edits: list[Edit], target: str) -> str:
    return _apply(code, call, [*edits, code.replace(call.args[0].value, target)])


def _apply(code: Code, node: cst.CSTNode, edits: list[Edit]) -> str:
    """The text of `node` with edits applied."""
    start, end = code.span(node)
    return apply_edits(code.text[start:end], [Edit(e.start - start, e.end - start, e.text) for e in edits])
