"""``nn.ReLU(inplace=True)`` becomes ``nn.ReLU()``, by keyword or position; other modules: ``inplace = False``."""

from __future__ import annotations

import builtins
from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.place import short
from jupyter_inplace.rewrite.syntax.tensors import (
    FLAG_FUNCTIONS,
    FLAG_MODULES,
    dotted,
    is_inplace_name,
    is_true,
    keyword,
    last_name,
    positional,
)
from jupyter_inplace.rewrite.syntax.values import without_argument
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax, form_of

__all__ = ["propose"]

#: Methods of tensors, optimizers and Functions that are often called last in a statement.
_METHODS = frozenset({
    "abs", "apply", "backward", "clone", "detach", "exp", "flatten", "item", "log", "mean", "pow", "relu", "reshape",
    "sigmoid", "softmax", "step", "sum", "t", "tanh", "view", "zero_grad",
})  # fmt: skip


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Construct the writing module without its flag."""
    if write.form != "call" and write.inside:
        return
    code = write.code
    ops = {part.strip("_") for m in write.mutations for part in m.op.lower().split(".")}
    found = [call for call in code.within(code.module, cst.Call) if _flag(call) is not None]
    every: list[Edit] = []
    for call in found:
        flag = _flag(call)
        assert flag is not None
        edits = tuple(without_argument(code, call, flag))
        every += edits
        matches = any(op and op in _op_of(call) for op in ops)
        title = f"{short(code.get(call.func))} on line {code.line(call)} without inplace"
        yield Proposal("out_of_place", title, edits, 10 if matches or len(found) == 1 else 19, write.reading)
    if len(found) > 1:
        title = "every module of the cell without inplace"
        yield Proposal("out_of_place", title, tuple(every), 21, write.reading)
    if not found and not any("batch_norm" in m.op or "running" in m.tensor for m in write.mutations):
        yield from _switched_off(write, 14)


def _flag(call: cst.Call) -> cst.Arg | None:
    """The constructor argument that makes the module write in place."""
    name = last_name(call.func)
    flag = keyword(call, "inplace")
    if flag is None and name in FLAG_MODULES:
        flag = positional(call, FLAG_MODULES[name])
    if flag is None or not is_true(flag.value):
        return None
    return None if name in FLAG_FUNCTIONS and form_of(call) == "flag" else flag


def _op_of(call: cst.Call) -> str:
    """The names of the constructor and of its arguments, spelled like ops: ``partial(nn.ReLU, ...)`` has relu."""
    words = [last_name(call.func), *(last_name(argument.value) for argument in call.args)]
    return " ".join(words + [word.replace("ReLU", "_ReLU") for word in words]).lower()


def _switched_off(write: WriteSyntax, rank: int) -> Iterator[Proposal]:
    """Insert a loop above the call that sets ``inplace = False`` on all submodules of the called module."""
    code = write.code
    item = code.item(write.node)
    callees = dict.fromkeys(dotted(call.func) for call in code.within(write.node, cst.Call))
    for path in callees:
        if path is None or not _may_be_module(write, path):
            continue
        name = code.fresh("module")
        unit = code.module.default_indent
        lines = (
            f"for {name} in {path}.modules():",
            f'{unit}if getattr({name}, "inplace", False):',
            f"{unit}{unit}{name}.inplace = False",
        )
        title = f"inplace = False on the modules of {path}"
        yield Proposal("out_of_place", title, (code.insert_before(item, *lines),), rank, write.reading)


def _may_be_module(write: WriteSyntax, path: str) -> bool:
    """Whether a callee can be a module: not a torch function, a method of a tensor, or a function of the cell."""
    root, _, rest = path.partition(".")
    last = rest.rpartition(".")[2]
    scopes = write.code.scopes
    if root in {"torch", "F", "nn", "np"} or scopes.is_module(root):
        return False
    functions = {scope.name for scope in scopes.all if scope.kind in {"function", "class"}}
    if root in functions or hasattr(builtins, root):
        return False
    return not rest or not (is_inplace_name(last) or last in _METHODS)
