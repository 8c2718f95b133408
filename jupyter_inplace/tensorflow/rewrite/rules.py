"""What a person would write instead of a harmful assign under a tape."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.report.data import Conflict, Mutation, Report
from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.locate import find
from jupyter_inplace.rewrite.syntax.move import moved_below
from jupyter_inplace.rewrite.syntax.scope import Use
from jupyter_inplace.rewrite.syntax.tensors import dotted, last_name
from jupyter_inplace.rewrite.syntax.write import Proposal
from jupyter_inplace.tensorflow.record.events import SharedThrough

_ASSIGNS = {"assign": "", "assign_add": " + ", "assign_sub": " - "}
_ASKS = ("gradient", "jacobian", "batch_jacobian")
_ASKED_AGAIN = "non-persistent GradientTape"  # part of TensorFlow's own message


def proposals(code: Code, report: Report, mutation: Mutation) -> list[Proposal]:
    """The rewrites for one harmful TensorFlow write, the most likely one first."""
    found: list[Proposal] = []
    node, inside = find(code, mutation.site, report)
    if node is not None and inside and isinstance(node, cst.Call):
        found += [*_new_name(code, node), *_rebound(code, node), *_later(code, node)]
    for conflict in report.conflicts:
        if conflict.mutation == mutation.id and mutation.op == "external":
            found += _copied(code, report, conflict)
    return sorted(found, key=lambda proposal: proposal.rank)


def was_asked_twice(report: Report) -> bool:
    """Whether the cell ended because a tape that is not persistent was asked a second time."""
    return report.error is not None and _ASKED_AGAIN in report.error.message


def asked_twice(code: Code, report: Report) -> list[Proposal]:
    """For a tape that was asked a second time: ``persistent=True`` where it is made."""
    if report.error is None or not was_asked_twice(report):
        return []
    node, _ = find(code, report.error.site, report)
    call = next((c for c in _asks(code, node)), None) if node is not None else None
    tape = dotted(call.func.value) if call is not None and isinstance(call.func, cst.Attribute) else None
    made = [c for c in code.within(code.module, cst.Call) if last_name(c.func) == "GradientTape"]
    if tape is not None:
        made = [c for c in made if _bound(code, c) == tape] or made
    edits: list[Edit] = []
    for c in made:
        if any(arg.keyword is not None and arg.keyword.value == "persistent" for arg in c.args):
            continue
        end = code.span(c)[1] - 1
        edits.append(Edit(end, end, ", persistent=True" if c.args else "persistent=True"))
    return [Proposal("preserve", "tf.GradientTape(persistent=True)", tuple(edits), 10)] if edits else []


def _bound(code: Code, call: cst.Call) -> str | None:
    """The name that a tape is bound to."""
    around = code.parent(call)
    if isinstance(around, cst.WithItem) and around.asname is not None:
        return dotted(around.asname.name)
    if isinstance(around, cst.Assign):
        return dotted(around.targets[0].target)
    return None


def _asks(code: Code, node: cst.CSTNode) -> Iterator[cst.Call]:
    """Calls that ask a tape."""
    for call in code.within(node, cst.Call):
        if isinstance(call.func, cst.Attribute) and call.func.attr.value in _ASKS:
            yield call


class _Assign:
    """The statement ``w.assign(value)``, where `w` is a plain name."""

    def __init__(self, code: Code, call: cst.Call, name: cst.Name, method: str, value: cst.BaseExpression) -> None:
        self.code, self.call, self.name, self.method = code, call, name.value, method
        self.value = code.alone(value) if method == "assign" else f"{name.value}{_ASSIGNS[method]}{code.operand(value)}"
        self.start, self.end = code.span(call)
        self.scope = code.scopes.at(self.start)
        self.binder = code.scopes.binder(self.name, self.scope)
        self.looped = code.above(call, (cst.For, cst.While)) is not None

    @classmethod
    def read(cls, code: Code, call: cst.Call) -> _Assign | None:
        func, small = call.func, code.small(call)
        if not isinstance(func, cst.Attribute) or not isinstance(func.value, cst.Name):
            return None
        if func.attr.value not in _ASSIGNS or not isinstance(small, cst.Expr) or small.value is not call:
            return None
        given = [arg for arg in call.args if arg.keyword is None or arg.keyword.value in ("value", "delta")]
        return cls(code, call, func.value, func.attr.value, given[0].value) if given else None

    def uses(self) -> list[Use]:
        return self.code.scopes.of(self.name, self.binder)

    def statement(self, name: str) -> Edit:
        small = self.code.small(self.call)
        assert small is not None
        return self.code.replace_small(small, f"{name} = {self.value}")

    def in_sources(self) -> list[tuple[int, int]]:
        """Where sources are passed to a tape: the variable itself is meant there."""
        found = []
        for call in _asks(self.code, self.code.module):
            sources = [arg for arg in call.args if arg.keyword is not None and arg.keyword.value == "sources"]
            if not sources and len(call.args) > 1:
                sources = [call.args[1]]
            found += [self.code.span(arg.value) for arg in sources]
        return found


def _new_name(code: Code, call: cst.Call) -> Iterator[Proposal]:
    """``w.assign(3 * x)`` becomes ``w_modified = 3 * x``, which later lines read."""
    write = _Assign.read(code, call)
    if write is None or write.looped or code.scopes.function(write.start) is not write.binder:
        return
    later = [use for use in write.uses() if use.start >= write.end and not use.stores]
    if any(code.text[use.end :].lstrip().startswith((".assign", ".scatter")) for use in later):
        return
    new = code.fresh(f"{write.name}_modified")
    kept = write.in_sources()
    renamed = [use for use in later if not any(start <= use.start < end for start, end in kept)]
    edits = (write.statement(new), *(Edit(use.start, use.end, new) for use in renamed))
    yield Proposal("out_of_place", f"{new} = {write.value}", edits, 10)


def _rebound(code: Code, call: cst.Call) -> Iterator[Proposal]:
    """``total.assign_add(f(x))`` becomes ``total = total + f(x)``, also in a loop: the name no longer holds a variable."""
    write = _Assign.read(code, call)
    if write is None or code.scopes.function(write.start) is not write.binder:
        return
    edits = [write.statement(write.name)]
    for other in code.within(code.module, cst.Call):
        if other is call or not isinstance(other.func, cst.Attribute):
            continue
        if dotted(other.func.value) == write.name and other.func.attr.value.startswith(("assign", "scatter")):
            same = _Assign.read(code, other)
            if same is None:
                return
            if same.binder is write.binder and same.start > write.start:
                edits.append(same.statement(write.name))
    yield Proposal("out_of_place", f"{write.name} = {write.value}", tuple(edits), 20 if write.looped else 30)


def _later(code: Code, call: cst.Call) -> Iterator[Proposal]:
    """Move the assign below the last call of a tape, so that the gradient reads what the forward read."""
    small = code.small(call)
    if small is None or not isinstance(small, cst.Expr):
        return
    for item in code.items(call):
        asks = [other for other in code.after(item) if any(True for _ in _asks(code, other))]
        if asks and _simple(item):
            title = f"{code.get(call)} moved below {code.get(next(_asks(code, asks[-1])))}"
            yield Proposal("reorder", title, moved_below(code, item, small, asks[-1]), 15)
            return


def _simple(item: Item) -> bool:
    return isinstance(item, cst.SimpleStatementLine)


def _copied(code: Code, report: Report, conflict: Conflict) -> Iterator[Proposal]:
    """``w * a`` becomes ``w * a.copy()``, memory that only the tape uses."""
    if conflict.node != SharedThrough.NUMPY.node:
        return
    node, inside = find(code, conflict.saved_site, report)
    if node is None or not inside:
        return
    names = [name for name in code.within(node, cst.Name) if name.value == conflict.tensor]
    if names:
        edits = tuple(edit for name in names for edit in code.append(name, ".copy()"))
        yield Proposal("clone", f"{conflict.tensor}.copy()", edits, 10)
