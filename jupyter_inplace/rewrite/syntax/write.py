"""A harmful write as the rules see it: the syntax that writes, and what is written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import libcst as cst

from jupyter_inplace.report.data import Conflict, FixKind, Mutation, Reading, Report, worst
from jupyter_inplace.rewrite.syntax.code import Code, Item
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.scope import Scope
from jupyter_inplace.rewrite.syntax.tensors import (
    FLAG_FUNCTIONS,
    base_of,
    dotted,
    is_inplace_name,
    is_namespace,
    is_true,
    keyword,
    last_name,
    positional,
    same_tensor,
)

__all__ = ["Form", "Proposal", "WriteSyntax", "form_of", "target_of"]

#: ``h.mul_(2)``; ``F.relu_(h)``; ``F.relu(h, inplace=True)``; ``torch.mul(a, b, out=h)``; ``h += 1``; ``h[0] = 1``;
#: ``h.data = 1``; any other call, whose body or library writes; no syntax at all (the write's line is not in the cell).
Form = Literal["method", "function", "flag", "out", "augmented", "item", "attribute", "call", "unknown"]


@dataclass(frozen=True)
class Proposal:
    """What one rule suggests for one write. Lower ranks are more likely right."""

    kind: FixKind
    title: str
    edits: tuple[Edit, ...]
    rank: int
    reading: Reading | None = None


@dataclass(frozen=True, eq=False)
class WriteSyntax:
    """One piece of syntax that writes in place, with all harmful mutations of the report there.

    :param node: the writing call or statement.
    :param inside: False if the writing line is not in the cell and `node` is the call in the cell that led there.
    """

    code: Code
    report: Report
    mutations: tuple[Mutation, ...]
    conflicts: tuple[Conflict, ...]
    node: cst.CSTNode
    form: Form
    inside: bool

    @cached_property
    def verdict(self) -> str:
        """The worst verdict of the mutations."""
        return worst(m.verdict for m in self.mutations)

    @cached_property
    def reading(self) -> Reading | None:
        """How a rewrite with a new tensor interprets a rejected write."""
        return "copy" if self.verdict == "rejected" else None

    @cached_property
    def target(self) -> cst.BaseExpression | None:
        """The expression written: ``h``, ``h[0]``, ``h.data``, ``K.diagonal()``."""
        return target_of(self.node, self.form)

    @cached_property
    def in_container(self) -> bool | None:
        """Whether an item of a list or dict is written, not a slot of a tensor; None if the report cannot tell."""
        if self.target is None or self.target is base_of(self.target):
            return False
        root = dotted(base_of(self.target))
        if root is None or any(same_tensor(root, m.tensor) for m in self.mutations):
            return False
        return True if any(m.tensor.startswith(f"{root}[") for m in self.mutations) else None

    @cached_property
    def base(self) -> cst.BaseExpression | None:
        """The variable (or item of a container) whose memory is written: the target without alias steps."""
        if self.target is None:
            return None
        root = base_of(self.target)
        if self.in_container:
            steps = [s for s in self.code.within(self.target, cst.Subscript) if s.value is root]
            return steps[0] if steps else root
        return root

    @cached_property
    def path(self) -> str | None:
        """The base as text that can be assigned to: a name, an attribute path, an item; None if there is none."""
        if self.base is None or isinstance(self.base, cst.Subscript):
            return None if self.base is None else self.code.get(self.base)
        return dotted(self.base)

    @cached_property
    def name(self) -> str | None:
        """The base if it is a plain variable."""
        return self.base.value if isinstance(self.base, cst.Name) else None

    @cached_property
    def small(self) -> cst.BaseSmallStatement | None:
        """The small statement that is or contains the write."""
        return self.code.small(self.node)

    @cached_property
    def item(self) -> Item:
        """The nearest item of a block that contains the write."""
        return self.code.item(self.node)

    @cached_property
    def is_statement(self) -> bool:
        """Whether the write is a statement whose value is not used."""
        return self.small is self.node or (isinstance(self.small, cst.Expr) and self.small.value is self.node)

    @cached_property
    def start(self) -> int:
        """The character at which the write begins."""
        return self.code.span(self.node)[0]

    @cached_property
    def scope(self) -> Scope:
        """The innermost scope around the write."""
        return self.code.scopes.at(self.start)

    @cached_property
    def function(self) -> Scope:
        """The function or cell in which an assignment at the write would bind."""
        return self.code.scopes.function(self.start)

    @cached_property
    def is_leaf(self) -> bool:
        """Whether the report names the written variable itself among the leaves."""
        leaves = {leaf for m in self.mutations for leaf in m.leaves} | {g.leaf for g in self.report.gradients}
        named = any(same_tensor(self.path, leaf) for leaf in leaves)
        return named or any(m.tensor in leaves for m in self.mutations)

    def local(self, name: str) -> bool:
        """Whether an assignment to `name` at the write binds the written variable."""
        return self.code.scopes.binder(name, self.scope) is self.function

    def read_later(self, name: str) -> bool:
        """Whether the variable is read after the write: below it, or in the next iteration of a loop."""
        start, end = self.code.span(self.node)
        code, binder = self.code, self.code.scopes.binder(name, self.scope)
        if binder is not self.function:
            return True
        looped = code.above(self.node, (cst.For, cst.While))
        first = code.span(looped)[0] if looped is not None else end
        outside = (use for use in code.scopes.of(name, binder) if not start <= use.start < end)
        return any(not use.stores and (use.start >= end or use.start >= first) for use in outside)


def form_of(node: cst.CSTNode) -> Form:
    """The form of writing syntax of a call or statement."""
    if isinstance(node, cst.AugAssign):
        return "augmented"
    if isinstance(node, cst.Assign | cst.AnnAssign):
        return "item" if isinstance(_written(node), cst.Subscript) else "attribute"
    if not isinstance(node, cst.Call):
        return "unknown"
    name = last_name(node.func)
    out = keyword(node, "out")
    if out is not None and not (isinstance(out.value, cst.Name) and out.value.value == "None"):
        return "out"
    if is_inplace_name(name):
        on_module = isinstance(node.func, cst.Name) or is_namespace(node.func)
        return "function" if on_module and node.args else "method" if isinstance(node.func, cst.Attribute) else "call"
    flag = keyword(node, "inplace") or (positional(node, FLAG_FUNCTIONS[name]) if name in FLAG_FUNCTIONS else None)
    return "flag" if flag is not None and is_true(flag.value) and node.args else "call"


def target_of(node: cst.CSTNode, form: Form) -> cst.BaseExpression | None:
    """The expression that a writing call or statement writes."""
    if isinstance(node, cst.AugAssign):
        return node.target
    if isinstance(node, cst.Assign | cst.AnnAssign):
        return _written(node)
    if not isinstance(node, cst.Call):
        return None
    if form == "method":
        assert isinstance(node.func, cst.Attribute)
        inner = node.func.value
        if isinstance(inner, cst.Call) and form_of(inner) == "method":
            return target_of(inner, "method")
        return inner
    if form in {"function", "flag"}:
        first = positional(node, 0)
        return None if first is None else first.value
    if form == "out":
        out = keyword(node, "out")
        return None if out is None else out.value
    return None


def _written(node: cst.Assign | cst.AnnAssign) -> cst.BaseExpression:
    """The target of an assignment that writes memory: a subscript before an attribute before the first one."""
    targets: list[cst.BaseExpression] = [node.target] if isinstance(node, cst.AnnAssign) else []
    if isinstance(node, cst.Assign):
        for target in node.targets:
            if isinstance(target.target, cst.Tuple | cst.List):
                targets += [element.value for element in target.target.elements]
            else:
                targets.append(target.target)
    for kind in (cst.Subscript, cst.Attribute):
        for written in targets:
            if isinstance(written, kind):
                return written
    return targets[0]
