"""In-place writes that torch refused, as far as the exception that ended the cell tells."""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch

from jupyter_inplace._package import FOLDER
from jupyter_inplace._syntax import parse
from jupyter_inplace.explain.names.safe_eval import look_up, tensors_in
from jupyter_inplace.record.source.expressions import receiver, written_names, written_nodes
from jupyter_inplace.record.source.resolver import opname_at, positions
from jupyter_inplace.record.source.sites import SiteKey, is_user_frame, locals_of, site_key
from jupyter_inplace.record.source.source_text import SourceText

__all__ = ["RejectedWrite", "find_rejected", "reason_of"]

#: Torch's refusals, by the parts of their messages that have not changed between versions; the first match counts.
_REASONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("view_of_leaf", re.compile(r"a view of a leaf Variable that requires grad is being used in an in-place")),
    ("leaf", re.compile(r"a leaf Variable that requires grad (is being|has been) used in an in-place")),
    ("multi_view", re.compile(r"is the output of a function that returns multiple views")),
    ("custom_view", re.compile(r"view was created inside a custom Function")),
    ("custom_view", re.compile(r"Function modifies inplace an input that is a view of another Tensor")),
    ("no_grad_view", re.compile(r"view was created in no_grad mode and is being modified inplace")),
    ("inference_view", re.compile(r"view was created in inference mode and is being modified inplace")),
    ("inference", re.compile(r"Inplace update to inference tensor outside InferenceMode")),
    ("expanded", re.compile(r"more than one element of the written-to tensor refers to a single memory location")),
    ("overlap", re.compile(r"some elements of the input tensor and the written-to tensor refer to a single memory")),
    ("out_grad", re.compile(r"functions with out=\.\.\. arguments don't support automatic differentiation")),
    ("detach_view", re.compile(r"Can't detach views in-place")),
    ("resize_grad", re.compile(r"cannot resize variables that require grad")),
    ("untracked", re.compile(r"Can't call (apply_|map_|map2_)\(\) on Variable that requires grad")),
    ("captured", re.compile(r"in-place operation \(\S+\) that would mutate a captured Tensor")),
)
_AUGMENTED = {
    ast.Add: "add_",
    ast.Sub: "sub_",
    ast.Mult: "mul_",
    ast.Div: "div_",
    ast.FloorDiv: "floor_divide_",
    ast.Mod: "remainder_",
    ast.Pow: "pow_",
    ast.BitAnd: "bitwise_and_",
    ast.BitOr: "bitwise_or_",
    ast.BitXor: "bitwise_xor_",
    ast.LShift: "bitwise_left_shift_",
    ast.RShift: "bitwise_right_shift_",
}
_INPLACE_METHOD = re.compile(r"(?!__)\w+_|__setitem__|__i[a-z]+__|\w+\.out")


@dataclass(frozen=True, slots=True, eq=False)
class RejectedWrite:
    """A write that torch refused.

    :param key: the user's line, for `SiteResolver`; None if no frame is the user's.
    :param op: the method's name (``add_``, ``__setitem__``, ``relu_``), ``add.out`` for ``out=``.
    :param text: the expression on the user's line; empty if there is no source.
    :param name: the tensor as the user's line spells it, None if that line does not name it.
    :param tensors: the tensors refused; if only the tensor behind a view could be found, that one.
    :param via: ``"view"`` if `tensors` are those behind the view that was written.
    :param inputs: for ``out_grad``, the other arguments that require grad.
    :param reason: one of the words of this module's table, such as ``leaf``.
    :param lines: the user's active frames as (file, line), outermost first.
    """

    key: SiteKey | None
    op: str
    text: str
    name: str | None
    tensors: tuple[torch.Tensor, ...]
    via: str | None
    inputs: tuple[torch.Tensor, ...]
    reason: str
    message: str
    lines: tuple[tuple[str, int], ...]


def reason_of(error: BaseException) -> str | None:
    """Why torch refused an in-place write, None if `error` is something else."""
    if not isinstance(error, RuntimeError):
        return None
    message = str(error)
    return next((reason for reason, pattern in _REASONS if pattern.search(message)), None)


def find_rejected(error: BaseException, cell_files: frozenset[str] = frozenset()) -> RejectedWrite | None:
    """The write that torch refused, if `error` (or what it was raised from) is one of its refusals.

    Looks at variables only: no property, ``__getattr__`` or other user code runs. Keeps no frame.

    :param cell_files: ``co_filename`` of the watched cell, for the site's line in the cell.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        reason = reason_of(cause)
        if reason is not None:
            return _describe(cause, reason, cell_files)
        seen.add(id(cause))
        cause = cause.__cause__
    return None


@dataclass(slots=True)
class _RaisingFrame:
    """One frame of the traceback and the expression that it was evaluating."""

    code: CodeType
    lasti: int
    line: int
    user: bool
    node: ast.expr | ast.stmt | None
    text: str
    name: str | None
    tensors: list[torch.Tensor]
    viewed: bool
    others: list[torch.Tensor]


def _describe(error: BaseException, reason: str, cell_files: frozenset[str]) -> RejectedWrite:
    message = str(error)
    places = [_raising_frame(frame, lasti, line) for frame, lasti, line in _frames(error.__traceback__)]
    users = [place for place in places if place.user]
    last = users[-1] if users else None
    inner = places[places.index(last) :] if last is not None else places
    found = next((p for p in reversed(inner) if any(_fits(t, reason) for t in p.tensors)), None)
    found = found or next((p for p in reversed(inner) if p.tensors), None)
    by_argument = False
    if found is None:
        found = next((p for p in reversed(inner) if any(_fits(t, reason) for t in p.others)), None)
        by_argument = found is not None
    tensors: list[torch.Tensor] = []
    if found is not None:
        given = found.others if by_argument else found.tensors
        tensors = [t for t in given if _fits(t, reason)] or given
    inputs = [t for p in inner for t in p.others if t.requires_grad and not any(t is x for x in tensors)]
    cell = next((place for place in reversed(users) if place.code.co_filename in cell_files), None)
    return RejectedWrite(
        key=None
        if last is None
        else site_key(last.code, last.lasti, *((cell.code, cell.lasti) if cell else (None, 0))),
        op=_op(inner, message),
        text=last.text if last is not None else "",
        name=last.name if last is not None else None,
        tensors=_distinct(tensors),
        via="view" if found is not None and found.viewed and not by_argument else None,
        inputs=_distinct(inputs) if reason == "out_grad" else (),
        reason=reason,
        message=message,
        lines=tuple((place.code.co_filename, place.line) for place in users),
    )


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int, int]]:
    """The frames of a traceback, outermost first, without those of the watch and of torch's dispatch."""
    while traceback is not None:
        if not _is_plumbing(traceback.tb_frame.f_code.co_filename):
            yield traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno
        traceback = traceback.tb_next


_PACKAGE = PurePath(FOLDER).parts
_PLUMBING = frozenset(
    {("torch", "_ops.py"), ("torch", "_compile.py"), ("utils", "_python_dispatch.py"), ("_dynamo", "eval_frame.py")}
)


def _is_plumbing(filename: str) -> bool:
    parts = PurePath(filename).parts
    return parts[: len(_PACKAGE)] == _PACKAGE or parts[-2:] in _PLUMBING


def _raising_frame(frame: FrameType, lasti: int, line: int) -> _RaisingFrame:
    code = frame.f_code
    source = SourceText(linecache.getlines(code.co_filename, frame.f_globals))
    where, opname = positions(code, lasti), opname_at(code, lasti)
    node, span = source.node(where, opname), source.span(where, opname)
    place = _RaisingFrame(
        code, lasti, line, is_user_frame(frame), node, span.text if span is not None else "", None, [], False, []
    )
    if node is None:
        return place
    variables = (locals_of(frame), frame.f_globals)
    place.name = _name(place.text, variables)
    targets = written_nodes(node)
    for target in targets:
        # `out[i] = v` writes into `out`: the statement itself makes the view.
        store = isinstance(target, ast.Subscript) and isinstance(node, ast.Assign)
        value, viewed = look_up(target.value if store else target, variables)  # type: ignore[attr-defined]
        place.tensors += tensors_in(value)
        place.viewed = place.viewed or viewed
    for argument in _arguments(node):
        value, _ = look_up(argument, variables)
        place.others += tensors_in(value)
    return place


def _name(text: str, variables: tuple[dict[str, Any], ...]) -> str | None:
    """What an expression writes, as typed: the first of its readings that is a tensor, else the likeliest."""
    readings = written_names(text)
    for reading in readings:
        value, viewed = look_up(parse(reading, mode="eval").body, variables)
        if isinstance(value, torch.Tensor) and not viewed:
            return reading
    return readings[0] if readings else None


def _arguments(node: ast.AST) -> Iterator[ast.expr]:
    """What a call or an augmented assignment reads directly."""
    value = node.value if isinstance(node, ast.Assign | ast.Expr | ast.Return | ast.AugAssign) else node
    if isinstance(value, ast.Call):
        tensor = receiver(value)
        if tensor is not None:
            yield tensor
        for argument in value.args:
            yield argument.value if isinstance(argument, ast.Starred) else argument
        yield from (keyword.value for keyword in value.keywords if keyword.arg != "out")
    elif isinstance(value, ast.expr):
        yield value


def _fits(tensor: torch.Tensor, reason: str) -> bool:
    """Whether torch could have refused this tensor (or a view of it) for this reason."""
    try:
        if reason in {"leaf", "view_of_leaf"}:
            base = tensor._base
            if reason == "view_of_leaf" and base is not None:
                tensor = base
            return tensor.requires_grad and tensor.grad_fn is None
        if reason in {"multi_view", "custom_view", "no_grad_view", "inference_view", "detach_view"}:
            return tensor._is_view()
        if reason == "inference":
            return tensor.is_inference()
        if reason == "expanded":
            return tensor.numel() > 1 and torch._debug_has_internal_overlap(tensor) != 0
        if reason in {"resize_grad", "untracked"}:
            return tensor.requires_grad
    except RuntimeError:  # a view whose base was written cannot even be asked
        return True
    return True


def _op(places: list[_RaisingFrame], message: str) -> str:
    """The name of the refused operation: what the innermost frame called, if that is an in-place name."""
    told = re.match(r"(\w+)\(\): functions with out=", message) or re.search(r"operation \(aten::(\w+)", message)
    if told is not None:
        return f"{told[1]}.out" if "out=" in told[0] else told[1]
    names = [name for place in reversed(places) if (name := _op_of(place.node))]
    return next((name for name in names if _INPLACE_METHOD.fullmatch(name)), names[0] if names else "")


def _op_of(node: ast.AST | None) -> str:
    if isinstance(node, ast.AugAssign):
        return _AUGMENTED.get(type(node.op), "")
    if isinstance(node, ast.Assign):
        return "__setitem__" if any(isinstance(target, ast.Subscript) for target in node.targets) else ""
    if isinstance(node, ast.Return | ast.Expr):
        return _op_of(node.value)
    if isinstance(node, ast.Call):
        func = node.func
        name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
        return f"{name}.out" if name and any(keyword.arg == "out" for keyword in node.keywords) else name
    return ""


def _distinct(tensors: list[Any]) -> tuple[torch.Tensor, ...]:
    return tuple({id(tensor): tensor for tensor in tensors}.values())
